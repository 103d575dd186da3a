"""JSON and msgpack in plain Python (record batches: `reference_records`): the oracle of the compiled kernels' tests, and what runs where there is no compiler.

This module says what is accepted. The record as a whole comes first:

- `NO_VALUE`: the value is null. Where no field comes from the value, the value is not looked at.
- `MALFORMED`: the value is not exactly one map, from the first byte to the last. JSON is that of RFC 8259, in valid UTF-8, also where nobody
  looks: no raw control characters, no NaN, no byte order mark; white space around the object is part of it.
- `TOO_DEEP`: more than `MAX_DEPTH` maps and arrays inside each other. The first fault from the left counts.

Then the fields in declared order. Of duplicate keys the last counts, also where it makes a path end. A key that is not text leads nowhere.

- Int: a whole number written as one (`1.0` and `1e3` are not). true and false are never numbers.
- String, Enum: text. A JSON string with half of a surrogate pair in an escape is `BAD_TEXT` (elsewhere in the record it harms nobody).
- Timestamp: a number in its unit, rounded half to even to microseconds; with "iso8601", text, see `instant`.
- Decimal: a number, or text that is a JSON number; exact, then rounded half to even. A binary float is the shortest decimal text that reads
  back as it.
- From a record's key or a header: the bytes are the text. Numbers are JSON numbers in ASCII, without space; booleans are true and false; null is missing.
"""

from __future__ import annotations

import datetime
import decimal
import json
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.kernels import reasons
from penstock.kernels.columns import Column, Columns, Records
from penstock.kernels.reference_records import Cursor, batch_spans, headers_value, read_batches
from penstock.model import Field, Timestamp

__all__ = ["JsonDecoder", "MsgpackDecoder", "batch_spans", "headers_value", "read_batches"]

NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?)([0-9]+))?")
INSTANT = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:Z|([+-])(\d\d):?(\d\d))?)?", re.ASCII)
MICROS = {"s": 6, "ms": 3, "us": 0}


class Reject(Exception):
    """A record, or a value of it, does not fit. args: the reason."""


class Number(str):
    """A number as it stands in a record."""


class Other:
    """A value that no field can hold: bytes, an extension."""


# Values


def scaled(text: str, shift: int) -> int:
    """A JSON number times 10**shift, rounded half to even. Raises Reject(OUT_OF_RANGE) from 10**18 on."""
    match = NUMBER.fullmatch(text)
    assert match, text
    sign, whole, places, exponent_sign, exponent = match.groups(default="")
    digits = (whole + places).lstrip("0")
    exponent = exponent.lstrip("0")
    power = int(exponent or "0") if len(exponent) < 13 else 10**12
    power = (-power if exponent_sign == "-" else power) - len(places) + shift
    if not digits or len(digits) + power < 0:
        return 0
    if len(digits) + power > 18:
        raise Reject(reasons.OUT_OF_RANGE)
    value = int(decimal.Decimal((0, tuple(map(int, digits)), power)).to_integral_value(decimal.ROUND_HALF_EVEN))
    if value >= 10**18:
        raise Reject(reasons.OUT_OF_RANGE)
    return -value if sign else value


def instant(text: str) -> int:
    """Microseconds since 1970 of YYYY-MM-DD, alone or followed by T or a space, HH:MM, :SS, a fraction of up to 9 digits, and Z, +hh:mm or +hhmm.

    Without a zone it is UTC; a date alone is its midnight; the fraction is rounded half to even. Raises Reject: WRONG_TYPE for another shape, OUT_OF_RANGE
    for a date, a time (the second 60 included) or a zone that does not exist.
    """
    match = INSTANT.fullmatch(text)
    if not match:
        raise Reject(reasons.WRONG_TYPE)
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction, sign, zone_hour, zone_minute = match.groups()[6:]
    try:
        moment = datetime.datetime(year, month, day, hour, minute, second)
    except ValueError:
        raise Reject(reasons.OUT_OF_RANGE) from None
    zone = int(zone_hour or 0) * 60 + int(zone_minute or 0)
    if int(zone_hour or 0) > 23 or int(zone_minute or 0) > 59:
        raise Reject(reasons.OUT_OF_RANGE)
    since = (moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)
    return since - (-zone if sign == "-" else zone) * 60_000_000 + scaled(f"0.{fraction or 0}", 6)


def _utf8(value: Any) -> str:
    """A value that is text. Text that is not valid holds lone surrogates here."""
    if not isinstance(value, str) or isinstance(value, Number):
        raise Reject(reasons.WRONG_TYPE)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Reject(reasons.BAD_TEXT) from None
    return value


def _scaled_number(value: Any, shift: int) -> int:
    if not isinstance(value, Number):
        raise Reject(reasons.WRONG_TYPE)
    if value in ("nan", "inf", "-inf"):
        raise Reject(reasons.OUT_OF_RANGE)
    return scaled(value, shift)


def convert(field: Field, value: Any) -> Any:
    """What a column holds for a value that is neither missing nor null: int, str or bool; an Enum's code. Raises Reject."""
    declared: Any = field
    if field.kind == "int":
        if not isinstance(value, Number) or not re.fullmatch("-?[0-9]+", value):
            raise Reject(reasons.WRONG_TYPE)
        if len(value) > 20 or not -(2**63) <= int(value) < 2**63:
            raise Reject(reasons.OUT_OF_RANGE)
        return int(value)
    if field.kind == "bool":
        if not isinstance(value, bool):
            raise Reject(reasons.WRONG_TYPE)
        return value
    if field.kind == "decimal":
        if isinstance(value, str) and not isinstance(value, Number):
            if not NUMBER.fullmatch(_utf8(value)):
                raise Reject(reasons.WRONG_TYPE)
            return scaled(value, declared.scale)
        return _scaled_number(value, declared.scale)
    if field.kind == "timestamp":
        micros = instant(_utf8(value)) if declared.unit == "iso8601" else _scaled_number(value, MICROS[declared.unit])
        if not 0 <= micros < Timestamp.LIMIT:
            raise Reject(reasons.OUT_OF_RANGE)
        return micros
    text = _utf8(value)
    if field.kind == "enum":
        if text not in declared.values:
            raise Reject(reasons.NOT_IN_ENUM)
        return declared.values.index(text)
    if len(text.encode()) > declared.max_bytes:
        raise Reject(reasons.TOO_LONG)
    return text


MISSING = object()


def take(field: Field, value: Any) -> Any:
    """What a column holds for a value; None for null. Raises Reject."""
    if value is MISSING:
        if field.default is not None:
            canonical = field.canonical(field.default)
            return field.values.index(canonical) if field.kind == "enum" else canonical  # type: ignore[attr-defined]
        value = None if field.nullable else MISSING
    if value is MISSING or (value is None and not field.nullable):
        raise Reject(reasons.NULL if value is None else reasons.MISSING)
    return None if value is None else convert(field, value)


def of_bytes(field: Field, data: bytes | None) -> Any:
    """The value that a record's key or header holds."""
    if data is None:
        return MISSING
    text = data.decode("utf-8", "surrogateescape")
    if field.kind == "bool":
        return {"true": True, "false": False}.get(text, text)
    if (field.kind == "int" or (field.kind == "timestamp" and field.unit != "iso8601")) and NUMBER.fullmatch(text):  # type: ignore[attr-defined]
        return Number(text)
    return text


def look_up(value: Any, path: tuple[str, ...]) -> Any:
    """What a path leads to; MISSING where it leads nowhere."""
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


# The formats


def _refuse(_: str) -> Any:
    raise ValueError("not JSON")


def _parse(text: str) -> Any:
    """The value of a JSON text whose depth is known to be harmless. Raises ValueError."""
    if any(0xDC80 <= ord(letter) <= 0xDCFF for letter in text):
        raise ValueError("not UTF-8")
    return json.loads(text, object_pairs_hook=dict, parse_int=Number, parse_float=Number, parse_constant=_refuse)


def parse_json(data: bytes) -> dict[str, Any]:
    """A record's value. Raises Reject."""
    text = data.decode("utf-8", "surrogateescape")
    closers: list[str] = []
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|[][{}]', text, re.DOTALL):
        mark = match[0]
        if mark in "[{":
            if len(closers) == reasons.MAX_DEPTH:  # too deep, if what stands before is the beginning of something well-formed
                text, data = text[: match.start()] + " 0" + "".join(reversed(closers)), b""
                break
            closers.append("]" if mark == "[" else "}")
        elif mark in "]}" and closers:
            closers.pop()
    try:
        value = _parse(text)
    except ValueError:
        raise Reject(reasons.MALFORMED) from None
    if not isinstance(value, dict):
        raise Reject(reasons.MALFORMED)
    if not data:
        raise Reject(reasons.TOO_DEEP)
    return value


def _read_msgpack(cursor: Cursor, depth: int) -> Any:
    first = cursor.unsigned(1)
    if first < 0x80 or first >= 0xE0:
        return Number(first if first < 0x80 else first - 256)
    if first <= 0x8F or first in (0xDE, 0xDF):
        return _read_map(cursor, first & 0x0F if first <= 0x8F else cursor.unsigned(2 << (first - 0xDE)), depth)
    if first <= 0x9F or first in (0xDC, 0xDD):
        count = first & 0x0F if first <= 0x9F else cursor.unsigned(2 << (first - 0xDC))
        if depth == reasons.MAX_DEPTH:
            raise Reject(reasons.TOO_DEEP)
        return [_read_msgpack(cursor, depth + 1) for _ in range(count)]
    if first <= 0xBF or first in (0xD9, 0xDA, 0xDB):
        return cursor.take(first & 0x1F if first <= 0xBF else cursor.unsigned(1 << (first - 0xD9))).decode("utf-8", "surrogateescape")
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first]
    if 0xC4 <= first <= 0xC9:
        cursor.take(cursor.unsigned(1 << ((first - 0xC4) % 3)) + (first >= 0xC7))
        return Other()
    if first in (0xCA, 0xCB):
        return Number(repr(struct.unpack(">f" if first == 0xCA else ">d", cursor.take(4 if first == 0xCA else 8))[0]))
    if 0xCC <= first <= 0xD3:
        return Number(int.from_bytes(cursor.take(1 << (first & 3)), "big", signed=first >= 0xD0))
    if 0xD4 <= first <= 0xD8:
        cursor.take(1 + (1 << (first - 0xD4)))
        return Other()
    raise Reject(reasons.MALFORMED)


def _read_map(cursor: Cursor, count: int, depth: int) -> dict[str, Any]:
    if depth == reasons.MAX_DEPTH:
        raise Reject(reasons.TOO_DEEP)
    result = {}
    for _ in range(count):
        key, value = _read_msgpack(cursor, depth + 1), _read_msgpack(cursor, depth + 1)
        if isinstance(key, str) and not isinstance(key, Number):
            result[key] = value
    return result


def parse_msgpack(data: bytes) -> dict[str, Any]:
    """A record's value. Raises Reject."""
    cursor = Cursor(data)
    if not data or not (0x80 <= data[0] <= 0x8F or data[0] in (0xDE, 0xDF)):
        raise Reject(reasons.MALFORMED)
    try:
        value = _read_msgpack(cursor, 0)
    except IndexError:
        raise Reject(reasons.MALFORMED) from None
    if cursor.at != len(data):
        raise Reject(reasons.MALFORMED)
    return value  # type: ignore[no-any-return]


# Columns


def build(field: Field, values: list[Any]) -> Column:
    """A column of what `take` returned; MISSING, in a rejected row, is 0 or empty and not null."""
    valid = np.array([value is not None for value in values], np.uint8)
    mask = None if valid.all() else valid
    plain = [None if value is MISSING else value for value in values]
    if field.kind == "string":
        texts = [(value or "").encode() for value in plain]
        ends = np.cumsum([0, *map(len, texts)]).astype(np.int32)
        return Column(field, np.frombuffer(b"".join(texts), np.uint8), ends, mask)
    kind = {"enum": np.int16, "bool": np.uint8}.get(field.kind, np.int64)
    return Column(field, np.array([value or 0 for value in plain], kind), None, mask)


class _Decoder:
    """What the decoders share. See `penstock.kernels.columns.Decoder`."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        """fields: those to decode, in declared order."""
        self.fields = dict(fields)
        self.wants_value = any(field.source == "value" for field in self.fields.values())

    def parse(self, data: bytes) -> dict[str, Any]:
        """A record's value as nested dicts, numbers as `Number`. Raises Reject."""
        raise NotImplementedError

    def decode(self, records: Records) -> Columns:
        """The columns of `records`, each record decoded or rejected."""
        headers = {
            field.source: headers_value(records, field.source[7:].encode())
            for field in self.fields.values()
            if field.source.startswith("header:")
        }
        rows, codes = [], []
        for row in range(len(records)):
            code, values = self._row(records, row, headers)
            rows.append(values or [MISSING] * len(self.fields))
            codes.append(code)
        columns = {name: build(field, [values[index] for values in rows]) for index, (name, field) in enumerate(self.fields.items())}
        return Columns(columns, np.array(codes, np.int32))

    def _row(self, records: Records, row: int, headers: dict[str, Any]) -> tuple[int, list[Any]]:
        value, data, values = None, records.value(row), []
        if self.wants_value:
            if data is None:
                return reasons.NO_VALUE, []
            try:
                value = self.parse(data)
            except Reject as problem:
                return problem.args[0], []
        for index, (name, field) in enumerate(self.fields.items()):
            try:
                if field.source == "value":
                    found = look_up(value, field.keys(name))
                elif field.source == "record":
                    found = Number(records.timestamps[row])
                elif field.source == "key":
                    found = of_bytes(field, records.key(row))
                else:
                    start, length = (int(array[row]) for array in headers[field.source])
                    found = of_bytes(field, None if length < 0 else records.buffer[start : start + length])
                values.append(convert(Timestamp("us"), found) if field.source == "record" else take(field, found))
            except Reject as problem:
                return problem.args[0] | (index + 1) << 8, []
        return 0, values


class JsonDecoder(_Decoder):
    """Records whose value is a JSON object."""

    def parse(self, data: bytes) -> dict[str, Any]:
        return parse_json(data)


class MsgpackDecoder(_Decoder):
    """Records whose value is a msgpack map."""

    def parse(self, data: bytes) -> dict[str, Any]:
        return parse_msgpack(data)
