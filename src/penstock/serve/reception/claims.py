"""Requests that name an idempotency key: each is taken once, by one of any number of servers, whatever crashes or is sent again.

A row of the table for each key, by its digest. Columns:
- `c<server><number>`, a claim: that server takes the request, has no append of it under way behind `until`, and stamps no record of it before `began`. It is put and then
  the row is read: who sees no other claim owns the request, for whoever claims later sees this one. So all requests of a group cost one put and one read.
- `t`, a take-over: the claim that owns the request after all earlier ones have come to nothing; it alone changes by compare-and-set.
- `d`, done: what was answered. It is written behind the append, and not waited for: the log is the truth, and each record in it says which event of which
  request it is.

A claim has come to nothing when it was withdrawn, when its server is known to be dead, or `SKEW` behind its end. Who takes over looks in the log, from the first
claim's beginning on, for what is there already, and appends the rest.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import zlib
from typing import Any, Callable, Sequence

import msgpack

from penstock.errors import CorruptionError
from penstock.serve.reception.examine import Reject
from penstock.serve.reception.instance import Instance
from penstock.table import Cell, Table

CLAIMS = "reception"
SKEW = 5_000_000  # microseconds that the clocks of two servers may differ by
_CLAIM, _DONE, _TAKEN = b"c", b"d", b"t"
_FORM = 1


@dataclasses.dataclass(frozen=True)
class Receipt:
    """What is answered for a request's events. replayed: whether it was answered before."""

    accepted: int
    rejected: tuple[Reject, ...] = ()
    replayed: bool = False

    def to_json(self) -> dict[str, Any]:
        """The answer as plain data."""
        return {"accepted": self.accepted, "rejected": [one.to_json() for one in self.rejected]}

    def encode(self, body: bytes) -> bytes:
        """The done cell of a request with this body (its hash)."""
        rejects = [(one.index, one.field, one.reason, one.detail) for one in self.rejected]
        return bytes(msgpack.packb((_FORM, body, self.accepted, zlib.compress(json.dumps(rejects).encode()) if rejects else b"")))

    @classmethod
    def decode(cls, cell: bytes) -> tuple[bytes, Receipt]:
        """The hash of the body, and the answer. Raises CorruptionError."""
        try:
            form, body, accepted, packed = msgpack.unpackb(cell)
            rejects = json.loads(zlib.decompress(packed)) if packed else ()
            if form != _FORM:
                raise ValueError(f"form {form}")
            return body, cls(accepted, tuple(Reject(*one) for one in rejects), replayed=True)
        except (ValueError, TypeError, zlib.error) as problem:
            raise CorruptionError(f"what is remembered of a request does not parse: {problem}") from None


@dataclasses.dataclass(frozen=True)
class Claim:
    """A server's claim. began, until: microseconds since 1970. body: the hash of the request's. live: False once it is withdrawn."""

    server: bytes
    began: int
    until: int
    body: bytes
    live: bool = True

    def encode(self) -> bytes:
        """The claim's cell."""
        return bytes(msgpack.packb((_FORM, *dataclasses.astuple(self))))

    @classmethod
    def decode(cls, cell: bytes) -> Claim:
        """Raises CorruptionError."""
        try:
            form, *fields = msgpack.unpackb(cell)
            if form != _FORM:
                raise ValueError(f"form {form}")
            return cls(*fields)
        except (ValueError, TypeError) as problem:
            raise CorruptionError(f"a claim does not parse: {problem}") from None


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a request stands. One of: answered before (`receipt`); another body under the same key (`mismatch`); in another server's hands, for so many seconds yet
    (`busy`); else it is this server's, and `since` says from which log timestamp on its events may lie in the log, None where none can."""

    receipt: Receipt | None = None
    mismatch: bool = False
    busy: float = 0.0
    since: int | None = None


class Claims:
    """Claims of one server process. For one thread at a time. lease: microseconds that a claim lasts. now: the wall clock, microseconds since 1970."""

    def __init__(self, table: Table, instance: Instance, now: Callable[[], int], *, window: int, lease: int) -> None:
        self._table, self._instance, self._now, self._lease = table, instance, now, lease
        self._numbers = itertools.count()
        self._held: dict[bytes, tuple[bytes, Claim]] = {}  # by digest: the column and the claim of requests in our hands
        self._given_up: dict[bytes, int] = {}  # by column: when, of claims whose append nobody knows the end of
        self._later: list[Cell] = []
        self._timestamp = 0
        table.create(CLAIMS, ttl=window, hashed=True)

    @property
    def waiting(self) -> int:
        """How many cells are yet to be written."""
        return len(self._later)

    def begin(self, requests: Sequence[tuple[bytes, bytes, int]]) -> tuple[list[Standing], int]:
        """Claim requests, all different: of each its digest, the hash of its body, and the log timestamp of its records, in microseconds.

        How each stands, and until when what is claimed may be appended. Raises UnavailableError.
        """
        until = self._now() + self._lease
        mine = {digest: (self._column(), Claim(self._instance.id, stamp, until, body)) for digest, body, stamp in requests}
        cells = [(digest, column, claim.encode()) for digest, (column, claim) in mine.items()]
        self._put(cells)
        self._held.update(mine)
        try:
            found = self._table.rows(CLAIMS, list(mine))
            standings = [self._standing(digest, body, row, mine[digest][0]) for (digest, body, _), row in zip(requests, found)]
        except BaseException:
            for digest in mine:
                self.withdraw(digest)
            raise
        for digest, standing in zip(mine, standings):
            if standing.receipt is not None or standing.mismatch or standing.busy:
                self.withdraw(digest)
        return standings, until

    def _standing(self, digest: bytes, body: bytes, row: dict[bytes, bytes], mine: bytes) -> Standing:
        if (done := row.get(_DONE)) is not None:
            known, receipt = Receipt.decode(done)
            return Standing(receipt=receipt) if known == body else Standing(mismatch=True)
        others = {column: Claim.decode(cell) for column, cell in row.items() if column[:1] == _CLAIM and column != mine}
        others = {column: claim for column, claim in others.items() if claim.live}
        if any(claim.body != body for claim in others.values()):
            return Standing(mismatch=True)
        if not others and _TAKEN not in row:
            return Standing()
        busy = max((self._busy(column, claim) for column, claim in others.items()), default=0.0)
        if busy > 0:
            return Standing(busy=busy)
        if not self._table.compare_and_set(CLAIMS, digest, _TAKEN, row.get(_TAKEN), mine):
            return Standing(busy=1.0)
        return Standing(since=min((claim.began for claim in others.values()), default=self._now() - self._lease) - SKEW)

    def _busy(self, column: bytes, claim: Claim) -> float:
        """For how many seconds yet a claim that is not ours may lead to an append; 0 for one that has come to nothing."""
        now = self._now()
        if claim.server == self._instance.id:
            given_up = self._given_up.get(column)
            settled = None if given_up is None else given_up + self._instance.settle
        else:
            settled = self._instance.dead_since(claim.server)
            settled = None if settled is None else settled + self._instance.settle
        end = claim.until + SKEW if settled is None else min(settled, claim.until + SKEW)
        return max(0.0, (end - now) / 1e6)

    def done(self, digest: bytes, receipt: Receipt) -> None:
        """A request is answered for, and all that was accepted of it is in the log. Written with the next `begin`, or by `write`."""
        _, claim = self._held.pop(digest)
        self._later.append((digest, _DONE, receipt.encode(claim.body)))

    def withdraw(self, digest: bytes) -> None:
        """Nothing of a request was appended by us, nor will be."""
        column, claim = self._held.pop(digest)
        self._later.append((digest, column, dataclasses.replace(claim, live=False).encode()))

    def give_up(self, digest: bytes) -> None:
        """A request's append has an end that nobody knows. Who takes the request next looks in the log."""
        column, _ = self._held.pop(digest)
        now = self._now()
        self._given_up = {one: at for one, at in self._given_up.items() if now - at < self._lease + SKEW}
        self._given_up[column] = now

    def write(self) -> None:
        """Write what is yet to be written. Raises UnavailableError; it is tried again with the next."""
        if self._later:
            self._put([])

    def forget(self) -> None:
        """Let go of what is yet to be written: the log tells it too."""
        self._later = []

    def _put(self, cells: list[Cell]) -> None:
        self._timestamp = max(self._timestamp, self._now() // 1000)  # a cell that is put again must not be the older one
        self._table.put(CLAIMS, [*self._later, *cells], self._timestamp)
        self._later = []

    def _column(self) -> bytes:
        return _CLAIM + self._instance.id + next(self._numbers).to_bytes(6, "big")
