"""Helpers of the decoding kernels' tests: records without a log, and the comparison of two decoders."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.kernels import reasons, reference_decode
from penstock.kernels._json import JsonDecoder
from penstock.kernels._msgpack import MsgpackDecoder
from penstock.kernels.columns import Column, Columns, Records
from penstock.model import Bool, Decimal, Enum, Field, Int, String, Timestamp

PAIRS = {"json": (JsonDecoder, reference_decode.JsonDecoder), "msgpack": (MsgpackDecoder, reference_decode.MsgpackDecoder)}

# Every kind of field, nested paths, null and default of each sort.
FIELDS: dict[str, Field] = {
    "ts": Timestamp("ms"),
    "at": Timestamp("iso8601", nullable=True),
    "seconds": Timestamp("s", default=0),
    "id": Int(),
    "user": Int(path="user.id", nullable=True),
    "name": String(path="user.name", default="nobody", max_bytes=12),
    "type": Enum("impression", "click", "é", default="click"),
    "ok": Bool(nullable=True),
    "cost": Decimal(6, nullable=True, default="0.5"),
    "price": Decimal(2, path="a.b.c", nullable=True),
    "note": String(nullable=True),
}


def records_of(
    values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None, timestamps: Sequence[int] | None = None
) -> Records:
    """Records with these values, packed without a gap, so that a read beyond one would see the next."""
    count, parts = len(values), [*(keys or [None] * len(values)), *values]
    lengths = np.array([-1 if part is None else len(part) for part in parts], np.int32)
    starts = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0), dtype=np.int64)]).astype(np.int64)
    zeros = np.zeros(count, np.int64)
    return Records(
        b"".join(part or b"" for part in parts),
        np.arange(count, dtype=np.int64),
        np.array(timestamps or [0] * count, np.int64),
        starts[:count],
        lengths[:count],
        starts[count : 2 * count],
        lengths[count:],
        zeros,
        np.zeros(count, np.int32),
    )


def cells(column: Column) -> list[Any]:
    """A column as plain values, None for null."""
    if column.offsets is None:
        plain = column.data.tolist()
    else:
        text, ends = column.data.tobytes(), column.offsets.tolist()
        plain = [text[start:end].decode() for start, end in itertools.pairwise(ends)]
    return plain if column.valid is None else [value if valid else None for value, valid in zip(plain, column.valid.tolist())]


def outcome(columns: Columns) -> list[Any]:
    """What a decoder made of each record: its reject code, or its values."""
    rows = list(zip(*(cells(column) for column in columns.columns.values()))) or [()] * len(columns)
    return [int(code) or values for code, values in zip(columns.reject, rows)]


def assert_same(found: Columns, expected: Columns) -> None:
    """Two decoders agree: codes, values, nulls, types, and nothing left in rejected rows."""
    assert [reasons.describe(int(code), list(expected.columns)) if code else "" for code in found.reject] == [
        reasons.describe(int(code), list(expected.columns)) if code else "" for code in expected.reject
    ]
    assert list(found.columns) == list(expected.columns)
    for name, column in found.columns.items():
        other = expected.columns[name]
        assert (name, column.data.dtype, cells(column)) == (name, other.data.dtype, cells(other))
        assert (column.valid is None) == (other.valid is None), name
        assert (column.offsets is None) == (other.offsets is None), name


def decode_both(format: str, fields: Mapping[str, Field], records: Records) -> Columns:
    """What the compiled decoder makes of records, which must be what the reference makes of them."""
    compiled, reference = PAIRS[format]
    found = compiled(fields).decode(records)
    assert_same(found, reference(fields).decode(records))
    return found  # type: ignore[no-any-return]


def one(format: str, field: Field, value: bytes, name: str = "x") -> Any:
    """The single cell of a single record, or the name of the reason that it was rejected for."""
    columns = decode_both(format, {name: field}, records_of([value]))
    code = int(columns.reject[0])
    return reasons.NAMES[code & 0xFF] if code else cells(columns.columns[name])[0]


def between(values: Sequence[bytes], filler: bytes) -> Records:
    """Records with these values, each inside of its own filler, further from the buffer's ends than any load reaches."""
    margin = filler * 150
    buffer = b"".join(margin + value + margin for value in values)
    lengths = np.array([len(value) for value in values], np.int32)
    starts = np.cumsum(lengths.astype(np.int64) + 2 * len(margin)) - lengths - len(margin)
    nothing, zeros = np.full(len(values), -1, np.int32), np.zeros(len(values), np.int64)
    return Records(buffer, np.arange(len(values)), zeros, zeros, nothing, starts, lengths, zeros, np.zeros(len(values), np.int32))


def assert_neighbours_never_count(format: str, values: Sequence[bytes], fillers: Sequence[bytes]) -> None:
    """Whatever stands around a record, and whether or not it had to be copied for that, it is read as it is alone."""
    compiled, _ = PAIRS[format]
    alone = [outcome(compiled(FIELDS).decode(records_of([value])))[0] for value in values]
    assert alone == outcome(decode_both(format, FIELDS, records_of(values)))
    for filler in fillers:
        assert outcome(compiled(FIELDS).decode(between(values, filler))) == alone, filler
