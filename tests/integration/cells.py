"""A canonical dump of a deployment: what two runs over the same log must agree on, byte for byte."""

from __future__ import annotations

import hashlib

from penstock.deployment import Deployment
from penstock.kernels import strip_stamp
from penstock.rollup.control import CONTROL_TABLE
from penstock.rollup.registry import Registry


def dump_cells(deployment: Deployment) -> dict[str, str]:
    """By table, how many cells it holds and a hash over their keys and values; stamps and timestamps left out."""
    found = {}
    for table in deployment.table.tables():
        if table != CONTROL_TABLE:
            digest, count = hashlib.sha256(), 0
            for row, columns in deployment.table.scan(table):
                for column, value in sorted(columns.items()):
                    for part in (row, column, strip_stamp(value) if value else b""):
                        digest.update(len(part).to_bytes(4, "big") + part)
                    count += 1
            found[table] = f"{count} {digest.hexdigest()}"
    return found


def progress(deployment: Deployment) -> dict[str, tuple[int, ...]]:
    """By shard, where it is and its counts."""
    registry = Registry(deployment.table)
    return {
        shard.row.decode(): (
            c.done.offset,
            c.flushing,
            c.done.watermark,
            c.folded,
            c.done.accepted,
            c.done.rejected,
            c.done.late,
            c.done.skipped,
            c.done.lost_count,
        )
        for bolt in registry.bolts()
        for shard, c in registry.shards(bolt, registry.published(bolt))
    }


def flushing(deployment: Deployment) -> bool:
    """Whether some shard has a flush under way, by its control cell."""
    registry = Registry(deployment.table)
    return any(c.flushing > c.done.offset for bolt in registry.bolts() for _, c in registry.shards(bolt, registry.published(bolt)))


def warehouse_rows(deployment: Deployment, dataset: str) -> list[tuple[object, ...]]:
    """All rows of a loaded dataset, in order of partition and offset."""
    table = deployment.warehouse.query(f'SELECT * FROM "{dataset}" ORDER BY partition_id, log_offset')
    return [tuple(row.values()) for row in table.to_pylist()]
