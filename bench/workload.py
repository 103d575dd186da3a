"""What is measured: the events, the log that holds them, and the roll-up of all comparisons."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Iterator

from penstock import By, Count, Decimal, Enum, Int, KafkaSpout, Rollup, RollupBolt, Schema, Sum, Timestamp, Topology, Uniques
from penstock.kernels.encode import Slices
from penstock.log.generate import TYPES, AdBlock, AdEvents, generate_into
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
class Workload:
    """Some events: the same bytes whoever asks, from the generators' seeds.

    source: "ads" or "pages". format: "json" or "msgpack". codec: of the log's record batches, "lz4" or "none". hours: the span of event time.
    users: how many different ones there are.
    """

    events: int
    source: str = "ads"
    format: str = "json"
    codec: str = "lz4"
    hours: int = 4
    users: int = 200_000
    advertisers: int = 115
    seed: int = 1

    @property
    def name(self) -> str:
        """What its log's folder is called."""
        return "-".join(map(str, dataclasses.astuple(self)))

    def _ads(self) -> dict[str, int | float | str]:
        # Nothing beyond the lateness: a loop that counts everything then counts what an exact roll-up counts.
        return {"advertisers": self.advertisers, "users": self.users, "hours": self.hours, "start": START, "too_late": 0.0}

    def _pages(self) -> Iterator[AdBlock]:
        for block in page_views(
            self.events, seed=self.seed, pages=PAGES, visitors=self.users, start_ms=instant(START) // 1000, hours=self.hours
        ):
            yield AdBlock(Slices.of(block.values), Slices.of(block.keys), block.timestamps)

    def values(self) -> list[bytes]:
        """The value of every record, in the order of arrival: what the baselines get for nothing."""
        blocks = self._pages() if self.source == "pages" else AdEvents(self.seed, format=self.format, **self._ads()).blocks(self.events)  # type: ignore[arg-type]
        found: list[bytes] = []
        for values, _, _ in blocks:
            buffer = bytes(values.buffer)
            found += [buffer[start:end] for start, end in zip(values.start.tolist(), (values.start + values.length).tolist())]
        return found

    def write(self, directory: Path) -> None:
        """Write them to a local log below `directory`: record batches of 64 KiB before compression, keyed by the entity, two partitions."""
        with LocalLog(directory) as log:
            log.create(self.source, PARTITIONS)
            if self.source == "pages":
                with Producer(log, self.source, codec=self.codec) as producer:
                    for values, keys, timestamps in self._pages():
                        producer.send_many(values, keys, timestamps)
            else:
                generate_into(log, ads_schema(self.format, uniques=False), self.events, self.seed, codec=self.codec, **self._ads())

    def chunks(self, directory: Path) -> list[tuple[int, bytes]]:
        """The log as a spout sends it: (partition, consecutive record batches of up to 1 MiB), the partitions in turn."""
        with LocalLog(directory) as log:
            parts = [list(_partition(log, self.source, number)) for number in range(PARTITIONS)]
        longest = max(map(len, parts))
        return [(number, part[turn]) for turn in range(longest) for number, part in enumerate(parts) if turn < len(part)]


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
