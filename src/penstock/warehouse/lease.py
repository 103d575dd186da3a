"""Which one of several exporters leads, so that the others do not do its work again.

One cell of the control table, `exporter/<name>/leader`, changed by compare-and-set alone. Nothing that is exact depends on it: two exporters that
both believe to lead load every hour once all the same, by the ledger. It goes by no clock but each one's own: the leader changes the cell again and
again, and one that stands by takes it once it has not changed for as long as the leader itself said. So a leader that was killed is followed, and
clocks that differ do no harm.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from penstock.errors import CorruptionError, PenstockError
from penstock.model.units import SECOND
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE
from penstock.table import Table

log = logging.getLogger(__name__)

SILENCE = 30 * SECOND  # after which a leader that says nothing is followed


@dataclasses.dataclass(frozen=True)
class Leader:
    """Who leads. owner: a random name; empty where it gave up the lead itself. since, beat_at: when it took the lead and last said so, by its own
    clock, in microseconds. beat: how often it has. silence: for how long it may say nothing, in microseconds."""

    owner: str
    host: str
    pid: int
    since: int
    beat: int
    beat_at: int
    silence: int

    def encode(self) -> bytes:
        """Canonical bytes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True).encode()

    @property
    def text(self) -> str:
        """Who it is, for people."""
        return f"process {self.pid} on {self.host}"

    def lives(self, now: int) -> bool:
        """Whether it seems to, by the clock: for people to see, not to decide by."""
        return bool(self.owner) and now - self.beat_at <= self.silence


def leader_of(table: Table, name: str) -> Leader | None:
    """Who leads the exporters called `name`, or did last; None where there never was one."""
    found = table.get(CONTROL_TABLE, [(_row(name), CONTROL_COLUMN)])[0] if CONTROL_TABLE in table.tables() else None
    return None if found is None else _decoded(found)


class Lease:
    """One exporter's claim to the lead. Used by one thread, beside the one that it starts to keep the lead while hours are loaded.

    now: the wall clock, only shown to people. silence: for how long this one may say nothing before another takes its place.
    """

    def __init__(self, table: Table, name: str, owner: str, now: Callable[[], int], *, silence: int = SILENCE) -> None:
        self._table, self._row, self._now = table, _row(name), now
        self._me = Leader(owner, socket.gethostname(), os.getpid(), 0, 0, 0, silence)
        self._mine: bytes | None = None  # what the cell holds while this one leads
        self._answered = 0.0  # when it was last known to
        self._seen: bytes | None = None  # what it held when another did, and since when it has
        self._seen_since = 0.0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this one leads, as far as it knows. One that has had no answer for as long as it may say nothing no longer knows."""
        with self._lock:
            return self._mine is not None and time.monotonic() - self._answered < self._me.silence / SECOND

    def take(self) -> Leader | None:
        """Take the lead, or keep it. None if this one leads now, else who does. Raises UnavailableError."""
        with self._lock:
            if self._mine is not None and self._beat():
                return None
            found = self._table.get(CONTROL_TABLE, [(self._row, CONTROL_COLUMN)])[0]
            other = None if found is None else _decoded(found)
            if found != self._seen:
                self._seen, self._seen_since = found, time.monotonic()
            if other is not None and other.owner not in ("", self._me.owner):
                if time.monotonic() - self._seen_since < other.silence / SECOND:
                    return other
            self._me = dataclasses.replace(self._me, since=self._now())
            if not self._write(found):
                return other or self._me
            log.info("leads")
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
            self._keeper.start()
        return None

    def release(self) -> None:
        """Give up the lead, so that another takes it at once. Never raises: without an answer it will, a little later."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join(5)
        with self._lock:
            if self._mine is not None:
                mine, self._mine = self._mine, None
                try:
                    given_up = dataclasses.replace(self._me, owner="", beat_at=self._now()).encode()
                    self._table.compare_and_set(CONTROL_TABLE, self._row, CONTROL_COLUMN, mine, given_up)
                except PenstockError as problem:
                    log.warning("the lead could not be given up: %s", problem.message)

    def _keep(self) -> None:
        while not self._stopping.wait(self._me.silence / SECOND / 4):
            with self._lock:
                try:
                    if self._mine is not None:
                        self._beat()
                except PenstockError as problem:
                    log.warning("the lead is not confirmed: %s", problem.message)

    def _beat(self) -> bool:
        """Say that this one leads still. Whether it does."""
        if not self._write(self._mine):
            self._mine = None
            log.warning("another exporter leads now")
            return False
        return True

    def _write(self, expected: bytes | None) -> bool:
        began = time.monotonic()
        new = dataclasses.replace(self._me, beat=self._me.beat + 1, beat_at=self._now())
        data = new.encode()
        if not self._table.compare_and_set(CONTROL_TABLE, self._row, CONTROL_COLUMN, expected, data):
            # An answer of before may have been lost: then the cell holds what this one wrote.
            found = self._table.get(CONTROL_TABLE, [(self._row, CONTROL_COLUMN)])[0]
            if found is None or _decoded(found).owner != self._me.owner:
                return False
            if not self._table.compare_and_set(CONTROL_TABLE, self._row, CONTROL_COLUMN, found, data):
                return False
        self._me, self._mine, self._answered = new, data, began
        return True


def _row(name: str) -> bytes:
    return f"exporter/{name}/leader".encode()


def _decoded(data: bytes) -> Leader:
    try:
        return Leader(**json.loads(data))
    except (ValueError, TypeError) as problem:
        raise CorruptionError(f"the cell of an exporter's leader does not parse: {problem}") from None
