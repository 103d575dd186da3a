"""The log in memory, for the simulator and for tests: deterministic, one thread, with the accidents of a real one to be had on demand."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Sequence

from penstock.errors import ConfigurationError, NotFoundError, OutOfRangeError
from penstock.kernels.encode import encode_list
from penstock.kernels.framing import CONTROL
from penstock.log import Chunk
from penstock.log.batches import TIMESTAMP, check_batches, chunk_of, first_at, fitting, holding, rebased, walk
from penstock.log.local import check_topic


@dataclasses.dataclass
class _Partition:
    """Batches in offset order; those before `start` are gone."""

    start: int = 0
    end: int = 0
    firsts: list[int] = dataclasses.field(default_factory=list)
    batches: list[bytes] = dataclasses.field(default_factory=list)


class MemoryLog:
    """`penstock.log.Log` without a disk. Incarnations follow from the order of the calls alone, so that a run can be repeated.

    Beyond the protocol: `skip` (offsets that never hold a record), `truncate_before` (retention), `truncate_after` (an end that
    moves back), `delete` (and `create` anew), `grow` (more partitions).
    """

    def __init__(self) -> None:
        self._topics: dict[str, tuple[str, list[_Partition]]] = {}
        self._created = 0

    def create(self, topic: str, partitions: int) -> None:
        """See Log.create."""
        check_topic(topic)
        if partitions < 1:
            raise ConfigurationError(f"topic {topic!r} cannot have {partitions} partitions", hint="use 1 or more")
        if topic not in self._topics:
            self._created += 1
            incarnation = hashlib.sha256(f"{self._created} {topic}".encode()).hexdigest()[:32]
            self._topics[topic] = incarnation, [_Partition() for _ in range(partitions)]
        if self.partitions(topic) != partitions:
            raise ConfigurationError(
                f"topic {topic!r} has {self.partitions(topic)} partitions, not {partitions}",
                hint="their number is fixed when a topic is created",
            )

    def delete(self, topic: str) -> None:
        """Delete a topic and all that it holds. Created again, it is another incarnation."""
        self._topic(topic)
        del self._topics[topic]

    def grow(self, topic: str, partitions: int) -> None:
        """Add partitions until there are so many."""
        held = self._topic(topic)[1]
        held.extend(_Partition() for _ in range(partitions - len(held)))

    def topics(self) -> list[str]:
        """See Log.topics."""
        return sorted(self._topics)

    def incarnation(self, topic: str) -> str:
        """See Log.incarnation."""
        return self._topic(topic)[0]

    def partitions(self, topic: str) -> int:
        """See Log.partitions."""
        return len(self._topic(topic)[1])

    def start(self, topic: str, partition: int) -> int:
        """See Log.start."""
        return self._partition(topic, partition).start

    def end(self, topic: str, partition: int) -> int:
        """See Log.end."""
        return self._partition(topic, partition).end

    def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        """See Log.offset_at."""
        kept = self._partition(topic, partition)
        for batch in kept.batches:
            if walk(batch, 0, len(batch), "memory")[0, TIMESTAMP] * 1000 >= timestamp:
                return max(kept.start, first_at(batch, timestamp))
        return kept.end

    def read(self, topic: str, partition: int, offset: int, max_bytes: int, max_offsets: int) -> Chunk | None:
        """See Log.read."""
        kept = self._partition(topic, partition)
        if not 0 <= offset <= kept.end:
            raise OutOfRangeError(
                f"{topic}/{partition}: offset {offset} is not between {kept.start} and the end, {kept.end}",
                hint="the log was truncated or replaced since that position was taken",
            )
        if offset < kept.start:
            return Chunk(offset, kept.start, (), ((offset, kept.start),), b"")
        if offset == kept.end:
            return None
        first, size = holding(kept.firsts, offset), 0
        last = first
        while last < len(kept.batches) and (last == first or size + len(kept.batches[last]) <= max_bytes):
            size += len(kept.batches[last])
            last += 1
        data = b"".join(kept.batches[first:last])
        rows = walk(data, 0, len(data), f"{topic}/{partition}")
        return chunk_of(offset, rows[: fitting(rows, offset, max_bytes, max_offsets)], data, 0)

    def append(self, topic: str, partition: int, batches: Sequence[bytes]) -> int:
        """See Log.append."""
        kept, first = self._partition(topic, partition), self.end(topic, partition)
        check_batches(batches)
        for batch in batches:
            kept.firsts.append(kept.end)
            kept.batches.append(b"".join(rebased([batch], kept.end)))
            kept.end += int.from_bytes(batch[23:27], "big") + 1
        return first

    def skip(self, topic: str, partition: int, count: int = 1) -> int:
        """Append a control batch of `count` offsets, as the end of a transaction leaves it, and return its first offset."""
        timestamp = max(
            (int(walk(batch, 0, len(batch), "memory")[0, TIMESTAMP]) for batch in self._partition(topic, partition).batches[-1:]), default=0
        )
        marker = encode_list(
            [b"\0\0\0\0\0\0"] * count, [timestamp * 1000] * count, keys=[b"\0\0\0\1"] * count, codec="none", attributes=CONTROL
        )
        return self.append(topic, partition, [marker])

    def truncate_before(self, topic: str, partition: int, offset: int) -> int:
        """Retention: remove the batches that hold nothing at or beyond `offset`. Returns the partition's new start."""
        kept = self._partition(topic, partition)
        gone = len(kept.firsts) if offset >= kept.end else max(0, holding(kept.firsts, offset))
        kept.start = max(kept.start, kept.end if gone == len(kept.firsts) else kept.firsts[gone])
        del kept.firsts[:gone], kept.batches[:gone]
        return kept.start

    def truncate_after(self, topic: str, partition: int, offset: int) -> int:
        """Lose the batches that hold anything at or beyond `offset`, as after an unclean election. Returns the partition's new end."""
        kept = self._partition(topic, partition)
        if offset < kept.end and kept.firsts:
            left = max(0, holding(kept.firsts, offset))
            kept.end = kept.firsts[left]
            del kept.firsts[left:], kept.batches[left:]
        return kept.end

    def report(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        """See Log.report: there are no such tools for this one; `penstock status` reads the control cells."""

    def close(self) -> None:
        """See Log.close. What the log holds stays."""

    def _topic(self, name: str) -> tuple[str, list[_Partition]]:
        if name not in self._topics:
            raise NotFoundError(f"there is no topic {name!r}", hint=f"create it; there are: {', '.join(self.topics()) or 'none'}")
        return self._topics[name]

    def _partition(self, topic: str, number: int) -> _Partition:
        partitions = self._topic(topic)[1]
        if not 0 <= number < len(partitions):
            raise NotFoundError(f"topic {topic!r} has no partition {number}", hint=f"it has {len(partitions)}, numbered from 0")
        return partitions[number]
