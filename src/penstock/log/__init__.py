"""The log: ordered, replayable, partitioned events, as Kafka v2 record batches.

`Log` is the seam; `penstock.log.local` keeps a directory, Kafka comes beside it. All offsets are per partition.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, Sequence

Range = tuple[int, int]  # offsets from the first up to, not including, the second


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Consecutive record batches as they lie in the log, and what lies between them.

    previous: the offset that was asked for. next: where to read on. The offsets of [previous, next) are exactly: the records of `data` at or
    beyond `previous` (the first batch may begin before it), plus `skipped` (never held a record for the reader: control and aborted ones),
    plus `lost` (retention took them). `data` is whole batches, raw and as compressed; empty when the position moves without data.
    """

    previous: int
    next: int
    skipped: tuple[Range, ...]
    lost: tuple[Range, ...]
    data: bytes

    @property
    def first(self) -> int:
        """The first offset that `data` may hold a record for; `next` where there is none."""
        at = self.previous
        for start, end in sorted((*self.skipped, *self.lost)):
            at = end if start == at else at
        return at


class Log(Protocol):
    """A store of topics. Calls raise UnavailableError when the store does not answer, NotFoundError for a topic that is not there."""

    def create(self, topic: str, partitions: int) -> None:
        """Create a topic. One that exists already is left alone; a ConfigurationError says so if its partitions differ."""

    def topics(self) -> list[str]:
        """The names of all topics, sorted."""

    def incarnation(self, topic: str) -> str:
        """The identity of the topic: another one after it is deleted and created anew. 32 hex digits."""

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has, numbered from 0."""

    def start(self, topic: str, partition: int) -> int:
        """The first offset that can still be read."""

    def end(self, topic: str, partition: int) -> int:
        """The offset behind the last durable record."""

    def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        """The first offset whose log timestamp is at or behind `timestamp` (microseconds since 1970); the end if there is none."""

    def read(self, topic: str, partition: int, offset: int, max_bytes: int, max_offsets: int) -> Chunk | None:
        """What follows `offset`, without waiting; None at the end.

        At most `max_bytes` of data unless the first batch alone is larger, and no batch that ends behind offset + max_offsets unless it is
        the first. Raises OutOfRangeError for an offset beyond the end.
        """

    def append(self, topic: str, partition: int, batches: Sequence[bytes]) -> int:
        """Append record batches (`kernels.encode_batch` makes them) and return the offset of the first record.

        Their base offsets are the log's to set. Durable when this returns. Given no batches, the end, after what a writer that died had written
        without an answer was either published or dropped: nothing of it turns up later.
        """

    def report(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        """Note how far a reader is, by partition, where tools that show a log's lag look. Nothing depends on it: it never raises, nor waits."""

    def close(self) -> None:
        """Let go of files and connections."""
