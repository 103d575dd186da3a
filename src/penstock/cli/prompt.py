r"""The prompt of `penstock sql`: statements that end with a semicolon, history, completion; and commands that begin with a backslash."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.base import OK, report, say
from penstock.cli.output import table
from penstock.cli.rows import FORMATS
from penstock.errors import PenstockError, UsageError
from penstock.query.sql import SqlSession, split

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

    from penstock.cli.sql import How
    from penstock.cli.statement import Asked
    from penstock.deployment import Deployment

KEYWORDS = (
    "SELECT FROM WHERE GROUP BY ORDER LIMIT HAVING JOIN LEFT USING ON AS AND OR NOT IN BETWEEN LIKE IS NULL WITH UNION ALL DISTINCT CASE WHEN THEN ELSE END "
    "COUNT SUM MIN MAX AVG DATE_TRUNC CAST COALESCE OVER PARTITION DESC DESCRIBE SUMMARIZE SHOW TABLES EXPLAIN TIMESTAMP INTERVAL"
).split()
HELP = r"""\d                 the tables             \d NAME        the columns of one
\reports           the reports            \report NAME from=2026-03-02 to=2026-03-09
\format FORMAT     table, csv, json, jsonl
\limit N           rows of a table        \timing         how long a statement takes, on or off
\help   \quit      a statement ends with a semicolon; Ctrl-C cancels one, Ctrl-D leaves"""
_WORD = re.compile(r"[\w.\\]+$")


def prompt(deployment: Deployment, asked: Asked, engine: str, how: How) -> int:
    """Ask for statements and run them until the user leaves. The exit code. Raises UsageError for --output, and without prompt_toolkit."""
    if how.output is not None:
        raise UsageError("--output is for a statement, a file or a report", hint="leave it out for a prompt")
    shell = Shell(deployment, asked, engine, how)
    session = prompt_session(shell)
    click.echo(rf"{deployment.name}, engine {engine}. \d lists the tables, \help the rest.")
    while True:
        try:
            text = session.prompt()
        except KeyboardInterrupt:  # what was typed is dropped
            continue
        except EOFError:
            return OK
        if text.strip() in (r"\q", r"\quit", "exit", "quit"):
            return OK
        shell.obey(text)


class Shell:
    """Runs what is typed at the prompt. What goes wrong is said, and the prompt stays."""

    def __init__(self, deployment: Deployment, asked: Asked, engine: str, how: How) -> None:
        self.deployment, self.asked, self.engine, self.how = deployment, asked, engine, dataclasses.replace(how)
        self._names: dict[str, list[str]] | None = None

    def obey(self, text: str) -> None:
        """Run the statements of a text, or a backslash's command."""
        try:
            if text.lstrip().startswith("\\"):
                self._command(*shlex.split(text.strip().rstrip(";").removeprefix("\\")))
            else:
                for statement in split(text):
                    self._run(statement)
        except KeyboardInterrupt:
            say("cancelled")
        except PenstockError as problem:
            report(problem)
        except ValueError as problem:  # quotes that are not closed
            report(UsageError(f"{text.strip()!r} cannot be read: {problem}", hint=r"\help lists the commands"))

    def _run(self, statement: str) -> None:
        from penstock.cli.sql import run

        run(self.asked, statement, self.how)

    def _command(self, name: str = "help", *arguments: str) -> None:
        commands: dict[str, Callable[..., None]] = {
            "d": self._describe,
            "reports": self._reports,
            "report": self._report,
            "format": self._format,
            "limit": self._limit,
            "timing": self._timing,
            "help": lambda: click.echo(HELP),
        }
        if name not in commands:
            raise UsageError(f"\\{name} is not a command", hint=HELP)
        try:
            bound = inspect.signature(commands[name]).bind(*arguments)
        except TypeError:
            raise UsageError(f"\\{name} takes other arguments", hint=HELP) from None
        commands[name](*bound.args)

    def _describe(self, name: str | None = None) -> None:
        if name is not None:
            self._run(f"DESCRIBE {name}")
            return
        rows = [[one.full, one.what] for one in SqlSession(self.deployment).tables()]
        table(["table", ""], rows)
        click.echo("warehouse.NAME, or NAME alone: what is loaded; SHOW TABLES lists it")

    def _reports(self) -> None:
        from penstock.cli.sql import print_reports

        print_reports()

    def _report(self, name: str, *params: str) -> None:
        from penstock.cli.sql import report_text

        self._run(report_text(name, params, self.deployment))

    def _format(self, name: str) -> None:
        if name not in FORMATS or name == "parquet":
            raise UsageError(f"{name} is no format of a prompt", hint="use table, csv, json or jsonl")
        self.how.format = name

    def _limit(self, count: str) -> None:
        if not count.isdecimal():
            raise UsageError(f"{count} is not a number of rows", hint=r"write \limit 100; 0 is no limit")
        self.how.limit = int(count)

    def _timing(self) -> None:
        self.how.timing = not self.how.timing
        click.echo(f"timing is {'on' if self.how.timing else 'off'}")

    def names(self) -> dict[str, list[str]]:
        """The tables and their columns, as they were when first asked for."""
        if self._names is None:
            tables = SqlSession(self.deployment).tables()
            self._names = {one.full: one.columns.names for one in tables}
            self._names |= {one.name: one.columns.names for one in tables if one.schema == "archive"}  # alike in the warehouse
        return self._names

    def suggestions(self, before: str) -> Iterator[tuple[str, str]]:
        """What can stand where a text ends, in place of its last word, and what it is."""
        found = _WORD.search(before)
        word, names = (found[0] if found else "").lower(), self.names()
        if before.lstrip().startswith("\\"):
            yield from (
                (name, "")
                for name in (r"\d", r"\reports", r"\report", r"\format", r"\limit", r"\timing", r"\help", r"\quit")
                if name.startswith(word)
            )
            return
        columns = dict.fromkeys(
            column for table, all_of in names.items() if re.search(rf"\b{re.escape(table)}\b", before) for column in all_of
        )
        yield from ((name, "column") for name in columns if name.startswith(word))
        yield from ((name, "table") for name in names if name.startswith(word))
        if word:
            yield from ((name, "") for name in KEYWORDS if name.lower().startswith(word))


def complete(text: str) -> bool:
    """Whether Enter ends what is typed, rather than begins a line."""
    stripped = text.strip()
    return not stripped or stripped.startswith("\\") or stripped.endswith(";") or stripped in ("exit", "quit")


def prompt_session(shell: Shell, **options: Any) -> PromptSession[str]:
    """A prompt with history, completion and colours. Raises UsageError where prompt_toolkit is missing."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import ThreadedCompleter
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.history import FileHistory
        from prompt_toolkit.key_binding import KeyBindings
        from prompt_toolkit.lexers import PygmentsLexer
        from pygments.lexers.sql import SqlLexer
    except ImportError as problem:
        raise UsageError(
            f"the prompt needs {problem.name}, which is not installed", hint="pip install prompt_toolkit, or give a statement"
        ) from None
    keys = KeyBindings()
    made: PromptSession[str]

    @keys.add("enter", filter=Condition(lambda: complete(made.default_buffer.text)))
    def _(event: Any) -> None:
        event.current_buffer.validate_and_handle()

    made = PromptSession(
        "penstock> ",
        multiline=True,
        prompt_continuation="      ... ",
        history=FileHistory(str(history_file())),
        completer=ThreadedCompleter(_completer(shell)),
        complete_while_typing=True,
        lexer=PygmentsLexer(SqlLexer),
        key_bindings=keys,
        **options,
    )
    return made


def _completer(shell: Shell) -> Completer:
    from prompt_toolkit.completion import Completer, Completion

    class Names(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            found = _WORD.search(document.text_before_cursor)
            length = len(found[0]) if found else 0
            if length or complete_event.completion_requested:
                for text, what in shell.suggestions(document.text_before_cursor):
                    yield Completion(text, -length, display_meta=what)

    return Names()


def history_file() -> Path:
    """Where what was typed is kept, for its owner alone to read: below $XDG_STATE_HOME, else ~/.local/state."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "penstock"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / "sql_history"
    file.touch(mode=0o600)
    return file
