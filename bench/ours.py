"""Penstock's sides: the kernels alone, Kafka to columns, and a topology from the log to durable cells."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Sequence

import numpy as np

from penstock.deployment import Deployment
from penstock.kernels import Delta, RollupPlan
from penstock.log.kafka import KafkaLog
from penstock.model import Rollup
from penstock.rollup.control import NO_WATERMARK
from penstock.rollup.reader import Reader
from penstock.rollup.registry import Registry
from penstock.runner.local import LocalRunner, prepare
from penstock.spouts.kafka import TUPLE_BYTES, TUPLE_OFFSETS
from penstock.table import Cell
from penstock.table.sqlite import SqliteTable
from penstock.topology import Topology

from bench.answers import Answer, by_entity, of_cells, of_table
from bench.workload import PARTITIONS, Topic, Workload, ads_rollup


class Kernel:
    """From a spout's tuples to groups in memory: checksums, LZ4, records, values to columns, late or not, group-by. One delta a partition, as in the bolt."""

    def __init__(self, workload: Workload, log: Path, *, uniques: bool) -> None:
        self.chunks = workload.chunks(log)
        rollup = ads_rollup(workload.format, uniques=uniques)
        self.reader, self.plan = Reader(rollup.schema, rollup.reads()), RollupPlan(rollup)
        self.deltas = [Delta(self.plan, bytes(8), number.to_bytes(12, "big")) for number in range(PARTITIONS)]

    def run(self) -> None:
        """Take every tuple."""
        watermarks = [NO_WATERMARK] * PARTITIONS
        for partition, data in self.chunks:
            run = self.reader.read(data)
            verdict = np.empty(len(run), np.uint8)
            watermarks[partition], *_ = run.judge(0, len(run), watermarks[partition], verdict)
            self.deltas[partition].add(run.columns, verdict, 0, len(run))

    def answer(self) -> Answer:
        """The groups, by way of their cells."""
        found: Answer = {}
        for delta in self.deltas:
            delta.freeze()
            for keys in delta.keys():
                cells = delta.merge(keys.index, [None] * len(keys.rows), 1)
                found.update(
                    of_cells(
                        self.plan, ((row, column, cell) for row, column, cell in zip(keys.rows, keys.columns, cells) if cell is not None)
                    )
                )
        return found

    @property
    def extra(self) -> dict[str, float]:
        """How many groups there are."""
        return {"groups": sum(delta.cells for delta in self.deltas)}


class Decode:
    """Kafka to columns: what a spout reads, the partitions in turn, and every record's checked values as a bolt gets them."""

    def __init__(self, workload: Workload, topic: Topic) -> None:
        self.topic, self.log = topic.name, KafkaLog(topic.settings)
        rollup = ads_rollup(workload.format, uniques=False)
        self.reader, self.time = Reader(rollup.schema, rollup.reads()), rollup.schema.time
        self.ends = {number: self.log.end(self.topic, number) for number in range(PARTITIONS)}
        self.records = self.total = 0

    def run(self) -> None:
        """Until the end of every partition."""
        positions = dict.fromkeys(self.ends, 0)
        while waiting := [number for number, end in self.ends.items() if positions[number] < end]:
            for number in waiting:
                chunk = self.log.read(self.topic, number, positions[number], TUPLE_BYTES, TUPLE_OFFSETS)
                if chunk is not None:
                    positions[number] = chunk.next
                    run = self.reader.read(chunk.data)
                    self.records += len(run)
                    self.total += int((run.columns.columns[self.time].data // 1000).sum())  # in microseconds they would overflow

    def answer(self) -> Answer:
        """How many records there were, and the sum of their times in milliseconds."""
        return {("all",): [self.records, self.total]}


class CountingTable(SqliteTable):
    """The embedded table, which also says how many metric cells were put, and how long the puts took."""

    cells = 0
    put_seconds = 0.0

    def put(self, table: str, cells: Sequence[Cell], timestamp: int) -> None:
        """See `Table.put`."""
        began = time.perf_counter()
        super().put(table, cells, timestamp)
        self.put_seconds += time.perf_counter() - began
        if not table.endswith("_index"):
            self.cells += len(cells)


def embedded(log: Path, scratch: Path) -> Deployment:
    """A deployment below `scratch` whose log is the one at `log`."""
    (scratch / "log").symlink_to(log)
    return Deployment("bench", {"local": str(scratch), "partitions": PARTITIONS})


def on_kafka(topic: Topic, scratch: Path) -> Deployment:
    """A deployment whose log is Kafka, and whose table is below `scratch`."""
    return Deployment("bench", {"local": str(scratch), "kafka": topic.settings, "partitions": PARTITIONS, "topics": {"ads": topic.name}})


class TopologyRun:
    """A topology by the local runner, from the log to durable cells: from `run` to its return, every fsync in it. Its making is not timed."""

    def __init__(self, topology: type[Topology], events: int, deployment: Deployment) -> None:
        assert deployment.directory is not None
        self.events, self.deployment = events, deployment
        self.table = CountingTable(deployment.directory / "table" / "cells.db")
        self.deployment.table = self.table
        self.definitions = prepare(topology, self.deployment)
        self.runner = LocalRunner(topology, self.deployment, self.definitions)
        self.plan = RollupPlan(Rollup.from_json(next(one.rollups[0] for one in self.definitions if one.rollups)))

    def run(self) -> None:
        """Until all that is in the log is durable."""
        self.runner.run(until_caught_up=True)

    def answer(self) -> Answer:
        """The finest cells of the roll-up's first breakdown."""
        self._check()
        return of_table(self.plan, self.table)

    def _check(self) -> None:
        registry = Registry(self.table)
        for definition in self.definitions:
            done = [control.done for _, control in registry.shards(definition.bolt, definition.generation)]
            accepted = sum(progress.accepted for progress in done)
            if accepted != self.events:
                raise AssertionError(f"{definition.bolt} accepted {accepted} of {self.events} events, all of which are valid")

    @property
    def extra(self) -> dict[str, float]:
        """Metric cells put for an event, folded ones included."""
        return {"cells_per_event": round(self.table.cells / self.events, 4), "put_seconds": round(self.table.put_seconds, 3)}


class ShippedRun(TopologyRun):
    """One of the topologies that ship, archive included. What is compared is how many events each entity has."""

    def answer(self) -> Answer:
        """Events by entity: the roll-up's counts, which overlap in no event."""
        self._check()
        counts = [index for index, measure in enumerate(self.plan.measures) if measure.kind == "count"]
        return by_entity({key: [measured[index] for index in counts] for key, measured in of_table(self.plan, self.table).items()})
