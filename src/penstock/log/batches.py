"""Record batches as a log handles them: their headers, never their records (but for `first_at`)."""

from __future__ import annotations

import bisect
from typing import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from penstock.errors import CorruptionError
from penstock.kernels.compress import decompress
from penstock.kernels.encode import walk_batches
from penstock.kernels.framing import CODEC_MASK, CONTROL, HEADER_BYTES, LOG_APPEND_TIME
from penstock.log import Chunk, Range

POSITION, SIZE, FIRST, NEXT, TIMESTAMP, ATTRIBUTES = range(6)  # columns of a walk
Walk = npt.NDArray[np.int64]


def walk(data: bytes | memoryview, position: int, limit: int, what: str) -> Walk:
    """The whole batches in data[position:limit], a row each, columns as above. Raises CorruptionError, naming `what`, at a header that cannot be one."""
    rows, broken = walk_batches(data, position, limit)
    if broken >= 0:
        raise CorruptionError(
            f"{what}: there is no record batch at byte {broken}", hint="the file was changed by something else, or the disk is failing"
        )
    return rows


def checksum_holds(batch: bytes | memoryview) -> bool:
    """Whether a whole batch's CRC32C is right."""
    view = memoryview(batch)
    return int.from_bytes(view[17:21], "big") == crc32c(view[21:])


def check_batches(batches: Sequence[bytes]) -> int:
    """How many offsets the batches take. Raises CorruptionError for what is not exactly one whole batch each, checksum included."""
    taken = 0
    for batch in batches:
        rows, _ = walk_batches(batch, 0, len(batch))
        if len(rows) != 1 or rows[0, SIZE] != len(batch) or not checksum_holds(batch):
            raise CorruptionError(
                f"what was to be appended ({len(batch)} bytes) is not one whole record batch",
                hint="make batches with penstock.kernels.encode_batch",
            )
        count = int(rows[0, NEXT] - rows[0, FIRST])
        if int.from_bytes(batch[57:61], "big") != count:
            raise CorruptionError(
                f"a record batch of {count} offsets holds another number of records", hint="compacted batches cannot be appended"
            )
        taken += count
    return taken


def rebased(batches: Iterable[bytes], first: int) -> Iterator[bytes | memoryview]:
    """The same batches, in pieces, with offsets that count up from `first`. (The checksum does not cover the base offset.)"""
    for batch in batches:
        yield first.to_bytes(8, "big")
        yield memoryview(batch)[8:]
        first += int.from_bytes(batch[23:27], "big") + 1


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Ranges in order, those that touch made one."""
    out: list[Range] = []
    for start, end in ranges:
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return tuple(out)


def chunk_of(offset: int, rows: Walk, data: bytes, origin: int) -> Chunk:
    """What a read at `offset` answers with the batches of `rows`, the first of which holds that offset.

    data: the bytes from position `origin` on. Control batches are left out and reported as skipped.
    """
    start, end = int(rows[0, POSITION]) - origin, int(rows[-1, POSITION] + rows[-1, SIZE]) - origin
    control = rows[:, ATTRIBUTES] & CONTROL != 0
    if not control.any():
        whole = data if (start, end) == (0, len(data)) else data[start:end]
        return Chunk(offset, int(rows[-1, NEXT]), (), (), whole)
    skipped = merged((max(offset, int(row[FIRST])), int(row[NEXT])) for row in rows[control])
    kept = (data[int(row[POSITION]) - origin : int(row[POSITION] + row[SIZE]) - origin] for row in rows[~control])
    return Chunk(offset, int(rows[-1, NEXT]), skipped, (), b"".join(kept))


def fitting(rows: Walk, offset: int, max_bytes: int, max_offsets: int) -> int:
    """How many of the batches in `rows` a read at `offset`, which lies in the first, may answer: one at least."""
    by_bytes = np.searchsorted(rows[:, POSITION] + rows[:, SIZE], int(rows[0, POSITION]) + max_bytes, "right")
    by_offsets = np.searchsorted(rows[:, NEXT], offset + max_offsets, "right")
    return max(1, int(min(by_bytes, by_offsets)))


def first_at(batch: bytes | memoryview, timestamp: int) -> int:
    """The first offset in a batch whose record has a log timestamp at or behind `timestamp` (microseconds); the one behind its last if none has."""
    view = memoryview(batch)
    first, largest = int.from_bytes(view[:8], "big"), int.from_bytes(view[35:43], "big", signed=True)
    count, attributes = int.from_bytes(view[23:27], "big") + 1, int.from_bytes(view[21:23], "big")
    if largest * 1000 < timestamp:
        return first + count
    if attributes & LOG_APPEND_TIME:
        return first
    codec, base_ms = attributes & CODEC_MASK, int.from_bytes(view[27:35], "big", signed=True)
    payload = decompress(codec, view[HEADER_BYTES:]) if codec else bytes(view[HEADER_BYTES:])
    at = 0
    for delta in range(count):
        length, at = _varint(payload, at)
        ms, _ = _varint(payload, at + 1)
        if (base_ms + ms) * 1000 >= timestamp:
            return first + delta
        at += length
    return first + count


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise CorruptionError("a record is cut off inside its batch")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7


def holding(starts: Sequence[int], offset: int) -> int:
    """Which of the sorted first offsets begins what holds `offset`."""
    return bisect.bisect_right(starts, offset) - 1
