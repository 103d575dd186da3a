"""Kafka v2 record batches: the header, the checksum and the LZ4 frame around a payload of records.

Source: the Kafka protocol guide, "Record Batch"; the LZ4 frame format, version 1.6.3.
"""

from __future__ import annotations

import struct
from typing import Callable, Iterable, NamedTuple, Sequence

import cramjam
import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from penstock.errors import ConfigurationError

Header = tuple[str, "bytes | None"]

HEADER_BYTES = 61  # of a record batch: all that stands before its records
CONTROL = 0x20  # attribute bits
LOG_APPEND_TIME = 0x08
CODEC_MASK = 0x07
CODECS = {"none": 0, "lz4": 3}

MAX_PAYLOAD = 2**31 - 2**20  # a batch's length is an int32; its compressed form may be a little larger than the payload
RecordEncoder = Callable[..., tuple[bytes, int, int, int]]  # reference_encode.encode_records says of what

_HEAD = struct.Struct(">qiibI")  # base offset, length of what follows, leader epoch, magic, crc
_BODY = struct.Struct(
    ">hiqqqhii"
)  # attributes, last offset delta, first and largest timestamp, producer id, epoch and sequence, record count
_BLOCK_SIZE = struct.Struct("<I")
_UNCOMPRESSED = 0x80000000

# Magic, FLG (version 1, independent blocks, no checksums: the batch has its own), BD (largest block), and the header's own check byte. Kafka's
# Java reader refuses blocks that depend on each other, which is what cramjam's (and the lz4 command's) own frames hold.
_FRAMES = (
    (1 << 16, bytes.fromhex("04224d18604082")),
    (1 << 18, bytes.fromhex("04224d186050fb")),
    (1 << 20, bytes.fromhex("04224d18606051")),
    (1 << 22, bytes.fromhex("04224d18607073")),
)


class Slices(NamedTuple):
    """Byte strings as slices of one buffer: start int64[n], length int32[n] (-1: null)."""

    buffer: bytes | bytearray | memoryview
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]

    def __len__(self) -> int:  # type: ignore[override]
        return len(self.start)

    @classmethod
    def of(cls, items: Sequence[bytes | None]) -> Slices:
        """The slices of byte strings, None being null."""
        length = np.fromiter((-1 if item is None else len(item) for item in items), np.int32, len(items))
        end = np.cumsum(np.maximum(length, 0), dtype=np.int64)
        return cls(b"".join(item for item in items if item), end - np.maximum(length, 0), length)

    def get(self, row: int) -> bytes | None:
        """One byte string."""
        start, length = int(self.start[row]), int(self.length[row])
        return None if length < 0 else bytes(self.buffer[start : start + length])


def varint(number: int) -> bytes:
    """A signed number as Kafka's zigzag varint."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def encode_headers(headers: Iterable[Header]) -> bytes:
    """The header section of one record: how many, then name and value of each."""
    parts = []
    for name, value in headers:
        text = name.encode()
        parts += [varint(len(text)), text, varint(-1) if value is None else varint(len(value)), value or b""]
    return varint(len(parts) // 4) + b"".join(parts)


def lz4_frame(payload: bytes) -> bytes:
    """An LZ4 frame of independent blocks; a block that does not shrink is kept as it is."""
    size, start = next((frame for frame in _FRAMES if len(payload) <= frame[0]), _FRAMES[-1])
    parts = [start]
    for position in range(0, len(payload), size):
        raw = payload if len(payload) <= size else payload[position : position + size]
        block = bytes(cramjam.lz4.compress_block(raw, store_size=False))
        if len(block) < len(raw):
            parts += [_BLOCK_SIZE.pack(len(block)), block]
        else:
            parts += [_BLOCK_SIZE.pack(len(raw) | _UNCOMPRESSED), raw]
    parts.append(b"\0\0\0\0")
    return b"".join(parts)


def frame(
    payload: bytes, count: int, first_ms: int, largest_ms: int, *, base_offset: int = 0, codec: str = "lz4", attributes: int = 0
) -> bytes:
    """The record batch of a payload.

    payload: `count` encoded records whose offsets count up from base_offset. first_ms: the timestamp that theirs are deltas to. attributes: bits
    beside the codec's (CONTROL, for instance).
    """
    body = lz4_frame(payload) if codec == "lz4" else payload
    rest = _BODY.pack(attributes | CODECS[codec], count - 1, first_ms, largest_ms, -1, -1, -1, count)
    return b"".join((_HEAD.pack(base_offset, HEADER_BYTES - 12 + len(body), 0, 2, crc32c(body, crc32c(rest))), rest, body))


def encode_batch(
    encode_records: RecordEncoder,
    values: Slices,
    timestamps: npt.NDArray[np.int64],
    *,
    keys: Slices | None = None,
    headers: Slices | None = None,
    rows: npt.NDArray[np.int64] | None = None,
    base_offset: int = 0,
    codec: str = "lz4",
    attributes: int = 0,
) -> bytes:
    """One record batch, by the record encoder of a backend, of the rows `rows` (all, in order, unless given) of `values`.

    timestamps: microseconds since 1970, int64, one a row; stored as CreateTime in milliseconds, rounded down. headers: slices of what
    `encode_headers` made. codec: "lz4" or "none". Raises ValueError for no rows, a slice outside its buffer, or what does not fit one batch.
    """
    order = np.arange(len(values), dtype=np.int64) if rows is None else rows
    payload, count, first_ms, largest_ms = encode_records(values, timestamps, order, 0, MAX_PAYLOAD, keys, headers)
    if count < len(order) or len(payload) > MAX_PAYLOAD:
        raise ValueError(f"{len(order)} records are more than the {MAX_PAYLOAD} bytes that one batch holds")
    return frame(payload, count, first_ms, largest_ms, base_offset=base_offset, codec=_known(codec), attributes=attributes)


def encode_batches(
    encode_records: RecordEncoder,
    values: Slices,
    timestamps: npt.NDArray[np.int64],
    *,
    keys: Slices | None = None,
    headers: Slices | None = None,
    rows: npt.NDArray[np.int64] | None = None,
    codec: str = "lz4",
    batch_bytes: int = 1 << 16,
) -> list[bytes]:
    """As many record batches as it takes, by the record encoder of a backend.

    Each is of at most `batch_bytes` before compression, unless one record alone is larger.

    Their base offsets are 0: the log sets them.
    """
    order = np.arange(len(values), dtype=np.int64) if rows is None else rows
    batches, first, codec = [], 0, _known(codec)
    while first < len(order):
        payload, count, first_ms, largest_ms = encode_records(values, timestamps, order, first, batch_bytes, keys, headers)
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"a record of {len(payload)} bytes is more than one batch holds")
        batches.append(frame(payload, count, first_ms, largest_ms, codec=codec))
        first += count
    return batches


def _known(codec: str) -> str:
    if codec not in CODECS:
        raise ConfigurationError(f"codec {codec!r} cannot be written", hint=f"use one of {', '.join(CODECS)}")
    return codec
