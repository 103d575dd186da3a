"""How the rows of SQL are written: a table for people; CSV, JSON, JSON Lines and Parquet, a batch at a time, for programs."""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import json
import sys
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from penstock.cli.output import table
from penstock.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "csv", "json", "jsonl", "parquet")


def write(schema: pa.Schema, batches: Iterable[pa.RecordBatch], format_: str, output: str | None) -> int:
    """Write rows to standard output, or to a file, which is written anew. How many they were.

    Raises UsageError for Parquet without a file, ConfigurationError for a file that cannot be written.
    """
    if format_ == "parquet" and output is None:
        raise UsageError("--format parquet needs a file to write to", hint="add --output FILE")
    if format_ == "table" and output is not None:
        raise UsageError("--format table is for reading on a screen", hint="with --output say --format csv, json, jsonl or parquet")
    try:
        if format_ == "parquet":
            return _parquet(schema, batches, str(output))
        if output is None:
            return _WRITERS[format_](schema, batches, sys.stdout)
        with open(output, "w", encoding="utf-8", newline="") as file:
            return _WRITERS[format_](schema, batches, file)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as problem:
        raise ConfigurationError(f"cannot write {output}: {problem.strerror}", hint="name a file in a folder that is there") from None


def format_of(output: str | None, asked: str | None) -> str:
    """The format asked for; else what the file's name says; else a table."""
    if asked is not None or output is None:
        return asked or "table"
    suffix = output.rpartition(".")[2].lower()
    if suffix in FORMATS[1:]:
        return suffix
    raise UsageError(
        f"--output {output}: the name does not say which format", hint="end it with .csv, .json, .jsonl or .parquet, or add --format"
    )


def show(rows: pa.Table, format_: str) -> None:
    """Print rows that are all there."""
    write(rows.schema, rows.to_batches(), format_, None)


def plain(cell: Any) -> Any:
    """A value as JSON and CSV hold it: whole numbers as they are, others that must stay exact as text, times as ISO 8601, bytes as hexadecimal."""
    if isinstance(cell, decimal.Decimal):
        return int(cell) if cell == cell.to_integral_value() and cell.as_tuple().exponent == 0 else format(cell, "f")
    if isinstance(cell, (dt.datetime, dt.date, dt.time)):
        return cell.isoformat()
    if isinstance(cell, dict):
        return {key: plain(value) for key, value in cell.items()}
    if isinstance(cell, list):
        return [plain(value) for value in cell]
    return cell.hex() if isinstance(cell, bytes) else cell


def _cells(batches: Iterable[pa.RecordBatch]) -> Iterator[list[Any]]:
    for batch in batches:
        yield from ([plain(cell) for cell in row] for row in zip(*(column.to_pylist() for column in batch.columns)))


def _table(schema: pa.Schema, batches: Iterable[pa.RecordBatch], _: IO[str]) -> int:
    import pyarrow as pa

    def number(kind: pa.DataType) -> bool:
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))

    rows = list(_cells(batches))
    table(schema.names, rows, right=[place for place, field in enumerate(schema) if number(field.type)])
    return len(rows)


def _csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], file: IO[str]) -> int:
    writer, count = csv.writer(file, lineterminator="\n"), 0
    writer.writerow(schema.names)
    for row in _cells(batches):
        writer.writerow(row)
        count += 1
    return count


def _json_lines(schema: pa.Schema, batches: Iterable[pa.RecordBatch], file: IO[str]) -> int:
    count = 0
    for row in _cells(batches):
        file.write(_object(schema, row) + "\n")
        count += 1
    return count


def _json(schema: pa.Schema, batches: Iterable[pa.RecordBatch], file: IO[str]) -> int:
    count = 0
    for row in _cells(batches):
        file.write(("[\n " if count == 0 else ",\n ") + _object(schema, row))
        count += 1
    file.write("\n]\n" if count else "[]\n")
    return count


def _object(schema: pa.Schema, row: list[Any]) -> str:
    return json.dumps(dict(zip(schema.names, row)), ensure_ascii=False, default=str)


def _parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], output: str) -> int:
    import pyarrow.parquet as pq

    count = 0
    with pq.ParquetWriter(output, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


_WRITERS = {"table": _table, "csv": _csv, "json": _json, "jsonl": _json_lines}
