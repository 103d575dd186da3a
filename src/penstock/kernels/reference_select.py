"""What a query takes of the rows it reads, in plain Python: see `penstock.kernels._select`."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.errors import InternalError
from penstock.kernels.plan import RollupPlan
from penstock.kernels.reference_group import decode_cell, empty, merge, split_column
from penstock.kernels.reference_packed import unpack_cells


class Wanted:
    """Which cells a query reads of a granularity."""

    def __init__(self, generation: bytes, ranges: Mapping[bytes, Sequence[tuple[int, int]]]) -> None:
        if len(generation) != 8 or any(len(shard) != 12 for shard in ranges):
            raise InternalError(f"generation {generation!r} or a shard of {list(ranges)!r} is not 8 bytes, or 12")
        self.generation, self.ranges = generation, ranges

    def taken(self, packed: bytes, base: int, width: int) -> Iterator[tuple[int, bytes]]:
        """Where the windows start of the cells that are read of a row, and the cells."""
        for column, cell in unpack_cells(packed).items():
            whose, offset, shard = split_column(column)
            time = base + offset * width
            if whose == self.generation and any(start <= time < stop for start, stop in self.ranges.get(shard, ())):
                yield time, cell


class Starts:
    """Where an answer's windows start, in order."""

    def __init__(self, starts: Sequence[int], step: int) -> None:
        if not len(starts) or step < 0:
            raise InternalError("there is no window")
        self.starts = range(starts[0], starts[0] + step * len(starts), step) if step else starts

    def place(self, time: int) -> int:
        """Which window an event time lies in."""
        if time < self.starts[0] or (isinstance(self.starts, range) and time >= self.starts.stop):
            raise InternalError(f"event time {time} lies in no window of the answer")
        return bisect.bisect_right(self.starts, time) - 1


def select_cells(
    groups: dict[tuple[int, Any], list[bytes]], group: Any, packed: bytes, base: int, width: int, wanted: Wanted, starts: Starts
) -> None:
    """Add the cells of a row that a query reads to the lists of their windows."""
    for time, cell in wanted.taken(packed, base, width):
        groups.setdefault((starts.starts[starts.place(time)], group), []).append(cell)


class Series:
    """The merged state of each window of an answer that has no groups."""

    def __init__(self, plan: RollupPlan, starts: Starts) -> None:
        self.cells = 0
        self._plan, self._starts = plan, starts
        self._states = [empty(plan.measures) for _ in starts.starts]

    def add(self, packed: bytes, base: int, width: int, wanted: Wanted) -> None:
        """Merge the cells of a row that a query reads into the windows."""
        for time, cell in wanted.taken(packed, base, width):
            merge(self._plan.measures, self._states[self._starts.place(time)], decode_cell(self._plan, cell))
            self.cells += 1

    def total(self) -> list[list[Any]]:
        """For each stored measure, in order, its value over all windows, in a list. Not after `columns`. Raises CorruptionError where a sum overflows."""
        whole = empty(self._plan.measures)
        for state in self._states:
            merge(self._plan.measures, whole, state)
        return [[value] for value in whole]

    def columns(self) -> list[list[Any]]:
        """For each stored measure, in order, its value in every window, as `decode_cell` has them. Once: sketches go to the caller."""
        return [[state[place] for state in self._states] for place in range(len(self._plan.measures))]
