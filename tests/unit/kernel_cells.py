"""Cells as the document writes them, for the tests of the kernels that read them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from kernel_cases import INTS

from penstock.kernels.plan import RollupPlan
from penstock.model import By, Count, Decimal, Int, Max, Min, Rollup, Schema, String, Sum, Timestamp, Uniques

SCHEMA = Schema(
    "ads",
    time="ts",
    fields={"ts": Timestamp("us"), "advertiser": Int(), "country": String(nullable=True), "cost": Decimal(2, nullable=True), "user": Int()},
)
PLAN = RollupPlan(
    Rollup(
        "spend",
        of=SCHEMA,
        entity="advertiser",
        by=[By(keep={"1h": "90d"}), By("country", keep={"1m": "3d"})],
        measures={
            "events": Count(),
            "cost": Sum("cost"),
            "least": Min("cost"),
            "dearest": Max("cost", where={"country": "FR"}),
            "users": Uniques("user", precision=6),
        },
    )
)


def varint(value: int) -> bytes:
    groups = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def zigzag(value: int) -> int:
    return value * 2 if value >= 0 else -value * 2 - 1


def sketch_bytes(registers: list[int]) -> bytes:
    """The document's section "A sketch", in binary digits."""
    present = [(index, rank) for index, rank in enumerate(registers) if rank]
    gaps = [index - before - 1 for (index, _), (before, _) in zip(present, [(-1, 0), *present])]
    sparse = b"".join(varint(gap * 64 + rank) for gap, (_, rank) in zip(gaps, present))
    if len(sparse) < len(registers) * 3 // 4:
        return varint(len(present) + 1) + sparse
    digits = "".join(f"{rank:06b}" for rank in reversed(registers))
    return b"\0" + int(digits, 2).to_bytes(len(registers) * 3 // 4, "little")


def cell_bytes(stamp: int, values: tuple[int, int, int | None, int | None, list[int]]) -> bytes:
    events, cost, least, dearest, registers = values
    extremes = b"".join(varint(0 if one is None else zigzag(one) + 1) for one in (least, dearest))
    return b"\1" + varint(stamp) + varint(events) + varint(zigzag(cost)) + extremes + sketch_bytes(registers)


INT64 = st.sampled_from(INTS) | st.integers(-(2**63), 2**63 - 1)
REGISTERS = st.one_of(
    st.lists(st.integers(0, 59), min_size=64, max_size=64),
    st.dictionaries(st.integers(0, 63), st.integers(1, 59), max_size=34).map(lambda some: [some.get(index, 0) for index in range(64)]),
)
VALUES = st.tuples(st.integers(0, 2**63 - 1), st.integers(-(2**127), 2**127 - 1) | INT64, st.none() | INT64, st.none() | INT64, REGISTERS)
STAMPS = st.integers(0, 2**63 - 1) | st.integers(0, 300)


def plain(values: list[Any]) -> tuple[Any, ...]:
    return (*values[:-1], list(values[-1].registers()))
