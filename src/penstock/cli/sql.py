"""`penstock sql`: SQL over the warehouse, and over the archive's files."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.base import command, on_option, open_deployment
from penstock.cli.output import table

if TYPE_CHECKING:
    from penstock.deployment import Deployment

_WITH = re.compile(r"\s*with\s+(recursive\s+)?", re.IGNORECASE)
_VIEW = re.compile(r"\barchive_([a-z][a-z0-9_]*)\b")


@command(
    "sql",
    [
        ("what was loaded", 'penstock sql "SELECT status, count(*) AS views FROM pages GROUP BY ALL ORDER BY views DESC"'),
        ("which hours were loaded, and when", 'penstock sql "SELECT dataset, hour, rows, loaded_at FROM penstock_ledger ORDER BY ALL"'),
        ("what is archived, loaded or not", 'penstock sql "SELECT count(*) FROM archive_pages" --format json'),
    ],
    short_help="Ask the warehouse.",
)
@click.argument("statement", metavar='"SELECT ..."')
@click.option(
    "--format", "format_", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True, help="How the rows are printed."
)
@on_option
def sql(statement: str, format_: str, on: str) -> int:
    """Ask the warehouse. Each dataset is a table (pages, pages_late, pages_rejects), and penstock_ledger says which hours were loaded.

    archive_<dataset> stands for the files of the archive, whether they were loaded or not. Reading only.
    """
    with open_deployment(on) as deployment:
        rows = deployment.warehouse.query(with_archive(statement, deployment))
    show(rows, format_)
    return 0


def with_archive(statement: str, deployment: Deployment) -> str:
    """The statement, each archive_<dataset> in it that is a dataset of the archive defined as the rows of its files."""
    known = set(deployment.archive.datasets())
    views = [f"archive_{name} AS ({archive_rows(name, deployment)})" for name in dict.fromkeys(_VIEW.findall(statement)) if name in known]
    if not views:
        return statement
    start = _WITH.match(statement)
    if start:
        return f"WITH {start[1] or ''}{', '.join(views)}, {statement[start.end() :]}"
    return f"WITH {', '.join(views)} {statement}"


def archive_rows(dataset: str, deployment: Deployment) -> str:
    """A SELECT of the rows that the archive's index lists for a dataset: of the published generation, where one is registered."""
    from penstock.cli.published import GenerationView
    from penstock.errors import NotFoundError
    from penstock.rollup.registry import Registry

    archive: Any = deployment.archive
    for name in (dataset, dataset.removesuffix("_late"), dataset.removesuffix("_rejects")):
        try:
            archive = GenerationView(deployment.archive, Registry(deployment.table).provider("dataset", name).generation)
            break
        except NotFoundError:
            continue
    files = [archive.location(entry.path) for hour in archive.hours(dataset) for entry in archive.entries(dataset, hour)]
    if not files:
        raise NotFoundError(f"nothing of {dataset} is archived by the generation that is published", hint="`penstock status` shows what is")
    literals = ", ".join("'" + re.sub(r"([\[*?])", r"[\1]", file).replace("'", "''") + "'" for file in files)
    return f"SELECT * FROM read_parquet([{literals}], hive_partitioning = false, union_by_name = true)"


def show(rows: Any, format_: str) -> None:
    """Print a pyarrow.Table."""
    if format_ == "csv":
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(rows.column_names)
        writer.writerows([plain(cell) for cell in row.values()] for row in rows.to_pylist())
    elif format_ == "json":
        click.echo(
            json.dumps(
                [{name: plain(cell) for name, cell in row.items()} for row in rows.to_pylist()], indent=1, ensure_ascii=False, default=str
            )
        )
    else:
        import pyarrow as pa

        right = [
            index
            for index, field in enumerate(rows.schema)
            if pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
        ]
        table(
            rows.column_names, [[plain(cell) for cell in row] for row in zip(*(column.to_pylist() for column in rows.columns))], right=right
        )


def plain(cell: Any) -> Any:
    """A value as JSON and CSV hold it: whole numbers as they are, others that must stay exact as text, times as ISO 8601, bytes as hexadecimal."""
    import datetime as dt
    import decimal

    if isinstance(cell, decimal.Decimal):
        return int(cell) if cell == cell.to_integral_value() and cell.as_tuple().exponent == 0 else str(cell)
    if isinstance(cell, (dt.datetime, dt.date, dt.time)):
        return cell.isoformat()
    return cell.hex() if isinstance(cell, bytes) else cell
