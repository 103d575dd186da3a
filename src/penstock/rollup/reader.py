"""From a tuple's bytes to judged columns: record batches, decoder, derived columns."""
from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock import kernels
from penstock.errors import DeclarationError
from penstock.kernels import Column, Columns, Decoder, Records
from penstock.model import Field, Schema


@dataclasses.dataclass
class Run:
    """The decoded records of one tuple, in offset order."""

    schema: Schema
    records: Records
    columns: Columns

    def __len__(self) -> int:
        return len(self.records)

    def rows(self, start: int, stop: int) -> tuple[int, int]:
        """The rows that hold the offsets [start, stop)."""
        first, last = np.searchsorted(self.records.offsets, (start, stop))
        return int(first), int(last)

    def judge(self, first: int, last: int, watermark: int, verdict: np.ndarray) -> tuple[int, int, int, int]:
        """Fill in the verdicts of rows [first, last); the watermark behind them, and how many are accepted, late, rejected."""
        times = self.columns.columns[self.schema.time].data
        return kernels.judge(times, self.records.timestamps, self.columns.reject, first, last, watermark, self.schema.lateness, self.schema.ahead, verdict)


class Reader:
    """Reads the records of a schema. Every field is checked, whether it is wanted or not, so that a record is valid or not for every bolt alike;
    derived columns are computed only if they are in `wanted`."""

    def __init__(self, schema: Schema, wanted: Iterable[str] | None = None) -> None:
        self.schema = schema
        self.decoder = decoder_of(schema)
        names = set(schema.columns) if wanted is None else set(wanted)
        self.derived = [(name, column, column.load()) for name, column in schema.derive.items() if name in names]

    def read(self, data: bytes) -> Run:
        """Decode a tuple's bytes. Raises CorruptionError for record batches that fail their checksum."""
        records = kernels.read_batches(data)
        columns = self.decoder.decode(records)
        for name, derived, function in self.derived:
            sources = [columns.columns[source].to_arrow() for source in derived.of]
            columns.columns[name] = column_of(function(*sources), derived.field, len(records), derived.function)
        return Run(self.schema, records, columns)


def decoder_of(schema: Schema) -> Decoder:
    """The decoder of the schema's format. Raises DeclarationError if it cannot be imported."""
    if schema.format in kernels.DECODERS:
        return kernels.DECODERS[schema.format](schema.fields)
    module, _, name = schema.format.partition(":")
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as problem:
        raise DeclarationError(f"schema {schema.name!r}: decoder {schema.format} cannot be imported ({problem})", hint="a worker must be able to import it: keep it in a module of the project") from None
    return found(schema.fields)  # type: ignore[operator, no-any-return]


def column_of(values: Any, field: Field, count: int, what: str) -> Column:
    """What a derived column's function returned, as a column of the field; nulls become the field's default if it has one.

    Raises DeclarationError for an array of another length or type.
    """
    try:
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        if len(array) != count:
            raise DeclarationError(f"derived column: {what} returned {len(array)} values for {count} records", hint="return one value for each record, null where there is none")
        if pa.types.is_dictionary(array.type) and field.kind != "enum":
            array = array.dictionary_decode()
        plain: pa.Array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        plain = _cast(plain, field)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as problem:
        raise DeclarationError(f"derived column: {what} returned what is no {field.kind}: {problem}", hint=f"return an Arrow array that casts to {field.kind}") from None
    valid = None if plain.null_count == 0 else np.ascontiguousarray(pc.is_valid(plain).to_numpy(zero_copy_only=False).astype(np.uint8))
    if field.kind == "string":
        plain = plain.fill_null("")
        plain = pa.concat_arrays([plain])
        offsets = np.frombuffer(plain.buffers()[1], np.int32, count + 1, plain.offset * 4) if count else np.zeros(1, np.int32)
        data = np.frombuffer(plain.buffers()[2], np.uint8) if plain.buffers()[2] is not None else np.zeros(0, np.uint8)
        return Column(field, data, offsets, valid)
    return Column(field, np.ascontiguousarray(plain.fill_null(0).to_numpy(zero_copy_only=False)), None, valid)


def _cast(array: pa.Array, field: Field) -> pa.Array:
    """The array with the field's default for nulls, as the numbers or text that a column holds."""
    kind = field.kind
    if kind in ("string", "enum"):
        array = array.cast(pa.string())
        if field.default is not None:
            array = array.fill_null(field.default)
        if kind == "enum":
            codes = pc.index_in(array, pa.array(field.values, pa.string()))  # type: ignore[attr-defined]
            return codes.cast(pa.int16())
        return array
    if kind == "timestamp" and pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us", "UTC" if array.type.tz else None)).cast(pa.int64())
    elif kind == "decimal":
        factor = 10**field.scale  # type: ignore[attr-defined]
        array = pc.round(pc.multiply(array.cast(pa.decimal128(18, field.scale)).cast(pa.decimal256(40, field.scale)), pa.scalar(factor, pa.decimal256(20, 0)))).cast(pa.int64())  # type: ignore[attr-defined]
    if field.default is not None:
        array = array.fill_null(field.canonical(field.default))
    return array.cast(pa.uint8() if kind == "bool" else pa.int64())
