"""The codecs of record batches: gzip, snappy (plain and in xerial's framing), lz4 frames, zstd.

Numbers are those of a batch's attributes. Kafka's own clients write snappy in xerial's framing; librdkafka writes it plain. Each batch's
output has an upper limit, so that a few bytes that claim to be gigabytes are a CorruptionError and not the end of the process.
"""

from __future__ import annotations

from typing import Any

import cramjam

from penstock.errors import CorruptionError

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
NAMES = {number: name for name, number in CODECS.items()}
LIMIT = 256 << 20  # bytes that the batches of one call may decompress to
XERIAL = b"\x82SNAPPY\x00"
XERIAL_HEADER = 16  # the magic, a version and the oldest compatible one, 4 bytes each
LZ4_MAGIC = b"\x04\x22\x4d\x18"
LZ4_VERSION, LZ4_INDEPENDENT, LZ4_SIZED = 0x40, 0x20, 0x08  # bits of a frame's flags
LZ4_PLAIN = LZ4_INDEPENDENT | LZ4_SIZED
LZ4_STORED = 1 << 31  # a block that is not compressed
# What cramjam says of a target that is too small; the last two ("size prefix", "size parameter"), of bad bytes as well. Trying those again costs
# little: a batch's checksum was right.
TOO_SMALL = ("whole buffer", "output buffer", "buffer isn't large enough", "invalid or too long", "size p")


def compress(data: bytes, codec: str) -> bytes:
    """The payload of a batch, compressed. codec: one of `CODECS`."""
    if codec == "none":
        return data
    if codec == "snappy":
        return bytes(cramjam.snappy.compress_raw(data))
    return bytes(getattr(cramjam, codec).compress(data))


def decompress_into(codec: int, source: memoryview, target: memoryview) -> int:
    """Decompress a payload into `target` and return its size. Raises cramjam.DecompressionError, also where `target` is too small for it."""
    name = NAMES[codec]
    if name == "lz4":
        return _lz4_frame(source, target)
    if name != "snappy":
        return int(getattr(cramjam, name).decompress_into(source, target))
    if source[: len(XERIAL)] != XERIAL:
        return _snappy_block(source, target)
    at, size = XERIAL_HEADER, 0
    while at < len(source):
        length = int.from_bytes(source[at : at + 4], "big")
        at += 4
        if length > len(source) - at:
            raise cramjam.DecompressionError("a snappy block is truncated")
        size += _snappy_block(source[at : at + length], target[size:])
        at += length
    return size


def _lz4_frame(source: memoryview, target: memoryview) -> int:
    """Decompress block by block, which spares the set-up of a frame decoder: twice as fast for the small batches that producers send.

    See https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md. What is not plain there (blocks that lean on those before, checksums, a
    dictionary, several frames) is the frame decoder's, and so is a block that cramjam could misread. The frame's header checksum is not looked at,
    for the batch has its own.
    """
    flags = source[4] if len(source) >= 7 and source[:4] == LZ4_MAGIC else 0
    if flags & ~LZ4_PLAIN == LZ4_VERSION:
        at, used = (15 if flags & LZ4_SIZED else 7), 0
        while at + 4 <= len(source):
            size = int.from_bytes(source[at : at + 4], "little")
            at += 4
            if size == 0:
                if at == len(source):
                    return used
                break
            end = at + (size & ~LZ4_STORED)
            if end > len(source) or (used and not flags & LZ4_INDEPENDENT):
                break
            if size & LZ4_STORED:
                if end - at > len(target) - used:
                    raise cramjam.DecompressionError(f"a stored block does not fit the {TOO_SMALL[0]}")
                target[used : used + end - at] = source[at:end]
                used += end - at
            elif int.from_bytes(source[at : at + 4], "little") <= len(target) - used:
                break  # cramjam would first take these bytes for the size of what follows
            else:
                used += int(cramjam.lz4.decompress_block_into(source[at:end], target[used:]))
            at = end
    return int(cramjam.lz4.decompress_into(source, target))


def _snappy_block(source: memoryview, target: memoryview) -> int:
    return int(cramjam.snappy.decompress_raw_into(source, target))


def too_small(problem: cramjam.DecompressionError) -> bool:
    """Whether a larger target may help. cramjam has one error for that and for bad bytes, and only its text tells."""
    return any(text in str(problem) for text in TOO_SMALL)


def guess(codec: int, source: memoryview) -> int:
    """How large a payload's output probably is: enough to begin with."""
    if NAMES[codec] == "gzip" and len(source) >= 18:
        return min(int.from_bytes(source[-4:], "little") + 64, LIMIT)  # RFC 1952: ISIZE; what it claims is only a beginning
    return 4 * len(source) + 4096


def most(codec: int, source: memoryview) -> int:
    """More bytes than a payload's output can have, so that a damaged one is not tried again in ever more memory."""
    return 4096 + 255 * len(source) if NAMES[codec] == "lz4" else LIMIT  # each byte of a match's length stands for at most 255


def decompress(codec: int, source: Any, limit: int = LIMIT) -> bytes:
    """A payload's bytes. Raises CorruptionError where they do not decompress, or not within `limit` bytes."""
    source = memoryview(source)
    largest = min(most(codec, source), limit)
    size = min(guess(codec, source), largest)
    while True:
        target = bytearray(size)
        try:
            return bytes(memoryview(target)[: decompress_into(codec, source, memoryview(target))])
        except cramjam.DecompressionError as problem:
            if size >= largest or not too_small(problem):
                raise CorruptionError(
                    f"a {NAMES[codec]} payload of {len(source)} bytes does not decompress within {limit} bytes ({problem})"
                ) from None
            size = min(4 * size, largest)
