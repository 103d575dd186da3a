"""A deployment in memory, whose clock and jobs move when a test says so; and the events that tests of bolts share."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any, Callable, Collection, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from penstock.bolts.base import BatchBolt
from penstock.spouts.base import CONFIG, DEPLOYMENT
from penstock.spouts.kafka import KafkaSpout

from penstock import Enum, Int, String, Timestamp, derived
from penstock.archive.memory import MemoryArchive
from penstock.kernels.encode import encode_list
from penstock.log.memory import MemoryLog
from penstock.metrics import NoMetrics
from penstock.model import Schema
from penstock.model.units import HOUR, MINUTE
from penstock.rollup.calls import Call, Pause
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE, Control, ShardId
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.rollup.shard import Limits, Shard
from penstock.runner.wire import TICK, Task
from penstock.table.memory import MemoryTable

NOW = 1_700_000_000_000_000
SECOND = 1_000_000
T0 = NOW // HOUR * HOUR  # the start of an hour


@derived(String(default="none"), of=["k"])
def parity(k: pa.Array) -> pa.Array:
    return pa.array([None if one == 0 else "odd" if one % 2 else "even" for one in k.to_pylist()], pa.string())


EVENTS = Schema(
    "events",
    time="ts",
    lateness="10m",
    ahead="1h",
    derive={"parity": parity},
    fields={
        "ts": Timestamp("ms"),
        "k": Int(),
        "kind": Enum("a", "b", default="a"),
        "note": String(nullable=True),
        "amount": Int(default=0),
    },
)


def event(minutes: float = 0.0, k: int = 1, **more: Any) -> dict[str, Any]:
    return {"ts": (T0 + int(minutes * MINUTE)) // 1000, "k": k, **more}


class StepDriver:
    """Steps the jobs of a bolt's shards, call by call, when told to."""

    def __init__(self, stores: Stores, shards: Callable[[], Collection[Shard]], failed: Callable[[BaseException], None]) -> None:
        self.stores, self.shards, self.failed = stores, shards, failed
        self.job: Any = None
        self.waiting: Any = None
        self.made: list[str] = []
        self.ended = False

    def poke(self) -> None:
        """Nothing goes on by itself."""

    def stop(self) -> None:
        """A job under way never goes on."""
        self.job = None

    def step(self) -> bool:
        """Begin the job that is due, or make the call that one waits for. Whether there was anything to do."""
        if self.ended:
            return False
        if self.job is None:
            self.job = next((job for job in (shard.work() for shard in self.shards()) if job is not None), None)
            return self._resume(None, None) if self.job is not None else False
        if isinstance(self.waiting, Pause):
            self.stores.clock += int(self.waiting.seconds * SECOND)
            return self._resume(None, None)
        self.made.append(self.waiting.name)
        try:
            answer = self.waiting.make()
        except Exception as problem:
            return self._resume(None, problem)
        return self._resume(answer, None)

    def _resume(self, answer: Any, problem: Exception | None) -> bool:
        try:
            self.waiting = self.job.throw(problem) if problem else self.job.send(answer)
        except StopIteration:
            self.job = self.waiting = None
        except Exception as problem:
            self.job, self.waiting, self.ended = None, None, True
            self.failed(problem)
        return True

    def run(self, *, until: str = "") -> None:
        """Go on until nothing is due, or until the next call would be one whose name begins with `until`."""
        while (
            not (until and self.job is not None and isinstance(self.waiting, Call) and self.waiting.name.startswith(until)) and self.step()
        ):
            pass


class Stores:
    """What a component sees as its deployment."""

    def __init__(self, table: MemoryTable | None = None, log: MemoryLog | None = None, archive: MemoryArchive | None = None) -> None:
        self.table, self.log, self.archive = table or MemoryTable(), log or MemoryLog(), archive or MemoryArchive()
        self.clock, self._names, self.metrics = NOW, itertools.count(1), NoMetrics()

    def topic(self, schema: Schema | str) -> str:
        return schema if isinstance(schema, str) else schema.name

    def now(self) -> int:
        return self.clock

    def fresh(self) -> str:
        return f"name-{next(self._names)}"

    def new_driver(
        self, shards: Callable[[], Collection[Shard]], lock: Any, failed: Callable[[BaseException], None], threads: int
    ) -> StepDriver:
        return StepDriver(self, shards, failed)


class Bench:
    """One spout and one bolt over stores in memory; the test carries tuples and replies between them, or does not."""

    def __init__(
        self,
        schema: Schema,
        bolt_cls: type[BatchBolt],
        makes: dict[str, Any],
        *,
        partitions: int = 1,
        flush: int = SECOND,
        limits: Limits | None = None,
        start: str | None = None,
        prepare: bool = True,
    ) -> None:
        self.schema, self.bolt_cls, self.stores, self.flush = schema, bolt_cls, Stores(), flush
        self.limits = limits or bolt_cls.limits
        self.definition = BoltDefinition("test.bolt", **makes)
        self.registry = Registry(self.stores.table)
        self.stores.log.create(schema.name, partitions)
        if prepare:
            self.registry.prepare(self.definition, self.stores.log, schema.name, start)
        self._ids = itertools.count(1)

    def config(self) -> dict[str, str]:
        settings = {
            "bolt": self.definition.bolt,
            "generation": self.definition.generation,
            "schema": self.definition.schema,
            "flush": self.flush,
            "limits": vars(self.limits),
            "rollups": list(self.definition.rollups),
        }
        return {CONFIG: json.dumps(settings), DEPLOYMENT: ""}

    def spout(self, index: int = 0, tasks: int = 1) -> Task:
        task = Task(KafkaSpout, "live", self.config(), place=(index, tasks), deployment=self.stores)
        task.start()
        return task

    def bolt(self) -> Task:
        task = Task(self.bolt_cls, "bolt", self.config(), deployment=self.stores)
        task.start()
        task.component.limits = self.limits
        return task

    def produce(self, values: Sequence[Any], partition: int = 0, *, codec: str = "none", log_time: int | None = None) -> int:
        """Append one record batch of JSON values (bytes as they are). Returns the first offset."""
        raw = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
        return self.stores.log.append(
            self.schema.name, partition, [encode_list(raw, [self.stores.clock if log_time is None else log_time] * len(raw), codec=codec)]
        )

    def shard(self, partition: int = 0) -> ShardId:
        return ShardId(
            self.definition.bolt, self.definition.generation, self.schema.name, self.stores.log.incarnation(self.schema.name), partition
        )

    def control(self, partition: int = 0) -> Control:
        found = self.stores.table.get(CONTROL_TABLE, [(self.shard(partition).row, CONTROL_COLUMN)])[0]
        assert found is not None
        return Control.decode(found)

    def set_control(self, control: Control, partition: int = 0) -> None:
        """As another owner would."""
        assert self.stores.table.compare_and_set(
            CONTROL_TABLE, self.shard(partition).row, CONTROL_COLUMN, self.control(partition).encode(), control.encode()
        )

    def values(
        self,
        previous: int,
        next_: int,
        *,
        partition: int = 0,
        data: bytes | None = None,
        skipped: Sequence[Any] = (),
        lost: Sequence[Any] = (),
        caught_up: bool = False,
    ) -> list[Any]:
        """A tuple over [previous, next_), with the batches that the log holds of it."""
        if data is None:
            data, at = b"", previous
            while at < next_:
                chunk = self.stores.log.read(self.schema.name, partition, at, 1, 1)
                assert chunk is not None
                data, at = data + chunk.data, chunk.next
        return [
            self.stores.log.incarnation(self.schema.name),
            self.schema.name,
            partition,
            previous,
            previous,
            next_,
            [list(r) for r in skipped],
            [list(r) for r in lost],
            data,
            caught_up,
        ]

    def give(self, bolt: Task, *arguments: Any, id: str | None = None, **settings: Any) -> str:
        """A tuple to the bolt; its id."""
        name = id or f"tuple-{next(self._ids)}"
        bolt.send({"id": name, "comp": "live", "stream": "default", "task": 1, "tuple": self.values(*arguments, **settings)})
        return name

    def next(self, spout: Task) -> list[tuple[str, list[Any]]]:
        """What the spout emits when it is asked once."""
        spout.send({"command": "next"})
        return [(message["id"], message["tuple"]) for message in spout.sent()]

    def later(self, seconds: float) -> None:
        self.stores.clock += int(seconds * SECOND)

    def work(self, bolt: Task, *, until: str = "") -> None:
        """The jobs that are due, to their ends."""
        bolt.component.driver.run(until=until)

    def due(self, bolt: Task, *, until: str = "") -> None:
        """Let the bolt claim what it was given, let the flush interval pass, and the flush begin."""
        self.work(bolt)
        self.later(self.flush / SECOND + 0.001)
        self.work(bolt, until=until)

    def flushed(self, bolt: Task) -> list[str]:
        """Let flush intervals pass: for a claim, a flush, its commit; the replies."""
        for _ in range(4):
            self.later(self.flush / SECOND + 0.001)
            self.work(bolt)
        return replies(bolt)

    def archived(self, dataset: str) -> list[dict[str, Any]]:
        """All rows of an archived dataset, by hour, shard and offset."""
        rows: list[dict[str, Any]] = []
        for hour in self.stores.archive.hours(dataset):
            for entry in self.stores.archive.entries(dataset, hour):
                read = pq.read_table(io.BytesIO(self.stores.archive.read(entry.path))).to_pylist()
                assert len(read) == entry.rows
                rows += read
        return rows


def replies(task: Task) -> list[str]:
    """What the bolt answered since it was last asked: "ack tuple-1"."""
    return [f"{message['command']} {message['id']}" for message in task.sent() if message["id"] != TICK["id"]]


__all__ = ["Bench", "EVENTS", "NOW", "SECOND", "StepDriver", "Stores", "T0", "event", "replies"]
