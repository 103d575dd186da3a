"""What one would write instead: plain loops over the records' values, and msgspec with polars.

Over a list each is favoured: it is given the values as a list of bytes, so that it fetches nothing, checks no checksum and decompresses nothing; a malformed record
would end it; it makes nothing durable. The loops compute what the roll-up computes: exact sums, and what is late apart. msgspec and polars do
not: they add floats, rounded to millionths when compared.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Sequence

import datasketches
import msgpack
import msgspec
import orjson
import polars as pl

from bench.answers import Answer
from bench.workload import KEPT, PRECISION, Workload

_MINUTE_MS, _LATENESS_MS, _MICROS = 60_000, 86_400_000, 1_000_000
POLARS_BATCH = 1 << 14  # events to a frame
LOADS: dict[str, Callable[[bytes], Any]] = {"json": orjson.loads, "msgpack": msgpack.unpackb}


class Loop:
    """Decode a value, tell whether it is late, look its group up in a dict, add in whole millionths. load: `orjson.loads` or `msgpack.unpackb`."""

    def __init__(self, values: Iterable[bytes], load: Callable[[bytes], Any]) -> None:
        self.values, self.load = values, load
        self.groups: dict[tuple[int, str, int], list[Any]] = {}
        self.late = 0

    def run(self) -> None:
        """Count and sum."""
        load, groups, kept, newest = self.load, self.groups, KEPT, 0
        for value in self.values:
            event = load(value)
            ts = event["ts"]
            if ts > newest:
                newest = ts
            elif ts < newest - _LATENESS_MS:
                self.late += 1
                continue
            kind = event["type"]
            if kind in kept:
                key = event["advertiser_id"], kind, ts // _MINUTE_MS
                group = groups.get(key)
                if group is None:
                    group = groups[key] = [0, 0]
                group[0] += 1
                cost = event["cost"]
                if cost is not None:
                    group[1] += round(cost * _MICROS)

    def answer(self) -> Answer:
        """Count, sum and, where there is a sketch, uniques by group."""
        return {key: [group[0], group[1], *(sketch.get_estimate() for sketch in group[2:])] for key, group in self.groups.items()}


class SketchLoop(Loop):
    """The same with a HyperLogLog of the users: 8 bits a register, the fastest kind that datasketches has."""

    def run(self) -> None:
        """Count, sum and sketch."""
        load, groups, kept, newest = self.load, self.groups, KEPT, 0
        new, kind_of = datasketches.hll_sketch, datasketches.tgt_hll_type.HLL_8
        for value in self.values:
            event = load(value)
            ts = event["ts"]
            if ts > newest:
                newest = ts
            elif ts < newest - _LATENESS_MS:
                self.late += 1
                continue
            kind = event["type"]
            if kind in kept:
                key = event["advertiser_id"], kind, ts // _MINUTE_MS
                group = groups.get(key)
                if group is None:
                    group = groups[key] = [0, 0, new(PRECISION, kind_of)]
                group[0] += 1
                cost = event["cost"]
                if cost is not None:
                    group[1] += round(cost * _MICROS)
                group[2].update(event["user_id"])


class ParseOnly:
    """Decode every value, and nothing else: no loop in Python that aggregates can be faster. field: the entity, for the comparison afterwards."""

    def __init__(self, workload: Workload, field: str) -> None:
        self.values, self.field = workload.values(), field

    def run(self) -> None:
        """Decode."""
        for value in self.values:
            orjson.loads(value)

    def answer(self) -> Answer:
        """How many events each entity has."""
        found: Answer = {}
        for value in self.values:
            found.setdefault((orjson.loads(value)[self.field],), [0])[0] += 1
        return found


class Event(msgspec.Struct, gc=False):
    """What of an ad event the roll-up needs."""

    ts: int
    advertiser_id: int
    type: str
    cost: float | None


class MsgspecPolars:
    """Batches of values to structs, columns and a polars group-by; the partial groups merged at the end. Batches are given joined by newlines."""

    def __init__(self, workload: Workload) -> None:
        values = workload.values()
        self.batches = [b"\n".join(values[start : start + POLARS_BATCH]) for start in range(0, len(values), POLARS_BATCH)]
        self.merged: pl.DataFrame | None = None

    def run(self) -> None:
        """Count and sum."""
        decode = msgspec.json.Decoder(Event).decode_lines
        parts = [self._group(decode(batch)) for batch in self.batches]
        self.merged = pl.concat(parts).group_by("advertiser", "type", "minute").agg(pl.col("count").sum(), pl.col("cost").sum())

    def _group(self, events: Sequence[Event]) -> pl.DataFrame:
        kept = [event for event in events if event.type in KEPT]
        frame = pl.DataFrame(
            {
                "advertiser": [event.advertiser_id for event in kept],
                "type": [event.type for event in kept],
                "ts": [event.ts for event in kept],
                "cost": [event.cost for event in kept],
            },
            schema={"advertiser": pl.Int64, "type": pl.Enum(KEPT), "ts": pl.Int64, "cost": pl.Float64},
        )
        minute = (pl.col("ts") // _MINUTE_MS).alias("minute")
        return frame.group_by("advertiser", "type", minute).agg(pl.len().alias("count").cast(pl.Int64), pl.col("cost").sum())

    def answer(self) -> Answer:
        """Count and sum by group."""
        assert self.merged is not None
        return {
            (advertiser, kind, minute): [count, round(cost * _MICROS)] for advertiser, kind, minute, count, cost in self.merged.iter_rows()
        }


def loop(workload: Workload, *, uniques: bool) -> Loop:
    """The loop over a workload's format."""
    return (SketchLoop if uniques else Loop)(workload.values(), LOADS[workload.format])
