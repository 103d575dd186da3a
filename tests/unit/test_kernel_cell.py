"""Cells and row keys: the documented bytes, round trips, order, and bytes that were damaged."""

from __future__ import annotations

import itertools
import pathlib
import re
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import FASTEST, IMPLEMENTATIONS, REFERENCE, TEXTS, columns_of
from kernel_cells import INT64, PLAN, REGISTERS, SCHEMA, STAMPS, VALUES, cell_bytes, plain, varint

from penstock.errors import CorruptionError, InternalError
from penstock.kernels.plan import RollupPlan
from penstock.model import Bool, By, Count, Decimal, Enum, Field, Int, Rollup, Schema, String, Timestamp

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "cell-format.md"
BOTH = pytest.mark.parametrize("kernels", IMPLEMENTATIONS, ids=lambda kernels: kernels.name)


def documented(name: str) -> bytes:
    """The bytes of an example in the document; notes stand after two spaces."""
    block = re.search(rf"```hex {name}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block, name
    return bytes.fromhex("".join(re.split(r" {2,}", line)[0] for line in block[1].splitlines()))


@BOTH
def test_the_documented_example(kernels: Any) -> None:
    common = {"ts": 1_431_857_103_500_000, "advertiser": 300, "country": "DE"}
    records = [
        {**common, "cost": -150, "user": 1},
        {**common, "cost": None, "user": 2},
        {**common, "ts": 1_431_857_159_999_999, "cost": 20_000, "user": 1},
    ]
    delta = kernels.Delta(PLAN, bytes.fromhex("0011223344556677"), bytes.fromhex("a0a1a2a3a4a5a6a7a8a9aaab"))
    delta.add(columns_of(SCHEMA.columns, records), np.zeros(3, np.uint8), 0, 3)
    keys = delta.keys()[1]
    assert (keys.table, keys.rows, keys.columns) == ("spend_1m", [documented("row")], [documented("column")])
    assert delta.merge(1, [None], 1000) == [documented("cell")]
    assert kernels.split_row(PLAN, 1, documented("row")) == (300, 397_738, ["DE"])
    assert plain(kernels.decode_cell(PLAN, documented("cell")))[:4] == (3, 19_850, -150, None)


@BOTH
def test_a_cell_is_as_documented(kernels: Any) -> None:
    @settings(max_examples=150, deadline=None)
    @given(STAMPS, VALUES, STAMPS)
    def check(stamp: int, values: Any, other: int) -> None:
        cell = cell_bytes(stamp, values)
        assert kernels.cell_stamp(cell) == stamp
        assert kernels.strip_stamp(cell) == cell_bytes(0, values)[:1] + cell_bytes(0, values)[2:]
        assert plain(kernels.decode_cell(PLAN, cell)) == values
        assert kernels.merge_cells(PLAN, [cell], other) == cell_bytes(other, values)

    check()


@BOTH
def test_merging_cells_adds_and_takes_extremes(kernels: Any) -> None:
    small = st.tuples(st.integers(0, 2**60), st.integers(-(2**120), 2**120), st.none() | INT64, st.none() | INT64, REGISTERS)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(small, min_size=1, max_size=4))
    def check(several: list[Any]) -> None:
        merged = plain(kernels.decode_cell(PLAN, kernels.merge_cells(PLAN, [cell_bytes(4, values) for values in several], 9)))
        counts, sums, least, dearest, registers = zip(*several)
        assert merged == (
            sum(counts),
            sum(sums),
            min((one for one in least if one is not None), default=None),
            max((one for one in dearest if one is not None), default=None),
            [max(ranks) for ranks in zip(*registers)],
        )

    check()


@BOTH
def test_what_no_log_can_come_to_is_corrupt(kernels: Any) -> None:
    none = [0] * 64
    for values in ((2**63 - 1, 0, None, None, none), (0, 2**127 - 1, None, None, none), (0, -(2**127), None, None, none)):
        with pytest.raises(CorruptionError, match="overflows"):
            kernels.merge_cells(PLAN, [cell_bytes(1, values)] * 2, 1)
    with pytest.raises(InternalError, match="no cell"):
        kernels.merge_cells(PLAN, [], 1)
    for stamp in (-1, 2**63):
        with pytest.raises(InternalError, match="not an offset"):
            kernels.merge_cells(PLAN, [cell_bytes(1, (0, 0, None, None, none))], stamp)


def outcome(kernels: Any, cell: bytes) -> Any:
    try:
        return kernels.cell_stamp(cell), plain(kernels.decode_cell(PLAN, cell))
    except CorruptionError:
        return CorruptionError


@settings(max_examples=400, deadline=None)
@given(STAMPS, VALUES, st.data())
def test_damaged_cells_are_refused_or_canonical(stamp: int, values: Any, data: st.DataObject) -> None:
    cell = bytearray(cell_bytes(stamp, values))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(cell)))
        if data.draw(st.booleans()):
            cell[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        else:
            del cell[at:]
    damaged = bytes(cell)
    result = outcome(FASTEST, damaged)
    assert result == outcome(REFERENCE, damaged)
    if result is not CorruptionError:
        assert FASTEST.merge_cells(PLAN, [damaged], result[0]) == damaged == cell_bytes(*result)


@BOTH
@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "02",
        "01",
        "0180",
        "018000",
        "01" + "ff" * 9 + "01",
        "0100" + "00" * 5,
        "0100" + "00" * 4 + "01" + "00",
        "0100" + "00" * 4 + "0100",
    ],
)
def test_cells_that_are_not_whole(kernels: Any, damaged: str) -> None:
    with pytest.raises(CorruptionError):
        kernels.decode_cell(PLAN, bytes.fromhex(damaged))


@BOTH
def test_the_larger_form_of_a_sketch_is_refused(kernels: Any) -> None:
    head = cell_bytes(1, (0, 0, None, None, [0] * 64))[:-1]
    sparse_as_dense = head + b"\0" + b"\1" + bytes(47)
    dense_as_sparse = head + varint(65) + b"\1" * 64
    for cell in (
        sparse_as_dense,
        dense_as_sparse,
        head + b"\2" + varint(60),
        head + b"\2" + varint(0),
        head + b"\0" + b"\xff" * 48,
        head + b"\0" + b"\1" * 47,
    ):
        with pytest.raises(CorruptionError):
            kernels.decode_cell(PLAN, cell)


# Row keys

FIELDS: dict[Field, st.SearchStrategy[Any]] = {
    Int(): INT64,
    Timestamp("us"): st.integers(0, Timestamp.LIMIT - 1),
    Decimal(2): st.integers(-(10**18) + 1, 10**18 - 1),
    String(): st.sampled_from(TEXTS) | st.text(max_size=8) | st.text("\0\1\2a", max_size=6),
    Bool(): st.booleans(),
    Enum("a", "a\0", "\1", "b"): st.sampled_from(["a", "a\0", "\1", "b"]),
}


@BOTH
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)
def test_key_values_sort_as_values_and_none_begins_another(kernels: Any, field: Field) -> None:
    @settings(max_examples=80, deadline=None)
    @given(st.lists(FIELDS[field], min_size=2, max_size=8, unique=True))
    def check(values: list[Any]) -> None:
        encoded = {value: kernels.entity_prefix(field, value)[1:] for value in [None, *values]}
        assert sorted(values, key=encoded.__getitem__) == sorted(values)
        assert min(encoded, key=encoded.__getitem__) is None
        assert not any(one.startswith(other) for one, other in itertools.permutations(encoded.values(), 2))
        for value in values:
            prefix = kernels.entity_prefix(field, value)
            assert prefix == REFERENCE.entity_prefix(field, value) and prefix[0] == xxhash.xxh64_intdigest(prefix[1:]) & 255

    check()


KEYED = Schema(
    "keyed",
    time="ts",
    fields={
        "ts": Timestamp("us"),
        "text": String(nullable=True),
        "number": Int(nullable=True),
        "flag": Bool(nullable=True),
        "kind": Enum("x", "\0", nullable=True),
        "name": String(),
        "id": Int(),
    },
)
KEY_PLANS = [
    RollupPlan(
        Rollup(
            "r",
            of=KEYED,
            entity=entity,
            measures={"n": Count()},
            by=[By(keep={"1d": "1y"}), By("text", "number", "flag", "kind", keep={"1h": "1y"})],
        )
    )
    for entity in ("name", "id")
]
ROWS = st.tuples(
    st.sampled_from(range(2)),
    st.text(max_size=4),
    INT64,
    st.integers(0, 2**32 - 1),
    st.tuples(st.none() | st.text("\0\1a", max_size=4), st.none() | INT64, st.none() | st.booleans(), st.sampled_from([None, "x", "\0"])),
)


@BOTH
def test_rows_come_apart_as_they_were_put_together(kernels: Any) -> None:
    @settings(max_examples=150, deadline=None)
    @given(ROWS)
    def check(made_of: Any) -> None:
        which, name, number, bucket, values = made_of
        plan, entity = KEY_PLANS[which], number if which else name
        fields = plan.breakdowns[1].fields
        prefix = kernels.entity_prefix(fields[0], entity)
        for breakdown, dimensions in ((0, []), (1, list(values))):
            row = kernels.row_key(prefix, breakdown, bucket, list(zip(fields[1:], dimensions)))
            assert row == REFERENCE.row_key(prefix, breakdown, bucket, list(zip(fields[1:], dimensions)))
            assert kernels.split_row(plan, breakdown, row) == (entity, bucket, dimensions)
            head, found, tail = kernels.row_parts(plan, breakdown, row)
            assert head == prefix + bytes([breakdown]) and found == bucket and head + found.to_bytes(4, "big") + tail == row
            with pytest.raises(CorruptionError):
                kernels.split_row(plan, 1 - breakdown, row)

    check()


@settings(max_examples=400, deadline=None)
@given(ROWS, st.data())
def test_damaged_rows_are_refused_or_canonical(made_of: Any, data: st.DataObject) -> None:
    which, name, number, bucket, values = made_of
    plan = KEY_PLANS[which]
    fields = plan.breakdowns[1].fields
    row = bytearray(REFERENCE.row_key(REFERENCE.entity_prefix(fields[0], number if which else name), 1, bucket, zip(fields[1:], values)))
    at = data.draw(st.integers(0, len(row)))
    row[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    if at < len(row) and data.draw(st.booleans()):
        del row[at:]
    damaged, results = bytes(row), []
    for kernels in IMPLEMENTATIONS:
        try:
            results.append(kernels.split_row(plan, 1, damaged))
        except CorruptionError:
            results.append(None)
    assert results[0] == results[-1]
    if results[0] is not None:
        entity, found, dimensions = results[0]
        assert FASTEST.row_key(FASTEST.entity_prefix(fields[0], entity), 1, found, list(zip(fields[1:], dimensions))) == damaged


@BOTH
def test_columns_and_limits(kernels: Any) -> None:
    column = kernels.column_key(b"12345678", 0x0102, b"abcdefghijkl")
    assert column == b"12345678\1\2abcdefghijkl" and kernels.split_column(column) == (b"12345678", 0x0102, b"abcdefghijkl")
    for bad in (b"", column[:-1], column + b"x"):
        with pytest.raises(CorruptionError, match="22"):
            kernels.split_column(bad)
    for arguments in (
        (b"1234567", 0, b"abcdefghijkl"),
        (b"12345678", 2**16, b"abcdefghijkl"),
        (b"12345678", -1, b"abcdefghijkl"),
        (b"12345678", 0, b""),
    ):
        with pytest.raises(InternalError):
            kernels.column_key(*arguments)
    for breakdown, bucket in ((256, 0), (-1, 0), (0, 2**32), (0, -1)):
        with pytest.raises(InternalError):
            kernels.row_key(b"x", breakdown, bucket, [])
    with pytest.raises(InternalError, match="64 bits"):
        kernels.entity_prefix(Int(), 2**63)


@BOTH
def test_many_cells_decode_as_each_does(kernels: Any) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(STAMPS, VALUES), max_size=5))
    def check(several: list[Any]) -> None:
        columns = kernels.decode_cells(PLAN, [cell_bytes(stamp, values) for stamp, values in several])
        assert [plain(list(values)) for values in zip(*columns)] == [values for _, values in several]

    check()
    assert kernels.decode_cells(PLAN, []) == [[]] * 5
    with pytest.raises(CorruptionError):
        kernels.decode_cells(PLAN, [cell_bytes(1, (1, 1, None, None, [0] * 64)), b"\1"])
