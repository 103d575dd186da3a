"""The local runner: Storm's work in one process. Routes tuples, acks, fails, timeouts and ticks between the components that Storm would start."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from typing import Any, Callable

from penstock.bolts.base import BatchBolt
from penstock.deployment import Deployment
from penstock.errors import CorruptionError, PenstockError, UsageError
from penstock.model import Schema
from penstock.rollup.control import Control, ShardId
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.runner.wire import TICK, Task, component_config
from penstock.spouts.base import CONFIG
from penstock.topology import Topology

log = logging.getLogger(__name__)

MESSAGE_TIMEOUT = 120.0  # seconds until a tuple that is not answered for is failed
TICK_EVERY = 1.0  # seconds
REST = 0.002  # seconds to rest when nothing moved
LOOK_EVERY, LOOK_AGAIN = 0.25, 0.02  # seconds between two looks at where everything is; once nothing is left to take
EXPIRE_EVERY = 3600.0  # seconds between two looks for cells whose time is over
RESTARTS, CALM = 5, 60.0  # a component that raised is started again; so often within so many seconds, and the run ends


@dataclasses.dataclass
class _Sent:
    """A tuple on its way: for the spout's ack or fail."""

    spout_life: int
    tup_id: str
    deadline: float


@dataclasses.dataclass
class _Pair:
    """A spout and the bolt that it feeds."""

    definition: BoltDefinition
    spout: Task
    bolt: Task
    lives: dict[str, int] = dataclasses.field(default_factory=lambda: {"spout": 0, "bolt": 0})
    sent: dict[str, _Sent] = dataclasses.field(default_factory=dict)
    raised: dict[str, list[float]] = dataclasses.field(default_factory=lambda: {"spout": [], "bolt": []})
    start_at: dict[str, float] = dataclasses.field(default_factory=lambda: {"spout": 0.0, "bolt": 0.0})
    number: int = 0


@dataclasses.dataclass(frozen=True)
class Position:
    """How far one bolt is in one partition. taken: what it has read; committed: what is durable; target: the log's end when it was asked."""

    shard: ShardId
    control: Control
    taken: int
    target: int

    @property
    def done(self) -> bool:
        """Whether everything up to the target is committed."""
        return self.control.done.offset >= self.target


def prepare(topology: type[Topology], deployment: Deployment, start: str | None = None) -> list[BoltDefinition]:
    """Make everything that the topology needs before its first tuple, and say which definitions run: its own, and a generation that is still
    served and differs from its own, which goes on counting until another is published. Raises UsageError."""
    registry, running = Registry(deployment.table), []
    for definition in topology.definitions.values():
        schema = Schema.from_json(definition.schema)
        topic = deployment.topic(schema)
        if topic not in deployment.log.topics():
            deployment.log.create(topic, deployment.partitions)
        registry.prepare(definition, deployment.log, topic, start)
        running.append(definition)
        served = registry.published(definition.bolt)
        if served != definition.generation:
            old = registry.definition(definition.bolt, served)
            registry.prepare(old, deployment.log, deployment.topic(old.schema["name"]))
            running.append(old)
    return running


class LocalRunner:
    """Runs a topology's components in this process, for the partitions p with p mod tasks == index.

    Call `run` once. `stop` (from a signal handler, say) makes it drain: take nothing more, make durable what was taken, commit.
    """

    def __init__(
        self, topology: type[Topology], deployment: Deployment, definitions: list[BoltDefinition], *, place: tuple[int, int] = (0, 1)
    ) -> None:
        self.topology, self.deployment = topology, deployment
        self.registry = Registry(deployment.table)
        self.stopping = self.draining = False
        self.pairs = [self._pair(definition, place) for definition in definitions]
        self.place = place

    def _pair(self, definition: BoltDefinition, place: tuple[int, int]) -> _Pair:
        component = definition.bolt.partition(".")[2]
        bolt = next(spec for spec in self.topology.specs if spec.name == component)
        configs = []
        for spec in (bolt.source, bolt):
            config = component_config(spec, self.deployment)
            settings = json.loads(config[CONFIG])
            settings.update(generation=definition.generation, schema=definition.schema)
            if "rollups" in settings:
                settings["rollups"] = list(definition.rollups)
            config[CONFIG] = json.dumps(settings)
            configs.append(config)
        return _Pair(
            definition,
            Task(bolt.source.component_cls, bolt.source.name, configs[0], place=place, deployment=self.deployment),
            Task(bolt.component_cls, bolt.name, configs[1], place=place, deployment=self.deployment),
        )

    def stop(self) -> None:
        """Drain and return from `run`."""
        self.stopping = True

    def positions(self, targets: dict[tuple[str, int], int] | None = None) -> list[Position]:
        """Where every bolt is in each of this process's partitions."""
        found = []
        index, tasks = self.place
        for pair in self.pairs:
            shards = pair.bolt.component.shards if pair.bolt.component else {}
            for shard, control in self.registry.shards(pair.definition.bolt, pair.definition.generation):
                if shard.partition % tasks == index and shard.incarnation == self.deployment.log.incarnation(shard.topic):
                    target = targets[shard.topic, shard.partition] if targets else self.deployment.log.end(shard.topic, shard.partition)
                    live = shards.get(shard)
                    taken = live.at.offset if live is not None and live.control is not None else control.done.offset
                    found.append(Position(shard, control, taken, target))
        return found

    def run(self, *, until_caught_up: bool = False, on_progress: Callable[[list[Position]], None] | None = None) -> None:
        """Run until stopped, or until everything that was in the log at the start is committed and the bolts have seen that there is no more.

        Raises the error of a component that goes on failing.
        """
        topics = {self.deployment.topic(pair.definition.schema["name"]) for pair in self.pairs}
        targets = {(topic, p): self.deployment.log.end(topic, p) for topic in topics for p in range(self.deployment.log.partitions(topic))}
        tick_at = look_at = looked_at = 0.0
        expire_at = time.monotonic() + EXPIRE_EVERY
        self.deployment.metrics.serve(self.place[0])
        try:
            for pair in self.pairs:
                pair.bolt.start()
                pair.spout.start()
            while not self.stopping:
                now = time.monotonic()
                if now >= tick_at:
                    tick_at = now + TICK_EVERY
                    self._tick(now)
                moved = self._turn(now)
                if now >= look_at or (until_caught_up and not moved and self._hurry(targets) and now >= looked_at + LOOK_AGAIN):
                    look_at, looked_at = now + LOOK_EVERY, now
                    positions = self.positions(targets)
                    if on_progress:
                        on_progress(positions)
                    if until_caught_up and all(p.done and (p.control.caught_up_at is not None or self._grows(p)) for p in positions):
                        break
                if not moved:
                    time.sleep(REST)
                    if now >= expire_at and self.place[0] == 0:
                        expire_at = now + EXPIRE_EVERY
                        self.deployment.table.expire(self.deployment.now())
            self._drain()
            if on_progress:
                on_progress(self.positions(targets))
        finally:
            for pair in self.pairs:
                pair.spout.stop()
                pair.bolt.stop()

    def _grows(self, position: Position) -> bool:
        return self.deployment.log.end(position.shard.topic, position.shard.partition) > position.target

    def _hurry(self, targets: dict[tuple[str, int], int]) -> bool:
        """Once a bolt has taken all there was, do not wait for its flush interval. Whether all bolts have."""
        hurried = True
        for pair in self.pairs:
            shards = pair.bolt.component.shards.values() if pair.bolt.component else ()
            if shards and all(
                shard.control is not None and shard.at.offset >= targets[shard.identity.topic, shard.identity.partition] for shard in shards
            ):
                if not pair.bolt.component.draining:
                    pair.bolt.component.drain(True)
            else:
                hurried = False
        return hurried

    def _turn(self, now: float) -> bool:
        """One message to every component that has something to do."""
        moved = False
        for pair in self.pairs:
            if self._alive(pair, "bolt", now):
                moved |= self._answers(pair)
            if self._alive(pair, "spout", now) and self._try(pair, "spout", {"command": "next"}):
                for message in pair.spout.sent():
                    moved = True
                    self._route(pair, message, now)
        return moved

    def _alive(self, pair: _Pair, which: str, now: float) -> bool:
        """Whether a component runs; starts it again if it raised and its pause is over."""
        task: Task = getattr(pair, which)
        if task.component is None and now >= pair.start_at[which]:
            try:
                task.start()
            except PenstockError as problem:
                self._raised(pair, which, problem)
        return task.component is not None

    def _route(self, pair: _Pair, message: dict[str, Any], now: float) -> None:
        """A spout's tuple to its bolt."""
        pair.number += 1
        tuple_id = f"{pair.definition.bolt}:{pair.number}"
        pair.sent[tuple_id] = _Sent(pair.lives["spout"], message["id"], now + MESSAGE_TIMEOUT)
        if self._alive(pair, "bolt", now):
            self._try(pair, "bolt", {"id": tuple_id, "comp": pair.spout.name, "stream": "default", "task": 1, "tuple": message["tuple"]})
        else:
            self._answer(pair, tuple_id, False)

    def _answers(self, pair: _Pair) -> bool:
        moved = False
        for message in pair.bolt.sent():
            moved = True
            if message["command"] != "emit":
                self._answer(pair, message["id"], message["command"] == "ack")
        failure = pair.bolt.component.failure if isinstance(pair.bolt.component, BatchBolt) else None
        if failure is not None:
            self._raised(pair, "bolt", failure)
        return moved

    def _answer(self, pair: _Pair, tuple_id: str, ok: bool) -> None:
        """A bolt's ack or fail to the spout that sent the tuple, if it still lives."""
        sent = pair.sent.pop(tuple_id, None)
        if sent is not None and sent.spout_life == pair.lives["spout"] and pair.spout.component is not None:
            self._try(pair, "spout", {"command": "ack" if ok else "fail", "id": sent.tup_id})

    def _tick(self, now: float) -> None:
        for pair in self.pairs:
            if pair.bolt.component is not None:
                self._try(pair, "bolt", dict(TICK))
            for tuple_id in [tuple_id for tuple_id, sent in pair.sent.items() if sent.deadline < now]:
                log.warning("%s: a tuple was not answered for within %.0f s; failed", pair.definition.bolt, MESSAGE_TIMEOUT)
                self._answer(pair, tuple_id, False)

    def _try(self, pair: _Pair, which: str, message: dict[str, Any]) -> bool:
        try:
            getattr(pair, which).send(message)
        except Exception as problem:
            self._raised(pair, which, problem)
            return False
        return True

    def _raised(self, pair: _Pair, which: str, problem: BaseException) -> None:
        """A component raised: start it anew after a pause, its tuples failed. What helps no restart, or goes on, ends the run."""
        task: Task = getattr(pair, which)
        now = time.monotonic()
        task.stop()
        times = pair.raised[which] = [at for at in pair.raised[which] if at > now - CALM] + [now]
        if (
            isinstance(problem, (UsageError, CorruptionError))
            or not isinstance(problem, Exception)
            or len(times) > RESTARTS
            or self.draining
        ):
            raise problem
        log.warning(
            "%s: %s raised %s: %s; it is started again",
            pair.definition.bolt,
            task.name,
            type(problem).__name__,
            problem,
            exc_info=not isinstance(problem, PenstockError),
        )
        pair.lives[which] += 1
        pair.start_at[which] = now + 0.1 * 2 ** len(times)
        if which == "bolt":
            for tuple_id in list(pair.sent):
                self._answer(pair, tuple_id, False)

    def _drain(self) -> None:
        """Take nothing more; make durable and commit what was taken. An error now is the run's: there is nobody left to take the tuples again."""
        self.draining = True
        for pair in self.pairs:
            if pair.spout.component is not None:
                self._try(pair, "spout", {"command": "deactivate"})
            if pair.bolt.component is not None:
                pair.bolt.component.drain(True)
        while any(not self._idle(pair) for pair in self.pairs):
            for pair in self.pairs:
                if pair.bolt.component is not None:
                    self._answers(pair)
            time.sleep(REST)

    def _idle(self, pair: _Pair) -> bool:
        component = pair.bolt.component
        if component is None:
            return True
        with component.lock:
            return all(shard.idle for shard in component.shards.values())
