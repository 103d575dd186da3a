"""Puts records into a log: batches, compresses, chooses partitions as Kafka's clients do."""

from __future__ import annotations

import time
from typing import Callable, Sequence

import numpy as np
import numpy.typing as npt

from penstock.errors import ConfigurationError
from penstock.kernels.encode import Header, Slices, encode_batches, encode_headers, murmur2, partitions_of
from penstock.log import Log
from penstock.model import Schema

STICKY = 1024  # records without a key that go to one partition before the next takes its turn
_PENDING_OBJECTS = 8192  # of `send`, before they are encoded


def now_us() -> int:
    """The wall clock in microseconds since 1970."""
    return time.time_ns() // 1000


class Producer:
    """Sends records to one topic. What was sent is durable when `flush` returns; leaving the `with` block flushes, unless it is left by an error.

    A keyed record goes to the partition that Kafka's default partitioner gives it (murmur2), one without a key to the partitions in turn, 1024
    records each. Records of one partition keep the order in which they were sent.

    topic: its name, or the schema of that name. codec: "lz4" or "none". batch_bytes: of a record batch before compression. buffer_bytes: how much
    may wait in memory, compressed, before it is appended. clock: the log timestamp of records that are sent without one, in microseconds.

    sent and sent_bytes count the records taken and the bytes of their values. When an append fails, the error comes out of the call that
    caused it, and what was not appended stays pending for the next `flush`. Not for use by several threads at a time.
    """

    def __init__(
        self,
        log: Log,
        topic: str | Schema,
        *,
        codec: str = "lz4",
        batch_bytes: int = 1 << 16,
        buffer_bytes: int = 16 << 20,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self.topic = topic.name if isinstance(topic, Schema) else topic
        self._log, self._codec, self._batch_bytes, self._buffer_bytes, self._clock = log, codec, batch_bytes, buffer_bytes, clock
        self.partitions = log.partitions(self.topic)
        self.sent = self.sent_bytes = 0
        self._keyless = 0
        self._batches: dict[int, list[bytes]] = {number: [] for number in range(self.partitions)}
        self._batched = 0
        self._objects: list[tuple[bytes | None, bytes | None, int, Sequence[Header]]] = []
        self._objects_to: list[int] = []
        self._objects_bytes = 0

    def send(
        self,
        value: bytes | None,
        key: bytes | None = None,
        timestamp: int | None = None,
        headers: Sequence[Header] = (),
        partition: int | None = None,
    ) -> None:
        """Send one record. timestamp: microseconds since 1970; now unless given. partition: unless the key is to choose it."""
        if partition is None:
            partition = self._next_keyless() if key is None else (murmur2(key) & 0x7FFFFFFF) % self.partitions
        elif not 0 <= partition < self.partitions:
            raise ConfigurationError(
                f"topic {self.topic!r} has no partition {partition}", hint=f"it has {self.partitions}, numbered from 0"
            )
        self._objects.append((value, key, self._clock() if timestamp is None else timestamp, headers))
        self._objects_to.append(partition)
        size = len(value or b"")
        self._objects_bytes += size + len(key or b"")
        self.sent += 1
        self.sent_bytes += size
        if len(self._objects) >= _PENDING_OBJECTS or self._objects_bytes >= self._buffer_bytes:
            self._encode_objects()

    def send_many(
        self,
        values: Slices,
        keys: Slices | None = None,
        timestamps: npt.NDArray[np.int64] | None = None,
        headers: Slices | None = None,
        partitions: npt.NDArray[np.int32] | None = None,
    ) -> None:
        """Send many records at once, without a Python object for any: the fast way.

        values, keys: one a record. timestamps: int64 microseconds since 1970; now unless given. headers: slices of what `encode_headers` made.
        partitions: one a record, unless the keys are to choose them.
        """
        self._encode_objects()
        self._send(values, keys, timestamps, headers, partitions)
        self.sent += len(values)
        self.sent_bytes += int(np.maximum(values.length, 0).sum(dtype=np.int64))

    def flush(self) -> None:
        """Append all that is pending. It is durable when this returns."""
        self._encode_objects()
        self._append()

    def take(self) -> dict[int, list[bytes]]:
        """The record batches that are pending, by partition. They are the caller's to append from now on, and no longer this producer's."""
        self._encode_objects()
        taken = {partition: batches for partition, batches in self._batches.items() if batches}
        self._batches, self._batched = {number: [] for number in range(self.partitions)}, 0
        return taken

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.flush()

    def _next_keyless(self) -> int:
        partition = self._keyless // STICKY % self.partitions
        self._keyless += 1
        return partition

    def _choose(self, count: int, keys: Slices | None) -> npt.NDArray[np.int32]:
        chosen = np.full(count, -1, np.int32) if keys is None else partitions_of(keys, self.partitions)
        keyless = np.flatnonzero(chosen < 0)
        if len(keyless):
            chosen[keyless] = (self._keyless + np.arange(len(keyless))) // STICKY % self.partitions
            self._keyless += len(keyless)
        return chosen

    def _send(
        self,
        values: Slices,
        keys: Slices | None,
        timestamps: npt.NDArray[np.int64] | None,
        headers: Slices | None,
        partitions: npt.NDArray[np.int32] | None,
    ) -> None:
        count = len(values)
        if not count:
            return
        chosen = self._choose(count, keys) if partitions is None else partitions
        if int(chosen.min()) < 0 or int(chosen.max()) >= self.partitions:
            raise ConfigurationError(
                f"topic {self.topic!r} has {self.partitions} partitions, numbered from 0",
                hint=f"{int(chosen.min())} to {int(chosen.max())} were asked for",
            )
        if timestamps is None:
            timestamps = np.full(count, self._clock(), np.int64)
        order = np.argsort(chosen.astype(np.int16) if self.partitions < 1 << 15 else chosen, kind="stable")  # 16 bits: a radix sort
        ends = np.cumsum(np.bincount(chosen, minlength=self.partitions))
        for partition, end in enumerate(ends.tolist()):
            rows = order[ends[partition - 1] if partition else 0 : end]
            batches = encode_batches(
                values, timestamps, keys=keys, headers=headers, rows=rows, codec=self._codec, batch_bytes=self._batch_bytes
            )
            self._batches[partition] += batches
            self._batched += sum(map(len, batches))
        if self._batched >= self._buffer_bytes:
            self._append()

    def _encode_objects(self) -> None:
        if not self._objects:
            return
        objects, to = self._objects, np.array(self._objects_to, np.int32)
        self._objects, self._objects_to, self._objects_bytes = [], [], 0
        keyed, headed = any(key is not None for _, key, _, _ in objects), any(headers for *_, headers in objects)
        self._send(
            Slices.of([value for value, *_ in objects]),
            Slices.of([key for _, key, _, _ in objects]) if keyed else None,
            np.array([timestamp for _, _, timestamp, _ in objects], np.int64),
            Slices.of([encode_headers(headers) for *_, headers in objects]) if headed else None,
            to,
        )

    def _append(self) -> None:
        for partition, batches in self._batches.items():
            if batches:
                self._log.append(self.topic, partition, batches)
                self._batched -= sum(map(len, batches))
                self._batches[partition] = []
