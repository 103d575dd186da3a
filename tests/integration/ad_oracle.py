"""What the cells of `advertiser_analytics` have to hold, computed from the log by DuckDB and xxhash alone, and what they do hold.

Shared with what is tested: the framing of record batches, and the reading of a cell's bytes.
"""

from __future__ import annotations

import random
from typing import Any

import xxhash

from penstock.demo.reconcile import judged, raw_records
from penstock.deployment import Deployment
from penstock.kernels import RollupPlan, decode_cell, split_column, split_row
from penstock.model.units import DAY
from penstock.rollup.registry import Registry
from penstock.topologies.advertiser_analytics import by_advertiser

FIELDS = {
    "ts": "BIGINT",
    "event_id": "VARCHAR",
    "advertiser_id": "BIGINT",
    "user_id": "BIGINT",
    "type": "VARCHAR",
    "campaign_id": "BIGINT",
    "country": "VARCHAR",
    "device": "VARCHAR",
    "cost": "DECIMAL(18,6)",
}
FITS = " AND ".join(f"{name} IS NOT NULL" for name in ("ts", "event_id", "advertiser_id", "user_id", "campaign_id")) + (
    " AND type IN ('impression', 'click', 'save', 'conversion')"
)
COUNTED = (
    "count(*) FILTER (type = 'impression'), count(*) FILTER (type = 'click'), count(*) FILTER (type = 'save'), "
    "count(*) FILTER (type = 'conversion'), coalesce(sum(cost), 0)::DECIMAL(38,6) * 1000000"
)
COLUMNS = {"campaign": "campaign_id", "country": "coalesce(country, '??')", "device": "coalesce(device, '??')"}
Group = tuple[Any, ...]  # breakdown, width, window, advertiser, dimensions
Cells = dict[Group, list[Any]]  # impressions, clicks, saves, conversions, spend in micros, reach by registers


def held(deployment: Deployment) -> Cells:
    """Every cell in the deployment's tables, those of all shards of the published generation added up; the reach as the merged registers."""
    plan, found = RollupPlan(by_advertiser), Cells()
    generation = bytes.fromhex(Registry(deployment.table).published("advertiser_analytics.rollups"))
    for width in by_advertiser.widths():
        for row, columns in deployment.table.scan(by_advertiser.table(width)):
            breakdown = _breakdown(plan, row)
            advertiser, bucket, dimensions = split_row(plan, breakdown, row)
            for column, value in columns.items():
                made_by, offset, _ = split_column(column)
                if made_by != generation:
                    continue
                span = 3_600_000_000 // width if width < 3_600_000_000 else DAY // width if width < DAY else 32
                group = breakdown, width, bucket * span + offset, advertiser, *dimensions
                *numbers, reach = decode_cell(plan, value)
                known = found.get(group)
                if known is None:
                    found[group] = [*numbers, reach]
                else:
                    known[:5] = [a + b for a, b in zip(known, numbers)]
                    known[5].merge(reach)
    return found


def _breakdown(plan: RollupPlan, row: bytes) -> int:
    """The number after the entity: a hash, then an Int as tag and bytes."""
    return row[2 + row[1] - 0x80]


def check_cells(deployment: Deployment, seed: int, sampled: int = 100) -> dict[str, int]:
    """Compare all cells with the log: each count and sum of each, and the registers of some. Returns how many of each there were."""
    ours = held(deployment)
    registry = Registry(deployment.table)
    raw = raw_records(deployment, deployment.topic("ads"))
    with judged(raw, FIELDS, FITS, "ts * 1000", DAY) as events:
        verdicts = dict(events.execute("SELECT verdict, count(*) FROM events GROUP BY ALL").fetchall())
        shards = registry.shards("advertiser_analytics.rollups", registry.published("advertiser_analytics.rollups"))
        for name in ("accepted", "rejected", "late"):
            assert sum(getattr(control.done, name) for _, control in shards) == verdicts.get(name, 0), name
        for shard, control in shards:
            assert control.done.counted == control.done.offset - control.start, shard
        widths = {(group[0], group[1]) for group in ours}
        finest = {(breakdown, by.widths[0]) for breakdown, by in enumerate(by_advertiser.by)}
        assert finest <= widths, "a breakdown without cells"
        groups: list[Group] = []
        for breakdown, width in sorted(widths):
            names = by_advertiser.by[breakdown].dimensions
            keys = ", ".join([f"event_time // {width} AS w", "advertiser_id", *(COLUMNS[name] for name in names)])
            expected = {
                (breakdown, width, *row[: 2 + len(names)]): [int(number) for number in row[2 + len(names) :]]
                for row in events.execute(f"SELECT {keys}, {COUNTED} FROM events WHERE verdict = 'accepted' GROUP BY ALL").fetchall()
            }
            mine = {group: values for group, values in ours.items() if group[:2] == (breakdown, width)}
            if (breakdown, width) in finest:
                assert mine.keys() == expected.keys(), f"{len(mine)} cells, {len(expected)} groups: {_some(mine.keys() ^ expected.keys())}"
            assert mine.keys() <= expected.keys(), f"cells of nothing: {_some(mine.keys() - expected.keys())}"
            wrong = {group: (values[:5], expected[group]) for group, values in mine.items() if values[:5] != expected[group]}
            # (A coarser cell counts a shard once it is folded; an advertiser's events are all in one shard, since they are keyed by it.)
            assert not wrong, f"{len(wrong)} of {len(mine)} cells: {_some(wrong.items())}"
            groups += mine
        rng = random.Random(seed)
        for group in rng.sample(groups, min(sampled, len(groups))):
            breakdown, width, window, advertiser, *dimensions = group
            where = "".join(f" AND {COLUMNS[name]} = {value!r}" for name, value in zip(by_advertiser.by[breakdown].dimensions, dimensions))
            users = events.execute(
                f"SELECT DISTINCT user_id FROM events WHERE verdict = 'accepted' AND event_time // {width} = ? AND advertiser_id = ?{where}",
                [window, advertiser],
            ).fetchall()
            assert ours[group][5].registers() == registers([user for (user,) in users]), f"seed {seed}: the reach of {group}"
    return {"cells": len(ours), **verdicts}


def registers(users: list[int], precision: int = 11) -> bytes:
    """The registers that docs/cell-format.md says these users come to."""
    found = bytearray(1 << precision)
    for user in users:
        hashed = xxhash.xxh64_intdigest(user.to_bytes(8, "little", signed=True))
        place, rest = hashed >> (64 - precision), hashed & ((1 << (64 - precision)) - 1)
        found[place] = max(found[place], 64 - precision - rest.bit_length() + 1)
    return bytes(found)


def _some(items: Any) -> str:
    return ", ".join(map(str, list(items)[:3]))


__all__ = ["check_cells", "held", "registers"]
