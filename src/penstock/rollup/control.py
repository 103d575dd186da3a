"""The control cell: the one place that says who owns a shard and how far its work is durable.

It changes only by compare-and-set of the whole value, so its bytes are canonical: JSON with sorted keys, to be read by people too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, Sequence

from penstock.archive import Entry
from penstock.errors import CorruptionError
from penstock.log import Range

CONTROL_TABLE = "control"  # has no TTL: a shard that rests for years must still know where it was
CONTROL_COLUMN = b"c"
NO_WATERMARK = -(2**62)  # before any record; far enough from the ends of int64 to subtract a lateness


@dataclasses.dataclass(frozen=True)
class ShardId:
    """What counts on its own: a bolt's generation over one partition of one incarnation of a topic."""

    bolt: str  # "<topology>.<component>"
    generation: str  # 16 hex digits
    topic: str
    incarnation: str
    partition: int

    @property
    def row(self) -> bytes:
        """The row of its control cell."""
        return f"shard/{self.bolt}/{self.generation}/{self.topic}/{self.incarnation}/{self.partition:06d}".encode()

    @classmethod
    def of_row(cls, row: bytes) -> ShardId:
        """The shard whose control cell has this row."""
        _, bolt, generation, topic, incarnation, partition = row.decode().split("/")
        return cls(bolt, generation, topic, incarnation, int(partition))

    @property
    def key(self) -> bytes:
        """12 bytes that tell it from the other shards of its generation in a cell's column."""
        return hashlib.sha256(f"{self.topic}/{self.incarnation}".encode()).digest()[:8] + self.partition.to_bytes(4, "big")

    @property
    def name(self) -> str:
        """How the archive's files and index name it."""
        return f"{self.generation}-{self.topic}-{self.incarnation}-{self.partition}"


@dataclasses.dataclass(frozen=True)
class Progress:
    """Watermark (microseconds) and counts as of an offset. lost: ranges, touching ones joined; skipped: how many."""

    offset: int
    watermark: int = NO_WATERMARK
    accepted: int = 0
    rejected: int = 0
    late: int = 0
    skipped: int = 0
    lost: tuple[Range, ...] = ()

    @property
    def lost_count(self) -> int:
        """How many offsets retention took before they were read."""
        return sum(stop - start for start, stop in self.lost)

    @property
    def counted(self) -> int:
        """All offsets accounted for; equals `offset` minus where the shard started."""
        return self.accepted + self.rejected + self.late + self.skipped + self.lost_count


def join_ranges(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Ranges in order, touching ones joined."""
    joined: list[Range] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


def clip(ranges: Sequence[Range], start: int, stop: int) -> list[Range]:
    """The parts of ranges that lie within [start, stop)."""
    return [(max(a, start), min(b, stop)) for a, b in ranges if max(a, start) < min(b, stop)]


@dataclasses.dataclass(frozen=True)
class Control:
    """The control cell's value.

    done: what is durable (`committed` is done.offset). flushing: the end of the flush that was begun last. timestamp: at which that
    flush writes, milliseconds since 1970. folded: windows that end by this event time are folded. start: the first offset ever. caught_up_at: when (wall clock,
    microseconds) the log was last seen to hold nothing beyond `committed`. files: of the archive, written and perhaps not yet indexed.
    """

    owner: str
    start: int
    done: Progress
    flushing: int
    timestamp: int = 0
    folded: int = NO_WATERMARK
    caught_up_at: int | None = None
    files: tuple[Entry, ...] = ()

    @classmethod
    def initial(cls, start: int) -> Control:
        """What submit writes before the first tuple."""
        return cls(owner="", start=start, done=Progress(start), flushing=start)

    def encode(self) -> bytes:
        """Canonical bytes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Control:
        """Raises CorruptionError for anything that `encode` does not write."""
        try:
            value: dict[str, Any] = json.loads(data)
            done = value.pop("done")
            lost = tuple((start, stop) for start, stop in done.pop("lost"))
            files = tuple(Entry(**entry) for entry in value.pop("files"))
            return cls(done=Progress(lost=lost, **done), files=files, **value)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise CorruptionError(
                f"a control cell does not parse: {problem}", hint="the table was written by something else; restore it from a backup"
            ) from None
