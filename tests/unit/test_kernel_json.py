"""JSON to columns. Oracles: cases by hand, orjson, the decimal and datetime modules, and the plain-Python reference."""

from __future__ import annotations

import datetime
import decimal
import json
import random
from typing import Any

import numpy as np
import orjson
import pytest
from decoding import FIELDS, assert_neighbours_never_count, cells, decode_both, one, outcome, records_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.errors import CorruptionError
from penstock.kernels import reasons
from penstock.kernels._json import JsonDecoder
from penstock.model import Bool, Decimal, Enum, Int, String, Timestamp

X = {"x": String(nullable=True)}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1", 1),
        ("0", 0),
        ("-0", 0),
        ("-17", -17),
        ("12345678", 12345678),
        ("123456789012345678", 123456789012345678),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", "out_of_range"),
        ("-9223372036854775809", "out_of_range"),
        ("18446744073709551617", "out_of_range"),
        ("1" + "0" * 5000, "out_of_range"),
        ("1.0", "wrong_type"),
        ("1e3", "wrong_type"),
        ("true", "wrong_type"),
        ('"1"', "wrong_type"),
        ("[1]", "wrong_type"),
        ("{}", "wrong_type"),
        ("null", "null"),
        ("01", "malformed"),
        ("-", "malformed"),
        ("+1", "malformed"),
        ("1.", "malformed"),
        (".5", "malformed"),
        ("1e", "malformed"),
        ("0x1", "malformed"),
        ("1e+", "malformed"),
        ("-01", "malformed"),
        ("NaN", "malformed"),
        ("Infinity", "malformed"),
        ("-Infinity", "malformed"),
        ("nul", "malformed"),
        ("truex", "malformed"),
        ("", "malformed"),
    ],
)
def test_whole_numbers(text: str, expected: Any) -> None:
    assert one("json", Int(), f'{{"x":{text}}}'.encode()) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("0.001234", 1234),
        ("1", 1_000_000),
        ("-1.5", -1_500_000),
        ("0.0000005", 0),
        ("0.0000015", 2),
        ("0.00000150000000000000000000001", 2),
        ("0.0000025", 2),
        ("-0.0000015", -2),
        ("1e-6", 1),
        ("1E+2", 100_000_000),
        ("1.5e-999999999999999999999", 0),
        ("0e999999999999999999999", 0),
        ("1e999999999999999999999", "out_of_range"),
        ("999999999999.999999", 999999999999999999),
        ("999999999999.9999995", "out_of_range"),
        ("1000000000000", "out_of_range"),
        ('"1.50"', 1_500_000),
        ('"1\\u002e50"', 1_500_000),
        ('" 1"', "wrong_type"),
        ('""', "wrong_type"),
        ('"1."', "wrong_type"),
        ('"\\ud800"', "bad_text"),
        ("true", "wrong_type"),
        ("[]", "wrong_type"),
    ],
)
def test_decimals(text: str, expected: Any) -> None:
    assert one("json", Decimal(6), f'{{"x":{text}}}'.encode()) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ('"abc"', "abc"),
        ('""', ""),
        (r'"\"\\\/\b\f\n\r\t"', '"\\/\b\f\n\r\t'),
        (r'"\u00e9\u20AC\ud83d\ude00\u0000"', "é€😀\0"),
        ('"é€😀\x7f"', "é€😀\x7f"),
        ('"12345678901234567890"', "12345678901234567890"),
        ('"' + "a" * 64 + '"', "a" * 64),
        ('"' + "a" * 65 + '"', "too_long"),
        ('"' + "é" * 33 + '"', "too_long"),
        ('"' + "\\u00e9" * 32 + '"', "é" * 32),
        (r'"\ud800"', "bad_text"),
        (r'"\udc00\ud800"', "bad_text"),
        (r'"\ud800\u0041"', "bad_text"),
        (r'"\ud800x"', "bad_text"),
        ('"a\nb"', "malformed"),
        ('"a\0b"', "malformed"),
        (r'"\x41"', "malformed"),
        (r'"\u12"', "malformed"),
        (r'"\u12g4"', "malformed"),
        ('"abc', "malformed"),
        ('"\\', "malformed"),
        ("'a'", "malformed"),
        ("1", "wrong_type"),
        ("false", "wrong_type"),
    ],
)
def test_text(text: str, expected: Any) -> None:
    assert one("json", String(max_bytes=64), f'{{"x":{text}}}'.encode()) == expected


@pytest.mark.parametrize(
    "bad",
    [
        b"\x80",
        b"\xc0\xaf",
        b"\xc3",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xff",
        b"\xe2\x82",
    ],
)
def test_invalid_utf8_is_malformed_wherever_it_stands(bad: bytes) -> None:
    for value in (
        b'{"x":"%s"}',
        b'{"y":"%s","x":"a"}',
        b'{"%s":1,"x":"a"}',
        b'{"y":[{"z":"0123456789abcdefgh%s"}],"x":"a"}',
        b'{"x":"a"}%s',
    ):
        assert one("json", String(), value % bad) == "malformed"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1970-01-01", 0),
        ("2015-05-17T10:05:03Z", 1431857103_000000),
        ("2015-05-17 10:05", 1431857100_000000),
        ("2015-05-17T10:05:03.5+02:00", 1431849903_500000),
        ("2015-05-17T10:05:03-0130", 1431862503_000000),
        ("2016-02-29", 1456704000_000000),
        ("2000-02-29", 951782400_000000),
        ("1970-01-01T00:00:00.0000005Z", 0),
        ("1970-01-01T00:00:00.0000015Z", 2),
        ("1970-01-01T00:00:00.000001501", 2),
        ("9999-12-31T23:59:59.999999Z", Timestamp.LIMIT - 1),
        ("9999-12-31T23:59:59.9999999Z", "out_of_range"),
        ("1969-12-31T23:59:59Z", "out_of_range"),
        ("1970-01-01T00:00+00:01", "out_of_range"),
        ("1969-12-31T23:59-00:01", 0),
        ("0000-01-01", "out_of_range"),
        ("2015-02-29", "out_of_range"),
        ("1900-02-29", "out_of_range"),
        ("2015-13-01", "out_of_range"),
        ("2015-00-01", "out_of_range"),
        ("2015-01-00", "out_of_range"),
        ("2015-04-31", "out_of_range"),
        ("2015-01-01T24:00", "out_of_range"),
        ("2015-01-01T23:60", "out_of_range"),
        ("2015-01-01T23:59:60", "out_of_range"),
        ("2015-01-01T00:00+24:00", "out_of_range"),
        ("2015-01-01T00:00+00:60", "out_of_range"),
        ("2015-5-17", "wrong_type"),
        ("2015-05-17T10", "wrong_type"),
        ("2015-05-17T10:05:03.", "wrong_type"),
        ("2015-05-17T10:05:03.1234567890", "wrong_type"),
        ("2015-05-17Z", "wrong_type"),
        ("2015-05-17t10:05", "wrong_type"),
        ("2015-05-17T10:05z", "wrong_type"),
        ("2015-05-17T10:05 Z", "wrong_type"),
        ("2015-05-17T10:05+1", "wrong_type"),
        ("2015-05-17T10:05+01:0", "wrong_type"),
        ("2015-05-17T10:05+01:", "wrong_type"),
        ("2015-05-17T10:05:0", "wrong_type"),
        ("2015-05-17T10:05Zx", "wrong_type"),
        ("", "wrong_type"),
        ("20150517T1005", "wrong_type"),
        ("٢٠١٥-05-17", "wrong_type"),
    ],
)
def test_iso_8601(text: str, expected: Any) -> None:
    assert one("json", Timestamp("iso8601"), json.dumps({"x": text}, ensure_ascii=False).encode()) == expected


@pytest.mark.parametrize(
    "unit, text, expected",
    [
        ("ms", "1700000000123", 1700000000123000),
        ("ms", "1700000000123.4565", 1700000000123456),
        ("s", "1700000000.1234565", 1700000000123456),
        ("s", "1.7e9", 1700000000_000000),
        ("us", "5.5", 6),
        ("us", "4.5", 4),
        ("s", "-1", "out_of_range"),
        ("s", "-0.0000001", 0),
        ("s", "253402300800", "out_of_range"),
        ("s", "253402300799", 253402300799000000),
        ("ms", '"5"', "wrong_type"),
        ("iso8601", "5", "wrong_type"),
        ("us", "99999999999999999999", "out_of_range"),
    ],
)
def test_numbers_as_time(unit: str, text: str, expected: Any) -> None:
    assert one("json", Timestamp(unit), f'{{"x":{text}}}'.encode()) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("true", 1),
        ("false", 0),
        ("1", "wrong_type"),
        ('"true"', "wrong_type"),
        ("tru", "malformed"),
        ("fals", "malformed"),
        ("True", "malformed"),
    ],
)
def test_booleans(text: str, expected: Any) -> None:
    assert one("json", Bool(), f'{{"x":{text}}}'.encode()) == expected


def test_enums_of_any_size() -> None:
    values = [f"value{number}" for number in range(1000)] + ["a", "aa", "click", "impression", "é"]
    records = records_of([json.dumps({"x": value}).encode() for value in values + ["clic", "", "value1000"]])
    found = decode_both("json", {"x": Enum(*values)}, records)
    assert cells(found.columns["x"])[: len(values)] == list(range(len(values)))
    assert (found.reject[len(values) :] == reasons.NOT_IN_ENUM | 1 << 8).all()


@pytest.mark.parametrize(
    "value, expected",
    [
        (b' \t\r\n{ "x" : "a" , "y" : [ 1 , { } , [ ] ] } \n', "a"),
        (b'{"x":"a","x":"b"}', "b"),
        (b'{"x":"a","x":null}', None),
        (b'{"\\u0078":"a"}', "a"),
        (b'{"x":"a","\\u0078":"b"}', "b"),
        (b"{}", None),
        (b'{"y":{"x":"a"}}', None),
        (b'{"x":"a"} {}', "malformed"),
        (b'{"x":"a"}\0', "malformed"),
        (b'{"x":"a",}', "malformed"),
        (b"{,}", "malformed"),
        (b'{"x"}', "malformed"),
        (b'{"x":}', "malformed"),
        (b'{"x" "a"}', "malformed"),
        (b'{"x":"a" "y":1}', "malformed"),
        (b"{x:1}", "malformed"),
        (b"[]", "malformed"),
        (b'"x"', "malformed"),
        (b"1", "malformed"),
        (b"", "malformed"),
        (b" ", "malformed"),
        (b"{", "malformed"),
        (b"}", "malformed"),
        (b'{"y":[1,]}', "malformed"),
        (b'{"y":[1 2]}', "malformed"),
        (b'{"y":[}', "malformed"),
        (b'{"y":[1}}', "malformed"),
        (b'{"y":{"z":1]}', "malformed"),
        (b'{"y":{1:2}}', "malformed"),
        (b'{"y":01}', "malformed"),
        (b'{"y":[1.]}', "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'{"x":"a"}\x0b', "malformed"),
        (b'{"y":"\\ud800","x":"a"}', "a"),
        (b'{"\\ud800":1,"x":"a"}', "a"),
        (b"{/**/}", "malformed"),
        (b'{"x":"a"', "malformed"),
        (b'{"y":tru}', "malformed"),
        (b'{"":1,"x":"a"}', "a"),
    ],
)
def test_the_record_as_a_whole(value: bytes, expected: Any) -> None:
    assert one("json", X["x"], value) == expected


def test_paths_defaults_and_nulls() -> None:
    fields = {
        "a": Int(path="o.a", default=7),
        "b": Int(path="o.p.b", nullable=True),
        "dotted": Int(path=("o", "x.y"), default=1),
        "again": String(path="o.a", nullable=True),
    }

    def row(text: str) -> Any:
        return outcome(decode_both("json", fields, records_of([text.encode()])))[0]

    assert row('{"o":{"a":1,"p":{"b":2},"x.y":3},"again":"no"}') == reasons.WRONG_TYPE | 4 << 8
    assert row("{}") == (7, None, 1, None)
    assert row('{"o":null}') == row('{"o":[{"a":5}]}') == row('{"o":"a"}') == (7, None, 1, None)
    assert row('{"o":{"a":null}}') == reasons.NULL | 1 << 8
    assert (
        row('{"o":{"p":{"b":1}},"o":{"p":{}}}')
        == row('{"o":{"p":{"b":1}},"o":3}')
        == row('{"o":{"p":{"b":1},"p":null}}')
        == (7, None, 1, None)
    )
    assert row('{"o":{"p":{"b":1}},"o":{"p":{"b":4}}}') == (7, 4, 1, None)
    assert outcome(decode_both("json", {"x": Int()}, records_of([b"{}"]))) == [reasons.MISSING | 1 << 8]


def test_depth_is_limited_whether_or_not_somebody_looks() -> None:
    path = tuple("abcdefghijklmnopqrstuvwxyzABCDEFGH")

    def nested(depth: int, inner: str = "1") -> bytes:
        return ("".join(f'{{"{key}":' for key in path[:depth]) + inner + "}" * depth).encode()

    for fields in (
        {"x": Int(path=path[: reasons.MAX_DEPTH], nullable=True)},
        {"x": Int(nullable=True)},
        {"x": Int(path=path, nullable=True)},
    ):
        codes = decode_both(
            "json",
            fields,
            records_of(
                [
                    nested(31),
                    nested(32),
                    nested(33),
                    nested(32, "[]"),
                    nested(31, "[]"),
                    nested(32, "[[[[bad"),
                    nested(30, "[[["),
                    nested(31, "[1["),
                ]
            ),
        ).reject.tolist()
        assert codes == [0, 0, reasons.TOO_DEEP, reasons.TOO_DEEP, 0, reasons.TOO_DEEP, reasons.TOO_DEEP, reasons.MALFORMED]
    assert outcome(decode_both("json", {"x": Int(path=path[: reasons.MAX_DEPTH])}, records_of([nested(32)]))) == [(1,)]


def test_any_order_of_keys_and_any_number_of_others() -> None:
    values = []
    for round in range(300):
        others = {f"other{round * 7 + number}": number for number in range(round % 9)} | {"k" * (round % 70 + 1): 0}
        items = list((others | {"id": round, "user": {"id": round * 2, "name": "n"}, "ts": 5}).items())
        values.append(json.dumps(dict(items[round % len(items) :] + items[: round % len(items)])).encode())
    found = decode_both("json", {name: FIELDS[name] for name in ("ts", "id", "user")}, records_of(values))
    assert outcome(found) == [(5000, round, round * 2) for round in range(300)]


def test_key_and_record_as_source() -> None:
    fields = {"i": Int(source="key", nullable=True), "v": Int(path="v"), "at": Timestamp("us", source="record")}
    records = records_of([b'{"v":1}'] * 5, [b"12", None, b"1.0", b" 1", b""], [5, 6, 7, 8, -1000])
    assert outcome(decode_both("json", fields, records)) == [(12, 1, 5), (None, 1, 6), *[reasons.WRONG_TYPE | 1 << 8] * 3]
    keys = [b"true", b"false", b"1", b"null", b"\xff", b"2015-05-17", b"1.25", b"click", b"a\xc3\xa9", b"1e3", b"-0"]
    for field in (
        Int(source="key"),
        Bool(source="key"),
        Decimal(2, source="key"),
        Timestamp("s", source="key"),
        Timestamp("iso8601", source="key"),
        String(source="key", max_bytes=4),
        Enum("click", source="key"),
    ):
        decode_both("json", {"x": field}, records_of([None] * len(keys), keys))
    assert outcome(decode_both("json", {"x": Bool(source="key")}, records_of([b"not looked at"] * 3, keys[:3]))) == [
        (1,),
        (0,),
        reasons.WRONG_TYPE | 1 << 8,
    ]
    assert outcome(decode_both("json", {"x": Timestamp("ms", source="record")}, records_of([None] * 2, None, [-1, 7]))) == [
        reasons.OUT_OF_RANGE | 1 << 8,
        (7,),
    ]


def test_no_value_and_no_records() -> None:
    assert outcome(decode_both("json", FIELDS, records_of([None]))) == [reasons.NO_VALUE]
    empty = decode_both("json", FIELDS, records_of([]))
    assert len(empty) == 0 and all(len(column.to_arrow()) == 0 for column in empty.columns.values())
    assert len(decode_both("json", {}, records_of([b"x", None]))) == 2


def test_slices_outside_of_the_buffer_are_refused() -> None:
    for damage in ("start", "length", "negative"):
        records = records_of([b'{"x":"a"}'] * 2)
        records.value_start[1] += {"start": 100, "length": 0, "negative": -1000}[damage]
        records.value_length[1] += 1 if damage == "length" else 0
        with pytest.raises(CorruptionError):
            JsonDecoder(X).decode(records)


def test_what_stands_around_a_record_never_counts() -> None:
    whole = json.dumps(
        {
            "ts": 1700000000123,
            "id": -12345678901234567,
            "user": {"id": 12345678, "name": "名前"},
            "type": "click",
            "cost": 0.007256,
            "ok": True,
            "note": 'a "quoted" text of more than sixteen bytes',
            "x": [1, "é", {"y": None}],
        },
        ensure_ascii=False,
    ).encode()
    cuts = (
        [whole[:length] for length in range(len(whole) + 1)]
        + [b'{"id":' + b"1" * count for count in range(20)]
        + [b'{"id":"', b'{"id"', b'{"id":1,']
    )
    assert_neighbours_never_count("json", cuts, [b"7", b'"', b"}", b" ", b"\\", b"\xff", b"{", b"0.", b"1}", b'"}', b'":1}', b"\0"])


def test_numbers_of_every_length_and_with_the_point_anywhere() -> None:
    digits = "1234567890123456789012"
    texts = [digits[:length] for length in range(1, 23)]
    texts += [f"{text[:at]}.{text[at:]}" for text in texts for at in range(1, len(text))] + [
        f"0.{'0' * zeros}{text}" for zeros in range(5) for text in texts
    ]
    texts += [f"-{text}" for text in texts] + [f"0{text}" for text in texts]
    found = decode_both("json", {"i": Int(path="x", nullable=True)}, records_of([f'{{"x":{text}}}'.encode() for text in texts])).reject
    assert np.count_nonzero(found == 0) == 2 * 19  # 1234567890123456789 still fits int64
    for scale in (0, 6, 12):
        fields = {"d": Decimal(scale, path="x")}
        rows = outcome(decode_both("json", fields, records_of([f'{{"x":{text},"y":{text}}}'.encode() for text in texts])))
        for text, row in zip(texts, rows):
            expected = decimal.Decimal(text).scaleb(scale).to_integral_value(decimal.ROUND_HALF_EVEN)
            if text.lstrip("-").startswith("0") and not text.lstrip("-").startswith("0."):
                assert row == reasons.MALFORMED
            else:
                assert row == ((int(expected),) if abs(expected) < 10**18 else reasons.OUT_OF_RANGE | 1 << 8), text


def test_what_is_expected_never_makes_up_for_what_is_missing() -> None:
    seed = 7
    print(f"seed {seed}")
    rng = random.Random(seed)
    keys = ['"a"', '"b"', '"c"', r'"\u0061"', '"a key that is longer than thirty-two bytes"', '"d"']
    values = [
        "1",
        "-20",
        "0.5",
        "12345678901234567",
        '"v"',
        '"v\\n"',
        '"é"',
        "null",
        "true",
        "[1, 2]",
        "{}",
        '{"c":3}',
        '{ "c" : 4 , "e" : 5 }',
        "01",
        "",
    ]
    commas, colons = [",", ", ", " ,", "\n  , ", "", ",,", ":"], [":", ": ", " : ", "", "::", ","]

    def text(count: int, style: tuple[str, str]) -> str:
        parts = []
        for at in range(count):
            odd = rng.random() < 0.05
            comma = "" if at == 0 and not odd else rng.choice(commas) if odd else style[0]
            key = rng.choice(keys) if rng.random() < 0.3 else keys[at % len(keys)]
            parts.append(
                comma
                + key
                + (rng.choice(colons) if rng.random() < 0.03 else style[1])
                + rng.choice(values[:13] if rng.random() < 0.98 else values)
            )
        return "{" + "".join(parts) + rng.choice(["}"] * 20 + ["", ",}", "} ", "]"])

    styles = [(",", ":"), (", ", ": "), (" ,", " :")]
    rows = [text(rng.randrange(7), styles[at // 100 % 3]).encode() for at in range(3000)]
    fields = {"a": String(nullable=True), "b": Int(nullable=True), "c": Int(path="a.c", nullable=True), "d": Decimal(2, nullable=True)}
    codes = decode_both("json", fields, records_of(rows)).reject
    assert 300 < np.count_nonzero(codes == 0) and 300 < np.count_nonzero(codes == reasons.MALFORMED)
    learned = [
        b'{"a":1,"b":2}',
        b'{,"b":2}',
        b'{"a":1"b":2}',
        rb'{"\u0061":1,"b":2}',
        rb'{"\u0061":1"b":2}',
        b'{"b":2}',
        b'{"a":1,,"b":2}',
        b'{"a":1,"b":2',
        b'{"b":1"b":2}',
    ]
    many = [
        b"{%s}" % b",".join(b'"k%d":1' % (100 * round + number) for number in range(round)) for round in range(0, 90, 30)
    ]  # more keys than are remembered
    for _ in range(200):
        sequence = [rng.choice(learned if rng.random() < 0.9 else many) for _ in range(12)]
        expected = [0 if row in many or row in (learned[0], learned[3], learned[5]) else reasons.MALFORMED for row in sequence]
        decoder = JsonDecoder({"a": Int(nullable=True), "b": Int(nullable=True)})
        assert decoder.decode(records_of(sequence)).reject.tolist() == expected


names = st.sampled_from(
    ["ts", "at", "seconds", "id", "user", "name", "type", "ok", "cost", "a", "b", "c", "note", "x", "other key"]
) | st.text(max_size=5)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 2**41)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["click", "impression", "é", "1.5", "-2e3", "2020-01-01T00:00:00Z", "nobody"])
    | st.decimals(allow_nan=False, allow_infinity=False, places=7).map(float)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6), max_leaves=12)
objects = st.dictionaries(names, values, max_size=12)


@settings(max_examples=30, deadline=None)
@given(st.lists(objects, min_size=1, max_size=6), st.booleans(), st.sampled_from([None, 1]))
@example([{"id": 1, "ts": 1, "cost": 0.5e-6}], True, None)
def test_well_formed_records_decode_as_the_reference_and_orjson_say(rows: list[dict[str, Any]], ascii: bool, indent: int | None) -> None:
    lenient = {"any": String(path="note", nullable=True, max_bytes=65535), "whole": Int(path="id", nullable=True)}
    texts = [json.dumps(row, ensure_ascii=ascii, indent=indent).encode("utf-8", "surrogatepass") for row in rows]
    decode_both("json", FIELDS, records_of(texts))
    found = decode_both("json", lenient, records_of(texts))
    for row, text, reject in zip(range(len(texts)), texts, found.reject.tolist()):
        if not reject:
            expected = json.loads(text) if any(abs(v) >= 2**63 for v in _integers(rows[row])) else orjson.loads(text)
            assert cells(found.columns["any"])[row] == expected.get("note")
            assert cells(found.columns["whole"])[row] == expected.get("id")


def _integers(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [n for inner in value.values() for n in _integers(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in _integers(inner)]
    return [value] if isinstance(value, int) else []


@settings(max_examples=40, deadline=None)
@given(st.lists(objects, min_size=1, max_size=4), st.data())
def test_damaged_records_are_judged_as_the_reference_judges(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    damaged = []
    for row in rows:
        text = bytearray(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.text('{}[]",:\\u0123456789eE.-+ntf \n', max_size=4).map(str.encode)
        )
        damaged.append(bytes(text))
    decode_both("json", FIELDS, records_of(damaged))


numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@settings(max_examples=300, deadline=None)
@given(numbers, st.integers(0, 12))
@example("9300000000E0", 9)
@example("9999999999999999999", 0)
@example("9223372036854775808e0", 0)
def test_decimals_are_exact_to_the_last_half(text: str, scale: int) -> None:
    with decimal.localcontext(decimal.Context(prec=3000, Emax=9999, Emin=-9999)):
        expected = decimal.Decimal(text).scaleb(scale).to_integral_value(decimal.ROUND_HALF_EVEN)
    found = one("json", Decimal(scale), f'{{"x":{text}}}'.encode())
    assert found == ("out_of_range" if abs(expected) >= 10**18 else int(expected))


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(9998, 12, 31)),
    st.timezones() | st.none() | st.just(datetime.timezone(datetime.timedelta(hours=-3, minutes=-30))),
)
def test_instants_are_those_of_datetime(moment: datetime.datetime, zone: datetime.tzinfo | None) -> None:
    offset = zone.utcoffset(moment) if zone else datetime.timedelta(0)
    assert offset is not None
    fixed = datetime.timezone(datetime.timedelta(minutes=offset // datetime.timedelta(minutes=1)))
    text = moment.replace(tzinfo=fixed if zone else None).isoformat()
    expected = moment.replace(tzinfo=fixed) - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    assert one("json", Timestamp("iso8601"), json.dumps({"x": text}).encode()) == expected // datetime.timedelta(microseconds=1)
