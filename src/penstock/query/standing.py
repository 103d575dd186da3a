"""How far a generation's shards have come: what `as_of` says, and why an answer may not be complete."""

from __future__ import annotations

import dataclasses
import functools
from typing import Hashable, Sequence

from penstock.model.units import duration_text, iso
from penstock.rollup.control import NO_WATERMARK, Control, ShardId


@dataclasses.dataclass(frozen=True)
class Standing:
    """The shards of a generation, of all partitions and incarnations of its topic, as their control cells were before any other cell was read."""

    shards: Sequence[tuple[ShardId, Control]]

    @functools.cached_property
    def text(self) -> str:
        """Of which shards there are, how far each has come, and what an answer says of them: it stays the same as long as all of that does."""
        return repr(
            sorted(
                (
                    shard.row,
                    control.done.offset,
                    control.done.watermark,
                    control.flushing,
                    control.timestamp,
                    control.folded,
                    control.done.lost_count,
                    control.caught_up_at is None,
                )
                for shard, control in self.shards
            )
        )

    @functools.cached_property
    def names(self) -> Hashable:
        """Which shards there are."""
        return tuple(shard.row for shard, _ in self.shards)

    @functools.cached_property
    def committed(self) -> Hashable:
        """Changes with every commit of any shard: what cells of the finest windows there may be."""
        return tuple((control.done.offset, control.flushing, control.timestamp, control.folded) for _, control in self.shards)

    def folded(self, width: int) -> Hashable:
        """Changes when any shard folds windows of a width: what cells of those there may be."""
        return tuple(control.folded // width for _, control in self.shards)

    @functools.cached_property
    def closed(self) -> int:
        """Windows that end by this event time change no more, of none of these shards."""
        return min((control.folded for _, control in self.shards), default=NO_WATERMARK)

    @functools.cached_property
    def newest(self) -> int | None:
        """The newest event time of any shard; None before the first event."""
        return max((control.done.watermark for _, control in self.shards if _holds(control)), default=None)

    @functools.cached_property
    def live(self) -> list[tuple[ShardId, Control]]:
        """The shards that hold data, of the topic's present incarnation: the one that was written to or found at its end last. While that has
        no data, the shards of all of them."""
        holding = [(shard, control) for shard, control in self.shards if _holds(control)]
        latest: dict[str, tuple[int, str]] = {}
        for shard, control in self.shards:
            seen = max(control.timestamp, control.caught_up_at or 0), shard.incarnation
            latest[shard.topic] = max(latest.get(shard.topic, seen), seen)
        return [(shard, control) for shard, control in holding if latest[shard.topic][1] == shard.incarnation] or holding

    @functools.cached_property
    def furthest_behind(self) -> tuple[ShardId, Control] | None:
        """The live shard with the smallest watermark."""
        return min(self.live, key=lambda pair: pair[1].done.watermark, default=None)

    def reasons(self, end: int) -> list[str]:
        """Why an answer up to an event time may not hold all of its records."""
        reasons = [
            f"{control.done.lost_count:,} records of {_name(shard)} were gone from the log before they were read"
            for shard, control in self.shards
            if control.done.lost
        ]
        behind = self.furthest_behind
        if behind is None:
            reasons.append("no event has been counted yet")
        elif behind[1].done.watermark < end:
            reasons.append(f"{_name(behind[0])} has come to {iso(behind[1].done.watermark)}: windows that end later are not over")
        present = {shard.incarnation for shard, _ in self.live}
        unread = [
            shard
            for shard, control in self.shards
            if control.caught_up_at is None and (not _holds(control) or shard.incarnation not in present)
        ]
        if unread and behind is not None:
            reasons.append(
                f"{', '.join(map(_name, unread[:3]))}{f' and {len(unread) - 3} more' if len(unread) > 3 else ''}: "
                "never read to the end, so nobody knows how far behind"
            )
        return reasons

    def dropped_before(self, ttl: int, now: int) -> int | None:
        """Windows that ended before this event time may have been dropped by their table, whose cells live `ttl` microseconds from when they were written;
        None without events. now: the wall clock, microseconds.

        When a cell was written is not known. But event time goes on at least as fast as the clock, be it live or a replay of the past, so that a
        window that ended so much before the shard's watermark was written at most so much before its last flush.
        """
        ends = [control.done.watermark + now - control.timestamp * 1000 - ttl for _, control in self.shards if _holds(control)]
        return max(ends, default=None)


def dropped_reason(width: int, before: int) -> str:
    """The words for `dropped_before`."""
    return f"nothing was written for so long that {duration_text(width)} windows before {iso(before)} may have been dropped"


def _holds(control: Control) -> bool:
    return control.done.watermark != NO_WATERMARK


def _name(shard: ShardId) -> str:
    return f"{shard.topic}/{shard.partition}"
