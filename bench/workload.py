"""What is measured: the events, the log that holds them, and the roll-up of all comparisons."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Iterator

from penstock import By, Count, Decimal, Enum, Int, KafkaSpout, Rollup, RollupBolt, Schema, Sum, Timestamp, Topology, Uniques
from penstock.kernels.encode import Slices
from penstock.log import Log
from penstock.log.generate import TYPES, AdBlock, AdEvents
from penstock.log.local import LocalLog
from penstock.log.producer import Producer
from penstock.model.units import instant
from penstock.spouts.kafka import TUPLE_BYTES, TUPLE_OFFSETS

from bench.pages import page_views

PARTITIONS = 2
KEPT = ("impression", "click")  # of four types
PRECISION = 11  # of the HyperLogLogs, ours and the baselines'
START = "2026-03-02"
PAGES = 1000


@dataclasses.dataclass(frozen=True)
class Topic:
    """Where a workload is in Kafka. settings: how Kafka is reached, as in a deployment."""

    name: str
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Workload:
    """Some events: the same bytes whoever asks, from the generators' seeds.

    source: "ads" or "pages". format: "json" or "msgpack". codec: of the log's record batches, "lz4" or "none". batch_bytes: of a record batch before
    compression; 0 for one record a batch. hours: the span of event time. users: how many different ones there are.
    """

    events: int
    source: str = "ads"
    format: str = "json"
    codec: str = "lz4"
    batch_bytes: int = 1 << 16
    hours: int = 4
    users: int = 200_000
    advertisers: int = 115
    seed: int = 1

    @property
    def name(self) -> str:
        """What its log's folder is called."""
        return "-".join(map(str, dataclasses.astuple(self)))

    def _ads(self) -> dict[str, Any]:
        # Nothing beyond the lateness: a loop that counts everything then counts what an exact roll-up counts.
        return {"advertisers": self.advertisers, "users": self.users, "hours": self.hours, "start": START, "too_late": 0.0}

    def blocks(self) -> Iterator[AdBlock]:
        """The records in the order of arrival: values, keys (the entity) and log timestamps."""
        if self.source == "ads":
            yield from AdEvents(self.seed, format=self.format, **self._ads()).blocks(self.events)
            return
        for block in page_views(
            self.events, seed=self.seed, pages=PAGES, visitors=self.users, start_ms=instant(START) // 1000, hours=self.hours
        ):
            yield AdBlock(Slices.of(block.values), Slices.of(block.keys), block.timestamps)

    def values(self) -> list[bytes]:
        """The value of every record, in the order of arrival: what the loops over a list get for nothing."""
        return [value for values, _, _ in self.blocks() for value in texts(values)]

    def send(self, log: Log, topic: str) -> None:
        """Append them to a topic, keyed by the entity."""
        with Producer(log, topic, codec=self.codec, batch_bytes=self.batch_bytes or 1) as producer:
            for values, keys, timestamps in self.blocks():
                producer.send_many(values, keys, timestamps)

    def write(self, directory: Path) -> None:
        """Write them to a local log below `directory`, in two partitions."""
        with LocalLog(directory) as log:
            log.create(self.source, PARTITIONS)
            self.send(log, self.source)

    def chunks(self, directory: Path) -> list[tuple[int, bytes]]:
        """The log as a spout sends it: (partition, consecutive record batches of up to 1 MiB), the partitions in turn."""
        with LocalLog(directory) as log:
            parts = [list(_partition(log, self.source, number)) for number in range(PARTITIONS)]
        longest = max(map(len, parts))
        return [(number, part[turn]) for turn in range(longest) for number, part in enumerate(parts) if turn < len(part)]


def texts(slices: Slices) -> list[bytes]:
    """Slices as Python objects."""
    buffer = bytes(slices.buffer)
    return [buffer[start:end] for start, end in zip(slices.start.tolist(), (slices.start + slices.length).tolist())]


def _partition(log: LocalLog, topic: str, number: int) -> Iterator[bytes]:
    position = 0
    while (chunk := log.read(topic, number, position, TUPLE_BYTES, TUPLE_OFFSETS)) is not None:
        position = chunk.next
        yield chunk.data


def ads_schema(format: str, *, uniques: bool) -> Schema:
    """The fields that the roll-up needs; the records hold nine."""
    user = {"user": Int(path="user_id")} if uniques else {}
    return Schema(
        "ads",
        time="ts",
        lateness="1d",
        key="advertiser",
        format=format,
        fields={
            "ts": Timestamp("ms"),
            "advertiser": Int(path="advertiser_id"),
            **user,
            "type": Enum(*TYPES),
            "cost": Decimal(6, nullable=True),
        },
    )


def ads_rollup(format: str, *, uniques: bool) -> Rollup:
    """Keep two of four types; count, sum of cost and, if wanted, unique users by advertiser, type and minute."""
    users = {"users": Uniques("user", precision=PRECISION)} if uniques else {}
    return Rollup(
        "by_type",
        of=ads_schema(format, uniques=uniques),
        entity="advertiser",
        where={"type": list(KEPT)},
        measures={"events": Count(), "cost": Sum("cost"), **users},
        by=[By("type", keep={"1m": "3d"})],
    )


_COUNTS = ads_rollup("json", uniques=False)


class AdCounts(Topology):
    """From the log to durable cells: count and sum, flushed every 5 s."""

    live = KafkaSpout.spec(_COUNTS.schema)
    rollups = RollupBolt.spec(live, [_COUNTS], flush="5s")
