"""A shard whose flush puts stamped cells: DESIGN.md, "Exactly once: stamped cells"."""

from __future__ import annotations

import dataclasses
from typing import Iterator, Sequence

import numpy as np

from penstock.kernels import BreakdownKeys, Delta, RollupPlan
from penstock.rollup import heap
from penstock.rollup.calls import Call, Job, until_answered
from penstock.rollup.control import NO_WATERMARK, Progress, ShardId
from penstock.rollup.fold import Folding, index_cell, index_table
from penstock.rollup.memory import CellMemory
from penstock.rollup.reader import Run
from penstock.rollup.shard import Shard, Surroundings
from penstock.table import Cell, Key

MANY = 100_000  # offsets in a flush that leave much behind in memory
CHUNK = 20_000  # cells in one call to the table
MOST_INDEXED = 100_000  # index rows that are known to be written; they are written again if they are not
MEMORY = 16 << 20  # bytes of cells that a shard keeps; more is dropped and read again


@dataclasses.dataclass
class _Piece:
    """One breakdown's part of a flush."""

    plan: RollupPlan
    delta: Delta
    keys: BreakdownKeys
    memory: CellMemory
    stored: list[bytes | None]
    loaded: set[int]


class RollupShard(Shard):
    """The owner of a shard of a RollupBolt: one or more roll-ups of one schema."""

    def __init__(self, identity: ShardId, around: Surroundings, plans: Sequence[RollupPlan]) -> None:
        super().__init__(identity, around)
        self.plans = plans
        self.generation = bytes.fromhex(identity.generation)
        self.deltas: list[Delta] = []
        self.memory: dict[tuple[int, int], CellMemory] = {}
        self.indexed: dict[
            tuple[str, int, int], set[bytes]
        ] = {}  # by roll-up, breakdown and end of the coarse window: rows whose index entry is written

    def open(self) -> None:
        self.deltas = self.new_deltas()
        self.indexed = {}
        # An unfinished flush of an owner before us may have put cells of newer windows. They hold nothing but records that we take
        # again, up to the same end, so that putting them as if they were not there gives the same cells.
        self.memory = {(r, b): CellMemory(self.horizon(b, plan)) for r, plan in enumerate(self.plans) for b in range(len(plan.rollup.by))}

    def horizon(self, breakdown: int, plan: RollupPlan) -> int:
        """The newest window that the durable records reach."""
        return max(self.durable.watermark, NO_WATERMARK) // plan.rollup.by[breakdown].widths[0]

    def new_deltas(self) -> list[Delta]:
        """A part to which records can be added."""
        return [Delta(plan, self.generation, self.identity.key) for plan in self.plans]

    def add(self, run: Run, start: int, stop: int, verdict: np.ndarray) -> None:
        for delta in self.deltas:
            delta.add(run.columns, verdict, start, stop)

    def take_part(self) -> list[Delta]:
        part, self.deltas = self.deltas, self.new_deltas()
        for delta in part:
            delta.freeze()
        return part

    def flush(self) -> Job:
        self.flush_at = self.around.now()
        first = self.durable.offset
        end, deltas = self.cuts[0] if self.cuts else self.cut()
        pieces = yield from self.load(deltas)
        if not (yield from self.swap(self.control, self.next_control(flushing=end.offset, timestamp=self.next_timestamp()))):
            return False
        written = 0
        for piece in pieces:
            written += yield from self.put(piece, end)
        self.done(end, written)
        yield from self.fold()
        self.trim()
        if end.offset - first >= MANY:
            yield Call("release memory", heap.release)
        return True

    def load(self, deltas: Sequence[Delta]) -> Job:
        """The cells that the deltas change, from memory and else from the table."""
        pieces = []
        for r, (plan, delta) in enumerate(zip(self.plans, deltas)):
            for keys in delta.keys():
                memory = self.memory[r, keys.index]
                stored, missing = memory.find(keys)
                for some in chunks(missing):
                    wanted = [(keys.rows[i], keys.columns[i]) for i in some]
                    for i, cell in zip(some, (yield from until_answered(self.get(keys.table, wanted)))):
                        stored[i] = cell
                pieces.append(_Piece(plan, delta, keys, memory, stored, set(missing)))
        return pieces

    def put(self, piece: _Piece, end: Progress) -> Job:
        """Put a breakdown's cells, each new one's index entry before it. Returns how many."""
        keys = piece.keys
        cells = self.merged(piece, end.offset)
        for index_rows in chunks(self.index_rows(piece)):
            yield from until_answered(self.put_call(index_table(piece.plan.rollup), [index_cell(row) for row in index_rows]))
        changed = sorted((row, column, cell) for row, column, cell in zip(keys.rows, keys.columns, cells) if cell is not None)
        for some in chunks(changed):  # in the table's own order, which it takes in fastest
            yield from until_answered(self.put_call(keys.table, some))
        if piece.loaded:
            cells = [stored if cell is None and i in piece.loaded else cell for i, (cell, stored) in enumerate(zip(cells, piece.stored))]
        piece.memory.keep(keys, cells, self.fold_until(end) // keys.width)
        return len(changed)

    def merged(self, piece: _Piece, end: int) -> list[bytes | None]:
        """Each cell with the delta in it; None for one that an owner before us has put with these records in it."""
        return piece.delta.merge(piece.keys.index, piece.stored, end)

    def index_rows(self, piece: _Piece) -> list[bytes]:
        """The index entries that the breakdown's new cells need and that are not known to be there."""
        folding = Folding.of(piece.plan, piece.keys.index, self.generation, self.identity.key)
        if not folding:
            return []
        first, new = folding[0], []
        ends = ((piece.keys.windows * first.finer // first.coarser + 1) * first.coarser).tolist()
        for row, window, end, stored in zip(piece.keys.rows, piece.keys.windows.tolist(), ends, piece.stored):
            if stored is None:
                known = self.indexed.setdefault((piece.plan.rollup.name, piece.keys.index, end), set())
                if row not in known:  # a cell's row and the end of its coarse window tell its index row
                    known.add(row)
                    new.append(first.index_row(row, window))
        return sorted(new)

    def get(self, table: str, keys: list[Key]) -> Call:
        """The call that reads cells."""
        return Call(f"table.get {table}", lambda: self.around.table.get(table, keys))

    def put_call(self, table: str, cells: list[Cell]) -> Call:
        """The call that puts cells at the flush's timestamp."""
        assert self.control is not None
        timestamp = self.control.timestamp
        return Call(f"table.put {table}", lambda: self.around.table.put(table, cells, timestamp))

    # Folding: windows that nothing can change any more, one granularity after the other.

    def fold_until(self, durable: Progress) -> int:
        """Windows that end by this event time cannot change once `durable` is: no record behind it will be accepted."""
        return max(durable.watermark - self.around.reader.schema.lateness, NO_WATERMARK)

    def fold(self) -> Job:
        """Compute the coarser cells of closed windows from the finer ones, which the table lists."""
        until = self.fold_until(self.durable)
        if until <= self.folded:
            return
        for plan in self.plans:
            for breakdown in range(len(plan.rollup.by)):
                for folding in Folding.of(plan, breakdown, self.generation, self.identity.key):
                    yield from folding.run(self.around.table, self.folded, until, self.durable.offset, self.put_call)
        self.folded = until  # with the next compare-and-set

    def trim(self) -> None:
        """Forget what cannot change, and the oldest of the rest if it is too much."""
        until = self.fold_until(self.durable)
        total = sum(memory.nbytes for memory in self.memory.values())
        for (r, breakdown), memory in self.memory.items():
            width = self.plans[r].rollup.by[breakdown].widths[0]
            memory.close(until // width)
            if total > MEMORY:
                memory.shrink(MEMORY * memory.nbytes // total // 2)
        for key in [key for key in self.indexed if key[2] <= until]:
            del self.indexed[key]
        if sum(map(len, self.indexed.values())) > MOST_INDEXED:
            self.indexed.clear()


def chunks(items: list) -> Iterator[list]:  # type: ignore[type-arg]
    """A list in pieces that one call to the table carries."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
