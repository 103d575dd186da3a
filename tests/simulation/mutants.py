"""Deliberate bugs, each one rule of the protocol broken. The simulator must find every one of them."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Callable, Iterator
from unittest import mock

from penstock.bolts.archive import ArchiveShard
from penstock.errors import OutOfRangeError, PenstockError
from penstock.kernels import merge_cells
from penstock.rollup import rollup_shard, shard
from penstock.rollup.calls import Call, Pause, until_answered
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE, Control
from penstock.rollup.rollup_shard import RollupShard
from penstock.rollup.shard import Shard
from penstock.spouts.kafka import KafkaSpout

Patches = list[tuple[Any, str, Callable[..., Any]]]


def live_cell() -> Patches:
    """Records that arrive while a flush is written are aggregated into the cells that it puts."""
    real = RollupShard.add

    def take_part(self: RollupShard) -> Any:
        part, self.deltas = self.deltas, self.new_deltas()
        return part  # not frozen

    def add(self: RollupShard, *arguments: Any) -> None:
        real(self, *arguments)
        for _, deltas in self.cuts:
            for delta in deltas:
                delta.add(arguments[0].columns, arguments[3], arguments[1], arguments[2])

    return [(RollupShard, "take_part", take_part), (RollupShard, "add", add)]


def own_uuid() -> Patches:
    """A compare-and-set whose answer was lost counts as done if the owner read back is oneself."""
    real = Shard.decide

    def decide(self: Shard, found: bytes | None, expected: bytes, new: bytes) -> bool | None:
        if found is not None and Control.decode(found).owner == Control.decode(new).owner:
            return True
        return real(self, found, expected, new)

    return [(Shard, "decide", decide)]


def unpinned() -> Patches:
    """The first flush after a claim ends anywhere, not where the owner before meant to."""
    return [(Shard, "first_flush_end", lambda self, control: None)]


def end_watermark() -> Patches:
    """The control cell keeps the watermark of the end of the flush, not of what is committed."""
    real = Shard.next_control

    def next_control(self: Shard, **changes: Any) -> Control:
        made = real(self, **changes)
        if "flushing" in changes and self.cuts:
            made = dataclasses.replace(made, done=dataclasses.replace(made.done, watermark=self.cuts[0][0].watermark))
        return made

    return [(Shard, "next_control", next_control)]


def ack_duplicate_early() -> Patches:
    """A tuple that was taken before is acked at once, not with the flush that covers it."""
    return [(Shard, "taken_before", lambda self, delivery: self.around.reply(True, delivery))]


def accept_gap() -> Patches:
    """A tuple beyond what is expected is taken instead of failed."""

    def beyond(self: Shard, delivery: Any) -> None:
        self.at = dataclasses.replace(self.at, offset=delivery.previous, skipped=self.at.skipped + delivery.previous - self.at.offset)
        self.waiting.append(delivery)
        self.take(delivery, delivery.previous)

    return [(Shard, "beyond", beyond)]


def ignore_stamp() -> Patches:
    """A recovered flush adds its delta to cells that have it already."""
    real = RollupShard.merged

    def merged(self: RollupShard, piece: Any, end: int) -> Any:
        piece.stored = [None if cell is None else merge_cells(piece.plan, [cell], 0) for cell in piece.stored]
        return real(self, piece, end)

    return [(RollupShard, "merged", merged)]


def reuse_timestamp() -> Patches:
    """A flush writes at the previous flush's timestamp."""
    return [(Shard, "next_timestamp", lambda self: self.control.timestamp)]


def fold_early() -> Patches:
    """A window is folded at its end, without waiting for the lateness."""
    return [(RollupShard, "fold_until", lambda self, durable: durable.watermark)]


# Beyond the nine that must be there: the other rules of the protocol.


def wall_clock() -> Patches:
    """A flush writes at the wall clock's time, not at max(previous + 1, now)."""
    return [(Shard, "next_timestamp", lambda self: self.around.now() // 1000)]


def fold_unflushed() -> Patches:
    """A window is folded by the watermark of what was taken, not of what is durable."""
    return [(RollupShard, "fold_until", lambda self, durable: self.at.watermark - self.around.reader.schema.lateness)]


def forget_index() -> Patches:
    """A cell is put without the index entry that the fold finds it by."""
    return [(RollupShard, "index_rows", lambda self, piece: [])]


def no_doubt() -> Patches:
    """A tuple beyond what is expected is failed without a look whether the shard is still owned."""
    return [(Shard, "beyond", lambda self, delivery: self.around.reply(False, delivery))]


def no_idle_tuple() -> Patches:
    """A spout that has nothing to send and nothing pending is silent."""
    real = KafkaSpout.send

    def send(self: KafkaSpout, partition: Any, chunk: Any, caught_up: bool, now: int) -> None:
        if chunk.next > chunk.previous:
            real(self, partition, chunk, caught_up, now)

    return [(KafkaSpout, "send", send)]


def known_absent() -> Patches:
    """A new owner takes every cell that it did not put itself for absent."""
    real = RollupShard.open

    def open_(self: RollupShard) -> None:
        real(self)
        for memory in self.memory.values():
            memory.horizon = -(2**62)

    return [(RollupShard, "open", open_)]


def horizon_stays() -> Patches:
    """A cell that was forgotten to save memory is taken for absent."""

    def trim(self: RollupShard) -> None:
        for memory in self.memory.values():
            horizon = memory.horizon
            memory.shrink(0)
            memory.horizon = horizon

    return [(RollupShard, "trim", trim)]


def index_after_drop() -> Patches:
    """A new owner of an archive's shard does not index the files that the one before listed."""

    def after_claim(self: ArchiveShard) -> Any:
        return
        yield

    return [(ArchiveShard, "after_claim", after_claim)]


# What Storm, Kafka and HBase were seen to do.


def from_memory() -> Patches:
    """At a fail the spout goes back to the oldest tuple that it remembers, not to what is committed."""
    real = KafkaSpout.go_back

    def go_back(self: KafkaSpout, partition: Any) -> None:
        oldest = min((previous for previous, _, _ in partition.pending.values()), default=None)
        real(self, partition)
        partition.position = oldest

    return [(KafkaSpout, "go_back", go_back)]


def start_at_flushing() -> Patches:
    """A spout takes up a partition where the flush that was begun last ends: it would not be sent again what its worker's memory held."""

    def committed(self: KafkaSpout, shard: Any) -> int:
        real(self, shard)
        found = self.deployment.table.get(CONTROL_TABLE, [(shard.row, CONTROL_COLUMN)])[0]
        return Control.decode(found).flushing

    real = KafkaSpout.committed
    return [(KafkaSpout, "committed", committed)]


def forget_failed() -> Patches:
    """A tuple whose time is over is forgotten, as if it had been acked."""
    return [(KafkaSpout, "fail", KafkaSpout.ack)]


def steal() -> Patches:
    """An owner that was stopped, and finds at its next flush that another one came, takes the shard back and goes on with what it has in memory."""
    real = Shard.swap

    def swap(self: Shard, expected: Control | None, new: Control) -> Any:
        if (yield from real(self, expected, new)):
            return True
        found = yield from until_answered(self.read_control())
        return (yield from real(self, Control.decode(found), new))

    return [(Shard, "swap", swap)]


def one_partition_a_task() -> Patches:
    """A spout reads the partition of its own index, and not those beyond the number of tasks."""
    real = KafkaSpout.look

    def look(self: KafkaSpout, now: int) -> None:
        real(self, now)
        self.partitions = [partition for partition in self.partitions if partition.shard.partition == self.index]

    return [(KafkaSpout, "look", look)]


def two_syncs() -> Patches:
    """A spout that reports an error says twice that it is done."""
    real = KafkaSpout.send_message

    def send_message(self: KafkaSpout, message: dict[str, Any]) -> None:
        real(self, message)
        if message["command"] == "error":
            real(self, {"command": "sync"})

    return [(KafkaSpout, "send_message", send_message)]


def look_once() -> Patches:
    """A spout looks at its start alone which partitions there are."""
    real = KafkaSpout.look

    def look(self: KafkaSpout, now: int) -> None:
        if not self.partitions:
            real(self, now)

    return [(KafkaSpout, "look", look)]


def adopt_at_end() -> Patches:
    """A partition that was added is read from where its end is when it is noticed."""
    real = KafkaSpout.committed

    def committed(self: KafkaSpout, shard: Any) -> int:
        begin = Control.initial(self.deployment.log.end(shard.topic, shard.partition)).encode()
        self.deployment.table.compare_and_set(CONTROL_TABLE, shard.row, CONTROL_COLUMN, None, begin)
        return real(self, shard)

    return [(KafkaSpout, "committed", committed)]


def trust_name() -> Patches:
    """What was read is taken to be of the topic that was looked up before, whether or not that was created anew meanwhile."""
    real = KafkaSpout.advance

    def advance(self: KafkaSpout, partition: Any) -> bool:
        log: Any = self.deployment.log
        log.incarnation = lambda topic: partition.shard.incarnation
        try:
            return real(self, partition)
        finally:
            del log.incarnation

    return [(KafkaSpout, "advance", advance)]


def reset_to_end() -> Patches:
    """A spout whose position the log does not have any more goes on at the end, and says nothing."""
    real = KafkaSpout.advance

    def advance(self: KafkaSpout, partition: Any) -> bool:
        try:
            return real(self, partition)
        except OutOfRangeError:
            partition.position = self.deployment.log.end(self.topic, partition.shard.partition)
            return False

    return [(KafkaSpout, "advance", advance)]


def silent_skip() -> Patches:
    """A spout passes over a range that holds no record without a word to its bolt."""
    real = KafkaSpout.send

    def send(self: KafkaSpout, partition: Any, chunk: Any, caught_up: bool, now: int) -> None:
        if chunk.next > chunk.previous and not chunk.data:
            partition.position = chunk.next
        else:
            real(self, partition, chunk, caught_up, now)

    return [(KafkaSpout, "send", send)]


def lost_as_skipped() -> Patches:
    """What retention took is counted as if it had never held a record."""
    real = Shard.advance

    def advance(self: Shard, run: Any, first: int, last: int, verdict: Any, stop: int, skipped: list[Any], lost: list[Any]) -> Any:
        return real(self, run, first, last, verdict, stop, [*skipped, *lost], [])

    return [(Shard, "advance", advance)]


def whole_ranges() -> Patches:
    """A range without records counts whole in every flush that it touches."""
    return [(shard, "clip", lambda ranges, start, stop: [one for one in ranges if one[0] < stop and start < one[1]])]


def unanswered_is_done() -> Patches:
    """A compare-and-set that is not answered counts as done."""
    return [(Shard, "decide", lambda self, found, expected, new: True)]


def same_millisecond() -> Patches:
    """A flush may write at the very timestamp of the flush before, where the clock says so."""
    return [(Shard, "next_timestamp", lambda self: max(self.control.timestamp, self.around.now() // 1000))]


def put_at_now() -> Patches:
    """Cells are put at the time of the call, not at the flush's."""

    def put_call(self: RollupShard, table: str, cells: Any) -> Call:
        return Call(f"table.put {table}", lambda: self.around.table.put(table, cells, self.around.now() // 1000))

    return [(RollupShard, "put_call", put_call)]


def first_row_tells() -> Patches:
    """A put whose first row is there already is taken to have been applied."""
    real = RollupShard.put_call

    def put_call(self: RollupShard, table: str, cells: Any) -> Call:
        call, (row, column, value) = real(self, table, cells), cells[0]
        return Call(call.name, lambda: None if self.around.table.get(table, [(row, column)]) == [value] else call.make())

    return [(RollupShard, "put_call", put_call)]


def impatient() -> Patches:
    """A put is given up when a table is out of reach for long."""

    def thrice(call: Call) -> Any:
        for _ in range(3 if call.name.startswith("table.put") else 10_000):
            try:
                return (yield call)
            except PenstockError:
                yield Pause(1)

    return [(rollup_shard, "until_answered", thrice)]


def ack_before_puts() -> Patches:
    """Tuples are acked when their flush has begun, not when its puts are answered."""
    real = RollupShard.put

    def put(self: RollupShard, piece: Any, end: Any) -> Any:
        self.ack(end.offset)
        return (yield from real(self, piece, end))

    return [(RollupShard, "put", put)]


REQUIRED = (live_cell, own_uuid, unpinned, end_watermark, ack_duplicate_early, accept_gap, ignore_stamp, reuse_timestamp, fold_early)
FURTHER = (wall_clock, fold_unflushed, forget_index, no_doubt, no_idle_tuple, known_absent, horizon_stays, index_after_drop)

STORM = (from_memory, start_at_flushing, forget_failed, steal, one_partition_a_task, two_syncs)
KAFKA = (look_once, adopt_at_end, trust_name, reset_to_end, silent_skip, lost_as_skipped, whole_ranges)
HBASE = (unanswered_is_done, same_millisecond, put_at_now, first_row_tells, impatient, ack_before_puts)
ALL = (*REQUIRED, *FURTHER, *STORM, *KAFKA, *HBASE)
# Where the search for the rarer ones begins, to save time: the number of a seed that finds it.
FOUND_BY = {
    "unpinned": 34,
    "reuse_timestamp": 25,
    "wall_clock": 25,
    "no_doubt": 24,
    "no_idle_tuple": 35,
    "from_memory": 9,
    "end_watermark": 6,
    "two_syncs": 6,
    "trust_name": 84,
    "reset_to_end": 8,
    "unanswered_is_done": 6,
    "same_millisecond": 25,
    "put_at_now": 25,
    "first_row_tells": 15,
    "impatient": 69,
}


@contextlib.contextmanager
def applied(mutant: Callable[[], Patches]) -> Iterator[None]:
    """Break the rule for a while."""
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in mutant():
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield
