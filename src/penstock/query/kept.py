"""Rows kept in memory, for as long as nothing was committed that could have changed them.

A row changes when its shards commit: the finest granularity's with every flush, the coarser ones' when windows are folded. The control cells say both, and a reader
looks at them first, so that a row that was read under the same control cells is what the table holds as far as an answer claims. Windows that are folded never
change again: their rows stay whatever is committed.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from penstock.kernels import pack_cells
from penstock.table import Table

MAX_BYTES = 64 << 20
_OVERHEAD = 400  # bytes of memory that a row takes beside its key and its cells, about

Row = tuple[bytes, bytes]  # its key, and its cells in one piece


@dataclasses.dataclass(frozen=True)
class State:
    """What a reader knows of a table's rows. generation: whose cells it looks for. token: of the commits that could change any of them; stays the same while nothing
    does. It is to be taken before the rows are read."""

    generation: bytes
    token: Hashable


class RowCache:
    """What tables hold under some keys, each with the state that it was read in.

    max_bytes: of memory, about; what was used longest ago goes first; 0 keeps nothing. max_age: seconds after which a row is read anew in any case, because what
    retention or somebody's hand has dropped leaves no trace in control cells. Safe for use by several threads.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_age: float = 300.0) -> None:
        self.max_bytes, self.max_age = max_bytes, max_age
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[tuple[Any, ...], _Entry] = collections.OrderedDict()
        self._bytes = 0

    def rows(self, table: Table, asked: Sequence[Keyed]) -> list[list[bytes]]:
        """Rows by their keys, packed: from memory, and of all that are not there in one request."""
        found: list[list[bytes | None]] = []
        now, kept = time.monotonic(), self._kept
        with self._lock:
            for one in asked:
                state, some = one.state, []
                for row in one.rows:
                    entry = kept.get((one.table, row))
                    if entry is not None and entry.holds(state, now):
                        kept.move_to_end((one.table, row))
                        some.append(entry.value)
                    else:
                        some.append(None)
                found.append(some)
        missing = [[place for place, value in enumerate(some) if value is None] for some in found]
        wanted = [(number, places) for number, places in enumerate(missing) if places]
        if wanted:
            read = table.packed_rows([(asked[number].table, [asked[number].rows[place] for place in places]) for number, places in wanted])
            for (number, places), values in zip(wanted, read):
                one = asked[number]
                for place, value in zip(places, values):
                    found[number][place] = value
                    self._keep((one.table, one.rows[place]), value, len(value), one.state, place < one.final, now)
        return found  # type: ignore[return-value]

    def scan(self, table: Table, asked: Ranged) -> Iterator[Row]:
        """The rows of a range, packed. One that is read to its end is kept as a whole."""
        place, now = (asked.table, asked.start, asked.stop), time.monotonic()
        with self._lock:
            entry = self._kept.get(place)
            if entry is not None and entry.holds(asked.state, now):
                self._kept.move_to_end(place)
                return iter(entry.value)
        return self._read(table, asked, place, now)

    def _read(self, table: Table, asked: Ranged, place: tuple[Any, ...], now: float) -> Iterator[Row]:
        rows: list[Row] = []
        size = 0
        for row, cells in table.scan(asked.table, asked.start, asked.stop):
            packed = pack_cells(cells)
            size += len(row) + len(packed) + _OVERHEAD
            if size <= self.max_bytes:
                rows.append((row, packed))
            yield row, packed
        self._keep(place, rows, size, asked.state, asked.final, now)

    def _keep(self, place: tuple[Any, ...], value: Any, size: int, state: State, final: bool, now: float) -> None:
        size += sum(map(len, place)) + _OVERHEAD
        if size > self.max_bytes:
            return
        with self._lock:
            before = self._kept.pop(place, None)
            self._kept[place] = _Entry(value, size, state, final, now + self.max_age)
            self._bytes += size - (0 if before is None else before.size)
            while self._bytes > self.max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].size

    def clear(self) -> None:
        """Forget all rows."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0


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


class _Entry:
    __slots__ = ("expires", "final", "size", "state", "value")

    def __init__(self, value: Any, size: int, state: State, final: bool, expires: float) -> None:
        self.value, self.size, self.state, self.final, self.expires = value, size, state, final, expires

    def holds(self, state: State, now: float) -> bool:
        if now >= self.expires:
            return False
        mine = self.state
        return mine is state or (mine.generation == state.generation and (self.final or mine.token == state.token))
