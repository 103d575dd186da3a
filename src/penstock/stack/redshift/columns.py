"""Parquet held to a table as Redshift does: by position, type for type, VARCHAR in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from penstock.stack.redshift.objects import Object
from penstock.stack.redshift.problems import Problem, scan_failed


@dataclass(frozen=True)
class Column:
    """A column of a table. kind: PostgreSQL's name of its type, without its measures. length: bytes of a text, or 0. scale: of a numeric."""

    name: str
    kind: str
    nullable: bool
    length: int = 0
    precision: int = 0
    scale: int = 0

    @property
    def type(self) -> str:
        """As SQL has it."""
        if self.kind == "numeric":
            return f"numeric({self.precision},{self.scale})"
        return f"{self.kind}({self.length})" if self.length else self.kind


@dataclass(eq=False)  # Python writes to an exception that is raised
class LoadProblem(Exception):
    """One value, or one row, that cannot be loaded. line: counted from 1. code: that of STL_LOAD_ERRORS."""

    file: str
    line: int
    column: Column | None
    code: int
    reason: str
    raw_line: str = ""
    raw_value: str = ""
    position: int = 0


def check_schema(wanted: Sequence[Column], found: pa.Schema, source: Object, query: int, *, fill: bool) -> None:
    """Raise Problem for a file whose columns are not the table's, in number or type. fill: the last ones may be missing."""
    if len(found) > len(wanted) or len(found) < len(wanted) and not fill:
        raise scan_failed(
            f"Unmatched number of columns between table and file. Table columns: {len(wanted)}, Data columns: {len(found)}, "
            f"File name: {source.url}",
            query,
        )
    for column, field in zip(wanted, found):
        if not _fits(column, field.type):
            raise scan_failed(
                f"File '{source.url}' has an incompatible Parquet schema for column '{field.name}'. Column type: {column.type.upper()}, "
                f"Parquet schema:\noptional {field.type} {field.name}",
                query,
            )


def fitted(wanted: Sequence[Column], batch: pa.RecordBatch, source: Object, before: int) -> pa.RecordBatch:
    """A batch of the file as text can hold it, under the table's names. before: rows of the file before it. Raises LoadProblem."""
    arrays = []
    for column, array in zip(wanted, batch.columns):
        if pa.types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        if not column.nullable and array.null_count:
            line = before + pc.index(array.is_null(), True).as_py() + 1
            raise LoadProblem(source.url, line, column, 1213, "Missing data for not-null field")
        if column.length and (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            longest = pc.max(pc.binary_length(array)).as_py() or 0
            if longest > column.length:
                at = pc.index(pc.greater(pc.binary_length(array), column.length), True).as_py()
                raise LoadProblem(
                    source.url,
                    before + at + 1,
                    column,
                    1204,
                    f"The length of the data column {column.name} is longer than the length defined in the table. "
                    f"Table: {column.length}, Data: {longest}",
                    raw_value=str(array[at].as_py())[:1024],
                )
        arrays.append(array)
    for column in wanted[len(arrays) :]:
        if not column.nullable:
            raise LoadProblem(source.url, before + 1, column, 1213, "Missing data for not-null field")
        arrays.append(pa.nulls(batch.num_rows, pa.string()))
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in wanted])


def _fits(column: Column, kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    test = _TESTS.get(column.kind)
    return bool(test and test(column, kind))


def _text(column: Column, kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


_TESTS = {
    "bigint": lambda column, kind: pa.types.is_int64(kind) or pa.types.is_uint32(kind),
    "integer": lambda column, kind: pa.types.is_int32(kind) or pa.types.is_uint16(kind),
    "smallint": lambda column, kind: pa.types.is_int16(kind) or pa.types.is_int8(kind),
    "numeric": lambda column, kind: pa.types.is_decimal(kind) and kind.scale == column.scale and kind.precision <= column.precision,
    "double precision": lambda column, kind: pa.types.is_float64(kind),
    "real": lambda column, kind: pa.types.is_float32(kind),
    "boolean": lambda column, kind: pa.types.is_boolean(kind),
    "date": lambda column, kind: pa.types.is_date32(kind),
    "timestamp without time zone": lambda column, kind: pa.types.is_timestamp(kind),
    "timestamp with time zone": lambda column, kind: pa.types.is_timestamp(kind),
    "character varying": _text,
    "character": _text,
}


def refused(problem: LoadProblem, query: int) -> Problem:
    """What the client is told of a Parquet file with a value that does not fit."""
    column = problem.column
    return scan_failed(
        f"{problem.reason}, File: {problem.file}, Line: {problem.line}" + (f", Column: {column.name}" if column else ""), query, 15001
    )
