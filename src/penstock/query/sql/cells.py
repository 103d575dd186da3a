"""Reading the cells of a roll-up for many entities at once: which rows of which table, and the cells of each window that belong together.

Three ways to find the rows, the first of them that can be had: of the entities that are asked for, by their keys; of the time that is asked for, by
the index from which coarser windows are folded, which lists rows by window; else all of the table.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from penstock.errors import QueryError
from penstock.kernels import RollupPlan, entity_prefix, row_key, split_column
from penstock.model import Field, Granularity
from penstock.query.merge import joined
from penstock.query.plan import ALWAYS, cover
from penstock.query.sql.reading import CancelledError, Reading
from penstock.query.standing import Standing
from penstock.rollup.fold import Folding, index_table
from penstock.table import Table

CHUNK = 2_000  # rows asked for by their keys at once

Place = tuple[bytes, bytes, int]  # what stands before a row's bucket, what stands after it, and a window of the width asked for
_Row = tuple[bytes, int, bytes, dict[bytes, bytes]]  # what stands before the bucket, the bucket, what stands after it, the cells


@dataclasses.dataclass(frozen=True)
class CellRequest:
    """Cells of a breakdown. width: of the windows, microseconds. windows: their numbers. narrow: whether that is less than all there are.
    entities: canonical values, None for all of them."""

    breakdown: int
    width: int
    windows: range
    narrow: bool
    entities: Sequence[Any] | None


class CellScan:
    """Reads what a request asks for, of one generation. standing: its shards, as they were before any cell was read."""

    def __init__(self, table: Table, plan: RollupPlan, generation: str, standing: Standing, request: CellRequest, reading: Reading) -> None:
        self.reading = reading
        self.table, self.plan, self.generation, self.request = table, plan, bytes.fromhex(generation), request
        self.widths = plan.rollup.by[request.breakdown].widths
        self.level = self.widths.index(request.width)
        self.cells_read = 0
        self.ranges: dict[int, dict[bytes, list[tuple[int, int]]]] = {}  # by level and shard, event times
        start, stop = request.windows.start * request.width, request.windows.stop * request.width
        for shard, control in standing.shards:
            for one in cover(self.widths, (ALWAYS,) * len(self.widths), self.level, start, stop, control.folded)[0]:
                self.ranges.setdefault(one.level, {}).setdefault(shard.key, []).append((one.start, one.stop))

    def groups(self) -> Iterator[tuple[Place, list[bytes]]]:
        """The cells of each place, to be merged. What is not folded yet is kept in memory; the rest is given row by row."""
        finer: dict[Place, list[bytes]] = {}
        for level in range(self.level):
            for place, cells in self._level(level):
                finer.setdefault(place, []).extend(cells)
        for place, cells in self._level(self.level):
            yield place, cells + finer.pop(place, [])
        yield from finer.items()

    def _level(self, level: int) -> Iterator[tuple[Place, list[bytes]]]:
        """The cells of a level by the windows that they are in; each row's together."""
        if level not in self.ranges:
            return
        width, wanted, ranges = self.widths[level], self.request.width, self.ranges[level]
        span = Granularity(width).span
        for head, bucket, tail, cells in self._rows(level):
            self._count(len(cells))
            found: dict[Place, list[bytes]] = {}
            for column, cell in cells.items():
                generation, offset, shard = split_column(column)
                if generation == self.generation and shard in ranges:
                    time = (bucket * span + offset) * width
                    if any(start <= time < stop for start, stop in ranges[shard]):
                        found.setdefault((head, tail, time // wanted), []).append(cell)
            yield from found.items()

    def _rows(self, level: int) -> Iterator[_Row]:
        if self.request.entities is not None:
            return self._by_entity(level, self.request.entities)
        if level < self.level or (self.request.narrow and len(self.widths) > 1):
            return self._by_index(level)
        return self._all(level)

    def _by_entity(self, level: int, entities: Sequence[Any]) -> Iterator[_Row]:
        span, breakdown = Granularity(self.widths[level]).span, self.request.breakdown
        buckets = {
            (start // self.widths[level] // span, (stop // self.widths[level] - 1) // span)
            for ranges in self.ranges[level].values()
            for start, stop in ranges
        }
        field, name = self.plan.breakdowns[breakdown].fields[0], self.plan.rollup.table(self.widths[level])
        for entity in entities:
            prefix = entity_prefix(field, entity)
            at = len(prefix) + 1
            for first, last in joined(buckets):
                keys = row_key(prefix, breakdown, first, ()), row_key(prefix, breakdown, last + 1, ())
                for row, cells in self.table.scan(name, *keys):
                    yield row[:at], int.from_bytes(row[at : at + 4], "big"), row[at + 4 :], cells

    def _by_index(self, level: int) -> Iterator[_Row]:
        """The rows that the index lists for the windows of the next coarser level; at the coarsest, for the windows themselves."""
        places: set[tuple[bytes, int, bytes]] = set()
        finer = min(level, len(self.widths) - 2)
        span, coarser = Granularity(self.widths[level]).span, self.widths[finer + 1]
        name = index_table(self.plan.rollup)
        for shard, ranges in self.ranges[level].items():
            folding = Folding.of(self.plan, self.request.breakdown, self.generation, shard)[finer]
            for start, stop in ranges:
                begin, end = folding.index_start(coarser, start // coarser), folding.index_start(coarser, -(-stop // coarser))
                for index_row, _ in self.table.scan(name, begin, end):
                    window, head, tail = folding.split(index_row)
                    first = max(window * coarser, start) // self.widths[level] // span
                    last = (min((window + 1) * coarser, stop) // self.widths[level] - 1) // span
                    places.update((head, bucket, tail) for bucket in range(first, last + 1))
                    self._check(len(places))
        ordered, found = iter(sorted(places)), self.plan.rollup.table(self.widths[level])
        while some := list(itertools.islice(ordered, CHUNK)):
            rows = self.table.rows(found, [head + bucket.to_bytes(4, "big") + tail for head, bucket, tail in some])
            yield from ((*place, cells) for place, cells in zip(some, rows) if cells)

    def _all(self, level: int) -> Iterator[_Row]:
        end, breakdown = entity_end(self.plan.breakdowns[self.request.breakdown].fields[0]), self.request.breakdown
        for row, cells in self.table.scan(self.plan.rollup.table(self.widths[level])):
            at = end(row)
            if row[at] == breakdown:
                yield row[: at + 1], int.from_bytes(row[at + 1 : at + 5], "big"), row[at + 5 :], cells
            else:
                self._count(len(cells))

    def _count(self, cells: int) -> None:
        self.cells_read += cells
        self._check(self.cells_read)

    def _check(self, count: int) -> None:
        if self.reading.stopped():
            raise CancelledError("the statement was cancelled")
        if count <= self.reading.most:
            return
        rollup = self.plan.rollup
        raise QueryError(
            f"roll-up {rollup.name}: the statement reads more than {self.reading.most:,} cells",
            hint=f"compare {rollup.entity} with values, or time with instants, in the WHERE of its table; or take a coarser granularity; "
            "--max-read allows more",
        )


def entity_end(field: Field) -> Callable[[bytes], int]:
    """Where the entity's value ends in a row: docs/cell-format.md, "Row key"."""
    if field.kind in ("string", "enum"):
        return lambda row: row.index(b"\0", 1) + 1
    if field.kind == "bool":
        return lambda row: 2
    return lambda row: 2 + abs(row[1] - 0x80)
