"""Reading: what was fetched is kept until it is asked for, and what is asked for next is being fetched meanwhile."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from typing import Any, Sequence

from kafka import errors as kafka_errors

from penstock.errors import NotFoundError, OutOfRangeError, PenstockError, UnavailableError
from penstock.log import Chunk
from penstock.log.kafka.client import Client, unreachable
from penstock.log.kafka.offsets import EARLIEST, LATEST, UNCOMMITTED, Offsets
from penstock.log.kafka.problems import translated
from penstock.log.kafka.segments import Segment, packed
from penstock.log.kafka.source import PARTITION_BYTES, Source
from penstock.log.kafka.topics import Topic, Topics

WAIT = 2.0  # seconds: the longest that a read waits for data which is there
AT_END = 0.02  # seconds for which an end that was asked for is believed
GLANCE = 0.005  # seconds between two looks at the end whether something has come
HELD_BYTES = 2 * PARTITION_BYTES  # of a partition: from then on no more is fetched until some was read
TOTAL_BYTES = 256 << 20  # of all partitions: from then on only what is asked for is fetched
UNREAD = 60.0  # seconds after which a partition that nobody reads is fetched no more
Key = tuple[str, int]


@dataclasses.dataclass
class _Held:
    """A partition that is being fetched: what has come of it, without a gap, up to `fetched`."""

    incarnation: str
    fetched: int
    segments: collections.deque[Segment] = dataclasses.field(default_factory=collections.deque)
    problem: PenstockError | None = None
    end: int = -1
    end_asked: float = 0.0
    used: float = 0.0

    @property
    def size(self) -> int:
        return sum(len(segment.data) for segment in self.segments)

    def drop_before(self, offset: int) -> bool:
        """Let go of segments that end at or before `offset`; whether what follows it is here or comes next."""
        begin = self.segments[0].start if self.segments else self.fetched
        if not begin <= offset <= self.fetched:
            return False
        while self.segments and self.segments[0].next <= offset:
            self.segments.popleft()
        return True

    def chunk(self, offset: int, max_bytes: int, max_offsets: int) -> Chunk:
        """As much of the segments as fits."""
        chunks: list[Chunk] = []
        at, left = offset, max_bytes
        for segment in self.segments:
            if chunks and not _first_fits(segment, offset + max_offsets, left):
                break
            chunk = segment.chunk(at, left, offset + max_offsets - at)
            chunks.append(chunk)
            at, left = chunk.next, left - len(chunk.data)
            if at < segment.next:
                break
        return packed(chunks)


def _first_fits(segment: Segment, limit: int, room: int) -> bool:
    """Whether the first batch of a segment ends before `limit` and is not larger than `room`."""
    return bool(len(segment.rows)) and int(segment.rows[0, 3]) <= limit and int(segment.rows[0, 1]) <= room


class Reader:
    """`Log.read` of one KafkaLog. For any number of threads, one at a time."""

    def __init__(self, client: Client, topics: Topics, offsets: Offsets) -> None:
        self._client, self._topics, self._offsets = client, topics, offsets
        self._guard = threading.Lock()
        self._source: Source | None = None
        self._held: dict[Key, _Held] = {}
        self._cut: dict[tuple[str, int], int | None] = {}  # by incarnation and partition: behind which offset the log was cut off
        self._polled = 0.0

    @property
    def mode(self) -> str | None:
        """Whether "raw" batches or "records" are fetched; None before the first read."""
        return self._source.mode if self._source is not None else None

    def read(self, topic: Topic, partition: int, offset: int, max_bytes: int, max_offsets: int) -> Chunk | None:
        """See Log.read."""
        with self._guard:
            key = topic.name, partition
            try:
                return self._read(topic, key, offset, max_bytes, max_offsets)
            except kafka_errors.KafkaError as problem:
                self._let_go([key])
                raise translated(problem, f"{topic.name}/{partition}") from problem

    def close(self) -> None:
        """Let go of connections and of what was fetched."""
        with self._guard:
            self._held = {}
            self._cut = {}
            source, self._source = self._source, None
            if source is not None:
                source.close()

    def _read(self, topic: Topic, key: Key, offset: int, max_bytes: int, max_offsets: int) -> Chunk | None:
        self._check_cut(topic, key, offset)
        held, started = self._going_on(topic, key, offset), time.monotonic()
        held.used = started
        if not held.segments and held.end == offset and started < held.end_asked + AT_END and started < self._polled + GLANCE:
            return None
        wait = 0.0
        while True:
            if held.segments:
                return held.chunk(offset, max_bytes, max_offsets)
            if held.problem is not None:
                self._let_go([key])
                raise held.problem
            chunk = self._poll(key, topic, offset, wait)
            if chunk is not None:
                return chunk
            if held.segments or held.problem is not None:
                continue
            now = time.monotonic()
            if now >= held.end_asked + AT_END or held.end != offset:
                self._look_for_ends(key)
            if held.end <= offset:
                if held.end < offset:
                    self._check_beyond(topic, key, offset)
                return None
            if now > started + WAIT:
                self._let_go([key])
                raise UnavailableError(f"{key[0]}/{key[1]}: Kafka has offsets up to {held.end}, but did not send what follows {offset}")
            wait = 0.2

    def _going_on(self, topic: Topic, key: Key, offset: int) -> _Held:
        """The partition, fetched from `offset` on."""
        held = self._held.get(key)
        if held is not None and held.incarnation == topic.incarnation and held.drop_before(offset):
            return held
        self._topics.check_replayable(topic)
        source = self._connected()
        now = time.monotonic()
        self._let_go([one for one, other in self._held.items() if other.used < now - UNREAD and one != key])
        if held is not None and held.incarnation != topic.incarnation:
            self._let_go([one for one in self._held if one[0] == topic.name])
        self._held[key] = held = _Held(topic.incarnation, offset)
        source.assign(self._held)
        source.seek(*key, offset)
        return held

    def _connected(self) -> Source:
        if self._source is None:
            self._client.manager()  # says soon, and once for all callers, that nobody answers
            try:
                self._source = Source(self._client.settings)
            except kafka_errors.KafkaTimeoutError as problem:
                raise self._client.rest(unreachable(self._client.settings)) from problem
        return self._source

    def _let_go(self, keys: Sequence[Key]) -> None:
        """Fetch these no more, and forget what has come of them."""
        gone = [self._held.pop(key) for key in keys if key in self._held]
        if gone and self._source is not None:
            self._source.assign(self._held)

    def _poll(self, key: Key, topic: Topic, offset: int, wait: float) -> Chunk | None:
        """Take in what has come. Returns a chunk for the reader of `key` only if what it asked for is gone."""
        source = self._connected()
        full = sum(held.size for held in self._held.values()) >= TOTAL_BYTES
        source.hold(one for one, held in self._held.items() if one != key and (full or held.size >= HELD_BYTES or held.problem is not None))
        self._polled = time.monotonic()
        try:
            came = source.poll(wait)
        except kafka_errors.OffsetOutOfRangeError as problem:
            return self._gone([(one.topic, one.partition) for one in problem.args[0]], key, topic, offset)
        except kafka_errors.LogTruncationError as problem:
            self._truncated(problem.divergent_offsets, topic)
            self._check_cut(topic, key, offset)
            return None
        except Exception as problem:  # of the client itself: it is made anew
            self._held, self._source = {}, None
            source.close()
            raise translated(problem, f"{key[0]}/{key[1]}") from problem
        for one in came:
            held = self._held.get((one.topic, one.partition))
            if held is None:
                continue
            if isinstance(one.found, PenstockError):
                held.problem = one.found
            elif one.found.start == held.fetched:
                held.segments.append(one.found)
                held.fetched = one.found.next
        for name in {one.topic for one in came}:
            self._check_same(name)
        return None

    def _check_same(self, name: str) -> None:
        """What came is not of a topic that was created anew meanwhile. Raises NotFoundError."""
        mine = [key for key in self._held if key[0] == name]
        try:
            now = self._topics.get(name, time.monotonic()).incarnation
        except NotFoundError:
            self._let_go(mine)
            raise
        except PenstockError:
            self._let_go(mine)  # not to be handed out by the next call, which might not look
            raise
        other = [key for key in mine if self._held[key].incarnation != now]
        if other:
            self._let_go(other)
            raise NotFoundError(f"topic {name!r} was deleted and created anew meanwhile", hint="look up its incarnation again")

    def _gone(self, keys: Sequence[Key], key: Key, topic: Topic, offset: int) -> Chunk | None:
        """The broker does not have what was asked for: before the start it is lost, behind the end it never was there."""
        for name in {name for name, _ in keys}:
            self._check_same(name)
        if key not in keys:
            self._let_go(keys)
            return None
        start = self._offsets.one(*key, EARLIEST)
        self._let_go(keys)
        if offset < start:
            return Chunk(offset, start, (), ((offset, start),), b"")
        self._check_beyond(topic, key, offset)
        raise UnavailableError(f"{key[0]}/{key[1]}: the broker does not have offset {offset} just now")

    def _check_beyond(self, topic: Topic, key: Key, offset: int) -> None:
        """Raise OutOfRangeError for an offset behind the end, of transactions that are still open too."""
        end = self._offsets.one(*key, LATEST, UNCOMMITTED)
        if offset > end:
            self._let_go([key])
            raise OutOfRangeError(
                f"{key[0]}/{key[1]}: offset {offset} is behind the end, {end}",
                hint="the log was truncated or replaced since that position was taken",
            )

    def _truncated(self, found: dict[Any, Any], topic: Topic) -> None:
        """Remember what an unclean election of a leader cut off: reading on would count other records under offsets that were counted."""
        keys = [(one.topic, one.partition) for one in found]
        for name in {name for name, _ in keys}:
            self._check_same(name)
        for one, safe in found.items():
            held = self._held.get((one.topic, one.partition))
            if held is not None:
                self._cut[held.incarnation, one.partition] = None if safe is None else safe.offset
        self._let_go(keys)

    def _check_cut(self, topic: Topic, key: Key, offset: int) -> None:
        where = topic.incarnation, key[1]
        if where in self._cut and (self._cut[where] is None or offset > (self._cut[where] or 0)):
            raise OutOfRangeError(
                f"{key[0]}/{key[1]}: the log was truncated before offset {offset}"
                + ("" if self._cut[where] is None else f", at {self._cut[where]}"),
                hint="a broker that lacked records was elected leader; see unclean.leader.election.enable. Rebuild from the archive",
            )

    def _look_for_ends(self, key: Key) -> None:
        """Ask for the end of `key`, and in the same breath of all others that have nothing to read."""
        waiting = [one for one, held in self._held.items() if one == key or (not held.segments and held.problem is None)]
        asked = time.monotonic()
        try:
            ends = self._offsets.many(waiting, LATEST)
        except NotFoundError:
            ends = self._offsets.many([key], LATEST)
        for one, end in ends.items():
            self._held[one].end, self._held[one].end_asked = end, asked
