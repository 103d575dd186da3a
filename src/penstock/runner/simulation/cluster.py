"""The simulated Storm: workers that hold spouts and bolts together, tuples and acks between them, and all that happens to workers.

At least once: tuples get lost, overtaken, duplicated; a spout hears of a lost one only when its time is over, and of nothing if its worker died.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any, Iterator

from penstock.bolts.rollup import RollupBolt
from penstock.model.units import SECOND
from penstock.rollup.registry import BoltDefinition
from penstock.rollup.shard import Limits
from penstock.runner.simulation.checks import Difference, check_ack
from penstock.runner.simulation.components import Clock, Surrounding
from penstock.runner.simulation.oracle import schema
from penstock.runner.simulation.outside import Crash
from penstock.runner.wire import TICK, Task
from penstock.spouts.base import CONFIG, DEPLOYMENT
from penstock.spouts.kafka import KafkaSpout

if TYPE_CHECKING:
    from penstock.runner.simulation.world import World

LIMITS = Limits(flush_offsets=6, flush_bytes=1 << 20, pending=2)
FLUSH = 1 * SECOND
TIMEOUT = 300  # steps until a tuple is failed
RESTART = 200  # steps at most until a worker that died is up again
LINGER = 1000  # steps at most that a worker which was replaced lives on
STALE = 300  # steps at most that workers go on sending to one that was replaced
STOP = 400  # steps at most that a stopped process stays so
MOST_LINGERING = 2
Place = tuple[str, int]  # "spout" or "bolt", and which of its tasks


@dataclasses.dataclass
class Worker:
    """A process with the tasks that it runs. stopped_until, dies_at: steps. sent: by spout task and tuple, when it was sent."""

    clock: Clock
    tasks: dict[Place, Task] = dataclasses.field(default_factory=dict)
    stopped_until: int = 0
    dies_at: int | None = None
    sent: dict[int, dict[str, int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Parcel:
    """A tuple on its way. worker: the one that sent it."""

    id: str
    values: list[Any]
    worker: Worker
    spout: int


class Launch:
    """One submission of a spout and a bolt: how many tasks each has and which share a worker.

    workers: a slot's, None while it is being started again (`up_at`). lingering: those that were replaced and live on. stale_until: until which step
    tuples are sent to those.
    """

    def __init__(self, pair: Pair, spouts: int, bolts: int, slots: list[list[Place]]) -> None:
        self.pair, self.spouts, self.bolts, self.slots = pair, spouts, bolts, slots
        self.workers: list[Worker | None] = [None] * len(slots)
        self.up_at = [0] * len(slots)
        self.lingering: list[Worker] = []
        self.dies_at: int | None = None
        self.stale_until = 0
        self.wire: list[Parcel] = []
        self.replies: list[tuple[str, Parcel]] = []

    def living(self) -> Iterator[Worker]:
        """All workers, the current ones last."""
        yield from self.lingering
        yield from (worker for worker in self.workers if worker)

    def holder(self, place: Place) -> Worker | None:
        """The worker that has a task now."""
        return next((worker for slot, worker in zip(self.slots, self.workers) if place in slot), None)


@dataclasses.dataclass
class Pair:
    """A spout and the bolt that it feeds. launches: the current one is the last; older ones were killed and have not noticed yet."""

    definition: BoltDefinition
    bolt_cls: type[Any]
    launches: list[Launch] = dataclasses.field(default_factory=list)
    parked: set[int] = dataclasses.field(default_factory=set)  # partitions whose spout has reported that the log does not have its position


class Cluster:
    """Runs one pair."""

    def __init__(self, world: World, definition: BoltDefinition, bolt_cls: type[Any]) -> None:
        self.world, self.rng, self.pair = world, world.rng, Pair(definition, bolt_cls)
        self.quiet_until = 0
        settings = {
            "bolt": definition.bolt,
            "generation": definition.generation,
            "schema": definition.schema,
            "flush": FLUSH,
            "limits": vars(LIMITS),
            "rollups": list(definition.rollups),
        }
        self.config = {CONFIG: json.dumps(settings), DEPLOYMENT: "", "topology.name": "simulated"}
        self.launch()

    @property
    def now(self) -> Launch:
        """The current submission."""
        return self.pair.launches[-1]

    # Starting.

    def launch(self) -> None:
        """Submit the pair, with a parallelism and a placement by chance. The submission before this one has not noticed yet."""
        some = (1, 1, 2, 3) if self.world.random_faults else (1,)
        spouts, bolts = self.rng.choice(some), self.rng.choice(some)
        places: list[Place] = [("spout", n) for n in range(spouts)] + [("bolt", n) for n in range(bolts)]
        slots: list[list[Place]] = [[] for _ in range(self.rng.choice((1, 2, 3)) if self.world.random_faults else 1)]
        for place in places:
            self.rng.choice(slots).append(place)
        for old in self.pair.launches:
            old.dies_at = old.dies_at or self.world.steps + self.rng.randint(0, LINGER)
        made = Launch(self.pair, spouts, bolts, [slot for slot in slots if slot])
        self.pair.launches = [*self.pair.launches[-1:], made]
        for slot in range(len(made.slots)):
            self.start(made, slot)

    def start(self, launch: Launch, slot: int) -> None:
        """Start a slot's worker, which knows nothing of any before it."""
        worker = launch.workers[slot] = Worker(Clock(self.world))
        for place in launch.slots[slot]:
            self.start_task(launch, worker, place)

    def start_task(self, launch: Launch, worker: Worker, place: Place) -> None:
        """Start one task in a worker."""
        kind, index = place
        component, tasks = (KafkaSpout, launch.spouts) if kind == "spout" else (self.pair.bolt_cls, launch.bolts)
        deployment = Surrounding(self.world, worker.clock, direct=kind == "spout")
        task = Task(component, kind, self.config, place=(index, tasks), deployment=deployment)
        task.start()
        if kind == "spout":
            worker.sent[index] = {}
        else:
            task.component.limits = LIMITS
        worker.tasks[place] = task

    def crash(self) -> None:
        """Everything of the current submission is gone, with what was between, and starts anew."""
        launch = self.now
        launch.lingering, launch.wire, launch.replies = [], [], []
        for slot in range(len(launch.slots)):
            self.start(launch, slot)

    def die(self, launch: Launch, worker: Worker) -> None:
        """A worker is gone, and the memory of all its tasks. What is on its way to it gets lost."""
        if worker in launch.lingering:
            launch.lingering.remove(worker)
            return
        slot = launch.workers.index(worker)
        launch.workers[slot] = None
        launch.up_at[slot] = self.world.steps + (0 if self.world.calm else self.rng.randint(0, RESTART))
        kinds = {kind for kind, _ in worker.tasks}
        self.world.note("spout and bolt gone with their worker" if len(kinds) == 2 else f"worker of {kinds.pop()}s gone")

    # Going on.

    def awake(self, worker: Worker) -> bool:
        """Whether a worker does anything."""
        return worker.stopped_until <= self.world.steps

    def some_task(self, kind: str) -> tuple[Launch, Worker, Place] | None:
        """A task whose turn it is: of the current workers more often than of those that linger."""
        launch = self.rng.choice([*self.pair.launches, self.now])
        found = [
            (launch, worker, place)
            for worker in launch.living()
            for place in (worker.tasks if self.awake(worker) else ())
            if place[0] == kind
        ]
        return self.rng.choice(found + found[-1:]) if found else None

    def upkeep(self) -> None:
        """The supervisor's work: start what is down, end what was replaced."""
        steps = self.world.steps
        self.pair.launches = [launch for launch in self.pair.launches if launch.dies_at is None or launch.dies_at > steps]
        for launch in self.pair.launches:
            launch.lingering = [worker for worker in launch.lingering if worker.dies_at is None or worker.dies_at > steps]
            for slot, worker in enumerate(launch.workers):
                if worker is None and launch.up_at[slot] <= steps:
                    self.start(launch, slot)

    def settle(self) -> None:
        """No more faults: nothing lingers, nothing is stopped."""
        self.pair.launches = [self.now]
        self.now.lingering, self.now.stale_until = [], 0
        for worker in self.now.living():
            worker.stopped_until = 0
        self.now.up_at = [0] * len(self.now.slots)

    def spout_step(self) -> None:
        """Storm asks a spout for a tuple; those that were not answered for in time fail first."""
        found = self.some_task("spout")
        if found is None:
            return
        launch, worker, place = found
        sent = worker.sent[place[1]]
        try:
            for tup_id in [tup_id for tup_id, since in sent.items() if self.world.steps > since + TIMEOUT]:
                del sent[tup_id]
                self.tell(worker, place, {"command": "fail", "id": tup_id})
                self.world.note("tuple timed out")
            self.tell(worker, place, {"command": "next"})
        except Crash:
            self.process_died(launch, worker, place)
            return
        for message in worker.tasks[place].sent():
            parcel = Parcel(message["id"], message["tuple"], worker, place[1])
            launch.wire.append(parcel)
            sent[parcel.id] = self.world.steps

    def tell(self, worker: Worker, place: Place, message: dict[str, Any]) -> None:
        """A command for a spout, which has to say once that it is done."""
        task = worker.tasks[place]
        before = len(task.wire.outbox)
        task.send(message)
        news = list(task.wire.outbox)[before:]
        for error in (one["msg"] for one in news if one["command"] == "error"):
            found = re.search(rf"{schema.name}/(\d+): offset \d+ is not between", error)
            self.pair.parked |= {int(found[1])} if found else set()
        said = [one["command"] for one in news]
        if said.count("sync") != 1:
            raise Difference(f"a spout answered {message['command']!r} with {said}: Storm waits for one sync")

    def bolt_step(self) -> None:
        """A bolt's job goes on by one call."""
        found = self.some_task("bolt")
        if found is None:
            return
        launch, worker, place = found
        try:
            worker.tasks[place].component.driver.step(self.world)
        except Crash:
            self.collect(launch, worker, place)  # what it said before had left it already
            self.process_died(launch, worker, place)
        else:
            self.collect(launch, worker, place)

    def process_died(self, launch: Launch, worker: Worker, place: Place) -> None:
        """Storm kills the whole worker; the local runner starts the component alone."""
        if self.world.random_faults and self.rng.random() < 0.6:
            self.die(launch, worker)
        else:
            self.start_task(launch, worker, place)

    def deliver(self) -> None:
        """A tuple or an answer arrives, or something else becomes of it."""
        launch, rng = self.rng.choice([*self.pair.launches, self.now]), self.rng
        fate = 1.0 if self.world.calm else rng.random()
        if launch.replies and (not launch.wire or rng.random() < 0.5):
            command, parcel = launch.replies.pop(rng.randrange(len(launch.replies)))
            if fate < 0.03:
                self.world.note("reply lost")
            else:
                self.answer(launch, command, parcel)
        elif launch.wire:
            place = rng.randrange(len(launch.wire)) if fate < 0.2 else 0
            self.world.note("tuple overtaken", place > 0)
            parcel = launch.wire.pop(place)
            if fate < 0.03:
                self.world.note("tuple lost")
                return
            if fate < 0.06:
                launch.wire.append(parcel)
                self.world.note("tuple duplicated")
            self.arrive(launch, parcel, astray=fate < 0.2 or self.world.steps < launch.stale_until)

    def arrive(self, launch: Launch, parcel: Parcel, *, astray: bool) -> None:
        """A tuple gets to the bolt task that its partition is grouped to: of the sender's own worker if that has one, else of the current one."""
        bolt: Place = ("bolt", parcel.values[2] % launch.bolts)
        worker = parcel.worker if bolt in parcel.worker.tasks else launch.holder(bolt)
        others = [one for one in launch.lingering if bolt in one.tasks]
        if astray and others:
            worker = self.rng.choice(others)
            self.world.note("tuple sent to a replaced bolt")
        if worker is None or worker not in launch.living():
            self.world.note("tuple sent to a dead worker")
        elif not self.awake(worker):
            launch.wire.append(parcel)
        else:
            self.world.parcels[parcel.id] = parcel
            message = {"id": parcel.id, "comp": "spout", "stream": "default", "task": 1, "tuple": parcel.values}
            self.give(launch, worker, bolt, message)

    def answer(self, launch: Launch, command: str, parcel: Parcel) -> None:
        """An ack or a fail gets to the spout task that sent the tuple, if that still lives and waits for it."""
        if parcel.worker not in launch.living():
            return
        if not self.awake(parcel.worker):
            launch.replies.append((command, parcel))
        elif parcel.worker.sent[parcel.spout].pop(parcel.id, None) is not None:
            self.tell(parcel.worker, ("spout", parcel.spout), {"command": command, "id": parcel.id})

    def give(self, launch: Launch, worker: Worker, place: Place, message: dict[str, Any]) -> None:
        """A message to a bolt, and what it says to it."""
        worker.tasks[place].send(message)
        self.collect(launch, worker, place)

    def collect(self, launch: Launch, worker: Worker, place: Place) -> None:
        """What a bolt said: an ack must be for what is durable."""
        for message in worker.tasks[place].sent():
            if message["id"] != TICK["id"]:
                parcel = self.world.parcels[message["id"]]
                if message["command"] == "ack" and self.pair.bolt_cls is RollupBolt:
                    check_ack(self.world, parcel.values)
                launch.replies.append((message["command"], parcel))

    def tick(self) -> None:
        """Storm's clock, for every bolt."""
        if self.quiet_until > self.world.steps:
            return
        for launch in self.pair.launches:
            for worker in list(launch.living()):
                for place in worker.tasks if self.awake(worker) else ():
                    if place[0] == "bolt":
                        self.give(launch, worker, place, dict(TICK))

    # Faults.

    def fault(self) -> None:
        """Something happens to a worker."""
        rng, launch = self.rng, self.now
        workers = [worker for worker in launch.workers if worker]
        if not workers:
            return
        worker, pick = rng.choice(workers), rng.random()
        if pick < 0.30:
            self.take_over(launch, worker)
        elif pick < 0.38:
            self.route_to_replaced()
        elif pick < 0.52:
            self.die(launch, worker)
        elif pick < 0.70:
            place = rng.choice(sorted(worker.tasks))
            self.start_task(launch, worker, place)
            self.world.note(f"{place[0]} restarted alone")
        elif pick < 0.76:
            self.crash()
            self.world.note("cluster crashed")
        elif pick < 0.84:
            worker.stopped_until = self.world.steps + rng.randint(1, STOP)
            self.world.note("worker stopped for a while")
        elif pick < 0.88:
            self.quiet_until = self.world.steps + rng.randint(1, 1000)
            self.world.note("ticks missing")
        elif pick < 0.94:
            worker.clock.set()
            self.world.note("clock set")
        else:
            self.world.note("redeployed with another parallelism")
            self.world.submit(self.pair.definition)
            self.launch()

    def replace_some(self) -> None:
        """Workers are replaced."""
        for worker in [worker for worker in self.now.workers if worker and self.rng.random() < 0.7]:
            self.take_over(self.now, worker)

    def route_to_replaced(self) -> None:
        """Tuples go to the workers that were replaced, as far as they live, for a while."""
        self.now.stale_until = self.world.steps + self.rng.randint(0, STALE)
        self.world.note("tuples go to the replaced workers for a while", bool(self.now.lingering))

    def take_over(self, launch: Launch, worker: Worker) -> None:
        """A worker is replaced, and lives on with all that it has in memory; perhaps it is stopped now and goes on only later."""
        slot = launch.workers.index(worker)
        launch.lingering = [*launch.lingering[1 - MOST_LINGERING :], worker]
        worker.dies_at = self.world.steps + self.rng.randint(0, LINGER)
        if self.rng.random() < 0.4:
            worker.stopped_until = self.world.steps + self.rng.randint(0, STOP)
            worker.dies_at = worker.stopped_until + self.rng.randint(0, LINGER)
            self.world.note("stopped worker comes back after a takeover")
        self.start(launch, slot)
        self.world.note("two owners alive")
