"""What must hold in the simulator's world: tables and archive are what the oracle's batch computation gives."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING, Any, Sequence

import pyarrow.parquet as pq

from penstock import kernels
from penstock.bolts.rollup import RollupBolt
from penstock.kernels import RollupPlan
from penstock.model import Granularity
from penstock.rollup.control import Control, Progress, ShardId
from penstock.runner.simulation.oracle import LATENESS, Batch, batch, rollup, schema

if TYPE_CHECKING:
    from penstock.runner.simulation.world import World

DATASETS = {"accepted": "events", "late": "events_late", "rejected": "events_rejects"}
PLAN = RollupPlan(rollup)
Cells = dict[tuple[Any, ...], tuple[int, int, int, bytes]]


class Difference(AssertionError):
    """The world is not as it must be."""


def cells(world: World, mine: ShardId) -> Cells:
    """What the tables hold of a shard, decoded."""
    found, key_bytes = {}, mine.key
    prefixes = {kernels.entity_prefix(schema.fields["key"], key) + bytes([b]): b for key in "ab" for b in range(len(rollup.by))}
    for width in rollup.widths():
        span = Granularity(width).span
        for row, columns in world.table.scan(rollup.table(width)):
            breakdown = next(b for prefix, b in prefixes.items() if row.startswith(prefix))
            key, bucket, dimensions = kernels.split_row(PLAN, breakdown, row)
            for column, value in columns.items():
                _, offset, shard = kernels.split_column(column)
                if shard == key_bytes:
                    events, amount, least, users = kernels.decode_cell(PLAN, value)
                    found[width, breakdown, bucket * span + offset, key, tuple(dimensions)] = (events, amount, least, users.registers())
    return found


def verify(world: World) -> None:
    """Tables and archive hold what the batch computation gives: for a topic that was deleted, as far as it was read."""
    for pair, shard, control in world.controls():
        items, done = world.feed.of(shard).items, control.done
        lost = frozenset(itertools.chain.from_iterable(range(a, b) for a, b in done.lost))
        expected = batch(items, done.offset, lost)
        if done != Progress(
            expected.offset, expected.watermark, expected.accepted, expected.rejected, expected.late, expected.skipped, done.lost
        ):
            raise Difference(f"control cell of {pair.definition.bolt} is wrong: {done}")
        if pair.bolt_cls is not RollupBolt:
            check_archive(world, shard, expected.verdicts, control)
        elif not disputed(world, shard, control, lost):
            # A flush that was under way when its topic was deleted is in some cells and not in others, for ever; and so is its fold.
            begun = batch(items, max(done.offset, control.flushing), lost)
            folded = control.folded if world.finishes(shard) else max(control.folded, begun.watermark - LATENESS)
            compare(cells(world, shard), canonical(expected, control.folded), canonical(begun, folded))


def disputed(world: World, shard: ShardId, control: Control, lost: frozenset[int]) -> bool:
    """Whether retention took records after a flush of them had begun, so that they are in some cells only; or may have, where that flush never ends."""
    return bool(lost & world.begun[shard]) or (world.feed.lossy and control.flushing > control.done.offset)


def canonical(expected: Batch, folded: int) -> Cells:
    """The cells that are in the table: the finest ones, and of the others those that are folded."""
    return {
        cell: value
        for cell, value in expected.cells.items()
        if cell[0] == rollup.by[cell[1]].widths[0] or (cell[2] + 1) * cell[0] <= folded
    }


def compare(stored: Cells, *allowed: Cells) -> None:
    """Cell for cell: each is as in one of the results allowed."""
    wrong = [
        (cell, stored.get(cell), [one.get(cell) for one in allowed])
        for cell in {**stored, **allowed[-1]}
        if not any(stored.get(cell) == one.get(cell) for one in allowed)
    ]
    if wrong:
        raise Difference(f"{len(wrong)} cells are wrong, the first (cell, stored, expected): {wrong[0]}")


def check_archive(world: World, shard: ShardId, verdicts: Sequence[str], control: Control) -> None:
    """Every record is in its dataset once. What the control cell of a topic that was deleted still lists is not in the index yet."""
    for verdict, dataset in DATASETS.items():
        found: list[int] = []
        entries = [entry for hour in world.archive.hours(dataset) for entry in world.archive.entries(dataset, hour)]
        entries += [entry for entry in control.files if entry.dataset == dataset and entry not in entries]
        for entry in entries:
            if entry.shard == shard.name:
                table = pq.read_table(io.BytesIO(world.archive.read(entry.path)), use_threads=False, pre_buffer=False)
                found += table.column("log_offset").to_pylist()
        if sorted(found) != [offset for offset, one in enumerate(verdicts) if one == verdict]:
            raise Difference(f"the archive's {dataset} of partition {shard.partition} holds offsets {sorted(found)}")


def check_swap(world: World, shard: ShardId, old: Control, new: Control) -> None:
    """Nothing goes back, and every offset is counted."""
    if not (old.done.offset <= new.done.offset and old.done.watermark <= new.done.watermark and old.folded <= new.folded):
        raise Difference("committed, watermark or folded went back")
    if new.done.counted != new.done.offset - new.start:
        raise Difference("counts are not offsets")
    world.begun[shard].update(range(new.done.offset, new.flushing))


def check_ack(world: World, values: Sequence[Any]) -> None:
    """What is acked must be in the table."""
    if world.feed.lossy:
        return
    pair = world.clusters[0].pair
    shard = ShardId(pair.definition.bolt, pair.definition.generation, values[1], values[0], values[2])
    stored = cells(world, shard)
    for cell, (events, *_) in batch(world.feed.of(shard).items, values[5]).cells.items():
        if cell[0] == rollup.by[cell[1]].widths[0] and stored.get(cell, (0,))[0] < events:
            raise Difference("acked, and not durable")
