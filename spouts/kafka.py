"""The spout that reads the log, whichever side of the seam it is on."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import Any

from penstock.errors import NotFoundError, PenstockError
from penstock.log import Chunk
from penstock.model import Schema
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE, Control, ShardId
from penstock.rollup.registry import Registry
from penstock.rollup.shard import Limits
from penstock.spouts.base import BatchSpout, ShellSpoutSpec

TUPLE_BYTES = 1 << 20  # near 1 MiB is where Storm's pipe is fastest
TUPLE_EVERY = 50_000  # microseconds between two looks at a partition that had less than a tuple is meant to hold
TUPLE_OFFSETS = 1 << 17
LOOK_EVERY = 1_000_000  # microseconds between two looks whether the topic is still the same one, and has the same partitions
REPORT_EVERY = 5_000_000  # microseconds between two notes for lag tools
RETRY_AFTER = 1_000_000  # microseconds of rest after an outage
PARKED = 30_000_000  # microseconds of rest where only a person can help
log = logging.getLogger(__name__)


@dataclasses.dataclass
class _Partition:
    """Where the spout is in a partition. epoch: changes whenever it goes back; replies to tuples of an earlier one say nothing any more.

    full: whether the next tuple may follow at once. big: whether the last one was.
    """

    shard: ShardId
    epoch: str
    position: int | None = None
    pending: dict[int, tuple[int, int, int]] = dataclasses.field(default_factory=dict)  # number: previous, next, bytes
    sent: int = 0
    looked_at: int = 0
    full: bool = False
    big: bool = False
    idle_at: int | None = None
    retry_at: int = 0


class KafkaSpout(BatchSpout):
    """Emits raw record batches, as fetched and as compressed, for the partitions p with p mod tasks == its own index.

    Its only source of position is the control cell of the bolt that it feeds: at its start, and at every fail, it goes back to what is committed there.
    Partitions that are added, and a topic that is created anew, are taken up while it runs. An outage of a store is waited out; so is, under
    Storm, what only a person can help, and it is reported as an error every half minute.
    """

    @classmethod
    def spec(
        cls, schema: Schema, *, name: str | None = None, par: int | None = None, config: dict[str, Any] | None = None
    ) -> ShellSpoutSpec:
        """The spout as a component of a topology. schema: what the records hold; par: how many tasks, one unless the deployment says otherwise."""
        spec = super().spec(name=name, par=par, config=config)
        spec.schema = schema
        return spec

    def open(self) -> None:
        """Ask no store yet: one that is down must not keep the component from starting."""
        assert self.deployment is not None
        self.limits = Limits(**self.settings["limits"])
        self.idle_every = self.settings["flush"]
        self.topic = self.deployment.topic(self.settings["schema"]["name"])
        self.active = True
        self.turn = 0
        self.look_at = 0
        self.reported_at = self.deployment.now()
        self.partitions: list[_Partition] = []

    def look(self, now: int) -> None:
        """Take up the partitions that are this task's: all of them at first and when the topic is another one, and those that were added."""
        assert self.deployment is not None
        incarnation, count = self.deployment.log.incarnation(self.topic), self.deployment.log.partitions(self.topic)
        if self.partitions and self.partitions[0].shard.incarnation != incarnation:
            log.warning("topic %s was deleted and created anew: what is in it now is counted on its own", self.topic)
            self.partitions = []
        known = {partition.shard.partition for partition in self.partitions}
        for number in range(self.index, count, self.tasks):
            if number not in known:
                shard = ShardId(self.settings["bolt"], self.settings["generation"], self.topic, incarnation, number)
                self.partitions.append(_Partition(shard, self.deployment.fresh()))
        self.look_at = now + LOOK_EVERY

    def next_tuple(self) -> None:
        """Emit at most one tuple: of the partition whose turn it is, or the next that has something to send."""
        assert self.deployment is not None
        now = self.deployment.now()
        if not self.active:
            return
        if not 0 < self.look_at - now <= PARKED:
            try:
                self.look(now)
            except PenstockError as problem:
                self.look_at = now + self.rest(problem, self.topic)
                self.partitions = self.partitions if problem.retriable else []
        if not 0 <= now - self.reported_at < REPORT_EVERY:
            self.reported_at = now
            self.report(self.durable())
        for _ in range(len(self.partitions)):
            self.turn = (self.turn + 1) % len(self.partitions)
            partition = self.partitions[self.turn]
            try:
                if self.advance(partition):
                    return
            except PenstockError as problem:
                if not problem.retriable:
                    self.go_back(partition)  # whoever helps may do it in the control cell
                partition.retry_at = now + self.rest(problem, f"{self.topic}/{partition.shard.partition}")

    def rest(self, problem: PenstockError, what: str) -> int:
        """How long to wait after an error, in microseconds. Raises it if waiting is not this runner's way."""
        if problem.retriable:
            log.warning("%s: %s", what, problem.message)
            return RETRY_AFTER
        if not self.patient:
            raise problem
        # Not pystorm's raise_exception, which adds a "sync": Storm would take that for the answer to its next command.
        self.send_message({"command": "error", "msg": f"{what}: {problem}"})
        return PARKED

    def report(self, durable: dict[int, int]) -> None:
        """Say how far each partition's bolt is: to tools that show a log's lag, and to Prometheus if the deployment asks for it."""
        assert self.deployment is not None
        bolt, ends = self.settings["bolt"], self.deployment.log
        ends.report(bolt, self.topic, durable)
        if self.deployment.metrics.enabled:
            for partition, offset in durable.items():
                with contextlib.suppress(PenstockError):  # the next call that matters says so
                    self.deployment.metrics.behind(bolt, self.topic, partition, max(0, ends.end(self.topic, partition) - offset))

    def durable(self) -> dict[int, int]:
        """By partition, up to which offset its bolt has answered."""
        return {
            partition.shard.partition: min((previous for previous, _, _ in partition.pending.values()), default=partition.position)
            for partition in self.partitions
            if partition.position is not None
        }

    def advance(self, partition: _Partition) -> bool:
        """Send something of a partition if there is something and it may be sent."""
        assert self.deployment is not None
        now = self.deployment.now()
        if 0 < partition.retry_at - now <= PARKED:
            return False
        if partition.position is None:
            partition.position = self.committed(partition.shard)
        offsets, size = self.room(partition)
        if offsets <= 0 or size <= 0 or (not partition.full and 0 <= now - partition.looked_at < TUPLE_EVERY):
            return False
        ours, source = partition.shard, self.deployment.log
        partition.looked_at = now
        try:
            chunk = source.read(self.topic, ours.partition, partition.position, TUPLE_BYTES, min(offsets, TUPLE_OFFSETS))
            same = source.incarnation(self.topic) == ours.incarnation
        except NotFoundError:
            same = False
        if not same:
            self.look_at = 0  # the topic is another one, or gone: the next look says which
            return False
        if chunk is not None:
            big = len(chunk.data) >= TUPLE_BYTES // 2
            partition.full, partition.big = big or partition.big, big  # one short tuple is where an answer of the log ended, not the log
            partition.idle_at = None
            self.send(partition, chunk, False)
            return True
        partition.full = partition.big = False
        if not partition.pending and (partition.idle_at is None or not 0 <= now - partition.idle_at < self.idle_every):
            # Asks whether the bolt is where this spout thinks that it is, and says that there is no more.
            partition.idle_at = now
            self.send(partition, Chunk(partition.position, partition.position, (), (), b""), True)
            return True
        return False

    def room(self, partition: _Partition) -> tuple[int, int]:
        """Offsets and bytes that may still be sent before the bolt must have made some durable."""
        offsets = sum(next_ - previous for previous, next_, _ in partition.pending.values())
        size = sum(size for _, _, size in partition.pending.values())
        return self.limits.pending * self.limits.flush_offsets - offsets, self.limits.pending * self.limits.flush_bytes - size

    def committed(self, shard: ShardId) -> int:
        """The position that the bolt's control cell says, which is made for a partition that appeared after submit made the others'.

        Raises NotFoundError if the bolt was never submitted.
        """
        assert self.deployment is not None
        table, key = self.deployment.table, (shard.row, CONTROL_COLUMN)
        found = table.get(CONTROL_TABLE, [key])[0]
        if found is None:
            Registry(table).adopt(shard)
            found = table.get(CONTROL_TABLE, [key])[0]
        if found is None:
            raise NotFoundError(f"shard {shard.row.decode()} has no control cell", hint="it was deleted: restore the control table")
        return Control.decode(found).done.offset

    def send(self, partition: _Partition, chunk: Chunk, caught_up: bool) -> None:
        """Emit a tuple and remember it until it is answered for."""
        partition.sent += 1
        partition.pending[partition.sent] = chunk.previous, chunk.next, len(chunk.data)
        partition.position = chunk.next
        shard = partition.shard
        self.emit(
            [
                shard.incarnation,
                shard.topic,
                shard.partition,
                chunk.previous,
                chunk.first,
                chunk.next,
                [list(r) for r in chunk.skipped],
                [list(r) for r in chunk.lost],
                chunk.data,
                caught_up,
            ],
            tup_id=f"{shard.partition}:{partition.epoch}:{partition.sent}",
        )

    def answered(self, tup_id: str) -> tuple[_Partition, int] | None:
        """The tuple that an ack or a fail is about; None if it is of an epoch that is over."""
        number, epoch, sent = tup_id.split(":")
        for partition in self.partitions:
            if partition.shard.partition == int(number) and partition.epoch == epoch:
                return partition, int(sent)
        return None

    def ack(self, tup_id: str) -> None:
        """The tuple's records are durable."""
        found = self.answered(tup_id)
        if found:
            found[0].pending.pop(found[1], None)

    def fail(self, tup_id: str) -> None:
        """Go back to what is committed."""
        found = self.answered(tup_id)
        if found:
            self.go_back(found[0])

    def go_back(self, partition: _Partition) -> None:
        """Forget the position: the control cell knows it."""
        assert self.deployment is not None
        partition.epoch, partition.position, partition.pending = self.deployment.fresh(), None, {}
        partition.idle_at, partition.full, partition.big, partition.looked_at = None, False, False, 0

    def activate(self) -> None:
        """Go on emitting."""
        self.active = True

    def deactivate(self) -> None:
        """Emit nothing until activated."""
        self.active = False
