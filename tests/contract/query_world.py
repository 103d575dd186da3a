"""A small world to ask questions of: events in a log, cells written by the real shard, and a reader of the events themselves as the oracle."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
from decimal import Decimal as D
from typing import Any, Callable, Iterable

import xxhash
from penstock.bolts import RollupBolt
from penstock.kernels import Hll, RollupPlan
from penstock.kernels.encode import encode_list
from penstock.log.memory import MemoryLog
from penstock.metrics import NoMetrics
from penstock.model import By, Count, Decimal, Enum, Int, Max, Min, Ratio, Rollup, Schema, String, Sum, Timestamp, Uniques
from penstock.rollup.calls import Pause
from penstock.rollup.control import Progress, ShardId
from penstock.rollup.reader import Reader
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.rollup.rollup_shard import RollupShard
from penstock.rollup.shard import Delivery, Limits
from penstock.table import Table

MINUTE, HOUR, DAY = 60 * 10**6, 3600 * 10**6, 86400 * 10**6
BEGIN = int(dt.datetime(2024, 3, 1, tzinfo=dt.timezone.utc).timestamp()) * 10**6  # a Friday
DAYS = 5
COUNTRIES, STATUSES = ("DE", "FR", "NL", "日本", "??"), (200, 301, 404)

visits = Schema(
    "visits",
    time="ts",
    lateness="1h",
    fields={
        "ts": Timestamp("us"),
        "site": String(),
        "kind": Enum("view", "click"),
        "country": String(),
        "status": Int(nullable=True),
        "user": Int(),
        "cost": Decimal(4, nullable=True),
    },
)


def by_site(*, minutes: str = "90d", hours: str = "90d", **measures: Any) -> Rollup:
    """The roll-up of this world, and a measure more if asked. minutes, hours: how long they are kept, the hours those of the breakdown by both dimensions."""
    return Rollup(
        "by_site",
        of=visits,
        entity="site",
        measures={
            "views": Count(where={"kind": "view"}),
            "clicks": Count(where={"kind": "click"}),
            "spend": Sum("cost"),
            "cheapest": Min("cost"),
            "dearest": Max("cost"),
            "last": Max("ts"),
            "users": Uniques("user"),
            "ctr": Ratio("clicks", "views"),
            **measures,
        },
        by=[
            By(keep={"1m": minutes, "1h": "90d", "1d": "5y"}),
            By("country", keep={"1h": "90d", "1d": "5y"}),
            By("country", "status", keep={"1h": hours, "1d": "5y"}),
        ],
    )


def events(seed: int, count: int, days: float = DAYS) -> list[dict[str, Any]]:
    """Events of one partition, in the order of the log: some out of order, none late."""
    rng, made = random.Random(seed), []
    for index in range(count):
        at = BEGIN + int(index / count * days * DAY) - rng.randrange(40 * MINUTE) * (rng.random() < 0.3)
        cost = rng.choice((None, f"{rng.randrange(10**6)}.{rng.randrange(10**4):04d}"))
        made.append(
            {
                "ts": max(at, BEGIN),
                "site": rng.choice(("a", "a", "b")),
                "kind": "click" if rng.random() < 0.2 else "view",
                "country": rng.choice(COUNTRIES),
                "status": rng.choice((*STATUSES, None)),
                "user": rng.randrange(3000),
                "cost": cost,
            }
        )
    return made


class World:
    """A log of `visits` and the cells of `by_site` in a table, as far as each partition was counted."""

    def __init__(self, table: Table, partitions: int = 2, fold: bool = True, rollup: Rollup | None = None) -> None:
        self.table, self.log, self.fold, self.partitions = table, MemoryLog(), fold, partitions
        self.clock, self.fresh = BEGIN, itertools.count(1).__next__
        self.counted: list[dict[str, Any]] = []
        self.shards: list[RollupShard] = []
        self.pending: dict[int, list[dict[str, Any]]] = {}
        self.define(rollup or by_site())
        self.start()

    def define(self, rollup: Rollup) -> None:
        """What the bolt computes from the next start on."""
        self.rollup = rollup
        self.definition = BoltDefinition("visits.rollups", **RollupBolt.definition_of(visits, [rollup]))

    def start(self, at: str | None = None) -> None:
        """Create the topic if it is not there, and new owners of its shards."""
        self.log.create("visits", self.partitions)
        registry = Registry(self.table)
        identities = registry.prepare(self.definition, self.log, "visits", at)
        self.position = [0] * self.partitions
        self.shards = [_Shard(identity, self) for identity in identities]

    def recreate(self) -> None:
        """Another incarnation of the topic."""
        self.log.delete("visits")
        self.start()

    def produce(self, partition: int, made: list[dict[str, Any]]) -> None:
        """Append events to the log."""
        self.log.append("visits", partition, [encode_list([json.dumps(one).encode() for one in made], [one["ts"] for one in made])])
        self.pending.setdefault(partition, []).extend(made)

    def count(self, partition: int, *, commit: bool = True, caught_up: bool = True) -> None:
        """Take what the log holds, flush it, fold it; without commit the last flush's progress is not in the control cell yet."""
        made = self.pending.pop(partition, [])
        self.clock = max([self.clock, *(one["ts"] for one in made)]) + MINUTE
        shard = self.shards[partition]
        shard.commits = commit
        while (chunk := self.log.read("visits", partition, self.position[partition], 1 << 20, 1 << 20)) is not None:
            self.position[partition] = chunk.next
            self.deliver(shard, Delivery(self.fresh(), chunk.previous, chunk.next, chunk.skipped, chunk.lost, chunk.data, False))
        if caught_up:
            at = self.position[partition]
            self.deliver(shard, Delivery(self.fresh(), at, at, (), (), b"", True))
        self.counted += made

    def deliver(self, shard: RollupShard, delivery: Delivery) -> None:
        """Hand over a tuple, and do all work that follows."""
        shard.receive(delivery)
        while (job := shard.work()) is not None:
            answer = None
            while True:
                try:
                    call = job.send(answer)
                except StopIteration:
                    break
                answer = None if isinstance(call, Pause) else call.make()

    def now(self) -> int:
        """The wall clock."""
        return self.clock


class _Around:
    """What a shard needs of its bolt."""

    limits, flush_interval, metrics = Limits(), 0, NoMetrics()

    def __init__(self, world: World) -> None:
        self.table, self.reader = world.table, Reader(visits)
        self.now, self.fresh = world.now, lambda: f"owner{world.fresh()}"

    def reply(self, ok: bool, delivery: Delivery) -> None:
        """Nobody waits for it."""


class _Shard(RollupShard):
    """A shard that can stop between its flush and its fold, and between its fold and its commit, as a crash would make it."""

    commits = True

    def __init__(self, identity: ShardId, world: World) -> None:
        super().__init__(identity, _Around(world), [RollupPlan(world.rollup)])
        self.folds = world.fold

    def fold_until(self, durable: Progress) -> int:
        return super().fold_until(durable) if self.folds else self.folded

    def commit(self) -> Any:
        return super().commit() if self.commits else self.stay()

    def stay(self) -> Any:
        """Go on without the commit."""
        self.draining = False
        self.durable = self.at = self.control.done
        return True
        yield


# The oracle: the events themselves.

KEYS: dict[str, Callable[[dict[str, Any]], Any]] = {"country": lambda event: event["country"], "status": lambda event: event["status"]}


def iso(at: int) -> str:
    """As an answer writes an instant."""
    return dt.datetime.fromtimestamp(at // 10**6, dt.timezone.utc).replace(microsecond=at % 10**6, tzinfo=None).isoformat() + "Z"


def expected(
    of: Iterable[dict[str, Any]],
    site: str,
    start: int,
    end: int,
    interval: int | None,
    by: tuple[str, ...] = (),
    passes: Callable[[dict[str, Any]], bool] = lambda event: True,
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By (window, *by): the measures, of users the exact number and what a sketch of them all estimates."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    if not by:
        for window in range(start // interval * interval, end, interval) if interval else [start]:
            groups[(iso(window),)] = []
    for event in of:
        if event["site"] == site and start <= event["ts"] < end and passes(event):
            window = event["ts"] // interval * interval if interval else start
            groups.setdefault((iso(window), *(KEYS[name](event) for name in by)), []).append(event)
    return {key: measures(members) for key, members in groups.items()}


def measures(members: list[dict[str, Any]]) -> dict[str, Any]:
    """What some events come to."""
    users = {one["user"] for one in members}
    costs = [D(one["cost"]) for one in members if one["cost"] is not None]
    views, clicks = (sum(one["kind"] == kind for one in members) for kind in ("view", "click"))
    return {
        "views": views,
        "clicks": clicks,
        "spend": sum(costs, D(0)),
        "cheapest": min(costs, default=None),
        "dearest": max(costs, default=None),
        "last": iso(max(one["ts"] for one in members)) if members else None,
        "users": (len(users), estimate(users)),
        "ctr": clicks / views if views else None,
    }


def estimate(users: set[int]) -> int:
    """What a sketch says that saw each user once, in one piece, hashed by a published library: merging parts must come to exactly this."""
    sketch = Hll(11)
    for user in users:
        sketch.add(xxhash.xxh64_intdigest(user.to_bytes(8, "little", signed=True)))
    return round(sketch.estimate())
