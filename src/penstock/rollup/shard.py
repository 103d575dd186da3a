"""A shard's owner: the order contract, claim, compare-and-set, commit.

The rules are those of DESIGN.md, "Exactly once: stamped cells". What a flush does is a subclass's: `RollupShard` puts cells, the archive writes
files, a bolt of the user's own makes its effects durable.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Protocol

import numpy as np

from penstock.errors import CorruptionError, InternalError, NotFoundError, PenstockError
from penstock.log import Range
from penstock.metrics import Metrics
from penstock.rollup.calls import FIRST_PAUSE, LONGEST_PAUSE, Call, Job, Pause, until_answered
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE, Control, Progress, ShardId, clip, join_ranges
from penstock.rollup.reader import Reader, Run
from penstock.table import Table

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much is taken before a flush must be cut off and begun, in offsets and in bytes of the log.

    Constants of the system, not of a deployment: one that is started later may have to finish a flush exactly where another began to. A spout may have
    `pending` times as much on its way, so that tuples go on arriving while a flush is written.
    """

    flush_offsets: int = 1 << 18
    flush_bytes: int = 64 << 20
    pending: int = 2


@dataclasses.dataclass(frozen=True)
class Delivery:
    """A tuple as it arrived: what DESIGN.md, "What travels" lists, and the id to answer for."""

    id: Any
    previous: int
    next: int
    skipped: tuple[Range, ...]
    lost: tuple[Range, ...]
    data: bytes
    caught_up: bool

    def taken(self) -> Delivery:
        """What is kept until it is answered for: all but the bytes, which are a flush's worth in the end."""
        return dataclasses.replace(self, data=b"")


class Surroundings(Protocol):
    """What a shard needs of its bolt. Time, randomness and every outside call come in through it."""

    table: Table
    reader: Reader
    metrics: Metrics
    limits: Limits
    flush_interval: int  # microseconds

    def now(self) -> int:
        """The wall clock, microseconds since 1970."""

    def fresh(self) -> str:
        """A new random name for an owner."""

    def reply(self, ok: bool, delivery: Delivery) -> None:
        """Ack or fail a tuple."""


class Shard:
    """One owner of one shard. All methods are called under the bolt's lock; `work` gives the job of outside calls that is due."""

    CAUGHT_UP_EVERY = 60_000_000  # microseconds between two notes in the control cell that a silent shard is still caught up

    def __init__(self, identity: ShardId, around: Surroundings) -> None:
        self.identity, self.around = identity, around
        self.control: Control | None = None
        self.inbox: list[Delivery] = []
        self.waiting: list[Delivery] = []
        self.cuts: list[tuple[Progress, Any]] = []
        self.busy = self.doubt = self.draining = False
        self.claim_at, self.claim_pause = 0, FIRST_PAUSE
        self.flush_at = 0
        self.durable = self.at = Progress(0)
        self.opened = 0
        self.pin: int | None = None
        self.folded = 0
        self.caught_up_at: int | None = None
        self.opened_bytes = 0

    # What a subclass does with the records.

    def open(self) -> None:
        """Begin with nothing taken: called when the shard was claimed. `self.durable` says from where."""
        raise InternalError("a shard that takes no records was claimed")

    def add(self, run: Run, start: int, stop: int, verdict: np.ndarray) -> None:
        """Take rows [start, stop) of a run; verdict says which are accepted (0), late (1), rejected (2)."""
        raise InternalError("a shard that takes no records was given some")

    def take_part(self) -> Any:
        """What was added since the last part, as the next flush will write it; later records go to a new part."""
        raise InternalError("a shard that takes no records was cut")

    def flush(self) -> Job:
        """Write the oldest cut (or, if there is none, cut off what was taken). Returns whether the shard is still owned."""
        raise InternalError("a shard that writes nothing was flushed")

    def after_claim(self) -> Job:
        """What a new owner finishes for the one before it."""
        return
        yield

    # The order contract.

    def receive(self, delivery: Delivery) -> None:
        """Take a tuple, put it off, or fail it."""
        if self.control is None or self.inbox:  # not claimed yet, or what came before is still to be taken
            self.inbox.append(delivery)
            return
        expected = self.at.offset
        if delivery.next <= self.durable.offset:
            # A spout that says there is no more, behind what is durable here: it goes back to that, and finds out if the log was cut off before it.
            self.around.reply(not delivery.caught_up or delivery.next == expected, delivery)
            if delivery.caught_up and delivery.next == expected:
                self.note_caught_up()
        elif delivery.next <= expected:
            self.taken_before(delivery)
        elif delivery.previous > expected:
            self.beyond(delivery)
        else:
            self.waiting.append(delivery.taken())
            self.take(delivery, expected)

    def taken_before(self, delivery: Delivery) -> None:
        """Taken before and not yet durable: its ack joins the flush that covers it."""
        self.waiting.append(delivery.taken())

    def beyond(self, delivery: Delivery) -> None:
        """Something between was lost or overtaken: fail, so that the spout goes back; and see whether the shard is still ours."""
        self.around.reply(False, delivery)
        self.doubt = True

    def note_caught_up(self) -> None:
        """The spout has read all there is, and all of it is durable."""
        now = self.around.now()
        if self.control is not None and (self.control.caught_up_at is None or now - self.control.caught_up_at >= self.CAUGHT_UP_EVERY):
            self.caught_up_at = now

    def take(self, delivery: Delivery, expected: int) -> None:
        """Take a tuple's records from `expected` on, cutting where a flush has to end."""
        run = self.around.reader.read(delivery.data)
        skipped, lost = clip(delivery.skipped, expected, delivery.next), clip(delivery.lost, expected, delivery.next)
        verdict = np.empty(len(run), np.uint8)
        at = expected
        self.opened_bytes += len(delivery.data)
        while at < delivery.next:
            stop = min(delivery.next, self.opened + self.around.limits.flush_offsets if self.pin is None else self.pin)
            first, last = run.rows(at, stop)
            self.at = self.advance(run, first, last, verdict, stop, clip(skipped, at, stop), clip(lost, at, stop))
            if first < last:
                self.add(run, first, last, verdict)
            at = stop
            if at == self.pin or self.pin is None and self.full:
                self.cut()

    @property
    def full(self) -> bool:
        """Whether a flush has to be cut off here, however long its interval."""
        limits = self.around.limits
        return self.at.offset - self.opened >= limits.flush_offsets or self.opened_bytes >= limits.flush_bytes

    def advance(self, run: Run, first: int, last: int, verdict: np.ndarray, stop: int, skipped: list[Range], lost: list[Range]) -> Progress:
        """Progress as of `stop`; fills in the verdicts of the rows."""
        at = self.at
        gone = sum(b - a for a, b in skipped)
        missing = stop - at.offset - (last - first) - gone - sum(b - a for a, b in lost)
        if missing:
            raise CorruptionError(
                f"{self.identity.topic}/{self.identity.partition}: {missing} of the offsets {at.offset} to {stop} are neither there nor skipped nor lost",
                hint="compacted topics cannot be counted exactly; otherwise the log is damaged",
            )
        watermark, accepted, late, rejected = run.judge(first, last, at.watermark, verdict)
        after = Progress(
            stop,
            watermark,
            at.accepted + accepted,
            at.rejected + rejected,
            at.late + late,
            at.skipped + gone,
            join_ranges((*at.lost, *lost)),
        )
        self.around.metrics.taken(self.identity, at, after, run.reasons(first, last) if rejected else {})
        return after

    def cut(self) -> tuple[Progress, Any]:
        """What was taken so far is the next flush; later records go to a new part."""
        self.cuts.append((self.at, self.take_part()))
        self.opened, self.opened_bytes, self.pin = self.at.offset, 0, None
        return self.cuts[-1]

    def done(self, end: Progress, cells: int) -> None:
        """The oldest cut is durable: answer for its tuples. cells: how many were written for it."""
        self.durable = end
        self.cuts.pop(0)
        self.ack(end.offset)
        self.around.metrics.flushed(self.identity, end, self.around.now() - self.flush_at, cells)

    def ack(self, upto: int) -> None:
        """Answer for the tuples that are durable."""
        self.claim_pause = FIRST_PAUSE
        still: list[Delivery] = []
        for delivery in self.waiting:
            if delivery.next <= upto:
                self.around.reply(True, delivery)
            else:
                still.append(delivery)
        self.waiting = still

    def drop(self) -> None:
        """Not the owner, or no longer: forget the shard and fail its tuples. It is claimed again when one comes after a back-off."""
        for delivery in self.waiting + self.inbox:
            self.around.reply(False, delivery)
        self.inbox, self.waiting, self.cuts, self.control, self.doubt, self.pin = [], [], [], None, False, None
        # Whoever took it needs a flush interval to get anywhere: two live owners would else take it from each other for ever.
        self.claim_at = self.around.now() + max(int(self.claim_pause * 1_000_000), 0 if self.draining else self.around.flush_interval)
        self.claim_pause = min(2 * self.claim_pause, LONGEST_PAUSE)

    # Which job is due.

    def work(self) -> Job | None:
        """The job to do now; None while one is under way or nothing is due."""
        if self.busy:
            return None
        now = self.around.now()
        if self.control is None:
            # A clock that was set back does not make the rest longer than it can be.
            longest = max(int(LONGEST_PAUSE * 1_000_000), self.around.flush_interval)
            job = self.claim() if self.inbox and not 0 < self.claim_at - now <= longest else None
        elif self.doubt:
            job = self.check()
        elif self.cuts or (self.flush_due(now) and self.at.offset > self.opened and self.pin is None):
            job = self.flush()
        elif (
            self.at.offset == self.opened
            and (self.flush_due(now) or self.durable != self.control.done)
            and self.next_control() != self.control
        ):
            job = (
                self.commit()
            )  # with nothing taken since, no next flush carries it: at once, so that readers need not wait an interval to know
        else:
            job = None
        if job is None:
            return None
        self.busy = True
        return self.watched(job)

    def flush_due(self, now: int) -> bool:
        """At the interval (as long as the clock goes on), or at once when draining."""
        return self.draining or not 0 <= now - self.flush_at < self.around.flush_interval

    def watched(self, job: Job) -> Job:
        """The job, and what follows from its result."""
        try:
            owned = yield from job
        finally:
            self.busy = False
        if not owned:
            self.drop()

    @property
    def idle(self) -> bool:
        """Nothing left to do without another tuple: all that was taken is durable and committed, or waits for the end of a flush that another owner began."""
        if self.busy or self.cuts:
            return False
        if self.control is None:
            return not self.inbox
        return self.pin is not None or (self.at.offset == self.opened and self.next_control() == self.control)

    # Jobs. Each returns whether the shard is (still) owned.

    def claim(self) -> Job:
        """Become the owner: only the owner changes."""
        found = yield from until_answered(self.read_control())
        if found is None:
            raise NotFoundError(
                f"shard {self.identity.row.decode()} has no control cell",
                hint="submit creates it: start the topology with `penstock run` or `penstock submit`",
            )
        old = Control.decode(found)
        new = dataclasses.replace(old, owner=self.around.fresh())
        if not (yield from self.swap(old, new)):
            return False
        self.durable = self.at = new.done
        self.opened, self.opened_bytes, self.folded, self.caught_up_at = new.done.offset, 0, new.folded, new.caught_up_at
        self.pin = self.first_flush_end(new)
        self.flush_at = self.around.now()
        self.around.metrics.owned(self.identity, True)
        self.open()
        yield from self.after_claim()
        inbox, self.inbox = self.inbox, []
        for delivery in inbox:
            self.receive(delivery)
        return True

    def first_flush_end(self, control: Control) -> int | None:
        """Where the first flush has to end: exactly where the owner before us meant to, for cells of it may be there already."""
        return control.flushing if control.flushing > control.done.offset else None

    def check(self) -> Job:
        """Another owner may have gone on, and one that has nothing to flush would never find out."""
        self.doubt = False
        found = yield from until_answered(self.read_control())
        return self.control is not None and found == self.control.encode()

    def next_control(self, **changes: Any) -> Control:
        """The control cell as the next compare-and-set would write it."""
        assert self.control is not None
        return dataclasses.replace(
            self.control, **{"done": self.durable, "folded": self.folded, "caught_up_at": self.caught_up_at, "files": (), **changes}
        )

    def commit(self) -> Job:
        """The compare-and-set that follows the last flush when there is nothing more to flush."""
        self.flush_at = self.around.now()
        return (yield from self.swap(self.control, self.next_control()))

    def read_control(self) -> Call:
        """The call that reads the control cell's bytes."""
        table, key = self.around.table, (self.identity.row, CONTROL_COLUMN)
        return Call(f"table.get {CONTROL_TABLE}", lambda: table.get(CONTROL_TABLE, [key])[0])

    def swap(self, expected: Control | None, new: Control) -> Job:
        """Compare-and-set of the whole control cell. If the answer is lost, the value read back decides."""
        assert expected is not None
        old_bytes, new_bytes, table, row = expected.encode(), new.encode(), self.around.table, self.identity.row
        call = Call(
            f"table.compare_and_set {CONTROL_TABLE}",
            lambda: table.compare_and_set(CONTROL_TABLE, row, CONTROL_COLUMN, old_bytes, new_bytes),
        )
        answer: bool | None = None
        pause, in_doubt = FIRST_PAUSE, False
        while answer is None:
            try:
                answer = yield call
            except PenstockError as problem:
                if not problem.retriable:
                    raise
            if answer is None or (not answer and in_doubt):
                in_doubt = True
                found = yield from until_answered(self.read_control())
                answer = self.decide(found, old_bytes, new_bytes)
                if answer is None:
                    yield Pause(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
        if answer:
            self.control = new
        else:
            log.warning("%s: lost to another owner", self.identity.row.decode())
            self.around.metrics.owned(self.identity, False)
            self.control = None
        return answer

    def decide(self, found: bytes | None, expected: bytes, new: bytes) -> bool | None:
        """What a value read back says of a compare-and-set whose answer was lost: done, not ours any more, or (None) send it again."""
        return True if found == new else None if found == expected else False

    def next_timestamp(self) -> int:
        """At which a flush writes: later than every put of an owner before us, whatever this machine's clock says."""
        assert self.control is not None
        return max(self.control.timestamp + 1, self.around.now() // 1000)
