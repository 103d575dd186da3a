"""Steps the jobs of a bolt's shards in threads of their own, so that a slow store holds up neither heartbeats nor the taking of tuples."""

from __future__ import annotations

import threading
from typing import Any, Callable, Collection, Protocol

from penstock.rollup.calls import Job, Pause
from penstock.rollup.shard import Shard


class Driver(Protocol):
    """What steps the jobs of a bolt's shards."""

    def poke(self) -> None:
        """Something happened that may have made work due. Called under the bolt's lock."""

    def stop(self) -> None:
        """Let the calls that are under way end, and no other begin. Not called under the lock."""


LOOK_EVERY = 0.05  # seconds between looks for work that only the clock makes due


class ThreadDriver:
    """`threads` threads; each takes a shard with work to do and carries its job to the end.

    lock: held while a job computes, given up while it waits for a store. failed: called once, with the exception that a job ended in; the driver
    stops then, and the bolt starts anew from what is durable.
    """

    def __init__(
        self, shards: Callable[[], Collection[Shard]], lock: threading.RLock, failed: Callable[[BaseException], None], threads: int = 1
    ) -> None:
        self.shards, self.lock, self.failed = shards, lock, failed
        self.stopping = threading.Event()
        self.changed = threading.Condition(lock)
        self.threads = [threading.Thread(target=self._run, name=f"penstock-flush-{n}", daemon=True) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def poke(self) -> None:
        """Something happened that may have made work due. Called under the lock."""
        self.changed.notify()

    def stop(self) -> None:
        """Let the calls that are under way end, and no other begin. Not called under the lock."""
        self.stopping.set()
        with self.lock:
            self.changed.notify_all()
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join(timeout=30)

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                with self.lock:
                    job = self._next()
                    if job is None:
                        self.changed.wait(LOOK_EVERY)
                if job is not None:
                    self._drive(job)
        except BaseException as problem:  # whatever it is, the bolt has to know: it goes on in another thread
            self.stopping.set()
            self.failed(problem)

    def _next(self) -> Job | None:
        for shard in self.shards():
            job = shard.work()
            if job is not None:
                return job
        return None

    def _drive(self, job: Job) -> None:
        answer: Any = None
        problem: Exception | None = None
        while not self.stopping.is_set():
            with self.lock:
                try:
                    step = job.throw(problem) if problem else job.send(answer)
                except StopIteration:
                    self.changed.notify_all()
                    return
            answer, problem = None, None
            if isinstance(step, Pause):
                self.stopping.wait(step.seconds)
                continue
            try:
                answer = step.make()
            except Exception as raised:
                problem = raised
