"""msgpack to columns. Oracles: cases by hand, the msgpack library, Python's repr and decimal, and the plain-Python reference."""

from __future__ import annotations

import decimal
import math
import struct
from typing import Any

import msgpack
import pytest
from decoding import FIELDS, assert_neighbours_never_count, cells, decode_both, one, outcome, records_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.kernels import reasons
from penstock.model import Bool, Decimal, Enum, Field, Int, String, Timestamp


def x(value: bytes) -> bytes:
    """A map whose key x holds a value that is packed already."""
    return b"\x81\xa1x" + value


@pytest.mark.parametrize(
    "packed, expected",
    [
        (b"\x00", 0),
        (b"\x7f", 127),
        (b"\xe0", -32),
        (b"\xff", -1),
        (b"\xcc\xff", 255),
        (b"\xcd\xff\xfe", 65534),
        (b"\xce\xff\xff\xff\xff", 2**32 - 1),
        (b"\xcf" + b"\x7f" + b"\xff" * 7, 2**63 - 1),
        (b"\xcf\x80" + b"\0" * 7, "out_of_range"),
        (b"\xcf" + b"\xff" * 8, "out_of_range"),
        (b"\xd0\x80", -128),
        (b"\xd1\x80\0", -32768),
        (b"\xd2\x80\0\0\0", -(2**31)),
        (b"\xd3\x80" + b"\0" * 7, -(2**63)),
        (b"\xd3" + b"\0" * 7 + b"\x05", 5),
        (b"\xcb" + struct.pack(">d", 1.0), "wrong_type"),
        (b"\xca" + struct.pack(">f", math.nan), "wrong_type"),
        (b"\xc0", "null"),
        (b"\xc2", "wrong_type"),
        (b"\xc3", "wrong_type"),
        (b"\xa11", "wrong_type"),
        (b"\xc4\x011", "wrong_type"),
        (b"\x90", "wrong_type"),
        (b"\x80", "wrong_type"),
        (b"\xd4\x01\x00", "wrong_type"),
        (b"\xc7\x00\x01", "wrong_type"),
        (b"\xd6\xff\0\0\0\0", "wrong_type"),
        (b"\xc1", "malformed"),
        (b"", "malformed"),
        (b"\xcd\x01", "malformed"),
        (b"\xcf\0\0\0\0\0\0\0", "malformed"),
        (b"\x01\x01", "malformed"),
        (b"\xc4", "malformed"),
        (b"\xc4\x02a", "malformed"),
        (b"\xc7\x01\x01", "malformed"),
        (b"\xd8\0", "malformed"),
        (b"\xdd\xff\xff\xff\xff", "malformed"),
        (b"\xdf\xff\xff\xff\xff", "malformed"),
        (b"\xdc\0", "malformed"),
        (b"\x91", "malformed"),
        (b"\xa2a", "malformed"),
        (b"\xdb\xff\xff\xff\xffabc", "malformed"),
    ],
)
def test_whole_numbers_and_shapes(packed: bytes, expected: Any) -> None:
    assert one("msgpack", Int(), x(packed)) == expected


@pytest.mark.parametrize(
    "field, packed, expected",
    [
        (String(max_bytes=4), b"\xa0", ""),
        (String(max_bytes=4), b"\xa4abcd", "abcd"),
        (String(max_bytes=4), b"\xa5abcde", "too_long"),
        (String(), b"\xd9\x01a", "a"),
        (String(), b"\xda\0\x01a", "a"),
        (String(), b"\xdb\0\0\0\x01a", "a"),
        (String(), b"\xa2\xc3\xa9", "é"),
        (String(), b"\xa1\xff", "bad_text"),
        (String(), b"\xa3\xed\xa0\x80", "bad_text"),
        (String(), b"\xababcdefghij\x80", "bad_text"),
        (String(), b"\xc4\x01a", "wrong_type"),
        (String(), b"\x01", "wrong_type"),
        (Enum("a", "b"), b"\xa1b", 1),
        (Enum("a", "b"), b"\xa1c", "not_in_enum"),
        (Enum("a", "b"), b"\xa1\xff", "bad_text"),
        (Enum("a", "b"), b"\x01", "wrong_type"),
        (Bool(), b"\xc3", 1),
        (Bool(), b"\xc2", 0),
        (Bool(), b"\x01", "wrong_type"),
        (Timestamp("iso8601"), b"\xaa2015-05-17", 1431820800_000000),
        (Timestamp("iso8601"), b"\xa1\xff", "bad_text"),
        (Timestamp("s"), b"\x05", 5_000000),
        (Timestamp("s"), b"\xcb" + struct.pack(">d", 1700000000.123457), 1700000000_123457),
        (Timestamp("s"), b"\xcb" + struct.pack(">d", math.inf), "out_of_range"),
        (Timestamp("s"), b"\xcb" + struct.pack(">d", math.nan), "out_of_range"),
        (Timestamp("s"), b"\xff", "out_of_range"),
        (Decimal(6), b"\xcb" + struct.pack(">d", 0.001234), 1234),
        (Decimal(2), b"\xcb" + struct.pack(">d", 0.125), 12),
        (Decimal(2), b"\xcb" + struct.pack(">d", 0.375), 38),
        (Decimal(2), b"\xcb" + struct.pack(">d", 2.675), 268),
        (Decimal(2), b"\xcb" + struct.pack(">d", 1.005), 100),
        (Decimal(2), b"\xca" + struct.pack(">f", 0.1), 10),
        (Decimal(9), b"\xca" + struct.pack(">f", 0.1), 100000001),
        (Decimal(2), b"\xcb" + struct.pack(">d", -math.inf), "out_of_range"),
        (Decimal(6), b"\xcb" + struct.pack(">d", 1e12), "out_of_range"),
        (Decimal(6), b"\xa41.50", 1_500000),
        (Decimal(6), b"\xa3abc", "wrong_type"),
        (Decimal(6), b"\xa1\xff", "bad_text"),
        (Decimal(0), b"\xcf" + b"\xff" * 8, "out_of_range"),
        (Decimal(0), b"\xd3" + struct.pack(">q", 10**18 - 1), 10**18 - 1),
        (Decimal(0), b"\xd3" + struct.pack(">q", -(10**18)), "out_of_range"),
    ],
)
def test_values_of_each_kind(field: Field, packed: bytes, expected: Any) -> None:
    assert one("msgpack", field, x(packed)) == expected


@pytest.mark.parametrize(
    "value, expected",
    [
        (b"\x80", None),
        (b"\x82\xa1x\xa1a\xa1x\xa1b", "b"),
        (b"\x82\xa1x\xa1a\xa1x\xc0", None),
        (b"\x82\x01\x02\xa1x\xa1a", "a"),
        (b"\x82\xc4\x01x\x02\xa1x\xa1a", "a"),
        (b"\x82\x92\x01\x81\xa1x\x05\x02\xa1x\xa1a", "a"),
        (b"\x82\xa1\xff\x02\xa1x\xa1a", "a"),
        (b"\xde\0\x01\xa1x\xa1a", "a"),
        (b"\xdf\0\0\0\x01\xd9\x01x\xa1a", "a"),
        (b"\x81\xda\0\x01x\xa1a", "a"),
        (b"\x81\xa1x\xa1a\xc0", "malformed"),
        (b"\x82\xa1x\xa1a", "malformed"),
        (b"", "malformed"),
        (b"\xde", "malformed"),
        (b"\x91\x80", "malformed"),
        (b"\xc0", "malformed"),
        (b"\x82\xa1y\xc1\xa1x\xa1a", "malformed"),
        (b"\x82\xa1y\x92\xc1\x01\xa1x\xa1a", "malformed"),
        (b"\x82\xc1\x01\xa1x\xa1a", "malformed"),
        (b"\x81\xa2x", "malformed"),
        (b"\x82\xa1y\xcb" + struct.pack(">d", math.nan) + b"\xa1x\xa1a", "a"),
    ],
)
def test_the_record_as_a_whole(value: bytes, expected: Any) -> None:
    assert one("msgpack", String(nullable=True), value) == expected


def test_depth_is_limited_whether_or_not_somebody_looks() -> None:
    path = tuple("abcdefghijklmnopqrstuvwxyzABCDEFGH")

    def nested(depth: int, inner: bytes = b"\x01") -> bytes:
        return b"".join(b"\x81" + msgpack.packb(key) for key in path[:depth]) + inner

    expected = [0, 0, reasons.TOO_DEEP, reasons.TOO_DEEP, reasons.TOO_DEEP, 0, reasons.TOO_DEEP, reasons.MALFORMED, reasons.TOO_DEEP]
    records = records_of(
        [
            nested(31),
            nested(32),
            nested(33),
            nested(32, b"\x80"),
            nested(32, b"\x90"),
            nested(31, b"\x90"),
            nested(32, b"\x91\xc1"),
            nested(32, b"\xde\0"),
            nested(0, b"\x81" + b"\x91" * 40),
        ]
    )
    for target in (path[:32], path[:33], path, ("x",)):
        assert decode_both("msgpack", {"x": String(path=target, nullable=True, max_bytes=9)}, records).reject.tolist()[2:] == expected[2:]
    assert decode_both("msgpack", {"x": Int(path="y", nullable=True)}, records).reject.tolist() == expected


def test_paths_duplicates_and_any_order_of_keys() -> None:
    fields = {"a": Int(path="o.a", default=7), "b": Int(path="o.p.b", nullable=True)}

    def pairs(*items: tuple[str, bytes]) -> bytes:
        return bytes([0x80 + len(items)]) + b"".join(msgpack.packb(key) + value for key, value in items)

    inner = pairs(("p", pairs(("b", b"\x05"))))
    rows = [
        pairs(("o", inner)),
        pairs(("o", inner), ("o", b"\x80")),
        pairs(("o", inner), ("o", b"\x05")),
        pairs(("o", b"\x81\xa1p\xc0")),
        pairs(("o", pairs(("a", b"\x01"), ("p", b"\x90"), ("a", b"\x02")))),
    ]
    assert outcome(decode_both("msgpack", fields, records_of(rows))) == [(7, 5), (7, None), (7, None), (7, None), (2, None)]
    many = []
    for round in range(300):
        others = {f"other{round * 7 + number}": [number, {"id": 9}] for number in range(round % 9)} | {"k" * (round % 70 + 1): 0}
        items = list((others | {"id": round, "user": {"id": round * 2}, "ts": 5}).items())
        many.append(msgpack.packb(dict(items[round % len(items) :] + items[: round % len(items)])))
    assert outcome(decode_both("msgpack", {name: FIELDS[name] for name in ("ts", "id", "user")}, records_of(many))) == [
        (5000, round, round * 2) for round in range(300)
    ]


def test_what_stands_around_a_record_never_counts() -> None:
    whole = msgpack.packb(
        {
            "ts": 1700000000123,
            "id": -(2**40),
            "user": {"id": 12345678, "name": "名前"},
            "type": "click",
            "cost": 0.007256,
            "ok": True,
            "note": "a text of more than thirty-two bytes, quite a bit",
            "x": [1, "é", {"y": None}, b"raw", 70000, 1.5],
        }
    )
    cuts = [whole[:length] for length in range(len(whole) + 1)] + [b"\x82\xa2id\xd3\0\0", b"\x81\xa4", b"\x81\xa4type\xad"]
    assert_neighbours_never_count("msgpack", cuts, [b"\0", b"\xff", b"\xa0", b"a", b"\x81", b"\xc1", b"\xa2id\x05"])


@settings(max_examples=400, deadline=None)
@given(
    st.floats(width=64)
    | st.floats(-1e6, 1e6)
    | st.integers(-(10**17), 10**17).map(lambda n: n / 10**7)
    | st.integers(-(10**12), 10**12).map(lambda n: n / 16)
    | st.floats(0, 2e9).map(lambda v: round(v, 6)),
    st.integers(0, 12),
)
@example(0.5, 0)
@example(1.5, 0)
@example(4503599627.370496, 6)
@example(1.15, 1)
def test_floats_are_their_shortest_text(value: float, scale: int) -> None:
    found = one("msgpack", Decimal(scale), x(b"\xcb" + struct.pack(">d", value)))
    if not math.isfinite(value):
        assert found == "out_of_range"
        return
    with decimal.localcontext(decimal.Context(prec=2000)):
        expected = decimal.Decimal(repr(value)).scaleb(scale).to_integral_value(decimal.ROUND_HALF_EVEN)
    assert found == ("out_of_range" if abs(expected) >= 10**18 else int(expected))


names = st.sampled_from(
    [
        "ts",
        "at",
        "seconds",
        "id",
        "user",
        "name",
        "type",
        "ok",
        "cost",
        "a",
        "b",
        "c",
        "note",
        "x",
        "a longer key than is remembered, 32 bytes",
    ]
) | st.text(max_size=5)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(0, 2**41)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=10)
    | st.sampled_from(["click", "impression", "é", "1.5", "-2e3", "2020-01-01T00:00:00Z", "nobody"])
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=17))
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6), max_leaves=10)
objects = st.dictionaries(names | st.integers(-5, 5) | st.binary(max_size=2), values, max_size=18)


@settings(max_examples=30, deadline=None)
@given(st.lists(objects, min_size=1, max_size=6))
def test_well_formed_records_decode_as_the_reference_and_the_library_say(rows: list[dict[Any, Any]]) -> None:
    packed = [msgpack.packb(row) for row in rows]
    decode_both("msgpack", FIELDS, records_of(packed))
    found = decode_both(
        "msgpack",
        {"text": String(path="note", nullable=True), "whole": Int(path="id", nullable=True), "yes": Bool(path="ok", nullable=True)},
        records_of(packed),
    )
    for row, reject in enumerate(found.reject.tolist()):
        if not reject:
            expected = msgpack.unpackb(packed[row], strict_map_key=False)
            assert [cells(column)[row] for column in found.columns.values()] == [
                expected.get("note"),
                expected.get("id"),
                expected.get("ok"),
            ]


@settings(max_examples=40, deadline=None)
@given(st.lists(objects, min_size=1, max_size=4), st.data())
def test_damaged_records_are_judged_as_the_reference_judges(rows: list[dict[Any, Any]], data: st.DataObject) -> None:
    damaged = []
    for row in rows:
        packed = bytearray(msgpack.packb(row))
        at = data.draw(st.integers(0, len(packed)))
        packed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        damaged.append(bytes(packed))
    decode_both("msgpack", FIELDS, records_of(damaged))
