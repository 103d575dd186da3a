"""From bytes to columns: derived columns of every kind, and decoders of one's own."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from typing import Any, Mapping

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import column_of as column_from

from penstock import Bool, Decimal, Enum, Int, Schema, String, Timestamp, derived, kernels
from penstock.errors import CorruptionError, DeclarationError
from penstock.kernels import Columns, Records
from penstock.kernels.encode import encode_list
from penstock.model import Field
from penstock.rollup.reader import Reader, column_of

UTC = dt.timezone.utc
DAY_ONE = 1_577_836_800_000_000  # 2020-01-01

CASES: dict[str, tuple[Field, Any, list[Any]]] = {
    "text": (String(nullable=True), pa.array(["a", None, "ä"]), ["a", None, "ä"]),
    "text with a default": (String(default="?"), pa.array(["a", None]), ["a", "?"]),
    "text of an array's part": (String(default="?"), pa.array(["x", "ab", None, "c", "y"]).slice(1, 3), ["ab", "?", "c"]),
    "large text": (String(default="?"), pa.array(["a"], pa.large_string()), ["a"]),
    "text as a dictionary": (String(nullable=True), pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    "text in chunks": (String(default=""), pa.chunked_array([["a"], ["b", "c"]]), ["a", "b", "c"]),
    "text that is too long": (String(max_bytes=2, default="?"), pa.array(["ä", "ää", "abc"]), ["ä", "?", "?"]),
    "numbers as text": (String(default=""), pa.array([1, 2]), ["1", "2"]),
    "a list": (String(nullable=True), ["a", None], ["a", None]),
    "nothing but nulls": (String(default="x"), pa.nulls(2), ["x", "x"]),
    "whole numbers": (Int(nullable=True), pa.array([1, None, -(2**63)]), [1, None, -(2**63)]),
    "small whole numbers": (Int(default=7), pa.array([1, None], pa.int8()), [1, 7]),
    "whole numbers of numpy": (Int(default=0), np.array([3, 4], np.uint16), [3, 4]),
    "whole floats": (Int(default=0), pa.array([1.0, None]), [1, 0]),
    "floats that are no numbers": (Int(default=-1), pa.array([float("nan"), float("inf"), 1e300]), [-1, -1, -1]),
    "texts of an Enum": (Enum("a", "b", nullable=True), pa.array(["b", None, "a"]), ["b", None, "a"]),
    "texts of an Enum as a dictionary": (Enum("b", "a", default="a"), pa.array(["a", "b", None]).dictionary_encode(), ["a", "b", "a"]),
    "a text that is not in the Enum": (Enum("a", "b", default="b"), pa.array(["a", "zz", None]), ["a", "b", "b"]),
    "a text that is not in the Enum, which may be null": (Enum("a", "b", nullable=True), pa.array(["zz"]), [None]),
    "whole numbers as decimals": (Decimal(6, default=0), pa.array([1, None, -2]), [1_000_000, 0, -2_000_000]),
    "decimals": (Decimal(2, nullable=True), pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-0.01")]), [125, None, -1]),
    "finer decimals, rounded half to even": (
        Decimal(1, default=0),
        pa.array([decimal.Decimal("0.25"), decimal.Decimal("0.35"), decimal.Decimal("-0.25")]),
        [2, 4, -2],
    ),
    "coarser decimals": (Decimal(4, default=0), pa.array([decimal.Decimal("2.5")]), [25_000]),
    "floats as decimals": (Decimal(2, default="0.25"), pa.array([1.5, None, float("nan"), 1e20]), [150, 25, 25, 25]),
    "a decimal of 19 digits": (Decimal(2, nullable=True), pa.array([10**16, 10**16 - 1]), [None, 10**18 - 100]),
    "decimals of an array's part": (
        Decimal(2, nullable=True),
        pa.array([decimal.Decimal("9.99"), decimal.Decimal("1.25"), None]).slice(1, 2),
        [125, None],
    ),
    "decimals, nothing but nulls": (Decimal(2, default=1), pa.nulls(2), [100, 100]),
    "decimals of no record": (Decimal(2, default=1), pa.array([], pa.decimal128(10, 2)), []),
    "truths": (Bool(nullable=True), pa.array([True, None, False]), [1, None, 0]),
    "truths with a default": (Bool(default=True), pa.array([None, False]), [1, 0]),
    "truths as numbers": (Bool(default=False), pa.array([5, 0, None]), [1, 0, 0]),
    "instants": (
        Timestamp(nullable=True),
        pa.array([dt.datetime(2020, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        [DAY_ONE, None],
    ),
    "instants of another zone": (
        Timestamp(default=0),
        pa.array([dt.datetime(2020, 1, 1, tzinfo=UTC)], pa.timestamp("ms", "Europe/Berlin")),
        [DAY_ONE],
    ),
    "instants without a zone": (Timestamp(default=0), pa.array([dt.datetime(2020, 1, 1)], pa.timestamp("s")), [DAY_ONE]),
    "nanoseconds, cut off": (Timestamp(default=0), pa.array([1_999], pa.timestamp("ns")), [1]),
    "days": (Timestamp(default=0), pa.array([dt.date(2020, 1, 1)]), [DAY_ONE]),
    "microseconds": (Timestamp(default=5), pa.array([DAY_ONE, None, -1, Timestamp.LIMIT]), [DAY_ONE, 5, 5, 5]),
    "no record": (String(default=""), pa.array([], pa.string()), []),
}


@pytest.mark.parametrize("field, values, expected", CASES.values(), ids=CASES)
def test_a_derived_column_holds_what_its_function_returned(field: Field, values: Any, expected: list[Any]) -> None:
    column = column_of(values, field, len(expected), "m:f")
    plain = column.to_arrow()
    plain.validate(full=True)
    reference = column_from(field, expected)
    assert plain.to_pylist() == reference.to_arrow().to_pylist()
    assert column.data.dtype == reference.data.dtype
    assert (column.valid is None) == (None not in expected)
    if column.valid is not None:
        assert column.valid.dtype == np.uint8
    if field.kind != "string":
        assert column.data.flags.c_contiguous and column.data.tolist() == reference.data.tolist()


WRONG: dict[str, tuple[Field, Any, str]] = {
    "too few": (String(default=""), pa.array(["a"]), "m:f returned 1 values for 2 records"),
    "too many": (Int(default=0), pa.array([1, 2, 3]), "m:f returned 3 values for 2 records"),
    "text for a number": (Int(default=0), pa.array(["a", "b"]), "m:f returned what is no int"),
    "parts of a number": (Int(default=0), pa.array([1.5, 2.0]), "m:f returned what is no int"),
    "a list for text": (String(default=""), pa.array([["a"], ["b"]]), "m:f returned what is no string"),
    "nothing": (String(default=""), None, "m:f returned what is no string"),
    "one number": (Int(default=0), 5, "m:f returned what is no int"),
    "objects": (String(default=""), [object(), object()], "m:f returned what is no string"),
    "text for an instant": (Timestamp(default=0), pa.array(["2020-01-01", "x"]), "m:f returned what is no timestamp"),
    "text for a truth": (Bool(default=False), pa.array(["perhaps", "x"]), "m:f returned what is no bool"),
}


@pytest.mark.parametrize("field, values, message", WRONG.values(), ids=WRONG)
def test_a_derived_column_of_another_length_or_type_names_its_function(field: Field, values: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=message) as caught:
        column_of(values, field, 2, "m:f")
    assert caught.value.hint


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | st.decimals(-(10**8), 10**8, places=4), max_size=6), st.integers(4, 9))
def test_decimals_come_through_exactly(values: list[decimal.Decimal | None], scale: int) -> None:
    column = column_of(pa.array(values, pa.decimal128(30, 4)), Decimal(scale, nullable=True), len(values), "m:f")
    assert column.to_arrow().to_pylist() == values


@derived(String(nullable=True), of=["ip", "n"])
def network(ip: pa.Array, n: pa.Array) -> pa.Array:
    assert ip.type == pa.string() and n.type == pa.int64()
    return pa.array([None if a == "-" else f"{a.split('.')[0]}/{b}" for a, b in zip(ip.to_pylist(), n.to_pylist())], pa.string())


@derived(Int(default=0), of=["ip"])
def broken(ip: pa.Array) -> pa.Array:
    raise ZeroDivisionError("in the function")


class Words:
    """A decoder of one's own: "ts n ip"."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self.fields = fields

    def decode(self, records: Records) -> Columns:
        rows: list[Any] = [(records.value(row) or b"").decode().split(" ") for row in range(len(records))]
        fits = [len(row) == 3 for row in rows]
        values = {
            "ts": [int(row[0]) * 1000 if ok else 0 for row, ok in zip(rows, fits)],
            "n": [int(row[1]) if ok else 0 for row, ok in zip(rows, fits)],
            "ip": [row[2] if ok else "" for row, ok in zip(rows, fits)],
        }
        return Columns(
            {name: column_from(self.fields[name], values[name]) for name in self.fields},
            np.array([0 if ok else 1 for ok in fits], np.int32),
        )


def schema(format: str = "json", **derive: Any) -> Schema:
    return Schema("s", time="ts", fields={"ts": Timestamp("ms"), "n": Int(), "ip": String()}, derive=derive, format=format)


BATCH = encode_list(
    [json.dumps({"ts": 5, "n": n, "ip": ip}).encode() for n, ip in enumerate(["1.2", "-", "3.4"])] + [b"{"], [9_000_000] * 4
)


def test_derived_columns_are_computed_from_the_decoded_ones_where_they_are_wanted() -> None:
    run = Reader(schema(net=network)).read(BATCH)
    assert run.columns.columns["net"].to_arrow().to_pylist()[:3] == ["1/0", None, "3/2"]
    assert run.columns.reject.tolist()[:3] == [0, 0, 0] and run.columns.reject[3] & 0xFF == kernels.reasons.MALFORMED
    assert "bad" not in Reader(schema(net=network, bad=broken), {"net"}).read(BATCH).columns.columns
    with pytest.raises(ZeroDivisionError, match="in the function"):
        Reader(schema(bad=broken)).read(BATCH)


def test_every_field_is_checked_whether_it_is_wanted_or_not() -> None:
    data = encode_list([b'{"ts": 5, "n": 1, "ip": "x"}', b'{"ts": 5, "n": "one", "ip": "x"}'], [9_000_000] * 2)
    assert (Reader(schema(), {"ip"}).read(data).columns.reject != 0).tolist() == [False, True]


def test_a_decoder_of_ones_own_is_named_by_where_it_is_imported_from() -> None:
    run = Reader(schema(f"{__name__}:Words", net=network)).read(encode_list([b"5 1 10.0.0.1", b"nonsense"], [9_000_000] * 2))
    assert run.columns.columns["ip"].to_arrow().to_pylist()[:1] == ["10.0.0.1"]
    assert run.columns.columns["net"].to_arrow().to_pylist()[:1] == ["10/1"]
    verdict = np.empty(2, np.uint8)
    assert run.judge(0, 2, -(2**62), verdict) == (5_000, 1, 0, 1) and verdict.tolist() == [0, 2]


@pytest.mark.parametrize("name", ["nowhere.at.all:Words", f"{__name__}:Missing"])
def test_a_decoder_that_cannot_be_imported_is_named(name: str) -> None:
    with pytest.raises(DeclarationError, match=f"decoder {name} cannot be imported"):
        Reader(schema(name))


def test_rows_are_found_by_their_offsets() -> None:
    run = Reader(schema()).read(BATCH)
    assert (len(run), run.rows(0, 4), run.rows(1, 3), run.rows(4, 9), run.rows(0, 0)) == (4, (0, 4), (1, 3), (4, 4), (0, 0))


def test_a_batch_that_was_changed_on_its_way_is_an_error_and_not_a_reject() -> None:
    with pytest.raises(CorruptionError):
        Reader(schema()).read(BATCH[:-3] + bytes([BATCH[-3] ^ 1]) + BATCH[-2:])
