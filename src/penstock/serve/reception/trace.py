"""Which events of a request the log holds: each says in a header of its record which request it came with, and as which of its events."""

from __future__ import annotations

import time
from typing import Collection

import numpy as np
import numpy.typing as npt

from penstock.errors import UnavailableError
from penstock.kernels import headers_value, read_batches
from penstock.kernels.encode import Slices, encode_headers
from penstock.log import Log

HEADER = "penstock-request"
DIGEST = 16  # bytes that name a request
_VALUE = DIGEST + 4
_PREFIX = encode_headers([(HEADER, bytes(_VALUE))])[:-_VALUE]
_READ_BYTES, _READ_OFFSETS = 4 << 20, 1 << 40
_PATIENCE = 200  # looks at a log that says it has more and gives none, 10 ms apart


def headers(digests: list[bytes | None], counts: list[int]) -> Slices | None:
    """The headers of the events of some requests; None where no request is named. digests: of each request, None for one without a name."""
    if not any(digests):
        return None
    width, total = len(_PREFIX) + _VALUE, sum(counts)
    made = np.empty((total, width), np.uint8)
    made[:, : len(_PREFIX)] = np.frombuffer(_PREFIX, np.uint8)
    length = np.full(total, width, np.int32)
    first = 0
    for digest, count in zip(digests, counts):
        rows = slice(first, first + count)
        if digest is None:
            length[rows] = -1
        else:
            made[rows, len(_PREFIX) : -4] = np.frombuffer(digest, np.uint8)
            made[rows, -4:] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)
        first += count
    return Slices(made.tobytes(), np.arange(total, dtype=np.int64) * width, length)


def find(log: Log, topic: str, digests: Collection[bytes], since: int) -> dict[bytes, set[int]]:
    """Which events of each request lie in the log, among the records whose log timestamp is at or behind `since` (microseconds), and all that follow them.

    Their writers are dead; what one had written whole, and was killed before it could publish it, counts, for the next append would publish it.
    """
    found: dict[bytes, set[int]] = {digest: set() for digest in digests}
    for partition in range(log.partitions(topic)):
        end = log.append(topic, partition, [])
        at, looks = log.offset_at(topic, partition, since // 1000 * 1000), 0
        while at < end:
            chunk = log.read(topic, partition, at, _READ_BYTES, _READ_OFFSETS)
            if chunk is None:
                looks += 1
                if looks > _PATIENCE:
                    raise UnavailableError(f"{topic}/{partition} ends at {end}, and cannot be read from {at} on")
                time.sleep(0.01)
                continue
            at, looks = chunk.next, 0
            if chunk.data:
                for digest, index in _named(chunk.data):
                    if digest in found:
                        found[digest].add(index)
    return found


def _named(data: bytes) -> list[tuple[bytes, int]]:
    """The request and the place in it of every record in some batches that names one."""
    records = read_batches(data)
    start, length = headers_value(records, HEADER.encode())
    rows = start[length == _VALUE]
    if not len(rows):
        return []
    buffer = np.frombuffer(records.buffer, np.uint8)
    values: npt.NDArray[np.uint8] = buffer[rows[:, None] + np.arange(_VALUE)]
    indexes = np.ascontiguousarray(values[:, DIGEST:]).view(">u4").ravel().tolist()
    raw = values[:, :DIGEST].tobytes()
    return [(raw[i * DIGEST : (i + 1) * DIGEST], index) for i, index in enumerate(indexes)]
