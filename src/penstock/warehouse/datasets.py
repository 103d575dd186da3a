"""Datasets: what the archive's files and the warehouse's tables hold, made from a schema, so that both agree by construction.

A schema `ads` gives three:

- `ads`: the accepted events: all columns of the schema, derived ones too, then `partition_id`, `log_offset` and `log_time`, which say where in the
  log the event stands (partition_id and log_offset are its identity within an incarnation of the topic).
- `ads_late`: the late events, with the same columns.
- `ads_rejects`: the records that do not fit the schema: `log_time`, `partition_id`, `log_offset`, `reason`, `field` (null where the whole record is at
  fault) and `value`, the record's value in base64 (null where it has none): text that both warehouses hold whatever the bytes are. Their hour is
  that of `log_time`, for they have no event time. To read one: `SELECT from_base64(value) FROM ads_rejects`.

A timestamp is held without a zone, in UTC, in files and tables alike: what Redshift's COPY takes from Parquet and sorts by.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import re

import pyarrow as pa

from penstock.errors import ConfigurationError, LoadError
from penstock.model import Enum, Field, Schema, String
from penstock.model.units import hour_text
from penstock.warehouse import Column, Dataset, LedgerRow, Manifest

_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
MAX_VALUE = 65535  # bytes of text that a Redshift VARCHAR holds

# Schema refuses columns of these names.
_ORIGIN = (Column("partition_id", "int", False), Column("log_offset", "int", False), Column("log_time", "timestamp", False))


def dataset_of(schema: Schema) -> Dataset:
    """The dataset of a schema's accepted events."""
    return _of(schema, schema.name)


def late_dataset_of(schema: Schema) -> Dataset:
    """The dataset of a schema's late events."""
    return _of(schema, f"{schema.name}_late")


def rejects_dataset_of(schema: Schema) -> Dataset:
    """The dataset of the records that do not fit a schema."""
    partition, offset, log_time = _ORIGIN
    why = (
        Column("reason", "string", False, max_bytes=256),
        Column("field", "string", True, max_bytes=64),
        Column("value", "string", True, max_bytes=MAX_VALUE),
    )
    return Dataset(f"{schema.name}_rejects", (log_time, partition, offset, *why), time="log_time", key=None)


def datasets_of(schema: Schema) -> tuple[Dataset, Dataset, Dataset]:
    """The three datasets of a schema: accepted, late, rejects."""
    return dataset_of(schema), late_dataset_of(schema), rejects_dataset_of(schema)


@functools.lru_cache(maxsize=256)
def arrow_schema(dataset: Dataset) -> pa.Schema:
    """The columns of the dataset's files, in the order of its table: what a file is written with and a load expects.

    int64, string, bool, dictionary<int16, string> (an enum as the kernels give it; Parquet and SQL see text), timestamp[us] (UTC, without a zone),
    decimal128(precision, scale), float64.
    """
    types = {
        "int": pa.int64(),
        "string": pa.string(),
        "bool": pa.bool_(),
        "enum": pa.dictionary(pa.int16(), pa.string()),
        "timestamp": pa.timestamp("us"),
        "float": pa.float64(),
    }
    return pa.schema(
        [
            pa.field(c.name, pa.decimal128(c.precision, c.scale) if c.kind == "decimal" else types[c.kind], c.nullable)
            for c in dataset.columns
        ]
    )


def reject_value(value: bytes | None) -> str | None:
    """The `value` of a rejected record: its bytes in base64.

    Of more than 49,149 bytes it is the beginning: what a VARCHAR of Redshift holds. The log has the rest, at `partition_id` and `log_offset`.
    """
    return None if value is None else base64.b64encode(value[: MAX_VALUE // 4 * 3]).decode("ascii")


def check_dataset(dataset: Dataset) -> None:
    """Raise ConfigurationError for a dataset whose names are not safe in SQL, or that lacks the columns it names."""
    for name in (dataset.name, *(column.name for column in dataset.columns)):
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"dataset {dataset.name!r}: {name!r} is not a usable name", hint="use lower-case letters, digits and _, a letter first"
            )
    if dataset.name.startswith("penstock_"):
        raise ConfigurationError(
            f"dataset {dataset.name!r}: names that begin with penstock_ are Penstock's own", hint="give the schema another name"
        )
    kinds = {column.name: column.kind for column in dataset.columns}
    if (
        len(kinds) != len(dataset.columns)
        or kinds.get(dataset.time) != "timestamp"
        or (dataset.key is not None and dataset.key not in kinds)
    ):
        raise ConfigurationError(
            f"dataset {dataset.name!r}: a column is there twice, or time {dataset.time!r} or key {dataset.key!r} is not one of them"
        )


def grown(known: Dataset, wanted: Dataset) -> Dataset:
    """What the table of `known` becomes so that it holds `wanted` too: columns that are new are nullable, for older rows and files lack them.

    Raises ConfigurationError for a change that would lose data: a column that is dropped or of another type, another column of the event time.
    """
    hint = "give the schema another name, and so its dataset a table of its own; or keep the column as it was"
    new, old = {c.name: c for c in wanted.columns}, {c.name: c for c in known.columns}
    for name, column in old.items():
        if name not in new:
            raise ConfigurationError(f"dataset {known.name!r}: column {name!r} is in the warehouse and no longer in the schema", hint=hint)
        if _stored_as(column) != _stored_as(new[name]):
            was, wants = _stored_as(column), _stored_as(new[name])
            raise ConfigurationError(
                f"dataset {known.name!r}: column {name!r} is {was} in the warehouse and {wants} in the schema", hint=hint
            )
    if known.time != wanted.time:
        raise ConfigurationError(
            f"dataset {known.name!r}: hours were loaded by {known.time!r}, and the schema's time is now {wanted.time!r}", hint=hint
        )
    columns = (
        dataclasses.replace(
            c,
            nullable=c.nullable or c.name not in old or old[c.name].nullable,
            max_bytes=max(c.max_bytes, old[c.name].max_bytes if c.name in old else 0),  # text that is there stays as long as it is
        )
        for c in wanted.columns
    )
    return dataclasses.replace(wanted, columns=tuple(columns))


def check_covers(manifest: Manifest, loaded: LedgerRow) -> None:
    """Raise LoadError, naming shard and offsets, for a manifest without some of the offsets that the hour was loaded from.

    Such a manifest is what an archive shows whose files have been removed; loading it would empty the hour.
    """
    ranges = manifest.ranges
    for shard, known in sorted(loaded.ranges.items()):
        for first, end in known:
            if not any(start <= first and end <= stop for start, stop in ranges.get(shard, ())):
                what = f"{manifest.dataset} {hour_text(manifest.hour)}"
                raise LoadError(
                    f"{what}: the archive no longer has all of offsets {first} to {end} of shard {shard}, which were loaded before",
                    hint="the hour stays as it is; to load what is left, delete its row from penstock_ledger first",
                )


def _stored_as(column: Column) -> str:
    """How the column's values are stored: what must not change."""
    return (
        "string"
        if column.kind in ("string", "enum")
        else f"decimal of {column.precision} digits with {column.scale} places"
        if column.kind == "decimal" and column.precision != 18
        else f"decimal with {column.scale} places"
        if column.kind == "decimal"
        else column.kind
    )


def _of(schema: Schema, name: str) -> Dataset:
    columns = tuple(_column(n, field) for n, field in schema.columns.items())
    return Dataset(name, columns + _ORIGIN, time=schema.time, key=schema.key)


def _column(name: str, field: Field) -> Column:
    longest = field.max_bytes if isinstance(field, String) else max(len(v.encode()) for v in field.values) if isinstance(field, Enum) else 0
    return Column(name, field.kind, field.nullable, scale=getattr(field, "scale", 0), max_bytes=longest)
