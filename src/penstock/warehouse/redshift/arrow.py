"""Rows of redshift-connector as Arrow columns, exact: decimals stay decimals, timestamps keep their microseconds."""

from __future__ import annotations

import decimal
import uuid
from typing import Any

import pyarrow as pa

_PLAIN = {
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    26: pa.int64(),
    700: pa.float32(),
    701: pa.float64(),
    1082: pa.date32(),
    1083: pa.time64("us"),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", tz="UTC"),
}
_NUMERIC = 1700


def to_table(columns: list[dict[str, Any]], rows: list[Any]) -> pa.Table:
    """The rows as a table. columns: as the protocol describes them. Two of one name stay two."""
    names = [column["label"].decode() for column in columns]
    return pa.Table.from_arrays([_column(column, [row[at] for row in rows]) for at, column in enumerate(columns)], names=names)


def _column(column: dict[str, Any], values: list[Any]) -> pa.Array:
    kind = column["type_oid"]
    if kind == _NUMERIC:
        return _decimals(values, column["type_modifier"])
    if kind in _PLAIN:
        return pa.array(values, _PLAIN[kind])
    return pa.array([_text(value) for value in values], pa.string())


def _decimals(values: list[Any], modifier: int) -> pa.Array:
    """Decimals of the precision and scale that the server says; where it says none, of as many digits as are there."""
    if modifier >= 4:
        precision, scale = (modifier - 4) >> 16, (modifier - 4) & 0xFFFF
        return pa.array(values, pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(min(precision, 76), scale))
    present = [value for value in values if isinstance(value, decimal.Decimal)]
    if not present:
        return pa.array(values, pa.decimal128(38, 0))
    if not all(value.is_finite() for value in present):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    scale = max(max(0, -int(value.as_tuple().exponent)) for value in present)
    whole = max(1, max(value.adjusted() + 1 for value in present))
    precision = whole + scale
    if precision > 76:  # of a division without end
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array(values, pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    return str(value) if isinstance(value, uuid.UUID) else repr(value)
