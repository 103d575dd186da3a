"""How old an answer is: from an event's `produce()` to the first answer that holds it, with `advertiser_analytics` on Storm and HBase.

A steady stream of events as they happen is produced by confluent-kafka; a reader asks `Analytics` over and over for the minutes of some advertisers,
drawn at random. Events of one advertiser keep their order, so that an answer holds an event when it counts as many of its minute as were
produced up to it. Every event of those advertisers that is not late is a sample.
"""

from __future__ import annotations

import collections
import dataclasses
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import numpy as np
from confluent_kafka import Producer

from penstock.kernels import RollupPlan
from penstock.log.generate import AdEvents
from penstock.model import Rollup
from penstock.model.units import iso
from penstock.query import Analytics
from penstock.topologies.advertiser_analytics import AdvertiserAnalytics, by_advertiser

from bench.answers import by_entity, difference, of_table
from bench.cluster import busy_seconds, cluster
from bench.confluent import PATIENCE, KafkaBench, client
from bench.measure import BenchError
from bench.workload import texts

RATE, ADVERTISERS, USERS, SEED = 5_000, 1_000, 200_000, 7
TOPIC_PARTITIONS = 4
WATCHED = 24  # advertisers that are asked for
WARM_UP = 10.0  # seconds of events that are no samples: the first flushes meet empty tables
LATE = 2  # minutes after which an event is no sample: its minute is not asked for
EVERY = 0.01  # seconds between two turns of the producer
STEPS = 3.0  # the bar: flush intervals
COUNTS = ("impressions", "clicks", "saves", "conversions")
MINUTE_MS, MINUTE = 60_000, 60_000_000


@dataclasses.dataclass(frozen=True)
class Event:
    """One as it is produced. arrival: milliseconds since 1970, some time from now."""

    advertiser: int
    arrival: int
    minute: int
    value: bytes
    key: bytes


@dataclasses.dataclass(frozen=True)
class Sampled:
    """An event that is waited for. count: how many of its advertiser and minute there are up to it. at: when it was produced, by the monotonic clock."""

    minute: int
    count: int
    at: float


def events(count: int, start_ms: int) -> Iterator[Event]:
    """So many events of a steady stream that begins at `start_ms`; as late after they happened as the generator has them."""
    made = AdEvents(SEED, advertisers=ADVERTISERS, users=USERS, hours=24, too_late=0.0)
    first = 0
    for columns in made.columns(count):
        lag = columns.arrival - columns.ts
        columns.arrival = start_ms + (first + np.arange(len(lag))) * 1000 // RATE
        columns.ts = columns.arrival - lag
        values, keys = made.texts(columns)
        first += len(lag)
        for fields in zip(
            columns.advertiser.tolist(), columns.arrival.tolist(), (columns.ts // MINUTE_MS).tolist(), texts(values), texts(keys)
        ):
            yield Event(*fields)


class Stream(threading.Thread):
    """Produces events at their time. counts: by advertiser, how many there were. waiting: by watched advertiser, samples in their order."""

    def __init__(self, settings: dict[str, Any], topic: str, seconds: float, watched: list[int]) -> None:
        super().__init__(daemon=True)
        self.events = int(RATE * seconds)
        self.topic, self.counts = topic, collections.Counter[int]()
        self.waiting = {advertiser: collections.deque[Sampled]() for advertiser in watched}
        self.problem: BaseException | None = None
        self.slept_late = 0.0
        self._minutes = collections.Counter[tuple[int, int]]()
        self._producer = Producer({**client(settings), "acks": "all", "linger.ms": 5, "partitioner": "murmur2_random"})

    def run(self) -> None:
        """Produce all."""
        try:
            self._run()
        except BaseException as problem:  # the reader raises it
            self.problem = problem

    def _run(self) -> None:
        began, start_ms = time.perf_counter(), time.time_ns() // 1_000_000
        for event in events(self.events, start_ms):
            while (ahead := (event.arrival - start_ms) / 1000 - (time.perf_counter() - began)) > 0:
                self._producer.poll(0)
                time.sleep(max(EVERY, ahead))
            self.slept_late = max(self.slept_late, -ahead)
            self._note(event, event.arrival >= start_ms + WARM_UP * 1000)
            self._producer.produce(self.topic, event.value, event.key, timestamp=event.arrival, on_delivery=self._delivered)
        if self._producer.flush(PATIENCE):
            raise BenchError(f"{self.topic}: Kafka did not take all events")

    def _note(self, event: Event, sampled: bool) -> None:
        self.counts[event.advertiser] += 1
        if event.advertiser in self.waiting:
            self._minutes[event.advertiser, event.minute] += 1
            if sampled and event.minute > event.arrival // MINUTE_MS - LATE:
                count = self._minutes[event.advertiser, event.minute]
                self.waiting[event.advertiser].append(Sampled(event.minute, count, time.perf_counter()))

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self.problem = BenchError(f"{self.topic}: {error}")


def look(analytics: Analytics, advertiser: int, waiting: collections.deque[Sampled]) -> list[float]:
    """Ask for an advertiser once; the seconds after which those samples came that the answer holds. They are waited for no more."""
    samples = [waiting.popleft() for _ in range(len(waiting))]
    start, end = min(sample.minute for sample in samples), max(sample.minute for sample in samples) + 1
    answer = analytics.query("by_advertiser", entity=advertiser, start=start * MINUTE, end=end * MINUTE, interval="1m", measures=COUNTS)
    at = time.perf_counter()
    held = {row["time"]: sum(row[name] for name in COUNTS) for row in answer.rows}
    readable = [held.get(iso(sample.minute * MINUTE), 0) >= sample.count for sample in samples]
    waiting.extendleft(reversed([sample for sample, is_held in zip(samples, readable) if not is_held]))
    return [at - sample.at for sample, is_held in zip(samples, readable) if is_held]


def measure(bench: KafkaBench, settings: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run it for so many seconds after the warm-up. Raises BenchError if an event does not arrive, or a count is wrong in the end."""
    flush = next(spec.flush for spec in AdvertiserAnalytics.specs if spec.name == "rollups") / 1_000_000
    watched = (1001 + np.random.Generator(np.random.PCG64(SEED)).choice(ADVERTISERS, WATCHED, replace=False)).tolist()
    topic = bench.new_topic(TOPIC_PARTITIONS)
    try:
        with tempfile.TemporaryDirectory(dir=bench.directory) as folder, cluster(settings, Path(folder), topic) as made:
            analytics = Analytics(made.deployment)
            with made.running("penstock.topologies.advertiser_analytics"):
                stream = Stream(bench.settings, topic, WARM_UP + seconds, watched)
                began, cpu = time.perf_counter(), busy_seconds()
                stream.start()
                ages = list(_ages(analytics, stream, PATIENCE + 10 * flush))
                took, cpu = time.perf_counter() - began, busy_seconds() - cpu
                _settle(made.deployment.table, stream, PATIENCE + 10 * flush)
    finally:
        bench.delete(topic)
    if not ages:
        raise BenchError("no event was sampled: run it for longer")
    p50, p99 = np.percentile(ages, (50, 99)).tolist()
    bench.say(
        f"  {len(ages):,} samples: half within {p50:.2f} s, 99 % within {p99:.2f} s, all within {max(ages):.2f} s; a flush every {flush:g} s"
    )
    return {
        "name": "freshness",
        "p50_seconds": round(p50, 2),
        "p99_seconds": round(p99, 2),
        "at_most_seconds": STEPS * flush,
        "flush_seconds": flush,
        "max_seconds": round(max(ages), 2),
        "samples": len(ages),
        "events": stream.events,
        "produced_per_second": RATE,
        "producer_late_seconds": round(stream.slept_late, 2),
        "advertisers": ADVERTISERS,
        "busy_cores": round(cpu / took, 2),
    }


def _ages(analytics: Analytics, stream: Stream, patience: float) -> Iterator[float]:
    """The age of every sample when it was first read, until all are. patience: seconds without one, once there are some to come."""
    moved = time.monotonic()
    while stream.is_alive() or any(stream.waiting.values()):
        for advertiser, waiting in stream.waiting.items():
            if stream.problem is not None:
                raise stream.problem
            if waiting:
                for age in look(analytics, advertiser, waiting):
                    moved = time.monotonic()
                    yield age
        if not any(stream.waiting.values()):
            time.sleep(EVERY)
        if time.monotonic() > moved + patience + WARM_UP:
            raise BenchError(f"no event became readable in {patience:.0f} s")


def _settle(table: Any, stream: Stream, patience: float) -> None:
    """Wait until the cells count every event that was produced, of every advertiser."""
    definition = AdvertiserAnalytics.definitions["rollups"]
    plan = RollupPlan(Rollup.from_json(definition.rollups[0]))
    counts = [index for index, measure in enumerate(plan.measures) if measure.kind == "count"]
    wanted = {(advertiser,): [count] for advertiser, count in stream.counts.items()}
    until = time.monotonic() + patience
    while True:
        found = of_table(plan, table)
        wrong = difference(by_entity({key: [measured[index] for index in counts] for key, measured in found.items()}), wanted)
        if wrong is None:
            return
        if time.monotonic() > until:
            raise BenchError(f"{by_advertiser.name} does not count what was produced: {wrong}")
        time.sleep(1.0)
