"""Deliberate bugs, each one rule of the protocol broken. The simulator must find every one of them."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Callable, Iterator
from unittest import mock

from penstock.bolts.archive import ArchiveShard
from penstock.kernels import merge_cells
from penstock.rollup.control import Control
from penstock.rollup.rollup_shard import RollupShard
from penstock.rollup.shard import Shard
from penstock.spouts.kafka import KafkaSpout

Patches = list[tuple[type, str, Callable[..., Any]]]


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
    return [(Shard, "next_timestamp", lambda self: self.around.now())]


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


REQUIRED = (live_cell, own_uuid, unpinned, end_watermark, ack_duplicate_early, accept_gap, ignore_stamp, reuse_timestamp, fold_early)
FURTHER = (wall_clock, fold_unflushed, forget_index, no_doubt, no_idle_tuple, known_absent, horizon_stays, index_after_drop)


@contextlib.contextmanager
def applied(mutant: Callable[[], Patches]) -> Iterator[None]:
    """Break the rule for a while."""
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in mutant():
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield
