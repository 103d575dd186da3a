"""The sender: events from any thread, batched and sent by one of its own."""

from __future__ import annotations

import atexit
import datetime as dt
import decimal
import json
import logging
import os
import random
import threading
import time
from types import TracebackType
from typing import Any, Callable, Mapping

from penstock.errors import ConfigurationError, PenstockError, UnavailableError
from penstock.sender.spool import Batch, DiskSpool, MemorySpool
from penstock.sender.transport import Answer, Transport

log = logging.getLogger(__name__)
FULL = ("raise", "block", "drop")
Event = Mapping[str, Any] | bytes
OnReject = Callable[[bytes, str], None]


class SpoolFullError(PenstockError):
    """More waits to be sent than may."""

    retriable = True


class RefusedError(PenstockError):
    """The server will never take some events as they are."""


class Sender:
    """Sends events to one dataset of a server. For any number of threads of one process.

    url: of the server. key: an access key that may write the dataset. spool: a folder in which what is not sent yet survives the program; in memory unless
    given. spool_bytes: that may wait. sync: "none", "batch" or "event", what is forced to disk when. batch_events, batch_bytes: of one request.
    linger: seconds that an event waits for others. compress: "zstd", "gzip" or "none". when_full: "raise" SpoolFullError, "block" until there is room, or
    "drop" the event and count it. max_age: seconds after its first try in which a batch may be tried again: less than the server's window, in which it knows
    a batch again. on_reject: called, by the sender's thread, with each event that the server rejects, and why; without a spool with those of refused batches
    too, for they are kept nowhere. timeout: seconds for an answer.

    accepted, rejected, refused and dropped count events: in the log; wrong, the server says; in batches that will never be taken (with a spool they are in its
    folder `refused`); not even kept. last_error: why the last try failed; stuck: whether that is for somebody to mend, such as a wrong key. Raises
    ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        dataset: str,
        key: str,
        *,
        spool: str | os.PathLike[str] | None = None,
        spool_bytes: int = 256 << 20,
        sync: str = "none",
        batch_events: int = 1000,
        batch_bytes: int = 512 << 10,
        linger: float = 0.5,
        compress: str = "zstd",
        when_full: str = "raise",
        max_age: float = 20 * 3600.0,
        timeout: float = 30.0,
        backoff: tuple[float, float] = (0.1, 30.0),
        on_reject: OnReject | None = None,
        context: Any = None,
    ) -> None:
        if when_full not in FULL:
            raise ConfigurationError(f"when_full={when_full!r} is unknown", hint=f"use one of {', '.join(FULL)}")
        if not key:
            raise ConfigurationError("there is no key", hint="make one: penstock serve keys create --name ME --write --dataset NAME")
        self.dataset, self._key, self._on_reject = dataset, key, on_reject
        self._transport = Transport(url, timeout=timeout, coding=compress, context=context)
        self._spool = MemorySpool() if spool is None else DiskSpool(spool, sync)
        self._limits, self._linger, self._when_full = (spool_bytes, batch_events, batch_bytes), linger, when_full
        self._max_age, self._backoff = max_age, backoff
        self.accepted = self.rejected = self.refused = self.dropped = 0
        self.last_error = ""
        self.stuck = False
        self._untold = 0  # refused events that no flush has told of yet
        self._opened = 0.0
        self._hurry = self._closing = self._stopped = False
        self._changed = threading.Condition()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name=f"penstock-sender-{dataset}", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    @property
    def pending(self) -> int:
        """How many events wait to be answered for."""
        with self._changed:
            return sum(batch.events for batch in self._spool.ready) + (self._spool.open.events if self._spool.open else 0)

    def send(self, event: Event) -> None:
        """Have an event sent: a mapping, or the bytes of one JSON object. It waits in the spool when this returns.

        Decimals and datetimes are written as text. Raises SpoolFullError, ConfigurationError for what is no event, and OSError where the spool's disk does not take it.
        """
        line = _line(event)
        with self._changed:
            while True:
                self._check()
                if self._spool.size + len(line) <= self._limits[0]:
                    break
                if self._when_full == "drop":
                    self.dropped += 1
                    return
                if self._when_full == "raise":
                    raise SpoolFullError(
                        f"{self._spool.size:,} bytes wait to be sent to {self.dataset}: {self.last_error or 'the server is slower than this'}",
                        hint="wait, allow more with spool_bytes, or say when_full='block' or 'drop'",
                    )
                self._hurry = True
                self._changed.notify_all()
                self._changed.wait(1.0)
            batch = self._spool.open
            if batch is not None and batch.size + len(line) > self._limits[2]:
                self._spool.seal()
                batch = None
            if batch is None:
                self._opened = time.monotonic()
                self._changed.notify_all()
            if self._spool.add(line).events >= self._limits[1]:
                self._spool.seal()
                self._changed.notify_all()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was sent before is answered for.

        Raises UnavailableError after `timeout` seconds (nothing is lost by that: the sender goes on), and RefusedError where the server will never take some of it.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._check()
            self._spool.seal()
            last = self._spool.ready[-1].number if self._spool.ready else 0
            self._changed.notify_all()
            while self._spool.ready and self._spool.ready[0].number <= last:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise UnavailableError(
                        f"events for {self.dataset} are not answered for after {timeout:g} s: {self.last_error or 'no answer yet'}",
                        hint="the sender goes on trying",
                    )
                if self._stopped:
                    raise UnavailableError("the sender was closed meanwhile")
                self._changed.wait(left)
            untold, self._untold = self._untold, 0
        if untold:
            raise RefusedError(
                f"{untold} events for {self.dataset} were refused: {self.last_error}", hint="they are in the spool's folder `refused`"
            )

    def close(self, timeout: float = 30.0) -> None:
        """Send what waits, for `timeout` seconds at the most, and stop. What is not answered for by then stays in the spool's folder for the next sender.

        Raises UnavailableError where there is no such folder, and RefusedError as `flush` does.
        """
        if self._stopped or self._process != os.getpid():
            return
        try:
            self.flush(timeout)
        except UnavailableError:
            if not isinstance(self._spool, DiskSpool):
                raise
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join(self._backoff[1])
            atexit.unregister(self._at_exit)
            self._stopped = True
            with self._changed:
                self._spool.close()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _at_exit(self) -> None:
        try:
            self.close(5.0)
        except PenstockError as problem:
            log.error("%s", problem)

    def _check(self) -> None:
        if self._stopped or self._closing:
            raise ConfigurationError("the sender is closed", hint="make another one")
        if self._process != os.getpid():
            raise ConfigurationError("the sender was made in another process", hint="make one after the fork, in each process")

    def _run(self) -> None:
        tries = 0
        while True:
            batch = self._next()
            if batch is None:
                return
            answer = self._post(batch)
            if answer.outcome == "taken" and answer.rejected:
                self._tell(batch, answer)
            elif answer.outcome == "refused" and batch.path is None:
                for line in batch.body().splitlines():
                    self._reject(line, answer.detail)
            with self._changed:
                self.stuck = answer.outcome == "mend"
                if answer.outcome in ("taken", "refused"):
                    self._settle(batch, answer)
                    tries = 0
                    self._changed.notify_all()
                    continue
                self.last_error = answer.detail
                if tries == 0 or answer.outcome == "mend":
                    log.warning("events for %s: %s; trying again", self.dataset, answer.detail)
                pause = self._pause(tries, answer)
                tries += 1
                if not self._closing:
                    self._changed.wait_for(lambda: self._closing, pause)
                if self._closing:
                    self._transport.close()
                    return

    def _next(self) -> Batch | None:
        """The next batch to be sent, once there is one; None when there is to be no other."""
        with self._changed:
            while True:
                if self._spool.ready:
                    return None if self._closing else self._spool.ready[0]
                if self._closing:
                    self._transport.close()
                    return None
                left = None
                if self._spool.open is not None:
                    left = self._opened + self._linger - time.monotonic()
                    if left <= 0 or self._hurry:
                        self._spool.seal()
                        self._hurry = False
                        continue
                self._changed.wait(left)

    def _post(self, batch: Batch) -> Answer:
        if batch.tried and time.time() - batch.tried > self._max_age:
            return Answer(
                "refused", "it was sent so long ago that the server may not know it again: sent once more, it might be taken twice"
            )
        try:
            with self._changed:
                self._spool.trying(batch)
            body = batch.body()
        except OSError as problem:
            return Answer("again", f"the spool cannot be read: {problem}")
        return self._transport.post(self.dataset, self._key, batch.name, body)

    def _pause(self, tries: int, answer: Answer) -> float:
        """Seconds before the next try: full jitter, so that senders that were stopped together do not come back together; and what the server asks for."""
        base, most = self._backoff
        spread = random.uniform(0, min(most, base * 2 ** min(tries, 30)))
        return answer.wait + spread if answer.outcome == "again" else max(answer.wait, most / 2) + spread

    def _settle(self, batch: Batch, answer: Answer) -> None:
        if answer.outcome == "taken":
            self.accepted += answer.accepted
            self.rejected += len(answer.rejected)
            self._spool.remove(batch)
            return
        self.refused += batch.events
        self._untold += batch.events
        self.last_error = answer.detail
        kept = self._spool.refuse(batch, answer.detail)
        log.error("%d events for %s were refused: %s (kept: %s)", batch.events, self.dataset, answer.detail, kept)

    def _tell(self, batch: Batch, answer: Answer) -> None:
        first = answer.rejected[0]
        log.warning("%d events for %s were rejected; the first: %s", len(answer.rejected), self.dataset, first.get("detail"))
        lines = batch.body().splitlines()
        for one in answer.rejected:
            index = one.get("index")
            if isinstance(index, int) and 0 <= index < len(lines):
                self._reject(lines[index], str(one.get("detail")))

    def _reject(self, line: bytes, why: str) -> None:
        if self._on_reject is not None:
            try:
                self._on_reject(line, why)
            except Exception:
                log.exception("on_reject failed")


def _line(event: Event) -> bytes:
    if isinstance(event, bytes):
        line = event.strip()
        if b"\n" in line or b"\r" in line or not line.startswith(b"{"):
            raise ConfigurationError(f"{event[:60]!r} is not the JSON of one object on one line", hint="send a mapping, or such bytes")
        return line + b"\n"
    try:
        return json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain).encode() + b"\n"
    except (TypeError, ValueError, UnicodeEncodeError) as problem:
        raise ConfigurationError(f"an event cannot be written as JSON: {problem}", hint="send text, numbers, lists and mappings") from None


def _plain(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, (dt.datetime, dt.date)):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} has no JSON form")
