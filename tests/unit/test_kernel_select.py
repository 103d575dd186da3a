"""What a query takes of rows: cells in one piece, those that it reads, and their windows merged, as a loop over the cells finds them."""

from __future__ import annotations

import bisect
import importlib
import os
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import REFERENCE
from kernel_cells import INT64, PLAN, REGISTERS, cell_bytes, plain

from penstock.errors import CorruptionError, InternalError

UNITS = {
    "reference": ("reference_packed", "reference_select"),
    **({} if os.environ.get("PENSTOCK_KERNELS") == "reference" else {"compiled": ("_packed", "_select")}),
}
BOTH = pytest.mark.parametrize(
    "kernels",
    [
        SimpleNamespace(
            name=name,
            **{k: v for unit in units for k, v in vars(importlib.import_module(f"penstock.kernels.{unit}")).items() if k[0] != "_"},
        )
        for name, units in UNITS.items()
    ],
    ids=lambda kernels: kernels.name,
)
SHARDS, GENERATIONS = [bytes([number] * 12) for number in range(3)], [b"generatn", b"anotherg"]
PLACES = st.tuples(st.sampled_from(GENERATIONS), st.integers(0, 40), st.sampled_from(SHARDS))
RANGES = st.dictionaries(st.sampled_from(SHARDS[:2]), st.sampled_from([[(90, 145)], [(90, 101), (110, 137)], [(100, 100)], []]))
WINDOWS = st.sampled_from([([90], 60), (range(88, 150, 4), 4), ([90, 97, 131], 0), ([90], 0)])
BASE = 100
# As far from overflowing as the cells of a log are.
VALUES = st.tuples(st.integers(0, 2**50), st.integers(-(2**100), 2**100) | INT64, st.none() | INT64, st.none() | INT64, REGISTERS)
CELLS = VALUES.map(lambda values: cell_bytes(7, values))


@BOTH
@given(st.dictionaries(st.binary(max_size=30), st.binary(max_size=300)))
@settings(deadline=None)
def test_packed_cells_are_unpacked_again(kernels: Any, cells: dict[bytes, bytes]) -> None:
    packed = kernels.pack_cells(cells)
    assert kernels.unpack_cells(packed) == cells and list(kernels.unpack_cells(packed)) == list(cells)
    assert packed == b"".join(len(one).to_bytes(2, "big") + one + len(cell).to_bytes(4, "big") + cell for one, cell in cells.items())
    for cut in range(1, min(len(packed), 40)):
        try:
            found = kernels.unpack_cells(packed[:-cut])
        except InternalError:
            continue
        assert kernels.pack_cells(found) == packed[:-cut]  # cut between two cells


@BOTH
def test_a_column_of_64_KiB_is_not_packed(kernels: Any) -> None:
    assert kernels.unpack_cells(kernels.pack_cells({b"c" * 65_535: b""})) == {b"c" * 65_535: b""}
    with pytest.raises(InternalError):
        kernels.pack_cells({b"c" * 65_536: b""})


def column(place: tuple[bytes, int, bytes]) -> bytes:
    generation, offset, shard = place
    return generation + offset.to_bytes(2, "big") + shard


def window(place: tuple[bytes, int, bytes], ranges: dict[bytes, Any], windows: tuple[Any, int]) -> int | None:
    """Which window of the answer a cell is read for; None if it is not."""
    generation, offset, shard = place
    starts, step = windows
    every = [starts[0] + step * number for number in range(len(starts))] if step else starts
    read = generation == GENERATIONS[0] and any(start <= BASE + offset < stop for start, stop in ranges.get(shard, ()))
    return bisect.bisect_right(every, BASE + offset) - 1 if read else None


@BOTH
def test_the_cells_that_a_query_reads_go_to_their_windows(kernels: Any) -> None:
    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.lists(PLACES, max_size=30, unique=True), max_size=3), RANGES, WINDOWS)
    def check(rows: list[Any], ranges: dict[bytes, Any], windows: tuple[Any, int]) -> None:
        groups: dict[Any, list[bytes]] = {}
        expected: dict[Any, list[bytes]] = {}
        wanted, starts = kernels.Wanted(GENERATIONS[0], ranges), kernels.Starts(*windows)
        for number, places in enumerate(rows):
            packed = kernels.pack_cells({column(place): bytes([number, place[1]]) for place in places})
            kernels.select_cells(groups, ("a", number), packed, BASE, 1, wanted, starts)
            for place in places:
                at = window(place, ranges, windows)
                if at is not None:
                    begin = windows[0][0] + at * windows[1] if windows[1] else windows[0][at]
                    expected.setdefault((begin, ("a", number)), []).append(bytes([number, place[1]]))
        assert groups == expected

    check()


@BOTH
def test_a_series_is_the_merge_of_each_windows_cells(kernels: Any) -> None:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.dictionaries(PLACES, CELLS, max_size=8), max_size=3), RANGES, WINDOWS)
    def check(rows: list[Any], ranges: dict[bytes, Any], windows: tuple[Any, int]) -> None:
        wanted, starts = kernels.Wanted(GENERATIONS[0], ranges), kernels.Starts(*windows)
        series, expected, every = kernels.Series(PLAN, starts), {}, []
        for cells in rows:
            series.add(kernels.pack_cells({column(place): cell for place, cell in cells.items()}), BASE, 1, wanted)
            for place, cell in cells.items():
                at = window(place, ranges, windows)
                if at is not None:
                    expected.setdefault(at, []).append(cell)
                    every.append(cell)
        assert series.cells == len(every)
        assert [plain(list(state)) for state in zip(*series.total())] == [one(every)]
        assert [plain(list(state)) for state in zip(*series.columns())] == [one(expected.get(at, [])) for at in range(len(windows[0]))]

    def one(cells: list[bytes]) -> tuple[Any, ...]:
        return plain(REFERENCE.decode_cell(PLAN, REFERENCE.merge_cells(PLAN, cells, 0)) if cells else REFERENCE.empty(PLAN.measures))

    check()


@BOTH
def test_what_no_rollup_wrote_is_refused(kernels: Any) -> None:
    wanted, starts = kernels.Wanted(GENERATIONS[0], {SHARDS[0]: [(0, 200)]}), kernels.Starts([100], 0)
    with pytest.raises(CorruptionError, match="22"):
        kernels.select_cells({}, (), kernels.pack_cells({b"short": b""}), 0, 1, wanted, starts)
    with pytest.raises(CorruptionError):
        kernels.Series(PLAN, starts).add(kernels.pack_cells({column((GENERATIONS[0], 7, SHARDS[0])): b"\1"}), BASE, 1, wanted)
    for packed in (b"\0", b"\0\5abc", b"\0\0\0\0\0\7abc"):
        with pytest.raises(InternalError):
            kernels.select_cells({}, (), packed, BASE, 1, wanted, starts)
        with pytest.raises(InternalError):
            kernels.Series(PLAN, starts).add(packed, BASE, 1, wanted)
    for what in (lambda: kernels.Wanted(b"short", {}), lambda: kernels.Wanted(GENERATIONS[0], {b"s": []}), lambda: kernels.Starts([], 1)):
        with pytest.raises(InternalError):
            what()
    early = kernels.pack_cells({column((GENERATIONS[0], 3, SHARDS[0])): b""})
    with pytest.raises(InternalError, match="window"):
        kernels.select_cells({}, (), early, 0, 1, wanted, starts)  # 3 lies before 100, where the answer begins
    with pytest.raises(InternalError, match="window"):
        kernels.select_cells({}, (), early, 150, 1, wanted, kernels.Starts([100], 10))
