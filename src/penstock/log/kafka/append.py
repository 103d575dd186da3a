"""Appending: record batches are sent as they are, each once: with a producer id and a sequence number, by which the broker knows one that it has."""

from __future__ import annotations

import collections
import dataclasses
import logging
import struct
import threading
import time
from typing import Any, Sequence

from crc32c import crc32c
from kafka import errors as kafka_errors
from kafka.protocol.consumer import FetchRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from penstock.errors import PenstockError, UnavailableError
from penstock.kernels.encode import walk_batches
from penstock.kernels.framing import HEADER_BYTES
from penstock.log.batches import FIRST, NEXT, POSITION, check_batches
from penstock.log.kafka.client import ANSWER, Client
from penstock.log.kafka.offsets import EARLIEST, LATEST, UNCOMMITTED, Offsets
from penstock.log.kafka.problems import MISSING, PASSING, error_of, translated
from penstock.log.kafka.topics import Topics

PIPELINE = 5  # requests of a partition that are under way at a time: a broker knows the last five batches of a producer
PIPELINE_BYTES = 4 << 20
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5)  # seconds before another try
SEQUENCES = 1 << 31  # sequence numbers are counted modulo this
_STAMP = struct.Struct(">qhi")  # producer id, epoch, base sequence
_STAMP_AT, _CRC_AT, _ATTRIBUTES_AT = 43, 17, 21
OUT_OF_STEP = (kafka_errors.OutOfOrderSequenceNumberError, kafka_errors.UnknownProducerIdError, kafka_errors.InvalidProducerEpochError)
RETRIED = (*PASSING, *MISSING, *OUT_OF_STEP, kafka_errors.DuplicateSequenceNumberError)
log = logging.getLogger(__name__)


@dataclasses.dataclass
class _Batch:
    """One that is being appended. sent: whether a request with it may have reached the broker. offset: where it lies, once that is known."""

    given: bytes
    count: int
    stamp: tuple[int, int, int] = (-1, -1, -1)
    stamped: bytes = b""
    sent: bool = False
    offset: int | None = None


class _Stream:
    """What this log appends to one partition of one incarnation."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.producer: tuple[int, int] | None = None  # id and epoch
        self.begun = False  # whether it ever had one: sequence numbers begin at 0 only once under an id
        self.sequence = 0
        self.floor: int | None = None  # nothing that is pending lies before this offset
        self.pending: list[_Batch] = []  # of the append that is under way, or that failed


def stamped(batch: bytes, producer: int, epoch: int, sequence: int) -> bytes:
    """A record batch as a producer's, its checksum made anew."""
    head = bytearray(batch[:HEADER_BYTES])
    head[:8] = bytes(8)
    _STAMP.pack_into(head, _STAMP_AT, producer, epoch, sequence)
    payload = memoryview(batch)[HEADER_BYTES:]
    head[_CRC_AT:_ATTRIBUTES_AT] = crc32c(payload, crc32c(bytes(head[_ATTRIBUTES_AT:]))).to_bytes(4, "big")
    return b"".join((head, payload))


class Appender:
    """`Log.append` of one KafkaLog. For any number of threads; those that append to one partition take turns.

    A batch is sent again, byte for byte, until it is answered for. If an append fails with UnavailableError and the same batches are appended
    next, it is gone on with: none of them is written twice.
    """

    def __init__(self, client: Client, topics: Topics, offsets: Offsets) -> None:
        self._client, self._topics, self._offsets = client, topics, offsets
        self._guard = threading.Lock()
        self._producer: tuple[int, int] | None = None
        self._streams: dict[tuple[str, int], _Stream] = {}

    def append(self, topic: str, partition: int, batches: Sequence[bytes]) -> int:
        """See Log.append."""
        check_batches(batches)
        until = time.monotonic() + self._client.settings.append_timeout
        while True:
            try:
                found = self._topics.get(topic)
                break
            except UnavailableError:
                if time.monotonic() > until:
                    raise
                time.sleep(PAUSES[-1])
        found.check(partition)
        with self._guard:
            stream = self._streams.setdefault((found.incarnation, partition), _Stream())
        with stream.guard:
            self._take_on(stream, batches)
            self._send(topic, found.incarnation, partition, stream, until)
            first, last = stream.pending[0].offset, stream.pending[-1].offset
            assert first is not None and last is not None
            stream.pending, stream.floor = [], max(stream.floor or 0, last)
            return first

    def _take_on(self, stream: _Stream, batches: Sequence[bytes]) -> None:
        """Make `batches` what is pending; what is left of an append that failed is gone on with if it is their beginning."""
        left = stream.pending
        if left and [batch.given for batch in left] != list(batches[: len(left)]):
            # Given up by the caller. Whether the broker has them nobody knows, so nobody knows the next sequence number either.
            left, stream.producer = [], None
        stream.pending = left + [_Batch(batch, int.from_bytes(batch[23:27], "big") + 1) for batch in batches[len(left) :]]

    def _stamp(self, stream: _Stream) -> None:
        """Give the pending batches that have none a place in the producer's sequence."""
        if stream.producer is None:
            stream.producer, stream.sequence, stream.begun = self._producer_id(anew=stream.begun), 0, True
        for batch in stream.pending:
            if not batch.stamped and batch.offset is None:
                batch.stamp = *stream.producer, stream.sequence
                batch.stamped = stamped(batch.given, *batch.stamp)
                stream.sequence = (stream.sequence + batch.count) % SEQUENCES

    def _producer_id(self, anew: bool = False) -> tuple[int, int]:
        with self._guard:
            if self._producer is None or anew:
                until = time.monotonic() + ANSWER
                while True:
                    answer = self._client.ask(
                        "a producer id",
                        lambda _: InitProducerIdRequest(
                            transactional_id=None, transaction_timeout_ms=60_000, producer_id=-1, producer_epoch=-1, max_version=4
                        ),
                    )
                    problem = error_of(answer.error_code)
                    if problem is None:
                        break
                    if not isinstance(problem, kafka_errors.RetriableError) or time.monotonic() > until:
                        raise translated(problem, "a producer id")
                    time.sleep(PAUSES[1])
                self._producer = answer.producer_id, answer.producer_epoch
            return self._producer

    def _send(self, topic: str, incarnation: str, partition: int, stream: _Stream, until: float) -> None:
        """Until all that is pending has an offset. Raises UnavailableError at `until` (monotonic seconds), or what cannot be helped at once."""
        what, tries, out_of_step = f"appending to {topic}/{partition}", 0, False
        while True:
            problem: BaseException | None
            try:
                found = self._topics.get(topic)
                if found.incarnation != incarnation:
                    stream.pending = []
                    raise translated(kafka_errors.UnknownTopicIdError(), what)
                leader = found.leaders.get(partition, -1)
                if leader < 0:
                    raise UnavailableError(f"{topic}/{partition}: no broker leads it just now")
                if stream.floor is None:
                    stream.floor = self._offsets.one(topic, partition, LATEST, UNCOMMITTED)
                self._recognise(topic, partition, leader, stream)
                if out_of_step:
                    self._begin_anew(stream)
                    out_of_step = False
                self._stamp(stream)
                missing = [batch for batch in stream.pending if batch.offset is None]
                if not missing:
                    return
                problem = self._client.run(self._pipeline, topic, partition, leader, missing)
                if problem is None:
                    return
                if missing[0].offset is not None:
                    tries = 0
                out_of_step = isinstance(problem, OUT_OF_STEP)
            except PenstockError as error:
                if not error.retriable:
                    raise
                problem = error
            if not isinstance(problem, RETRIED):
                stream.pending, stream.producer = [], None
                raise translated(problem, what) from problem
            if time.monotonic() > until:
                raise UnavailableError(
                    f"{what}: not answered for in {self._client.settings.append_timeout:g} s ({translated(problem, 'last').message})",
                    hint="append the same batches again: none will be written twice",
                ) from problem
            if out_of_step:
                log.warning("%s: %s; going on under a new producer id", what, type(problem).__name__)
            self._topics.forget(topic)
            time.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1

    def _recognise(self, topic: str, partition: int, leader: int, stream: _Stream) -> None:
        """Look in the log for batches that were sent and not answered for.

        The broker would recognise them too, but not always: it forgets a producer whose records all are older than a day, by their own timestamps,
        whenever it starts.
        """
        unknown = {batch.stamp: batch for batch in stream.pending if batch.sent and batch.offset is None}
        if unknown:
            for stamp, offset in self._find(topic, partition, leader, set(unknown), stream.floor or 0).items():
                unknown[stamp].offset, unknown[stamp].stamped = offset, b""

    def _begin_anew(self, stream: _Stream) -> None:
        """After the broker has refused a sequence number: have what it does not have stamped as a producer's that it does not know."""
        for batch in stream.pending:
            if batch.offset is None:
                batch.stamped, batch.sent = b"", False
        stream.producer = None

    async def _pipeline(self, topic: str, partition: int, leader: int, batches: list[_Batch]) -> BaseException | None:
        """Send batches in order, some ahead of the answers; the first error, once nothing is under way any more."""
        manager, kind = self._client.manager(), ProduceRequest.TopicProduceData
        waiting: collections.deque[tuple[_Batch, Any]] = collections.deque()
        under_way, failed = 0, None
        todo = collections.deque(batches)
        while waiting or (todo and failed is None):
            while (
                todo and failed is None and len(waiting) < PIPELINE and (not waiting or under_way + len(todo[0].stamped) <= PIPELINE_BYTES)
            ):
                batch = todo[0]
                request = ProduceRequest(
                    transactional_id=None,
                    acks=-1,
                    timeout_ms=int(ANSWER * 1000),
                    topic_data=[kind(name=topic, partition_data=[kind.PartitionProduceData(index=partition, records=batch.stamped)])],
                    min_version=3,
                    max_version=9,
                )
                future = manager.send(request, node_id=leader, request_timeout_ms=3 * ANSWER * 1000)
                if waiting and future.failed() and isinstance(future.exception, kafka_errors.NodeNotReadyError):
                    break  # the connection's buffer is full: not sent, and to be sent once an answer has come
                todo.popleft()
                batch.sent = batch.sent or not future.failed()
                waiting.append((batch, future))
                under_way += len(batch.stamped)
            batch, future = waiting.popleft()
            under_way -= len(batch.stamped)
            try:
                answer = await manager.wait_for(future, 4 * ANSWER * 1000)
                one = answer.responses[0].partition_responses[0]
                problem: BaseException | None = error_of(one.error_code)
                if problem is None:
                    batch.offset, batch.stamped = one.base_offset, b""
            except Exception as lost:
                problem = lost
            failed = failed or problem
        return failed

    def _find(
        self, topic: str, partition: int, leader: int, stamps: set[tuple[int, int, int]], floor: int
    ) -> dict[tuple[int, int, int], int]:
        """At which offsets, at or behind `floor`, the log has batches of these stamps."""
        # A leader that was elected just now says where its end is once it shows all that the one before had answered for.
        end = self._offsets.one(topic, partition, LATEST, UNCOMMITTED)
        offset = max(floor, self._offsets.one(topic, partition, EARLIEST, UNCOMMITTED))
        places: dict[tuple[int, int, int], int] = {}
        kind = FetchRequest.FetchTopic
        while offset < end:

            def make(_: Any, at: int = offset) -> Any:
                return FetchRequest(
                    replica_id=-1,
                    max_wait_ms=0,
                    min_bytes=0,
                    max_bytes=8 << 20,
                    isolation_level=UNCOMMITTED,
                    session_id=0,
                    session_epoch=-1,
                    topics=[
                        kind(
                            topic=topic,
                            partitions=[
                                kind.FetchPartition(
                                    partition=partition,
                                    current_leader_epoch=-1,
                                    fetch_offset=at,
                                    last_fetched_epoch=-1,
                                    log_start_offset=-1,
                                    partition_max_bytes=8 << 20,
                                )
                            ],
                        )
                    ],
                    forgotten_topics_data=[],
                    rack_id="",
                    min_version=4,
                    max_version=12,
                )

            answer = self._client.ask(f"{topic}/{partition}", make, leader).responses[0].partitions[0]
            failed = error_of(answer.error_code)
            if failed is not None:
                raise UnavailableError(f"{topic}/{partition}: looking for what was appended failed ({type(failed).__name__})")
            data = bytes(answer.records or b"")
            rows, _ = walk_batches(data, 0, len(data))
            for row in rows:
                stamp = _STAMP.unpack_from(data, int(row[POSITION]) + _STAMP_AT)
                if stamp in stamps:
                    places[stamp] = int(row[FIRST])
            if not len(rows):
                break
            offset = int(rows[-1, NEXT])
        return places
