"""Folding: the cells of a coarser granularity from those of a finer one.

Which cells a closed window holds is listed from the table, never from memory, since another owner may have written them: an index row per coarse
window and cell is written before the first finer cell that it stands for. Index row: generation 8 | shard 12 | breakdown u8 | coarse width in
seconds u32 | window i64, offset by 2**63 | length of head u16 | head | tail, all big-endian, where the cell's row is head | bucket | tail.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import struct
from typing import Callable

from penstock.kernels import RollupPlan, column_key, merge_cells, row_parts, split_column
from penstock.model import Granularity, Rollup
from penstock.model.units import SECOND
from penstock.rollup.calls import Call, Job, until_answered
from penstock.table import Cell, Table

PAGE = 2_000  # index rows listed at a time
INDEX_COLUMN = b"i"
INDEX_SUFFIX = "_index"  # of the table's name; its rows begin with a generation, and not with a hash as those of cells do
_HEAD = struct.Struct(">BIQH")
_BIAS = 2**63


def index_table(rollup: Rollup) -> str:
    """The name of the table that lists a roll-up's cells by coarse window."""
    return rollup.name + INDEX_SUFFIX


def index_cell(row: bytes) -> Cell:
    """The cell that an index row consists of."""
    return row, INDEX_COLUMN, b""


def _page(table: Table, name: str, start: bytes, stop: bytes) -> list[bytes]:
    return [row for row, _ in itertools.islice(table.scan(name, start, stop), PAGE)]


@dataclasses.dataclass(frozen=True)
class Folding:
    """From one granularity of a breakdown to the next coarser one, for one shard."""

    plan: RollupPlan
    breakdown: int
    finer: int  # widths, microseconds
    coarser: int
    coarsest: int | None  # the one after, which needs an index of what this one creates
    generation: bytes
    shard: bytes

    @classmethod
    def of(cls, plan: RollupPlan, breakdown: int, generation: bytes, shard: bytes) -> list[Folding]:
        """A breakdown's foldings, finest first."""
        widths = plan.rollup.by[breakdown].widths
        return [
            cls(plan, breakdown, finer, coarser, after, generation, shard)
            for finer, coarser, after in zip(widths, widths[1:], (*widths[2:], None))
        ]

    def index_start(self, coarser: int, window: int) -> bytes:
        """Where the index rows of a coarse window, and the ones after it, begin."""
        return self.generation + self.shard + _HEAD.pack(self.breakdown, coarser // SECOND, window + _BIAS, 0)[:-2]

    def index_row(self, row: bytes, window: int) -> bytes:
        """The index row that a cell of the finer granularity needs."""
        return self._index_row(row, window * self.finer // self.coarser, self.coarser)

    def _index_row(self, row: bytes, coarse_window: int, coarser: int) -> bytes:
        head, _, tail = row_parts(self.plan, self.breakdown, row)
        packed = _HEAD.pack(self.breakdown, coarser // SECOND, coarse_window + _BIAS, len(head))
        return self.generation + self.shard + packed + head + tail

    def run(self, table: Table, folded: int, until: int, stamp: int, put: Callable[[str, list[Cell]], Call]) -> Job:
        """Fold the windows that end after `folded` and by `until` (event times); `stamp` is the offset that all their records lie before."""
        at, stop = self.index_start(self.coarser, folded // self.coarser), self.index_start(self.coarser, until // self.coarser)
        name = index_table(self.plan.rollup)
        while at < stop:
            call = Call(f"table.scan {name}", functools.partial(_page, table, name, at, stop))
            page: list[bytes] = yield from until_answered(call)
            if not page:
                return
            yield from self.fold_page(table, page, stamp, put)
            at = page[-1] + b"\0"

    def fold_page(self, table: Table, page: list[bytes], stamp: int, put: Callable[[str, list[Cell]], Call]) -> Job:
        """Fold the cells that some index rows stand for."""
        finer, coarser = Granularity(self.finer), Granularity(self.coarser)
        places, rows = [], []
        for index_row in page:
            window, head, tail = self.split(index_row)
            first, last = window * self.coarser // self.finer, (window + 1) * self.coarser // self.finer
            buckets = range(first // finer.span, (last - 1) // finer.span + 1)
            places.append((window, head, tail, first, last, buckets))
            rows += [head + bucket.to_bytes(4, "big") + tail for bucket in buckets]
        source = self.plan.rollup.table(self.finer)
        found = iter((yield from until_answered(Call(f"table.rows {source}", lambda: table.rows(source, rows)))))
        cells, index = [], []
        for window, head, tail, first, last, buckets in places:
            inner = []
            for bucket in buckets:
                for column, value in sorted(next(found).items()):
                    generation, offset, shard = split_column(column)
                    if generation == self.generation and shard == self.shard and first <= bucket * finer.span + offset < last:
                        inner.append(value)
            if inner:
                row = head + (window // coarser.span).to_bytes(4, "big") + tail
                cells.append((row, column_key(self.generation, window % coarser.span, self.shard), merge_cells(self.plan, inner, stamp)))
                if self.coarsest:
                    index.append(index_cell(self._index_row(row, window * self.coarser // self.coarsest, self.coarsest)))
        if index:
            yield from until_answered(put(index_table(self.plan.rollup), index))
        if cells:
            yield from until_answered(put(self.plan.rollup.table(self.coarser), cells))

    def split(self, index_row: bytes) -> tuple[int, bytes, bytes]:
        start = len(self.generation) + len(self.shard)
        _, _, window, length = _HEAD.unpack_from(index_row, start)
        rest = index_row[start + _HEAD.size :]
        return window - _BIAS, rest[:length], rest[length:]
