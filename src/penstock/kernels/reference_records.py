"""Record batches in plain Python: the oracle of `penstock.kernels._records`, and what runs where there is no compiler."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from penstock.errors import CorruptionError
from penstock.kernels import compress
from penstock.kernels.columns import Records

HEADER = struct.Struct(
    ">qiibIhiqqqhii"
)  # base offset, length, epoch, magic, crc, attributes, last offset delta, timestamps, producer, count
MILLIS = 2**63 // 1000 - 1  # timestamps beyond what microseconds can say stay at the end of the range


@dataclasses.dataclass
class Batch:
    """A batch's header and where it lies in the data."""

    position: int
    length: int
    base: int
    crc: int
    attributes: int
    last: int
    first_timestamp: int
    max_timestamp: int
    count: int


def _corrupt(base: int | str, what: str) -> CorruptionError:
    return CorruptionError(
        f"record batch at offset {base}: {what}",
        hint="the log or what carried it is damaged: compare with another replica, or skip the batch on purpose",
    )


def _batches(data: bytes) -> Iterator[Batch]:
    at = 0
    while at < len(data):
        left = len(data) - at
        base = int.from_bytes(data[at : at + 8], "big", signed=True)
        if left < HEADER.size:
            raise _corrupt(base if left >= 8 else "unknown", f"{left} bytes are no whole batch")
        _, length, _, magic, crc, attributes, last, first, latest, _, _, _, count = HEADER.unpack_from(data, at)
        length += 12
        if not HEADER.size <= length <= left:
            raise _corrupt(base, f"{length} bytes long where {left} are left")
        if magic != 2:
            raise _corrupt(base, f"magic {magic} where 2 is read")
        if last < 0:
            raise _corrupt(base, "its last offset lies before its first")
        yield Batch(at, length, base, crc, attributes, last, first, latest, count)
        at += length


def batch_spans(data: bytes) -> npt.NDArray[np.int64]:
    """Where the batches of `data` lie: int64[n, 4] of position, length, base offset, next offset. Reads headers only.

    Raises CorruptionError where what is there is no whole batch of magic 2.
    """
    return np.array([(b.position, b.length, b.base, b.base + b.last + 1) for b in _batches(data)], np.int64).reshape(-1, 4)


class Cursor:
    """Reads bytes from the front. Raises IndexError at the end."""

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data, self.at, self.end = data, at, len(data) if end is None else end

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if not 0 <= count <= self.end - self.at:
            raise IndexError(self.at)
        self.at += count
        return self.data[self.at - count : self.at]

    def unsigned(self, count: int) -> int:
        """A big-endian number."""
        return int.from_bytes(self.take(count), "big")

    def varint(self) -> int:
        """A zig-zag varint of at most 64 bits."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 63:
                raise IndexError(self.at)
        if value >= 2**64:
            raise IndexError(self.at)
        return (value >> 1) ^ -(value & 1)

    def slice(self) -> tuple[int, int]:
        """Start and length of bytes behind their length; -1: null."""
        length = self.varint()
        if length < -1:
            raise IndexError(self.at)
        start = self.at
        self.take(max(length, 0))
        return start, length


def read_batches(data: bytes) -> Records:
    """Read consecutive record batches, raw as fetched; control batches are left out. See `_records.read_batches`, whose arrays differ only in `buffer`.

    Raises CorruptionError, naming the base offset, for anything that does not fit.
    """
    payloads: list[bytes] = []
    rows: list[tuple[int, ...]] = []
    size = 0
    for batch in _batches(data):
        if crc32c(data[batch.position + 21 : batch.position + batch.length]) != batch.crc:
            raise _corrupt(batch.base, "its CRC32C does not match")
        codec = batch.attributes & 7
        if codec not in compress.NAMES:
            raise _corrupt(batch.base, f"codec {codec} is unknown")
        if batch.attributes & 32:
            continue
        payload = data[batch.position + HEADER.size : batch.position + batch.length]
        if codec:
            try:
                payload = compress.decompress(codec, payload, compress.LIMIT - size)
            except CorruptionError as problem:
                raise _corrupt(batch.base, problem.message) from None
        try:
            rows += _records(payload, batch, size)
        except IndexError:
            raise _corrupt(batch.base, "a record does not fit its batch") from None
        payloads.append(payload)
        size += len(payload)
    columns = list(zip(*rows)) or [()] * 8
    kinds = (np.int64, np.int64, np.int64, np.int32, np.int64, np.int32, np.int64, np.int32)
    return Records(b"".join(payloads), *(np.array(column, kind) for column, kind in zip(columns, kinds)))


def _records(payload: bytes, batch: Batch, shift: int) -> Iterator[tuple[int, ...]]:
    """A row of `Records` each, starts counted from `shift` bytes before the payload. Raises IndexError where a record does not fit."""
    cursor, previous = Cursor(payload), -1
    if batch.count < 0:
        raise IndexError(0)
    for _ in range(batch.count):
        length = cursor.varint()
        record = Cursor(payload, cursor.at, cursor.at + length)
        cursor.take(length)
        record.take(1)
        timestamp, offset = record.varint(), record.varint()
        key, value = record.slice(), record.slice()
        headers, start = record.varint(), record.at
        if headers < 0 or headers > record.end - start or not previous < offset <= batch.last:
            raise IndexError(record.at)
        for _ in range(headers):
            record.take(record.varint())
            record.slice()
        if record.at != record.end:
            raise IndexError(record.at)
        previous = offset
        millis = batch.max_timestamp if batch.attributes & 8 else batch.first_timestamp + timestamp
        yield (
            batch.base + offset,
            max(-MILLIS, min(MILLIS, millis)) * 1000,
            key[0] + shift,
            key[1],
            value[0] + shift,
            value[1],
            start + shift,
            headers,
        )
    if cursor.at != len(payload):
        raise IndexError(cursor.at)


def headers_value(records: Records, name: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Where the header `name` lies in the buffer: start (int64[n]) and length (int32[n]).

    The last of that name counts; the length is -1 where a record has none, or a null one. Raises CorruptionError where headers do not lie in the buffer.
    """
    starts, lengths = np.zeros(len(records), np.int64), np.full(len(records), -1, np.int32)
    for row, (start, count) in enumerate(zip(records.headers_start.tolist(), records.headers_count.tolist())):
        cursor = Cursor(records.buffer, start)
        try:
            for _ in range(count):
                same = cursor.take(cursor.varint()) == name
                at, length = cursor.slice()
                if same:
                    starts[row], lengths[row] = (at, length) if length >= 0 else (0, -1)
        except IndexError:
            raise CorruptionError("headers do not lie inside their records' buffer") from None
    return starts, lengths
