"""The base of all bolts: tuples in, shards owned, acks when their records are durable. Also the public base for bolts of one's own."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from streamparse import Bolt, Grouping, Tuple
from streamparse.dsl.bolt import ShellBoltSpec
from streamparse.dsl.component import ComponentSpec

from penstock.deployment import Deployment
from penstock.errors import DeclarationError, InternalError
from penstock.metrics import Metrics
from penstock.model import Schema, fingerprint
from penstock.model.units import duration
from penstock.rollup import heap
from penstock.rollup.calls import Call, Job, until_answered
from penstock.rollup.control import ShardId
from penstock.rollup.driver import Driver
from penstock.rollup.reader import Reader, Run
from penstock.rollup.shard import Delivery, Limits, Shard, Surroundings
from penstock.spouts.base import CONFIG, DEPLOYMENT, BatchSpout, on_storm
from penstock.table import Table


SHORTEST_FLUSH = 10_000  # microseconds


@dataclasses.dataclass(frozen=True)
class BatchContext:
    """Where a batch, or a flush, comes from.

    first_offset, next_offset: of a flush, the same range again if it has to be repeated after a crash, so that a sink that is keyed by it gets
    every record once. watermark: the newest event time as of next_offset, microseconds since 1970.
    """

    topic: str
    incarnation: str
    partition: int
    first_offset: int
    next_offset: int
    watermark: int


class BatchBolt(Bolt):
    """A bolt over batches of decoded, accepted records, in offset order, each exactly once between two starts.

        class Alerts(BatchBolt):
            columns = ("advertiser", "cost")

            def process(self, batch, context): ...
            def flush(self, context): ...

    `process` gets the records as an Arrow batch; `flush` makes durable what was processed since the flush before. Only then is the position
    committed. After a crash the batches since the last commit come again: first those of the flush that was under way, cut off exactly as
    before, so that `flush` can write under the key (topic, partition, first_offset) and overwrite what it wrote already.
    `start` is called before the first batch of a partition, and again whenever it is taken up from what is committed: forget what was not flushed.

    columns: what to decode, besides the event time; None for all. Errors that are raised stop the bolt, which is started again from what is durable.
    """

    columns: ClassVar[tuple[str, ...] | None] = None
    limits: ClassVar[Limits] = Limits()
    flush_default: ClassVar[str] = "5s"
    flush_threads: ClassVar[int] = 1
    auto_ack = False
    auto_anchor = False
    outputs: ClassVar[list[str]] = []
    deployment: Deployment | None = None
    kind: ClassVar[str] = ""

    # Declaring.

    @classmethod
    def spec(
        cls,
        source: ComponentSpec,
        *,
        flush: str | int | None = None,
        name: str | None = None,
        par: int | None = None,
        config: dict[str, Any] | None = None,
    ) -> ShellBoltSpec:
        """The bolt as a component of a topology. source: the spout that feeds it, and nothing else; flush: how often it makes its work durable.

        The records of a partition all go to one task: the grouping is not yours to choose, for another one would break exactness.
        """
        schema = getattr(source, "schema", None)
        if not isinstance(schema, Schema) or not issubclass(source.component_cls, BatchSpout):
            raise DeclarationError(
                f"{cls.__name__}: its source is {source!r}, not a spout", hint="write live = KafkaSpout.spec(schema), then pass live"
            )
        spec = super().spec(name=name, inputs={source: Grouping.fields("partition")}, par=par, config=config)
        spec.schema, spec.source = schema, source
        spec.flush = duration(flush if flush is not None else cls.flush_default, f"{cls.__name__}: flush")
        if spec.flush < SHORTEST_FLUSH:
            raise DeclarationError(f"{cls.__name__}: flush {flush!r} is too short", hint="10ms is the shortest; 5s is usual")
        unknown = sorted(set(cls.columns or ()) - set(schema.columns))
        if unknown:
            raise DeclarationError(
                f"{cls.__name__}: there is no column {unknown[0]!r} in schema {schema.name!r}",
                hint=f"its columns are {', '.join(schema.columns)}",
            )
        spec.makes = cls.definition_of(schema)
        return spec

    @classmethod
    def definition_of(cls, schema: Schema) -> dict[str, Any]:
        """All that the bolt's durable bytes depend on, as pure data: kind, generation, schema, roll-ups."""
        kind = cls.kind or f"{cls.__module__}.{cls.__qualname__}"
        return {
            "kind": kind,
            "generation": fingerprint({"kind": kind, "schema": schema.to_json()}),
            "schema": schema.to_json(),
            "rollups": (),
        }

    # For bolts of one's own.

    def start(self, context: BatchContext) -> None:
        """A partition is taken up at context.next_offset. Forget what was processed and not flushed."""

    def process(self, batch: pa.RecordBatch, context: BatchContext) -> None:
        """Some accepted records: the columns asked for, and log_offset (int64)."""
        raise NotImplementedError(f"{type(self).__name__}.process is not written")

    def flush(self, context: BatchContext) -> None:
        """Make durable what was processed since the flush before."""

    # The component.

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:
        """Called by Storm, or the local runner, before anything else."""
        heap.tune()
        self.settings: dict[str, Any] = json.loads(storm_conf[CONFIG])
        if self.deployment is None:
            self.deployment = Deployment.from_json(storm_conf[DEPLOYMENT])
        self.table: Table = self.deployment.table
        self.metrics: Metrics = self.deployment.metrics
        if on_storm(storm_conf):
            self.metrics.serve(int(context["taskid"]))
        self.schema = Schema.from_json(self.settings["schema"])
        self.flush_interval: int = self.settings["flush"]
        self.reader = Reader(self.schema, self.wanted())
        self.shards: dict[ShardId, Shard] = {}
        self.lock = threading.RLock()
        self.failure: BaseException | None = None
        self.draining = False
        self.open()
        self.driver = self.new_driver()

    def open(self) -> None:
        """Prepare what all shards share."""

    def wanted(self) -> set[str] | None:
        """The columns that the bolt uses; None for all."""
        return None if self.columns is None else set(self.columns)

    def new_shard(self, identity: ShardId) -> Shard:
        """The owner of a shard of this bolt."""
        return EffectShard(identity, self, self)

    def new_driver(self) -> Driver:
        """What steps the shards' jobs."""
        assert self.deployment is not None
        return self.deployment.new_driver(lambda: list(self.shards.values()), self.lock, self.driver_failed, self.flush_threads)

    def driver_failed(self, problem: BaseException) -> None:
        """A job ended in an error: raise it where the component runs, so that it is reported and started again."""
        self.failure = problem

    def now(self) -> int:
        """The wall clock, microseconds since 1970."""
        assert self.deployment is not None
        return self.deployment.now()

    def fresh(self) -> str:
        """A new random name."""
        assert self.deployment is not None
        return self.deployment.fresh()

    def reply(self, ok: bool, delivery: Delivery) -> None:
        """Ack or fail a tuple."""
        if ok:
            self.ack(delivery.id)
        else:
            self.fail(delivery.id)

    def _run(self) -> None:
        """One message from Storm. pystorm's own calls `process` with a tuple; ours is for batches."""
        message = self.read_tuple()
        if self.failure is not None:
            raise self.failure
        if self.is_heartbeat(message):
            self.send_message({"command": "sync"})
            return
        if self.is_tick(message):
            self.ack(message)
            with self.lock:
                self.driver.poke()
        else:
            self.arrive(message)

    def arrive(self, message: Tuple) -> None:
        """A tuple of a spout: into its shard."""
        incarnation, topic, partition, previous, _, next_offset, skipped, lost, data, caught_up = message.values
        identity = ShardId(self.settings["bolt"], self.settings["generation"], topic, incarnation, partition)
        ranges = tuple((a, b) for a, b in skipped), tuple((a, b) for a, b in lost)
        with self.lock:
            shard = self.shards.get(identity)
            if shard is None:
                shard = self.shards[identity] = self.new_shard(identity)
                shard.draining = self.draining
            shard.receive(Delivery(message.id, previous, next_offset, *ranges, data, caught_up))
            self.driver.poke()

    def drain(self, on: bool = True) -> None:
        """Flush at once whatever is taken, not at the interval. For a runner that wants to stop; Storm just stops, and replays."""
        with self.lock:
            self.draining = on
            for shard in self.shards.values():
                shard.draining = on
            self.driver.poke()

    def close(self) -> None:
        """Stop the threads. What is not durable comes again."""
        self.driver.stop()


class EffectShard(Shard):
    """A shard of a bolt of the user's own: its flush runs the bolt's `process` and `flush` over a range that stays the same after a crash."""

    def __init__(self, identity: ShardId, around: Surroundings, bolt: BatchBolt) -> None:
        super().__init__(identity, around)
        self.bolt = bolt
        self.batches: list[pa.RecordBatch] = []

    def context(self, first: int, upto: int, watermark: int) -> BatchContext:
        """Where something comes from."""
        return BatchContext(self.identity.topic, self.identity.incarnation, self.identity.partition, first, upto, watermark)

    def open(self) -> None:
        self.batches = []

    def after_claim(self) -> Job:
        context = self.context(self.durable.offset, self.durable.offset, self.durable.watermark)
        yield Call("bolt.start", lambda: self.bolt.start(context))

    def add(self, run: Run, start: int, stop: int, verdict: np.ndarray) -> None:
        self.batches.append(accepted_batch(run, start, stop, verdict, self.bolt.wanted()))

    def take_part(self) -> list[pa.RecordBatch]:
        part, self.batches = self.batches, []
        return part

    def flush(self) -> Job:
        self.flush_at = self.around.now()
        end, batches = self.cuts[0] if self.cuts else self.cut()
        if not (yield from self.swap(self.control, self.next_control(flushing=end.offset, timestamp=self.next_timestamp()))):
            return False
        context = self.context(self.durable.offset, end.offset, end.watermark)
        for batch in batches:
            if batch.num_rows:
                yield Call("bolt.process", functools.partial(self.bolt.process, batch, context))
        yield from until_answered(Call("bolt.flush", lambda: self.bolt.flush(context)))
        self.done(end, 0)
        return True


def accepted_batch(run: Run, start: int, stop: int, verdict: np.ndarray, wanted: set[str] | None) -> pa.RecordBatch:
    """The accepted records of some rows as Arrow, with their offsets as `log_offset`."""
    names = [name for name in run.columns.columns if wanted is None or name in wanted or name == run.schema.time]
    if "log_offset" in names:
        raise InternalError("a column is called log_offset, which the batch adds itself")
    arrays = [run.columns.columns[name].to_arrow() for name in names] + [pa.array(run.records.offsets)]
    batch = pa.RecordBatch.from_arrays(arrays, names=[*names, "log_offset"]).slice(start, stop - start)
    return batch.filter(pa.array(verdict[start:stop] == 0))
