"""Whether an archived file may be loaded: it is whole, the one that was archived, and its columns are the dataset's."""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.archive import Entry
from penstock.errors import LoadError
from penstock.model.units import iso
from penstock.warehouse import Dataset
from penstock.warehouse.datasets import arrow_schema

RESTORE = "restore it, or rebuild the hour from the log"


def check_digest(entry: Entry, file: BinaryIO | Any, path: str, what: str) -> None:
    """Raise LoadError for a file whose bytes are not those that were archived. file: is read to its end."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    if digest.hexdigest() != entry.sha256:
        raise LoadError(f"{what}: {path} is not the file that was archived: its SHA-256 differs; nothing was loaded", hint=RESTORE)


def check_footer(dataset: Dataset, entry: Entry, span: int, file: BinaryIO | Any, path: str, what: str) -> tuple[str, ...]:
    """The columns of a Parquet file, which fit the dataset's table. Raises LoadError, naming the file, for any other.

    They are a part of the dataset's columns, in its order and of its types: an older schema had fewer. span: of event time from `entry.hour` on, in
    which its rows must lie: a load that replaces the hour would leave others behind.
    """
    try:
        footer = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as unreadable:
        raise LoadError(f"{what}: {path} cannot be read ({unreadable}); nothing was loaded", hint=RESTORE) from unreadable
    schema, rows, expected = footer.schema_arrow, footer.metadata.num_rows, arrow_schema(dataset)
    order = [expected.get_field_index(name) for name in schema.names]
    missing = [c.name for c in dataset.columns if not c.nullable and c.name not in schema.names]
    problem = None
    if -1 in order:
        problem = f"has a column {schema.names[order.index(-1)]!r}, which the dataset has not"
    elif order != sorted(set(order)):
        problem = f"has the columns {', '.join(schema.names)}, which are not in the dataset's order"
    elif missing:
        problem = f"lacks the column {missing[0]!r}"
    elif rows != entry.rows:
        problem = f"holds {rows} rows, not the {entry.rows} of its index entry"
    else:
        for found, wanted in ((field, expected.field(field.name)) for field in schema):
            if _plain(found.type) != _plain(wanted.type):
                problem = f"has {found.name!r} as {found.type}, not {wanted.type}"
    if problem:
        raise LoadError(
            f"{what}: {path} {problem}; nothing was loaded",
            hint="the dataset was archived with another schema: rebuild the hour, or give the schema another name",
        )
    first, last = _times(footer, dataset.time)
    if rows and not entry.hour <= first <= last < entry.hour + span:
        raise LoadError(
            f"{what}: {path} has rows from {iso(first)} to {iso(last)}, which lie outside the hour by {dataset.time!r}; nothing was loaded",
            hint="they would not be replaced when the hour is loaded again; the archive's file is wrong",
        )
    return tuple(schema.names)


def _times(footer: pq.ParquetFile, time: str) -> tuple[int, int]:
    """The first and the last event time, as the footer says them for each row group; else from the column itself. 0 of no rows."""
    at, found = footer.schema_arrow.get_field_index(time), []
    for group in range(footer.num_row_groups):
        statistics = footer.metadata.row_group(group).column(at).statistics
        if statistics is None or not statistics.has_min_max:
            column = footer.read_row_group(group, [time])[time].cast(pa.int64())
            found += [pc.min(column).as_py() or 0, pc.max(column).as_py() or 0]
        else:
            found += [statistics.min_raw, statistics.max_raw]
    return min(found, default=0), max(found, default=0)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type that Parquet holds, whatever Arrow is told to make of it."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_large_string(kind) else kind
