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
from penstock.rollup.registry import Registry
from penstock.runner.simulation.oracle import batch, rollup, schema

if TYPE_CHECKING:
    from penstock.runner.simulation.world import World

DATASETS = {"accepted": "events", "late": "events_late", "rejected": "events_rejects"}


class Difference(AssertionError):
    """The world is not as it must be."""


def cells(world: World, partition: int) -> dict[tuple[Any, ...], tuple[int, int, int, bytes]]:
    """What the tables hold of a partition, decoded."""
    plan, found = RollupPlan(rollup), {}
    mine = next(
        shard.key
        for shard, _ in Registry(world.table).shards(world.pairs[0].definition.bolt, world.pairs[0].definition.generation)
        if shard.partition == partition
    )
    prefixes = {kernels.entity_prefix(schema.fields["key"], key) + bytes([b]): b for key in "ab" for b in range(len(rollup.by))}
    for width in rollup.widths():
        span = Granularity(width).span
        for row, columns in world.table.scan(rollup.table(width)):
            breakdown = next(b for prefix, b in prefixes.items() if row.startswith(prefix))
            key, bucket, dimensions = kernels.split_row(plan, breakdown, row)
            for column, value in columns.items():
                _, offset, shard = kernels.split_column(column)
                if shard == mine:
                    events, amount, least, users = kernels.decode_cell(plan, value)
                    found[width, breakdown, bucket * span + offset, key, tuple(dimensions)] = (events, amount, least, users.registers())
    return found


def verify(world: World) -> None:
    """Tables and archive hold what the batch computation gives."""
    for pair, partition, control in world.controls():
        lost = frozenset(itertools.chain.from_iterable(range(a, b) for a, b in control.done.lost))
        expected = batch(world.items[partition], len(world.items[partition]), lost)
        done = control.done
        if (done.offset, done.watermark, done.accepted, done.rejected, done.late, done.skipped) != (
            expected.offset,
            expected.watermark,
            expected.accepted,
            expected.rejected,
            expected.late,
            expected.skipped,
        ):
            raise Difference(f"control cell of {pair.definition.bolt} is wrong: {done}")
        if pair.bolt_cls is RollupBolt:
            if not lost & world.begun[partition]:  # lost after a flush of it began: in some cells only
                canonical = {
                    cell: value
                    for cell, value in expected.cells.items()
                    if cell[0] == rollup.by[cell[1]].widths[0] or (cell[2] + 1) * cell[0] <= control.folded
                }
                compare(cells(world, partition), canonical)
        else:
            check_archive(world, partition, expected.verdicts)


def compare(stored: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Cell for cell."""
    wrong = [(cell, stored.get(cell), expected.get(cell)) for cell in {**stored, **expected} if stored.get(cell) != expected.get(cell)]
    if wrong:
        raise Difference(f"{len(wrong)} cells are wrong, the first (cell, stored, expected): {wrong[0]}")


def check_archive(world: World, partition: int, verdicts: Sequence[str]) -> None:
    """Every record is in its dataset once."""
    for verdict, dataset in DATASETS.items():
        found: list[int] = []
        for hour in world.archive.hours(dataset):
            for entry in world.archive.entries(dataset, hour):
                if entry.shard.endswith(f"-{partition}"):
                    found += (
                        pq.read_table(io.BytesIO(world.archive.read(entry.path)), use_threads=False, pre_buffer=False)
                        .column("log_offset")
                        .to_pylist()
                    )
        if sorted(found) != [offset for offset, one in enumerate(verdicts) if one == verdict]:
            raise Difference(f"the archive's {dataset} of partition {partition} holds offsets {sorted(found)}")
