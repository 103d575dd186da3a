"""`penstock sql`: SQL over live roll-ups, archived detail and the warehouse together; and reports."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.base import OK, command, number_of, on_option, open_deployment, say
from penstock.cli.output import heading
from penstock.cli.rows import FORMATS, format_of, show, write
from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.cli.statement import Asked
    from penstock.deployment import Deployment

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
        ("which reports there are", "penstock sql --reports"),
        ("a week of a report", "penstock sql --report campaign_performance --param from=2026-03-02 --param to=2026-03-09"),
        ("the statements of a file, or of a pipe", "penstock sql -f report.sql --format csv"),
    ],
    short_help="Ask in SQL: roll-ups, archive and warehouse.",
)
@click.argument("statement", metavar='["SELECT ..."]', required=False)
@click.option("-f", "--file", "file", metavar="FILE", help="Run the statements of a file, one after the other; - is standard input.")
@click.option("--report", metavar="NAME", help="Run a report: one of --reports, or a file.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the report. May be repeated.")
@click.option(
    "--reports",
    "list_reports",
    is_flag=True,
    help="List the reports and their parameters: Penstock's, and those in the project's reports/.",
)
@click.option("--format", "format_", type=click.Choice(FORMATS), help="How the rows are written.  [default: as --output is called; table]")
@click.option("--output", "-o", metavar="FILE", help="Write the rows to a file instead.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Stop after so many rows; 0 for none.  [default: 1000 of a table]")
@click.option(
    "--engine",
    type=click.Choice(["duckdb", "warehouse", "redshift"]),
    help="duckdb joins all stores here; warehouse (or redshift, if it is one) hands the statement to the warehouse itself.  "
    "[default: duckdb; for reports the warehouse, where it is Redshift]",
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
    report: str | None,
    params: tuple[str, ...],
    list_reports: bool,
    format_: str | None,
    output: str | None,
    limit: int | None,
    engine: str | None,
    max_read: int,
    timing: bool,
    on: str,
) -> int:
    """Ask in SQL, over three kinds of tables at once: rollup.NAME_1h (live: entity, dimensions, time, measures), archive.DATASET (detail as archived,
    loaded into the warehouse or not) and warehouse.DATASET (loaded hours; also by its bare name). Reading only.

    Without a statement, a file, a report or a pipe, a prompt. Filters on time, and on the entity of a roll-up, are what keeps a statement fast.
    """
    from penstock.cli.statement import ask
    from penstock.query.sql import split

    if list_reports:
        return print_reports()
    if (statement is not None) + (file is not None) + (report is not None) > 1:
        raise UsageError("a statement, --file and --report exclude one another", hint="give one of them")
    if params and report is None:
        raise UsageError("--param is of a report", hint="name one: --report NAME; --reports lists them")
    text = None if report else text_of(statement, file)
    how = How(format_of(output, format_), output, limit, timing)
    with open_deployment(on) as deployment:
        if report:
            text, engine = report_text(report, params, deployment), engine or ("redshift" if "redshift" in deployment.settings else None)
        asked = ask(deployment, engine or "duckdb", max_read)
        if text is None:
            from penstock.cli.prompt import prompt

            return prompt(deployment, asked, engine or "duckdb", how)
        found = split(text)
        if not found:
            raise UsageError("there is no statement to run", hint='write penstock sql "SELECT ..."')
        if output is not None and len(found) > 1:
            raise UsageError(f"{len(found)} statements cannot be written to one file", hint="leave --output out, or run them one by one")
        for one in found:
            run(asked, one, how)
    return OK


def text_of(statement: str | None, file: str | None) -> str | None:
    """The SQL of the command line, of a file or of a pipe; None at a terminal. Raises UsageError."""
    if statement is not None:
        return statement
    if file is None and sys.stdin.isatty():
        return None
    try:
        return sys.stdin.read() if file in (None, "-") else Path(str(file)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"cannot read {file}: {getattr(problem, 'strerror', None) or problem}", hint="name a file of SQL") from None


def report_text(name: str, params: Sequence[str], deployment: Deployment) -> str:
    """The statement of a report with its parameters. Raises UsageError, naming the parameter and the fix."""
    from penstock.reports import report

    values = {}
    for param in params:
        key, equals, value = param.partition("=")
        if not equals:
            raise UsageError(f"--param {param}: there is no =", hint="write --param from=2026-03-02")
        values[key.strip()] = value.strip()
    return report(name).statement(values, deployment.now())


def print_reports() -> int:
    """All reports, with their parameters."""
    from penstock.reports import own_folder, reports

    for one in reports().values():
        heading(f"{one.name}: {one.title}")
        click.echo(f"  {one.description}")
        for parameter in one.parameters:
            given = "must be given" if parameter.default is None else "optional" if parameter.default == "null" else parameter.default
            click.echo(f"  --param {parameter.name}=…  {parameter.kind}, {given}: {parameter.what}")
        click.echo()
    say(f"Your own: files of SQL in {own_folder()}")
    return OK


@dataclasses.dataclass
class How:
    """How rows are written. limit: None for the format's own."""

    format: str
    output: str | None
    limit: int | None
    timing: bool


def run(asked: Asked, statement: str, how: How) -> None:
    """Run a statement and write its rows. Raises what the engine does."""
    began, most = time.monotonic(), (SCREEN if how.format == "table" and how.limit is None else how.limit) or None
    with closing(asked(statement)) as answer:
        answer.limit(most)
        count = write(answer.schema, answer, how.format, how.output)
    if answer.cut:
        say(f"the first {count:,} rows; --limit 0 gives all")
    for note in answer.notes:
        say(note)
    if how.timing:
        say(f"{count:,} rows in {time.monotonic() - began:.2f} s")
    elif how.output is not None:
        say(f"{count:,} rows written to {how.output}")


__all__ = ["show", "sql"]
