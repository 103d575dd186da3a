"""`penstock sql`: SQL over live roll-ups, archived detail and the warehouse together; and reports."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.base import OK, command, number_of, on_option, open_deployment, say
from penstock.cli.rows import FORMATS, format_of, show, write
from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.cli.statement import Asked

SCREEN = 1000  # rows that are printed as a table unless more are asked for


@command(
    "sql",
    [
        ("an interactive prompt, with completion and history", "penstock sql"),
        (
            "what was loaded into the warehouse",
            'penstock sql "SELECT status, count(*) AS views FROM pages GROUP BY ALL ORDER BY views DESC"',
        ),
        ("which hours were loaded, and when", 'penstock sql "SELECT dataset, hour, rows, loaded_at FROM penstock_ledger ORDER BY ALL"'),
        (
            "what is archived, loaded or not, of one hour",
            "penstock sql \"SELECT count(*) FROM archive.pages WHERE ts >= '2015-05-17 10:00' AND ts < '2015-05-17 11:00'\"",
        ),
        ("a live roll-up, into a file", "penstock sql \"SELECT * FROM rollup.traffic_1h WHERE path = '/'\" --output views.parquet"),
        ("every table", 'penstock sql "SHOW ALL TABLES"'),
        ("the statements of a file, or of a pipe", "penstock sql -f report.sql --format csv"),
    ],
    short_help="Ask in SQL: roll-ups, archive and warehouse.",
)
@click.argument("statement", metavar='["SELECT ..."]', required=False)
@click.option("-f", "--file", "file", metavar="FILE", help="Run the statements of a file, one after the other; - is standard input.")
@click.option("--format", "format_", type=click.Choice(FORMATS), help="How the rows are written.  [default: as --output is called; table]")
@click.option("--output", "-o", metavar="FILE", help="Write the rows to a file instead.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Stop after so many rows; 0 for none.  [default: 1000 of a table]")
@click.option(
    "--engine",
    type=click.Choice(["duckdb", "warehouse", "redshift"]),
    default="duckdb",
    show_default=True,
    help="duckdb joins all stores here; warehouse (or redshift, if it is one) hands the statement to the warehouse itself.",
)
@click.option(
    "--max-read",
    type=number_of(1),
    default="2000000",
    show_default=True,
    metavar="N",
    help="Refuse to read more cells of a roll-up, or rows of a warehouse that is a server, for one table of a statement.",
)
@click.option("--timing", is_flag=True, help="Say how long each statement took.")
@on_option
def sql(
    statement: str | None,
    file: str | None,
    format_: str | None,
    output: str | None,
    limit: int | None,
    engine: str,
    max_read: int,
    timing: bool,
    on: str,
) -> int:
    """Ask in SQL, over three kinds of tables at once: rollup.NAME_1h (live: entity, dimensions, time, measures), archive.DATASET (detail as archived,
    loaded into the warehouse or not) and warehouse.DATASET (loaded hours; also by its bare name). Reading only.

    Without a statement, a file or a pipe, a prompt. Filters on time, and on the entity of a roll-up, are what keeps a statement fast.
    """
    from penstock.cli.statement import ask

    text = text_of(statement, file)
    with open_deployment(on) as deployment:
        asked = ask(deployment, engine, max_read)
        if text is None:
            raise UsageError("no statement")
        from penstock.query.sql import split

        found = split(text)
        if not found:
            raise UsageError("there is no statement to run", hint='write penstock sql "SELECT ..."')
        if output is not None and len(found) > 1:
            raise UsageError(f"{len(found)} statements cannot be written to one file", hint="leave --output out, or run them one by one")
        for one in found:
            code = run(asked, one, format_of(output, format_), output, limit, timing)
            if code != OK:
                return code
    return OK


def text_of(statement: str | None, file: str | None) -> str | None:
    """The SQL of the command line, of a file or of a pipe; None at a terminal. Raises UsageError."""
    if statement is not None:
        if file is not None:
            raise UsageError("there is a statement and a --file", hint="give one of them")
        return statement
    if file is None and sys.stdin.isatty():
        return None
    try:
        return sys.stdin.read() if file in (None, "-") else Path(str(file)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"cannot read {file}: {getattr(problem, 'strerror', None) or problem}", hint="name a file of SQL") from None


def run(asked: Asked, statement: str, format_: str, output: str | None, limit: int | None, timing: bool) -> int:
    """Run a statement and write its rows. The exit code."""
    began, most = time.monotonic(), (SCREEN if format_ == "table" and limit is None else limit) or None
    with closing(asked(statement)) as answer:
        answer.limit(most)
        count = write(answer.schema, answer, format_, output)
    if answer.cut:
        say(f"the first {count:,} rows; --limit {'0 shows' if format_ == 'table' else '0 writes'} all")
    for note in answer.notes:
        say(note)
    if timing:
        say(f"{count:,} rows in {time.monotonic() - began:.2f} s")
    elif output is not None:
        say(f"{count:,} rows written to {output}")
    return OK


__all__ = ["show", "sql"]
