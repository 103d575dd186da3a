"""Rows kept in memory, for as long as nothing was committed that could have changed them.

A row changes when its shards commit: the finest granularity's with every flush, the coarser ones' when windows are folded. The control cells say both, and a reader
looks at them first, so that a row that was read under the same control cells is what the table holds as far as an answer claims. Windows that all shards have folded
change no more, whatever is committed: their rows stay, until there is another shard.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NoReturn

from penstock.kernels import pack_cells
from penstock.query.bounded import Bounded
from penstock.table import Table

MAX_BYTES = 64 << 20
_OVERHEAD = 400  # bytes of memory that a row takes beside its key and its cells, about

Row = tuple[bytes, bytes]  # its key, and its cells in one piece


@dataclasses.dataclass(frozen=True)
class State:
    """What a reader knows of a table's rows, taken before they are read. generation, shards: whose cells it looks for. token: of the commits that could change any of
    them; stays the same while nothing does."""

    generation: bytes
    shards: Hashable
    token: Hashable


@dataclasses.dataclass(frozen=True)
class Keyed:
    """Rows of a table. final: of how many, the first ones, all windows are folded."""

    table: str
    rows: Sequence[bytes]
    state: State
    final: int


@dataclasses.dataclass(frozen=True)
class Ranged:
    """The rows of a table from start up to, not including, stop. final: whether all their windows are folded."""

    table: str
    start: bytes
    stop: bytes
    state: State
    final: bool


class NotKept(Exception):
    """Something would have to be read."""


class Unread:
    """Stands for a table that is not to be asked: raises NotKept."""

    def packed_rows(self, asked: object) -> NoReturn:
        """See `Table.packed_rows`."""
        raise NotKept

    def scan(self, table: str, start: bytes, stop: bytes) -> NoReturn:
        """See `Table.scan`."""
        raise NotKept


class RowCache:
    """What tables hold under some keys, each with the state that it was read in.

    max_bytes: of memory, about; what was used longest ago goes first; 0 keeps nothing. max_age: seconds after which a row is read anew in any case, because what
    retention or somebody's hand has dropped leaves no trace in control cells. Safe for use by several threads.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_age: float = 300.0) -> None:
        self._lock = threading.Lock()
        self._kept: Bounded[tuple[Any, ...], tuple[Any, int]] = Bounded(
            max_bytes, max_age
        )  # with the number of the state that it was read in
        self._states: dict[tuple[str, bytes], tuple[State, tuple[int, int]]] = {}
        self._fresh = itertools.count(1).__next__

    def rows(self, table: Table, asked: Sequence[Keyed]) -> list[list[bytes]]:
        """Rows by their keys, packed: from memory, and of all that are not there in one request."""
        now = time.monotonic()
        with self._lock:
            states = [self._numbers(one.table, one.state) for one in asked]
            found = [[self._find((one.table, row), numbers, now) for row in one.rows] for one, numbers in zip(asked, states)]
        missing = [[place for place, value in enumerate(some) if value is None] if None in some else [] for some in found]
        wanted = [(number, places) for number, places in enumerate(missing) if places]
        if wanted:
            read = table.packed_rows([(asked[number].table, [asked[number].rows[place] for place in places]) for number, places in wanted])
            for (number, places), values in zip(wanted, read):
                one = asked[number]
                for place, value in zip(places, values):
                    found[number][place] = value
                    self._keep((one.table, one.rows[place]), value, len(value), states[number][place < one.final], now)
        return found

    def scan(self, table: Table, asked: Ranged) -> Iterator[Row]:
        """The rows of a range, packed. One that is read to its end is kept as a whole."""
        place, now = (asked.table, asked.start, asked.stop), time.monotonic()
        with self._lock:
            numbers = self._numbers(asked.table, asked.state)
            found = self._find(place, numbers, now)
        return iter(found) if found is not None else self._read(table, asked, place, numbers[asked.final], now)

    def _read(self, table: Table, asked: Ranged, place: tuple[Any, ...], number: int, now: float) -> Iterator[Row]:
        rows: list[Row] = []
        size = 0
        for row, cells in table.scan(asked.table, asked.start, asked.stop):
            packed = pack_cells(cells)
            size += len(row) + len(packed) + _OVERHEAD
            if size <= self._kept.max_bytes:
                rows.append((row, packed))
            yield row, packed
        self._keep(place, tuple(rows), size, number, now)

    def _numbers(self, table: str, state: State) -> tuple[int, int]:
        """The number of what is read in this state, until it is another; and that of what changes no more, until there is another shard. With the lock."""
        before, numbers = self._states.get((table, state.generation), (None, (0, 0)))
        if before == state:
            return numbers
        same_shards = before is not None and before.shards == state.shards
        numbers = self._fresh(), numbers[1] if same_shards else self._fresh()
        self._states[table, state.generation] = state, numbers
        return numbers

    def _find(self, place: tuple[Any, ...], numbers: tuple[int, int], now: float) -> Any:
        """What is kept and was read in one of these states; None for nothing. With the lock."""
        found = self._kept.get(place, now)
        return found[0] if found is not None and found[1] in numbers else None

    def _keep(self, place: tuple[Any, ...], value: Any, size: int, number: int, now: float) -> None:
        with self._lock:
            self._kept.put(place, (value, number), size + sum(map(len, place)) + _OVERHEAD, now)

    def clear(self) -> None:
        """Forget all rows."""
        with self._lock:
            self._kept.clear()
