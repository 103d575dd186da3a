"""What components see of the simulated world: stores that fail, a clock that is their machine's own, and jobs that go on when they are told to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Callable, Collection

from penstock.errors import PenstockError
from penstock.model.units import SECOND
from penstock.metrics import NoMetrics
from penstock.rollup.calls import Call, Job, Pause
from penstock.rollup.shard import Shard
from penstock.runner.simulation.outside import Answer

if TYPE_CHECKING:
    from penstock.runner.simulation.world import World

MOST_SKEW = 300 * SECOND


class Clock:
    """A machine's clock: seconds or minutes ahead or behind, and set right or wrong while things run."""

    def __init__(self, world: World) -> None:
        self.world, self.skew = world, 0
        if world.random_faults:
            self.set()

    def set(self) -> None:
        """Somebody sets it."""
        most = self.world.rng.choice((0, 2_000, 5 * SECOND, MOST_SKEW))
        self.skew = self.world.rng.randint(-most, most)

    def now(self) -> int:
        """Microseconds since 1970."""
        return self.world.clock + self.skew


class ManualDriver:
    """Steps one bolt's jobs when the world says so: one outside call a step."""

    def __init__(self, shards: Callable[[], Collection[Shard]], failed: Callable[[BaseException], None]) -> None:
        self.shards, self.failed = shards, failed
        self.job: Job | None = None
        self.waiting: Call | Pause | None = None
        self.answer: Answer | None = None
        self.until = 0

    def poke(self) -> None:
        """Nothing waits."""

    def stop(self) -> None:
        """A job that is stopped between two calls simply never goes on."""
        self.job = None

    def step(self, world: World) -> None:
        """Begin a job that is due, or make the call that one waits for, or take its answer if there is one. Raises Crash."""
        if self.job is None:
            self.job = next((job for job in (shard.work() for shard in list(self.shards())) if job is not None), None)
            if self.job is not None:
                self.resume(None, None, world)
        elif isinstance(self.waiting, Pause):
            if world.clock >= self.until:
                self.resume(None, None, world)
        else:
            assert self.waiting is not None
            answer = self.answer or world.outside.send(self.waiting)
            self.answer = None if answer.ready else answer
            if answer.ready:
                self.resume(answer.value, answer.problem, world)

    def resume(self, answer: Any, problem: PenstockError | None, world: World) -> None:
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
    """The deployment of a component. direct: it makes its calls itself, as a spout does, instead of yielding them."""

    def __init__(self, world: World, clock: Clock, *, direct: bool) -> None:
        self.world, self.now = world, clock.now
        self.table: Any = _Direct(world, "table", world.table, ("get", "compare_and_set")) if direct else world.table
        self.log: Any = _Direct(world, "log", world.feed.log, ("read", "partitions")) if direct else world.feed.log
        self.archive = world.archive
        self.metrics = NoMetrics()

    def topic(self, name: str) -> str:
        """The topic of a schema."""
        return name

    def fresh(self) -> str:
        """A new name."""
        return f"{self.world.fresh():08x}"

    def new_driver(
        self, shards: Callable[[], Collection[Shard]], lock: threading.RLock, failed: Callable[[BaseException], None], threads: int
    ) -> ManualDriver:
        """The simulator steps the jobs."""
        return ManualDriver(shards, failed)


class _Direct:
    """A store some of whose calls can fail."""

    def __init__(self, world: World, name: str, store: Any, failing: tuple[str, ...]) -> None:
        self._world, self._name, self._store, self._failing = world, name, store, failing

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in self._failing:
            return method

        def make(*arguments: Any) -> Any:
            what = f"spout {self._name}.{name}" + (f" {arguments[0]}" if self._name == "table" else "")
            return self._world.outside.make(Call(what, lambda: method(*arguments)))

        return make
