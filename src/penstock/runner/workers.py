"""Several processes that run one topology: worker i of N owns the partitions p with p mod N == i.

The processes share nothing but the stores. A worker that dies is started again and takes up its partitions from what is durable, as after any crash. One
that dies too often ends the run, and so does one that says an error: its runner has started the component again and again before it gave up.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from typing import Any, Callable

from penstock.deployment import Deployment
from penstock.errors import PenstockError, UsageError
from penstock.model import Schema
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.runner.local import CALM, RESTARTS, LocalRunner, Position

log = logging.getLogger(__name__)

LOOK_EVERY = 0.25  # seconds between looks at the workers and their progress
PATIENCE = 120.0  # seconds that a worker may take to drain before it is killed


class WorkerError(PenstockError):
    """A worker ended in an error, or too often."""


@dataclasses.dataclass
class _Worker:
    """One process, and the pipe by which it says what it ended in and learns that this process is gone."""

    index: int
    process: Any
    pipe: multiprocessing.connection.Connection
    died: list[float] = dataclasses.field(default_factory=list)  # when earlier ones of this index did
    start_at: float = 0.0
    done: bool = False


class Workers:
    """Runs a topology in `workers` processes, no more than there are partitions. Call `run` once, in the main thread; `stop` and `kill` from a signal handler.

    topology: a module or a file, as `penstock.topology.load_topology` takes it; each process loads it anew. definitions: what
    `penstock.runner.local.prepare` returned.
    """

    def __init__(self, topology: str, deployment: Deployment, definitions: list[BoltDefinition], workers: int) -> None:
        self.topology, self.deployment, self.definitions = topology, deployment, definitions
        self.registry = Registry(deployment.table)
        self.topics = sorted({deployment.topic(Schema.from_json(definition.schema)) for definition in definitions})
        self.workers = max(1, min(workers, max(deployment.log.partitions(topic) for topic in self.topics)))
        self.stopping = False
        self._spawn = multiprocessing.get_context("spawn")  # a fork would share open files and threads' locks with this process
        self._running: list[_Worker] = []

    def stop(self) -> None:
        """Let every worker drain, and return from `run`."""
        self.stopping = True

    def kill(self) -> None:
        """End every worker at once. What is durable stays; the rest is counted again by the next run."""
        for worker in self._running:
            if worker.process.is_alive():
                worker.process.kill()

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that run."""
        return [worker.process.pid for worker in self._running if worker.process.is_alive()]

    def positions(self, targets: dict[tuple[str, int], int]) -> list[Position]:
        """Where every bolt is in each partition, as far as it is durable: read from the control cells, which is all that processes know of each other."""
        found = []
        for definition in self.definitions:
            for shard, control in self.registry.shards(definition.bolt, definition.generation):
                target = targets.get((shard.topic, shard.partition))
                if target is not None and shard.incarnation == self.deployment.log.incarnation(shard.topic):
                    found.append(Position(shard, control, control.done.offset, target))
        return found

    def run(self, *, until_caught_up: bool = False, on_progress: Callable[[list[Position]], None] | None = None) -> None:
        """Run until stopped, or until every worker has caught up with what was in the log at its start.

        Raises the error that a worker ended in: WorkerError, carrying the message, unless it is a user's mistake.
        """
        targets = {
            (topic, p): self.deployment.log.end(topic, p) for topic in self.topics for p in range(self.deployment.log.partitions(topic))
        }
        told = False
        stop_by = 0.0
        try:
            self._running = [self._start(index, until_caught_up) for index in range(self.workers)]
            while not all(worker.done for worker in self._running):
                multiprocessing.connection.wait(
                    [worker.process.sentinel for worker in self._running if not worker.done and worker.start_at == 0], LOOK_EVERY
                )
                if self.stopping and not told:
                    told, stop_by = True, time.monotonic() + PATIENCE
                    for worker in self._running:
                        worker.process.terminate()
                if told and time.monotonic() > stop_by:
                    self.kill()
                for number, worker in enumerate(self._running):
                    if not worker.done:
                        self._running[number] = self._looked_after(worker, until_caught_up)
                if on_progress:
                    on_progress(self.positions(targets))
        finally:
            self._end()

    def _start(self, index: int, until_caught_up: bool, died: list[float] | None = None) -> _Worker:
        ours, theirs = self._spawn.Pipe()
        definitions = json.dumps([definition.to_json() for definition in self.definitions])
        process = self._spawn.Process(
            target=_work,
            name=f"penstock-worker-{index}",
            args=(self.topology, self.deployment.to_json(), definitions, (index, self.workers), until_caught_up, theirs),
        )
        # A terminal's Ctrl-C goes to all processes, but only this one decides. What is ignored here stays so in the new process.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()
        return _Worker(index, process, ours, died or [])

    def _looked_after(self, worker: _Worker, until_caught_up: bool) -> _Worker:
        """The worker, or the one that takes its place."""
        if worker.process.is_alive():
            return worker
        if worker.start_at == 0:
            worker.process.join()
            code, problem = worker.process.exitcode, _said(worker.pipe)
            worker.pipe.close()
            if code == 0 or (self.stopping and problem is None):
                worker.done = True
                return worker
            now = time.monotonic()
            worker.died = [at for at in worker.died if at > now - CALM] + [now]
            how = f"{problem['type']}: {problem['message']}" if problem else f"signal {-code}" if code < 0 else f"exit code {code}"
            if problem is not None and (problem["final"] or len(worker.died) > RESTARTS):
                raise (UsageError if problem["usage"] else WorkerError)(
                    problem["message"] if problem["usage"] else f"worker {worker.index} ended: {how}", hint=problem["hint"]
                )
            if len(worker.died) > RESTARTS:
                raise WorkerError(
                    f"worker {worker.index} died {len(worker.died)} times within {CALM:.0f} s, the last time of {how}",
                    hint="what is durable stays; look at the log for the cause",
                )
            log.warning("worker %d ended (%s); it is started again", worker.index, how)
            worker.start_at = now + 0.1 * 2 ** len(worker.died)
        if self.stopping:
            worker.done = True
            return worker
        return self._start(worker.index, until_caught_up, worker.died) if time.monotonic() >= worker.start_at else worker

    def _end(self) -> None:
        """No process may outlive the run."""
        for worker in self._running:
            if worker.process.is_alive():
                worker.process.terminate()
        by = time.monotonic() + 10
        for worker in self._running:
            worker.process.join(max(0.0, by - time.monotonic()))
        self.kill()
        for worker in self._running:
            worker.process.join()
            worker.pipe.close()


def _said(pipe: multiprocessing.connection.Connection) -> dict[str, Any] | None:
    """What a worker that has ended said of it."""
    try:
        return pipe.recv() if pipe.poll() else None  # type: ignore[no-any-return]
    except (EOFError, OSError):
        return None


def _work(
    topology: str,
    deployment: str,
    definitions: str,
    place: tuple[int, int],
    until_caught_up: bool,
    pipe: multiprocessing.connection.Connection,
) -> None:
    """What a worker process does."""
    runner: LocalRunner | None = None
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()
        if runner is not None:
            runner.stop()

    def watch() -> None:
        """The parent never sends anything; the pipe ends when the parent does, however it does."""
        try:
            pipe.recv()
        except (EOFError, OSError):
            stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True, name="penstock-parent").start()
    logging.basicConfig(format=f"%(asctime)s %(levelname)s worker {place[0]}: %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    from penstock.topology import load_topology

    try:
        with Deployment.from_json(deployment) as opened:
            runner = LocalRunner(
                load_topology(topology), opened, [BoltDefinition.from_json(data) for data in json.loads(definitions)], place=place
            )
            if stopping.is_set():
                runner.stop()
            runner.run(until_caught_up=until_caught_up)
    except PenstockError as problem:
        pipe.send(
            {
                "type": type(problem).__name__,
                "message": problem.message,
                "hint": problem.hint,
                "usage": isinstance(problem, UsageError),
                "final": not problem.retriable,
            }
        )
        os._exit(1)
    except Exception as problem:  # whatever it is, the parent says it
        log.error("ended", exc_info=True)
        pipe.send({"type": type(problem).__name__, "message": str(problem), "hint": None, "usage": False, "final": True})
        os._exit(1)
