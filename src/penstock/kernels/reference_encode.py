"""What `_encode` does, in plain Python: its oracle, and what runs where no compiler was found."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.kernels import framing
from penstock.kernels.framing import HEADER_BYTES, Slices, varint

_HEAD = struct.Struct(">qiibIhiqq")
_BLANK = b" \t\n\r"


def encode_records(
    values: Slices,
    timestamps: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    first: int,
    limit: int,
    keys: Slices | None = None,
    headers: Slices | None = None,
) -> tuple[bytes, int, int, int]:
    """Encode the records rows[first], rows[first + 1] ... until the next one would take the payload beyond `limit` bytes; one at least.

    timestamps: microseconds since 1970, one a row of `values`; a record holds whole milliseconds, rounded down. keys, headers (each what
    `framing.encode_headers` made, or null): likewise one a row.

    Returns the payload, how many records it holds, the first one's and the largest timestamp in milliseconds. Raises ValueError for a row or a
    slice that lies outside its buffer.
    """
    if not 0 <= first < len(rows):
        raise ValueError(f"row {first} of {len(rows)}")
    parts: list[bytes] = []
    total, base_ms, largest_ms = 0, 0, 0
    for delta, row in enumerate(rows[first:].tolist()):
        if not 0 <= row < len(timestamps):
            raise ValueError(f"row {row} of {len(timestamps)} timestamps")
        ms = int(timestamps[row]) // 1000
        if delta == 0:
            base_ms = largest_ms = ms
        key, value, header = (
            None if keys is None else _take(keys, row),
            _take(values, row),
            None if headers is None else _take(headers, row),
        )
        body = b"".join((b"\0", varint(ms - base_ms), varint(delta), _nullable(key), _nullable(value), header or b"\0"))
        record = varint(len(body)) + body
        if parts and total + len(record) > limit:
            break
        parts.append(record)
        total += len(record)
        largest_ms = max(largest_ms, ms)
    return b"".join(parts), len(parts), base_ms, largest_ms


def encode_batch(values: Slices, timestamps: npt.NDArray[np.int64], **options: Any) -> bytes:
    """See framing.encode_batch."""
    return framing.encode_batch(encode_records, values, timestamps, **options)


def encode_batches(values: Slices, timestamps: npt.NDArray[np.int64], **options: Any) -> list[bytes]:
    """See framing.encode_batches."""
    return framing.encode_batches(encode_records, values, timestamps, **options)


def _take(slices: Slices, row: int) -> bytes | None:
    if not 0 <= row < len(slices):
        raise ValueError(f"row {row} of {len(slices)}")
    start, length = int(slices.start[row]), int(slices.length[row])
    if length >= 0 and not 0 <= start <= len(slices.buffer) - length:
        raise ValueError(f"row {row} is bytes {start} to {start + length} of a buffer of {len(slices.buffer)}")
    return slices.get(row)


def _nullable(part: bytes | None) -> bytes:
    return varint(-1) if part is None else varint(len(part)) + part


def walk_batches(data: bytes | memoryview, position: int, limit: int) -> tuple[npt.NDArray[np.int64], int]:
    """Walk the headers of the whole record batches in data[position:limit].

    Returns int64[n, 6], a row a batch: its position, its size, its first offset, the one behind its last, its largest timestamp
    (milliseconds), its attributes; and the position of a header that cannot be one, or -1. A batch that is cut off ends the walk in silence.
    """
    if position < 0:
        raise ValueError(f"position {position}")
    found: list[tuple[int, ...]] = []
    broken, limit = -1, min(limit, len(data))
    while limit - position >= HEADER_BYTES:
        base, length, _, magic, _, attributes, delta, _, largest = _HEAD.unpack_from(data, position)
        size = length + 12
        if size < HEADER_BYTES or magic != 2 or delta < 0 or base < 0:
            broken = position
            break
        if size > limit - position:
            break
        found.append((position, size, base, base + delta + 1, largest, attributes))
        position += size
    return np.array(found, np.int64).reshape(-1, 6), broken


def murmur2(key: bytes) -> int:
    """The 32-bit hash that Kafka's default partitioner takes of a key: MurmurHash2 (Austin Appleby), seed 0x9747b28c."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    if rest := key[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def partitions_of(keys: Slices, count: int) -> npt.NDArray[np.int32]:
    """The partition of each key, as Kafka's default partitioner chooses it; -1 for a null key."""
    if count < 1:
        raise ValueError(f"{count} partitions")
    taken = (_take(keys, row) for row in range(len(keys)))
    return np.fromiter((-1 if key is None else (murmur2(key) & 0x7FFFFFFF) % count for key in taken), np.int32, len(keys))


def find_lines(block: bytes | memoryview) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], int]:
    """Start and length of each line of a block that is not blank, without its line end (LF or CR LF), and where the last whole line ends."""
    data, starts, lengths, at = bytes(block), [], [], 0
    while (newline := data.find(b"\n", at)) >= 0:
        end = newline - 1 if newline > at and data[newline - 1] == 13 else newline
        if data[at:end].strip(b" \t"):
            starts.append(at)
            lengths.append(end - at)
        at = newline + 1
    return np.array(starts, np.int64), np.array(lengths, np.int32), at


_MARK = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[][{},]', re.DOTALL)


def find_elements(block: bytes | memoryview, most: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Start and length of each element of a JSON array, without the white space around it.

    Only strings, brackets and commas are looked at: an element may be anything, nothing included, and is its reader's to check. Raises ValueError for what is not
    one whole array, OverflowError for one of more than `most` elements.
    """
    data = bytes(block).rstrip(_BLANK)
    at = len(data) - len(data.lstrip(_BLANK)) + 1
    if data[at - 1 : at] != b"[":
        raise ValueError("not an array")
    starts: list[int] = []
    lengths: list[int] = []
    depth, begin = 0, at
    for match in _MARK.finditer(data, at):
        mark = match[0]
        if mark in (b"{", b"["):
            depth += 1
        elif depth == 0 and mark in (b",", b"]"):
            element = data[begin : match.start()]
            if mark == b"," or starts or element.strip(_BLANK):
                if len(starts) == most:
                    raise OverflowError(f"more than {most} elements")
                starts.append(match.start() - len(element.lstrip(_BLANK)))
                lengths.append(len(element.strip(_BLANK)))
            begin = match.end()
            if mark == b"]":
                if begin != len(data):
                    raise ValueError("something follows the array")
                return np.array(starts, np.int64), np.array(lengths, np.int32)
        elif mark in (b"}", b"]"):
            depth -= 1
            if depth < 0:
                raise ValueError("a bracket is closed that was not opened")
    raise ValueError("the array does not end")
