"""A seeded, single-threaded world that runs the real spouts, bolts, flush, fold and archive commit over stores in memory and a clock of its own.

A schedule is one random interleaving of small atomic steps, with faults at any of them. Then the faults stop, everything must be done in a
bounded number of steps, and tables and archive must hold what a batch computation over the log gives. See DESIGN.md and `oracle`.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import random
import threading
from typing import Any, Callable, Collection


from penstock.archive.memory import MemoryArchive
from penstock.bolts.archive import ArchiveBolt
from penstock.bolts.rollup import RollupBolt
from penstock.errors import PenstockError, UnavailableError
from penstock.kernels.encode import encode_list
from penstock.log.memory import MemoryLog
from penstock.model.units import SECOND
from penstock.rollup.calls import Call, Job, Pause
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE, Control
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.rollup.shard import Limits, Shard
from penstock.runner.simulation.checks import Difference, cells, verify
from penstock.runner.simulation.oracle import LATENESS, Item, batch, items, rollup, schema
from penstock.runner.wire import TICK, Task
from penstock.spouts.base import CONFIG, DEPLOYMENT
from penstock.spouts.kafka import KafkaSpout
from penstock.table.memory import MemoryTable

STEP = 50_000  # microseconds that a step takes
LIMITS = Limits(flush_offsets=6, flush_bytes=1 << 20, pending=2)
FLUSH = 1 * SECOND
TIMEOUT, BOUND = 300, 40_000  # steps: until a tuple is failed; within which all must be done once the faults stop


class Crash(Exception):
    """The component that made the call is no more."""


class ManualDriver:
    """Steps one bolt's jobs when the world says so: one outside call a step."""

    def __init__(self, shards: Callable[[], Collection[Shard]], failed: Callable[[BaseException], None]) -> None:
        self.shards, self.failed = shards, failed
        self.job: Job | None = None
        self.waiting: Call | Pause | None = None
        self.until = 0

    def poke(self) -> None:
        """Nothing waits."""

    def stop(self) -> None:
        """A job that is stopped between two calls simply never goes on."""
        self.job = None

    def step(self, world: World) -> None:
        """Begin a job that is due, or make the call that one waits for."""
        if self.job is None:
            self.job = next((job for job in (shard.work() for shard in list(self.shards())) if job is not None), None)
            if self.job is not None:
                self.resume(None, None, world)
        elif isinstance(self.waiting, Pause):
            if world.clock >= self.until:
                self.resume(None, None, world)
        else:
            assert self.waiting is not None
            try:
                answer = world.make(self.waiting)
            except PenstockError as problem:
                self.resume(None, problem, world)
            else:
                self.resume(answer, None, world)

    def resume(self, answer: Any, problem: Exception | None, world: World) -> None:
        """On to the next call."""
        assert self.job is not None
        try:
            self.waiting = self.job.throw(problem) if problem else self.job.send(answer)
        except StopIteration:
            self.job = self.waiting = None
            return
        if isinstance(self.waiting, Pause):
            self.until = world.clock + int(self.waiting.seconds * 1_000_000)


class Surrounding:
    """What a component sees of the world: a deployment with its own idea of the time. direct: it makes its calls itself, as a spout does."""

    def __init__(self, world: World, *, direct: bool) -> None:
        self.world, self.skew = world, world.rng.randint(-300, 300) * SECOND if world.random_faults else 0
        self.table: Any = _Direct(world, "table", world.table) if direct else world.table
        self.log: Any = _Direct(world, "log", world.log) if direct else world.log
        self.archive = world.archive

    def topic(self, name: str) -> str:
        """The topic of a schema."""
        return name

    def now(self) -> int:
        """This machine's clock."""
        return self.world.clock + self.skew

    def fresh(self) -> str:
        """A new name."""
        return f"{self.world.fresh():08x}"

    def new_driver(
        self, shards: Callable[[], Collection[Shard]], lock: threading.RLock, failed: Callable[[BaseException], None], threads: int
    ) -> ManualDriver:
        """The simulator steps the jobs."""
        return ManualDriver(shards, failed)


class _Direct:
    """A store whose reads of a spout can fail."""

    def __init__(self, world: World, name: str, store: Any) -> None:
        self._world, self._name, self._store = world, name, store

    def get(self, *arguments: Any) -> Any:
        return self._world.make(Call(f"spout {self._name}.get", lambda: self._store.get(*arguments)))

    def read(self, *arguments: Any) -> Any:
        return self._world.make(Call(f"spout {self._name}.read", lambda: self._store.read(*arguments)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@dataclasses.dataclass
class Pair:
    """A spout, the bolts that it feeds (the newest is the last; the others were replaced and live on), and the engine between them."""

    definition: BoltDefinition
    bolt_cls: type[Any]
    spout: Task | None = None
    bolts: list[Task] = dataclasses.field(default_factory=list)
    wire: list[tuple[str, list[Any]]] = dataclasses.field(default_factory=list)
    replies: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    sent: dict[str, int] = dataclasses.field(default_factory=dict)


class World:
    """One schedule.

    seed: repeats it exactly. random_faults: or one fault only, at call number `at`: "before" (the component crashes before the call), "after",
    "lost" (the answer is), "refused" (no effect, an error). faults: those that took effect, counted.
    """

    def __init__(self, seed: str, *, random_faults: bool = True, at: int = -1, fault: str = "", count: int = 0) -> None:
        self.seed, self.rng, self.fresh = seed, random.Random(seed), itertools.count(1).__next__
        self.random_faults, self.at, self.fault, self.calls = random_faults, at, fault, 0
        self.faults: collections.Counter[str] = collections.Counter()
        self.net: list[Callable[[], Any]] = []
        self.upto: dict[str, int] = {}  # by tuple, the offset behind it
        self.clock, self.calm, self.steps = 1_700_000_000 * SECOND, not random_faults, 0
        self.log, self.archive, self.table = MemoryLog(), MemoryArchive(), _WatchedTable(self)
        partitions = self.rng.choice((1, 1, 2)) if random_faults else 1
        self.items: list[tuple[Item, ...]] = [items(self.rng, count or self.rng.randint(15, 40)) for _ in range(partitions)]
        self.lossy = random_faults and self.rng.random() < 0.25
        self.begun: dict[int, set[int]] = {partition: set() for partition in range(partitions)}
        self.log.create(schema.name, partitions)
        registry, self.pairs = Registry(self.table), []
        for name, bolt, makes in (
            ("rollups", RollupBolt, RollupBolt.definition_of(schema, [rollup])),
            ("archive", ArchiveBolt, ArchiveBolt.definition_of(schema)),
        ):
            definition = BoltDefinition(f"simulated.{name}", **makes)
            registry.prepare(definition, self.log, schema.name)
            self.pairs.append(Pair(definition, bolt))
        for pair in self.pairs:
            self.crash(pair)

    # Components.

    def config(self, pair: Pair) -> dict[str, str]:
        """A component's configuration."""
        definition = pair.definition
        settings = {
            "bolt": definition.bolt,
            "generation": definition.generation,
            "schema": definition.schema,
            "flush": FLUSH,
            "limits": vars(LIMITS),
            "rollups": list(definition.rollups),
        }
        return {CONFIG: json.dumps(settings), DEPLOYMENT: ""}

    def new_bolt(self, pair: Pair) -> None:
        """Start the bolt's task somewhere; an older one may live on."""
        task = Task(pair.bolt_cls, "bolt", self.config(pair), deployment=Surrounding(self, direct=False))
        task.start()
        task.component.limits = LIMITS
        pair.bolts.append(task)

    def new_spout(self, pair: Pair) -> None:
        """Start the spout's task; the one before it is gone, and so is all that it knew."""
        pair.spout = Task(KafkaSpout, "spout", self.config(pair), deployment=Surrounding(self, direct=True))
        pair.spout.start()

    def crash(self, pair: Pair) -> None:
        """The spout, the bolts and what was between them are gone, and start anew."""
        pair.wire, pair.replies, pair.bolts, pair.sent = [], [], [], {}
        self.new_spout(pair)
        self.new_bolt(pair)

    # Outside calls.

    def make(self, call: Call) -> Any:
        """An outside call: it is answered; or it was made and the answer is lost; or it never is; or it will be at any later time."""
        number, self.calls = self.calls, self.calls + 1
        if not self.random_faults:
            return self.make_scripted(call, self.fault if number == self.at else "")
        fate = 1.0 if self.calm else self.rng.random()
        if fate < 0.008:
            self.faults["crash before a call"] += 1
            raise Crash
        if fate < 0.016:
            call.make()
            self.faults["crash after a call"] += 1
            raise Crash
        if fate < 0.06:
            self.net.append(call.make)
            self.faults["call in limbo"] += 1
        elif fate < 0.11:
            call.make()
            self.faults["answer lost"] += 1
        elif fate < 0.15:
            self.faults["call refused"] += 1
        else:
            return call.make()
        raise UnavailableError(f"{call.name}: no answer")

    def make_scripted(self, call: Call, fault: str) -> Any:
        """The one fault of an exhaustive run, if this is its call."""
        if fault:
            self.faults[f"{fault}: {call.name}"] += 1
        if fault == "before":
            raise Crash
        answer = None if fault == "refused" else call.make()
        if fault == "after":
            raise Crash
        if fault:
            raise UnavailableError(f"{call.name}: no answer")
        return answer

    # Steps.

    def step(self) -> None:
        """One atomic step of somebody."""
        self.steps += 1
        self.clock += STEP
        rng, pair, pick = self.rng, self.rng.choice(self.pairs), self.rng.random()
        if not pair.bolts:
            self.new_bolt(pair)
        if pick < 0.10:
            self.produce()
        elif pick < 0.25:
            self.spout_step(pair)
        elif pick < 0.45:
            self.deliver(pair)
        elif pick < 0.46 and self.net:
            self.faults["call took effect late"] += 1
            self.late(self.net.pop(rng.randrange(len(self.net))))
        elif pick < 0.47:
            for bolt in list(pair.bolts):
                self.give(pair, bolt, dict(TICK))
        else:
            self.bolt_step(pair, rng.choice(pair.bolts + pair.bolts[-1:]))

    @staticmethod
    def late(make: Callable[[], Any]) -> None:
        """A call that nobody waits for any more."""
        make()

    def produce(self) -> None:
        """A producer appends a batch."""
        partition = self.rng.randrange(len(self.items))
        at, log = self.log.end(schema.name, partition), self.items[partition]
        some = list(itertools.takewhile(lambda item: item.what != "skip", log[at : at + self.rng.choice((1, 2, 4))]))
        if some:
            self.log.append(
                schema.name,
                partition,
                [
                    encode_list(
                        [item.value() for item in some], [item.time + SECOND for item in some], codec=self.rng.choice(("none", "lz4"))
                    )
                ],
            )
        elif at < len(log):
            self.log.skip(schema.name, partition)

    def spout_step(self, pair: Pair) -> None:
        """Storm asks the spout for a tuple; tuples that were not answered for in time fail first."""
        assert pair.spout is not None
        try:
            for tup_id in [tup_id for tup_id, since in pair.sent.items() if self.steps > since + TIMEOUT]:
                del pair.sent[tup_id]
                pair.spout.send({"command": "fail", "id": tup_id})
                self.faults["tuple timed out"] += 1
            pair.spout.send({"command": "next"})
        except Crash:
            self.new_spout(pair)
            return
        for message in pair.spout.sent():
            pair.wire.append((message["id"], message["tuple"]))
            pair.sent[message["id"]] = self.steps
            self.upto[message["id"]] = message["tuple"][5]

    def deliver(self, pair: Pair) -> None:
        """At least once: the engine may reorder, lose and duplicate, and send to an instance that was replaced."""
        rng, fate = self.rng, 1.0 if self.calm else self.rng.random()
        if pair.replies and (not pair.wire or rng.random() < 0.5):
            command, tup_id = pair.replies.pop(rng.randrange(len(pair.replies)))
            if fate < 0.03:
                self.faults["reply lost"] += 1
            elif pair.sent.pop(tup_id, None) is not None and pair.spout is not None:
                pair.spout.send({"command": command, "id": tup_id})
        elif pair.wire:
            place = rng.randrange(len(pair.wire)) if fate < 0.2 else 0
            self.faults["tuple overtaken"] += place > 0
            tup_id, values = pair.wire.pop(place)
            if fate < 0.03:
                self.faults["tuple lost"] += 1
                return
            if fate < 0.06:
                pair.wire.append((tup_id, values))
                self.faults["tuple duplicated"] += 1
            bolt = rng.choice(pair.bolts) if fate < 0.2 else pair.bolts[-1]
            self.faults["tuple sent to a replaced bolt"] += bolt is not pair.bolts[-1]
            self.give(pair, bolt, {"id": tup_id, "comp": "spout", "stream": "default", "task": 1, "tuple": values})

    def give(self, pair: Pair, bolt: Task, message: dict[str, Any]) -> None:
        """A message to a bolt, and what it says to it."""
        bolt.send(message)
        self.collect(pair, bolt)

    def bolt_step(self, pair: Pair, bolt: Task) -> None:
        """A bolt's job goes on by one call."""
        try:
            bolt.component.driver.step(self)
        except Crash:
            pair.bolts.remove(bolt)
        self.collect(pair, bolt)

    def collect(self, pair: Pair, bolt: Task) -> None:
        """What a bolt said: an ack must be for what is durable."""
        for message in bolt.sent():
            if message["id"] != TICK["id"]:
                if message["command"] == "ack" and pair.bolt_cls is RollupBolt:
                    self.check_ack(pair, message["id"])
                pair.replies.append((message["command"], message["id"]))

    def fault_step(self) -> None:
        """Something breaks, now and then."""
        rng, pair, pick = self.rng, self.rng.choice(self.pairs), self.rng.random()
        if pick < 0.010:
            pair.bolts = pair.bolts[-2:]
            self.new_bolt(pair)
            self.faults["two owners alive"] += 1
        elif pick < 0.018 and pair.bolts:
            pair.bolts.pop(rng.randrange(len(pair.bolts)))
            self.faults["bolt gone"] += 1
        elif pick < 0.022:
            self.new_spout(pair)
            self.faults["spout restarted alone"] += 1
        elif pick < 0.024:
            self.crash(pair)
            self.faults["worker crashed"] += 1
        elif pick < 0.031 and self.lossy:
            partition = rng.randrange(len(self.items))
            before = self.log.start(schema.name, partition)
            after = self.log.truncate_before(schema.name, partition, before + rng.randint(1, 6))
            self.faults["retention took records"] += after > before
        elif pick < 0.04:
            self.clock += rng.randint(1, 60) * SECOND
            self.faults["time passed"] += 1

    def run(self) -> World:
        """The schedule, to its end. Raises Difference."""
        try:
            for _ in range(self.rng.randint(200, 2500) if self.random_faults else 0):
                self.fault_step()
                self.step()
            self.calm = True
            for again in range(self.rng.randint(1, 2)):
                for pair in self.pairs if again else ():  # a total crash loses nothing
                    self.crash(pair)
                for _ in range(BOUND):
                    if self.steps % 20 == 0 and self.finished():
                        break
                    self.step()
                else:
                    raise Difference(f"stalled: {[control for _, _, control in self.controls()]}")
            while self.net:
                self.late(self.net.pop())
            verify(self)
        except Exception as problem:
            what = problem if isinstance(problem, Difference) else repr(problem)
            raise Difference(
                f"seed {self.seed!r}{f', {self.fault} call {self.at}' if self.fault else ''}: {what}\n  faults: {dict(self.faults)}"
            ) from problem
        return self

    # What must hold.

    def controls(self) -> list[tuple[Pair, int, Control]]:
        """The control cells as they are."""
        return [
            (pair, shard.partition, control)
            for pair in self.pairs
            for shard, control in Registry(self.table).shards(pair.definition.bolt, pair.definition.generation)
        ]

    def finished(self) -> bool:
        """Whether everything is committed, folded and indexed."""
        return all(
            control.done.offset == len(self.items[partition])
            and control.flushing <= control.done.offset
            and not control.files
            and (pair.bolt_cls is not RollupBolt or control.folded >= control.done.watermark - LATENESS)
            for pair, partition, control in self.controls()
        )

    def check_swap(self, row: bytes, old: Control, new: Control) -> None:
        """Nothing goes back, and every offset is counted."""
        if not (old.done.offset <= new.done.offset and old.done.watermark <= new.done.watermark and old.folded <= new.folded):
            raise Difference("committed, watermark or folded went back")
        if new.done.counted != new.done.offset - new.start:
            raise Difference("counts are not offsets")
        if b".rollups/" in row:
            self.begun[int(row.rsplit(b"/", 1)[1])].update(range(new.done.offset, new.flushing))

    def check_ack(self, pair: Pair, tup_id: str) -> None:
        """What is acked must be in the table."""
        upto, partition = self.upto[tup_id], int(tup_id.split(":")[0])
        if self.lossy:
            return
        stored = cells(self, partition)
        for cell, (events, *_) in batch(self.items[partition], upto).cells.items():
            if cell[0] == rollup.by[cell[1]].widths[0] and stored.get(cell, (0,))[0] < events:
                raise Difference("acked, and not durable")


class _WatchedTable(MemoryTable):
    """A table whose control cells are watched."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def compare_and_set(self, table: str, row: bytes, column: bytes, expected: bytes | None, new: bytes) -> bool:
        done = super().compare_and_set(table, row, column, expected, new)
        if done and table == CONTROL_TABLE and column == CONTROL_COLUMN and row.startswith(b"shard/") and expected is not None:
            self._world.check_swap(row, Control.decode(expected), Control.decode(new))
        return done
