"""Kafka to durable HBase cells through Storm: Penstock, and one event a tuple through streamparse, on the same servers.

For both sides the same is timed. The topology is up over an empty topic, every process of it, and then told to pause; the events are appended; the
clock runs from the call that lets the spouts go on to the look at HBase that finds all events durable. So Storm's own start is in nobody's
time, and the wait for the last flush is in everybody's.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

from penstock.kernels import RollupPlan
from penstock.rollup.registry import Registry

from bench.answers import Answer, difference, of_table
from bench.baselines import LOADS, Loop
from bench.cluster import Cluster, busy_seconds, cluster
from bench.confluent import KafkaBench
from bench.measure import BenchError, Sample
from bench.one_event_a_tuple import one_event_a_tuple as tuples
from bench.workload import PARTITIONS, AdCounts, Workload, ads_rollup, texts

PAUSE = 3.0  # seconds after which what was begun together is up together, and workers have long heard that they are to pause


class Side(Protocol):
    """One of the two. topology: what `penstock submit` is given."""

    topology: str

    def prepare(self) -> None:
        """Make what must be there before it is submitted."""

    def up(self) -> bool:
        """Whether every task of its bolts runs."""

    def durable(self) -> int:
        """How many events are in durable cells."""

    def answer(self) -> Answer:
        """What the cells say."""


class Penstock:
    """The roll-up of all comparisons."""

    topology = "bench.workload:AdCounts"

    def __init__(self, cluster: Cluster) -> None:
        self.deployment = cluster.deployment
        self.definition = AdCounts.definitions["rollups"]

    def prepare(self) -> None:
        """See Side.prepare: submit does it."""

    def up(self) -> bool:
        """See Side.up: submit has seen to it, by who owns the shards."""
        return True

    def durable(self) -> int:
        """See Side.durable: what is committed."""
        shards = Registry(self.deployment.table).shards(self.definition.bolt, self.definition.generation)
        return sum(control.done.accepted for _, control in shards)

    def answer(self) -> Answer:
        """See Side.answer."""
        return of_table(RollupPlan(ads_rollup("json", uniques=False)), self.deployment.table)


class OneEventATuple:
    """The baseline."""

    topology = str(Path(tuples.__file__))

    def __init__(self, cluster: Cluster) -> None:
        self.connection = cluster.connection()
        self.name = cluster.prefix + tuples.TABLE
        self.tasks = cluster.settings["storm"]["parallelism"]

    def prepare(self) -> None:
        """See Side.prepare."""
        self.connection.create_table(self.name, {tuples.FAMILY: {"max_versions": 1}})

    def _rows(self, **bounds: bytes) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return list(self.connection.table(self.name).scan(batch_size=1000, **bounds))

    def up(self) -> bool:
        """See Side.up: each task has put the row that says how many events it has handled."""
        return len(self._rows(row_prefix=b"~")) == self.tasks

    def durable(self) -> int:
        """See Side.durable: what the bolts say when their cells are put."""
        return sum(int(cells[b"c:count"]) for _, cells in self._rows(row_prefix=b"~"))

    def answer(self) -> Answer:
        """See Side.answer."""
        found: Answer = {}
        for row, cells in self._rows(row_stop=b"~"):
            advertiser, kind, minute = row.decode().split("/")
            found[int(advertiser), kind, int(minute)] = [int(cells[b"c:count"]), int(cells[b"c:cost"])]
        return found


def measure(bench: KafkaBench, settings: dict[str, Any], kind: type[Penstock] | type[OneEventATuple], workload: Workload) -> Sample:
    """Run a side once. Its processor time is that of the whole machine, servers and all. Raises BenchError if what it counted is wrong."""
    topic = bench.new_topic(PARTITIONS)
    try:
        with tempfile.TemporaryDirectory(dir=bench.directory) as folder, cluster(settings, Path(folder), topic) as made:
            side: Side = kind(made)
            side.prepare()
            with made.running(side.topology) as running:
                running.wait(side.up)
                time.sleep(PAUSE)
                running.pause()
                time.sleep(PAUSE)
                workload.send(bench.log, topic)
                if side.durable():
                    raise BenchError(f"{kind.__name__} has counted events while it was to pause")
                began, cpu = time.perf_counter(), busy_seconds()
                running.go()
                running.until(side.durable, workload.events)
                seconds, cpu = time.perf_counter() - began, busy_seconds() - cpu
            if wrong := difference(side.answer(), expected(workload)):
                raise BenchError(f"what {kind.__name__} put into HBase is not what the events hold: {wrong}")
    finally:
        bench.delete(topic)
    sample = Sample(workload.events, seconds, cpu, 0.0, {})
    bench.say(f"  {kind.__name__}: {sample.events:,} events in {seconds:.1f} s: {sample.events_per_second:,.0f} events/s")
    return sample


def expected(workload: Workload) -> Answer:
    """What the events hold: by the plain loop, straight from the generator."""
    loop = Loop((value for values, _, _ in workload.blocks() for value in texts(values)), LOADS[workload.format])
    loop.run()
    return loop.answer()
