"""From a tuple's bytes to judged columns: record batches, decoder, derived columns."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any, Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock import kernels
from penstock.errors import DeclarationError
from penstock.kernels import Column, Columns, Decoder, Records
from penstock.kernels.reasons import NAMES
from penstock.model import Enum, Field, Schema, Timestamp
from penstock.model.fields import DECIMAL_DIGITS


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

    def reasons(self, first: int, last: int) -> dict[str, int]:
        """Why rows of [first, last) were rejected: how many by reason."""
        counts = np.bincount(self.columns.reject[first:last] & 0xFF)
        return {NAMES[reason]: int(count) for reason, count in enumerate(counts.tolist()) if count and reason}

    def judge(self, first: int, last: int, watermark: int, verdict: np.ndarray) -> tuple[int, int, int, int]:
        """Fill in the verdicts of rows [first, last); the watermark behind them, and how many are accepted, late, rejected."""
        times = self.columns.columns[self.schema.time].data
        return kernels.judge(
            times, self.records.timestamps, self.columns.reject, first, last, watermark, self.schema.lateness, self.schema.ahead, verdict
        )


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
    decoder: Decoder
    if schema.format in kernels.DECODERS:
        decoder = kernels.DECODERS[schema.format](schema.fields)
        return decoder
    module, _, name = schema.format.partition(":")
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as problem:
        raise DeclarationError(
            f"schema {schema.name!r}: decoder {schema.format} cannot be imported ({problem})",
            hint="a worker must be able to import it: keep it in a module of the project",
        ) from None
    decoder = found(schema.fields)  # type: ignore[operator]
    return decoder


def column_of(values: Any, field: Field, count: int, what: str) -> Column:
    """What a derived column's function returned, as a column of the field.

    What the field cannot hold (an unknown text of an Enum, text that is too long, a number out of range) counts as null, and nulls become the field's
    default if it has one: a derived column never rejects a record. Raises DeclarationError for an array of another length or type.
    """
    try:
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        if len(array) != count:
            raise DeclarationError(
                f"derived column: {what} returned {len(array)} values for {count} records",
                hint="return one value for each record, null where there is none",
            )
        plain = _cast(array.dictionary_decode() if pa.types.is_dictionary(array.type) else array, field)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError) as problem:
        raise DeclarationError(
            f"derived column: {what} returned what is no {field.kind}: {problem}", hint=f"return an Arrow array that casts to {field.kind}"
        ) from None
    valid = None if plain.null_count == 0 else np.ascontiguousarray(pc.is_valid(plain).to_numpy(zero_copy_only=False).astype(np.uint8))
    if field.kind == "string":
        plain = pa.concat_arrays([plain.fill_null("")])
        offsets = np.frombuffer(plain.buffers()[1], np.int32, count + 1, plain.offset * 4) if count else np.zeros(1, np.int32)
        data = np.frombuffer(plain.buffers()[2], np.uint8) if plain.buffers()[2] is not None else np.zeros(0, np.uint8)
        return Column(field, data, offsets, valid)
    return Column(field, np.ascontiguousarray(plain.fill_null(0).to_numpy(zero_copy_only=False)), None, valid)


def _cast(array: pa.Array, field: Field) -> pa.Array:
    """The array as the numbers or the text that a column holds: null where the field cannot hold a value, then the field's default for nulls."""
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.less(pc.abs(array), 10.0**DECIMAL_DIGITS), array, None)
    held, default = _HELD[field.kind](array, field), field.default
    if default is None:
        return held
    return held.fill_null(
        field.values.index(default) if isinstance(field, Enum) else int(field.canonical(default)) if field.kind != "string" else default
    )


def _text(array: pa.Array, field: Field) -> pa.Array:
    array = array.cast(pa.string())
    return pc.if_else(pc.less_equal(pc.binary_length(array), field.max_bytes), array, None)  # type: ignore[attr-defined]


def _codes(array: pa.Array, field: Field) -> pa.Array:
    return pc.index_in(array.cast(pa.string()), pa.array(field.values, pa.string())).cast(pa.int16())  # type: ignore[attr-defined]


def _micros(array: pa.Array, field: Field) -> pa.Array:
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us", array.type.tz), safe=array.type.unit != "ns")  # finer than a microsecond: cut off
    array = array.cast(pa.int64())
    return pc.if_else(pc.and_(pc.greater_equal(array, 0), pc.less(array, Timestamp.LIMIT)), array, None)


def _scaled(array: pa.Array, field: Field) -> pa.Array:
    """Decimals as whole numbers of 10**-scale. Arrow holds them as such already, in 128 bits, the low ones first."""
    scale: int = field.scale  # type: ignore[attr-defined]
    if pa.types.is_decimal(array.type) and array.type.scale > scale:
        array = pc.round(array, scale, "half_to_even")
    array = array.cast(pa.decimal128(38, scale))
    if len(array) == 0 or array.null_count == len(array):
        return pa.nulls(len(array), pa.int64())
    low, high = np.frombuffer(array.buffers()[1], np.int64, 2 * len(array), 16 * array.offset).reshape(-1, 2).T
    outside = (high != low >> 63) | (abs(low) >= 10**DECIMAL_DIGITS)
    return pa.array(low, pa.int64(), mask=outside | pc.is_null(array).to_numpy(zero_copy_only=False))


_HELD: dict[str, Callable[[pa.Array, Any], pa.Array]] = {
    "string": _text,
    "enum": _codes,
    "timestamp": _micros,
    "decimal": _scaled,
    "int": lambda array, _: array.cast(pa.int64()),
    "bool": lambda array, _: array.cast(pa.bool_()).cast(pa.uint8()),
}
