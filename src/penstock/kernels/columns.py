"""What kernels hand to each other: records as slices of a buffer, and decoded columns, laid out as Arrow lays them out."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.model import Field


@dataclasses.dataclass
class Records:
    """The records of some consecutive record batches, in offset order. No record is copied: each part is a slice of `buffer`.

    buffer: the batches' payloads, decompressed, one after the other. All arrays have one element a record: offsets; timestamps (the log's, in
    microseconds since 1970); starts in `buffer` and lengths (-1: null) of key and value; where the headers start and how many there are.
    """

    buffer: bytes
    offsets: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    key_start: npt.NDArray[np.int64]
    key_length: npt.NDArray[np.int32]
    value_start: npt.NDArray[np.int64]
    value_length: npt.NDArray[np.int32]
    headers_start: npt.NDArray[np.int64]
    headers_count: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, row: int) -> bytes | None:
        """A record's key."""
        start, length = int(self.key_start[row]), int(self.key_length[row])
        return None if length < 0 else self.buffer[start : start + length]

    def value(self, row: int) -> bytes | None:
        """A record's value."""
        start, length = int(self.value_start[row]), int(self.value_length[row])
        return None if length < 0 else self.buffer[start : start + length]


@dataclasses.dataclass
class Column:
    """One decoded column.

    kind: that of the field. data: int64 for int, timestamp (microseconds) and decimal (scaled); int16 codes for enum; uint8 0/1 for bool; for
    string the uint8 bytes of all values, `offsets` (int32, n + 1) saying where each begins. valid: uint8 0/1, or None where no value is null.
    What stands at a null or in a rejected row is 0 or empty.
    """

    field: Field
    data: npt.NDArray[Any]
    offsets: npt.NDArray[np.int32] | None = None
    valid: npt.NDArray[np.uint8] | None = None

    def to_arrow(self) -> pa.Array:
        """The column as Arrow: int64, string, bool, dictionary<int16, string>, timestamp[us, UTC], decimal128(18, scale)."""
        kind, count = self.field.kind, len(self.data) if self.offsets is None else len(self.offsets) - 1
        mask = None if self.valid is None else pa.py_buffer(np.packbits(self.valid, bitorder="little"))
        if kind == "string":
            return pa.Array.from_buffers(pa.string(), count, [mask, pa.py_buffer(self.offsets), pa.py_buffer(self.data)])
        if kind == "bool":
            return pa.Array.from_buffers(pa.bool_(), count, [mask, pa.py_buffer(np.packbits(self.data, bitorder="little"))])
        if kind == "enum":
            codes = pa.Array.from_buffers(pa.int16(), count, [mask, pa.py_buffer(self.data)])
            return pa.DictionaryArray.from_arrays(codes, pa.array(self.field.values, pa.string()))  # type: ignore[attr-defined]
        if kind == "timestamp":
            return pa.Array.from_buffers(pa.timestamp("us", "UTC"), count, [mask, pa.py_buffer(self.data)])
        if kind == "decimal":
            wide = np.empty((count, 2), np.int64)
            wide[:, 0] = self.data
            wide[:, 1] = self.data >> 63
            return pa.Array.from_buffers(pa.decimal128(18, self.field.scale), count, [mask, pa.py_buffer(wide)])  # type: ignore[attr-defined]
        return pa.Array.from_buffers(pa.int64(), count, [mask, pa.py_buffer(self.data)])


@dataclasses.dataclass
class Columns:
    """A decoded batch. reject: one code of `penstock.kernels.reasons` a record (int32), 0 for those that fit the schema."""

    columns: dict[str, Column]
    reject: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.reject)


class Decoder(Protocol):
    """Turns record values into columns. `penstock.kernels` has one for JSON and one for msgpack; a schema's `format` can name another.

    It is deterministic (the same bytes give the same columns on any machine), never raises for what a record holds (it rejects), and does not
    look at anything but the records.
    """

    def __init__(self, fields: Mapping[str, Field]) -> None:
        """fields: those to decode, a part of the schema's, in declared order."""

    def decode(self, records: Records) -> Columns:
        """Decode the fields of every record."""
