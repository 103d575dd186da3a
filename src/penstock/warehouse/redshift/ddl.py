"""Redshift's SQL of tables, made from datasets. COPY and DDL take no parameters, so what goes into them is whitelisted here and quoted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock.errors import ConfigurationError
from penstock.warehouse import Column, Dataset
from penstock.warehouse.datasets import MAX_VALUE, check_dataset

LEDGER, DATASETS, LOCK = "penstock_ledger", "penstock_datasets", "penstock_lock"
SHORTEST_ENUM = 64  # bytes, so that an enum can be given a longer value without a change of its column
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,126}")
_TYPES = {"int": "BIGINT", "bool": "BOOLEAN", "timestamp": "TIMESTAMP", "float": "DOUBLE PRECISION"}

# Every node has a copy of these few rows. A text that is longer than a VARCHAR is continued in further parts.
SYSTEM = {
    LOCK: '("taken" BIGINT) DISTSTYLE ALL',
    LEDGER: (
        '("dataset" VARCHAR(128), "hour" TIMESTAMP, "part" BIGINT, "manifest_hash" VARCHAR(64), "rows" BIGINT, "ranges" VARCHAR(65535), '
        '"loaded_at" TIMESTAMP) DISTSTYLE ALL SORTKEY ("dataset", "hour")'
    ),
    DATASETS: '("dataset" VARCHAR(128), "part" BIGINT, "definition" VARCHAR(65535)) DISTSTYLE ALL',
}


def create_table(dataset: Dataset, schema: str = "public") -> str:
    """The statement that makes a dataset's table. No ENCODE: Redshift chooses (ENCODE AUTO).

    No column is NOT NULL: the decoder has seen to it, and a column added later is null in older rows.
    """
    check_dataset(dataset)
    columns = ",\n".join(f"    {quoted(column.name)} {column_type(column)}" for column in dataset.columns)
    spread = f"DISTSTYLE KEY DISTKEY ({quoted(dataset.key)})" if dataset.key is not None else "DISTSTYLE AUTO"
    return f"CREATE TABLE {table(schema, dataset.name)} (\n{columns}\n) {spread} SORTKEY ({quoted(dataset.time)})"


def create_stage(name: str, dataset: Dataset, columns: Sequence[str]) -> str:
    """The statement that makes a temporary table of some of the dataset's columns, as files have them: COPY fits Parquet by position alone.

    Not LIKE the table: there, columns that were added later stand at the end. Distributed and sorted as the table is, so that rows stay on their node.
    """
    of = {column.name: column for column in dataset.columns}
    types = ", ".join(f"{quoted(one)} {column_type(of[one])}" for one in columns)
    spread = f"DISTSTYLE KEY DISTKEY ({quoted(dataset.key)})" if dataset.key is not None and dataset.key in columns else "DISTSTYLE EVEN"
    return f"CREATE TEMP TABLE {quoted(name)} ({types}) {spread} SORTKEY ({quoted(dataset.time)})"


def changes(known: Dataset, wanted: Dataset, schema: str) -> tuple[list[str], list[str]]:
    """The statements that make the table of `known` that of `wanted`: those that widen text, which run outside transactions, and those that add columns."""
    old = {column.name: column for column in known.columns}
    alter = f"ALTER TABLE {table(schema, wanted.name)}"
    widen = [
        f"{alter} ALTER COLUMN {quoted(column.name)} TYPE {column_type(column)}"
        for column in wanted.columns
        if column.name in old and column_type(column) != column_type(old[column.name])
    ]
    return widen, [f"{alter} ADD COLUMN {quoted(column.name)} {column_type(column)}" for column in wanted.columns if column.name not in old]


def copy(name: str, manifest: str, iam_role: str, *, schema: str | None = None) -> str:
    """The COPY of a manifest's Parquet files into a table. schema: of a table that is not temporary.

    Of columnar files COPY takes neither MAXERROR (an error is always one too many) nor REGION nor a choice of columns.
    """
    role = "default" if iam_role == "default" else literal(iam_role)
    into = quoted(name) if schema is None else table(schema, name)
    return f"COPY {into} FROM {literal(manifest)} IAM_ROLE {role} FORMAT AS PARQUET MANIFEST"


def column_type(column: Column) -> str:
    """A column's type. Redshift counts the bytes of text, as schemas do."""
    if column.kind == "decimal":
        return f"DECIMAL({int(column.precision)},{int(column.scale)})"
    if column.kind in ("string", "enum"):
        least = SHORTEST_ENUM if column.kind == "enum" else 1
        return f"VARCHAR({min(MAX_VALUE, max(least, int(column.max_bytes)))})"
    return _TYPES[column.kind]


def table(schema: str, name: str) -> str:
    """A table's full name."""
    return f"{quoted(schema)}.{quoted(name)}"


def quoted(name: str) -> str:
    """An identifier; quoting makes reserved words usable. Raises ConfigurationError for one that is not plain."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is not a usable name in Redshift", hint="use lower-case letters, digits and _, a letter first")
    return f'"{name}"'


def literal(text: str) -> str:
    """A text in SQL. Raises ConfigurationError for one that could be read in two ways."""
    if "\\" in text or not text.isprintable():
        raise ConfigurationError(f"{text!r} cannot stand in a statement for Redshift", hint="use printable characters and no backslash")
    return "'" + text.replace("'", "''") + "'"
