"""Group commit: what waits for a dataset is examined, claimed and appended together, so that a thousand requests cost hardly more than one."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import threading
import time
from typing import Any, Callable, Sequence

import numpy as np

from penstock.errors import PenstockError, UnavailableError
from penstock.kernels.encode import Slices
from penstock.log import Log
from penstock.log.producer import Producer
from penstock.serve.reception import trace
from penstock.serve.reception.claims import Claims, Receipt, Standing
from penstock.serve.reception.commit import Committer
from penstock.serve.reception.examine import Examined, Examiner, Part

log = logging.getLogger(__name__)
GROUP_EVENTS, GROUP_BYTES = 50_000, 8 << 20  # that a group is closed at
_IDLE = 0.05  # seconds after which done requests are written down without others to come with
_LATER = 1.0  # and after how many it is tried again
_WHOLE = 1 << 40  # a producer's buffer that never is full: it is taken from after every group


class Busy(Exception):
    """Another server has the request in its hands. seconds: to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"in the hands of another server for {seconds:.1f} s yet")
        self.seconds = seconds


class Mismatch(Exception):
    """The idempotency key came with another body before."""


@dataclasses.dataclass(eq=False)
class Delivery:
    """One request on its way into the log. digest, body: of its idempotency key and its body's hash; None without a key."""

    part: Part
    answer: asyncio.Future[Receipt]
    digest: bytes | None = None
    body: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of its events."""
        return len(self.part.values.buffer)


class Intake:
    """The thread that takes the events of one dataset.

    examiner: may be replaced while it runs, by one of a changed schema. claims: makes what holds the idempotency keys, when the first one comes. linger: seconds that the first of a group waits for others. lease: microseconds within which a group is appended, or given up.
    """

    def __init__(
        self,
        topic: str,
        examiner: Examiner,
        log: Log,
        claims: Callable[[], Claims],
        committer: Committer,
        now: Callable[[], int],
        *,
        linger: float,
        lease: int,
    ) -> None:
        self.topic, self.examiner, self._log, self._committer = topic, examiner, log, committer
        self._now, self._linger, self._lease = now, linger, lease
        self._make_claims = claims
        self._claims: Claims | None = None
        self._producer: Producer | None = None
        self._queue: collections.deque[Delivery] = collections.deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._due = 0.0  # when what was done is written down at the latest, monotonic seconds
        self.groups = 0
        self._thread = threading.Thread(target=self._run, name=f"penstock-reception-{topic}", daemon=True)
        self._thread.start()

    def put(self, delivery: Delivery) -> None:
        """Take a request. Its answer is set, in its own event loop, when all of its events that fit are in the log."""
        with self._wake:
            if self._stopping:
                raise UnavailableError("the server is stopping")
            self._queue.append(delivery)
            self._wake.notify()

    def close(self, timeout: float) -> None:
        """Append what waits, within `timeout` seconds; what cannot be appended is given up."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)
        self._committer.stop()
        self._thread.join(timeout)
        self._committer.close()

    def _run(self) -> None:
        while True:
            group = self._next()
            if group:
                waiting = self._waiting()
                self._take(group)
                if self._waiting() and not waiting:
                    self._due = time.monotonic() + _IDLE
            if self._waiting() and (self._stopping or time.monotonic() >= self._due):
                self._write_claims()
            if self._stopping and not group and not self._queue:
                return

    def _waiting(self) -> bool:
        return self._claims is not None and self._claims.waiting > 0

    def _next(self) -> list[Delivery]:
        """What is to be taken next; nothing when it is time to write down what was done, or to stop."""
        with self._wake:
            if not self._queue and not self._stopping:
                self._wake.wait(max(0.0, self._due - time.monotonic()) if self._waiting() else None)
        if self._linger and self._queue and not self._stopping:
            self._gather()
        group: list[Delivery] = []
        events = size = 0
        while self._queue and events < GROUP_EVENTS and size < GROUP_BYTES:
            group.append(self._queue.popleft())
            events += len(group[-1].part.values)
            size += group[-1].size
        return group

    def _gather(self) -> None:
        until = time.monotonic() + self._linger
        while (left := until - time.monotonic()) > 0 and sum(len(one.part.values) for one in tuple(self._queue)) < GROUP_EVENTS:
            with self._wake:
                self._wake.wait(left)

    def _take(self, group: list[Delivery]) -> None:
        answers: dict[int, Receipt | Exception] = {}
        try:
            self._commit(group, answers)
        except Exception as problem:
            if not isinstance(problem, PenstockError):
                log.exception("reception of %s", self.topic)
            answers.update({number: problem for number in range(len(group)) if number not in answers})
        self.groups += 1
        _answer(group, answers)

    def _commit(self, group: list[Delivery], answers: dict[int, Receipt | Exception]) -> None:
        standings, until = self._claim(group, answers)
        mine = [number for number in range(len(group)) if number not in answers]
        if not mine:
            return
        named = [number for number in mine if group[number].digest is not None]
        tried = False
        try:
            present = self._present(group, standings)
            examined = self.examiner.examine([group[number].part for number in mine])
            counts = [len(group[number].part.values) for number in mine]
            batches = self._batches(examined, counts, [group[number].digest for number in mine], present)
            tried = True
            self._committer.append(self.topic, batches, until)
        except BaseException:
            self._producer = None  # it may hold what it could not encode whole
            for number in named:
                assert self._claims is not None
                (self._claims.give_up if tried or standings[number].since is not None else self._claims.withdraw)(
                    group[number].digest or b""
                )
            raise
        first = 0
        for number, count in zip(mine, counts):
            codes = examined.reject[first : first + count]
            first += count
            rejected = self.examiner.rejects(codes)
            receipt = Receipt(count - len(rejected), rejected)
            answers[number] = receipt
            digest = group[number].digest
            if digest is not None:
                assert self._claims is not None
                self._claims.done(digest, receipt)

    def _claim(self, group: list[Delivery], answers: dict[int, Receipt | Exception]) -> tuple[dict[int, Standing], int]:
        """How the requests that name a key stand, and until when the group may be appended. Those that are not to be appended are answered for."""
        named = [number for number, one in enumerate(group) if one.digest is not None]
        if not named:
            return {}, self._now() + self._lease
        try:
            if self._claims is None:
                self._claims = self._make_claims()
            found, until = self._claims.begin(
                [(group[number].digest or b"", group[number].body, group[number].part.sent.received) for number in named]
            )
        except PenstockError as problem:
            answers.update(dict.fromkeys(named, problem))
            return {}, self._now() + self._lease
        for number, standing in zip(named, found):
            if standing.receipt is not None:
                answers[number] = standing.receipt
            elif standing.mismatch:
                answers[number] = Mismatch()
            elif standing.busy:
                answers[number] = Busy(standing.busy)
        return dict(zip(named, found)), until

    def _present(self, group: list[Delivery], standings: dict[int, Standing]) -> dict[bytes, set[int]]:
        """Which events of requests that were taken over lie in the log already."""
        since = {group[number].digest or b"": one.since for number, one in standings.items() if one.since is not None}
        if not since:
            return {}
        began = time.monotonic()
        found = trace.find(self._log, self.topic, since, min(at for at in since.values() if at is not None))
        log.info(
            "%s: %d requests of servers that are gone: %d of their events were in the log (looked for %.1f s)",
            self.topic,
            len(since),
            sum(map(len, found.values())),
            time.monotonic() - began,
        )
        return found

    def _batches(
        self, examined: Examined, counts: Sequence[int], digests: Sequence[bytes | None], present: dict[bytes, set[int]]
    ) -> dict[int, list[bytes]]:
        """The record batches of what fits and is not there, by partition."""
        headers = trace.headers(list(digests), list(counts))
        if present:
            first = 0
            for count, digest in zip(counts, digests):
                there = present.get(digest or b"", set())
                examined.reject[[first + index for index in there if index < count]] = (
                    0  # what was taken is accepted, whatever the clock says now
                )
                first += count
        take = examined.reject == 0
        if present:
            first = 0
            for count, digest in zip(counts, digests):
                take[[first + index for index in present.get(digest or b"", ()) if index < count]] = False
                first += count
        rows = None if take.all() else np.flatnonzero(take)
        if rows is not None and not len(rows):
            return {}
        producer = self._producer
        if producer is None or producer.partitions != self._log.partitions(self.topic):
            producer = self._producer = Producer(self._log, self.topic, buffer_bytes=_WHOLE)
        producer.send_many(
            _some(examined.values, rows),
            None if examined.keys is None else _some(examined.keys, rows),
            examined.timestamps if rows is None else examined.timestamps[rows],
            None if headers is None else _some(headers, rows),
        )
        return producer.take()

    def _write_claims(self) -> None:
        assert self._claims is not None
        try:
            self._claims.write()
        except PenstockError as problem:
            log.warning("what was answered cannot be written down now: %s", problem)
            self._due = time.monotonic() + _LATER
            if self._stopping:
                self._claims.forget()


def _some(slices: Slices, rows: Any) -> Slices:
    return slices if rows is None else Slices(slices.buffer, slices.start[rows], slices.length[rows])


def _answer(group: Sequence[Delivery], answers: dict[int, Receipt | Exception]) -> None:
    """Set the answers, in the event loops that wait for them."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Receipt], Receipt | Exception]]] = {}
    for number, delivery in enumerate(group):
        by_loop.setdefault(delivery.answer.get_loop(), []).append((delivery.answer, answers[number]))
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_set, some)
        except RuntimeError:
            pass  # the loop was closed: nobody waits any more


def _set(answers: Sequence[tuple[asyncio.Future[Receipt], Receipt | Exception]]) -> None:
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
