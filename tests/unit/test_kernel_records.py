"""Record batches to arrays. Oracles: kafka-python writes the batches; the plain-Python reference reads them, too."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import cramjam
import numpy as np
import pytest
from crc32c import crc32c
from kafka import codec as kafka_codec
from kafka.record.default_records import DefaultRecordBatchBuilder

from penstock.errors import CorruptionError
from penstock.kernels import _records, compress, reference_decode
from penstock.kernels.columns import Records
from penstock.kernels.framing import varint

Row = tuple[int, int, "bytes | None", "bytes | None", list[tuple[str, "bytes | None"]]]  # offset delta, milliseconds, key, value, headers
HAVE = {0: lambda: True, 1: kafka_codec.has_gzip, 2: kafka_codec.has_snappy, 3: kafka_codec.has_lz4, 4: kafka_codec.has_zstd}
ROWS: list[Row] = [
    (0, 1_700_000_000_000, b"k", b"value", []),
    (1, 1_699_999_999_000, None, b"", [("h", b"1"), ("g", b"2"), ("h", b"3")]),
    (2, 1_700_000_000_001, b"", None, [("h", b"1"), ("h", None)]),
    (3, 1_800_000_000_000, b"key" * 50, b"v" * 5000, [("", b""), ("hh", b"x")]),
]


def batch(rows: list[Row], base: int = 0, codec: int = 0, attributes: int = 0) -> bytes:
    """A batch as kafka-python writes it."""
    if not HAVE[codec]():
        pytest.skip(f"kafka-python has no library for codec {codec} here")
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 24)
    for offset, timestamp, key, value, headers in rows:
        builder.append(offset, timestamp, key, value, headers)
    return seal(bytearray(builder.build()), base, attributes)


def seal(data: bytearray, base: int | None = None, attributes: int = 0) -> bytes:
    """Set base offset and attribute bits of a batch, and its checksum and length right."""
    if base is not None:
        data[:8] = struct.pack(">q", base)
    data[8:12] = struct.pack(">i", len(data) - 12)
    data[22] |= attributes
    data[17:21] = struct.pack(">I", crc32c(bytes(data[21:])))
    return bytes(data)


def read(data: bytes) -> Records:
    """What the compiled reader makes of batches, which must be what the reference makes of them."""
    found, expected = _records.read_batches(data), reference_decode.read_batches(data)
    for name in ("offsets", "timestamps", "key_length", "value_length", "headers_count"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype, name
    assert [(found.key(row), found.value(row)) for row in range(len(found))] == [
        (expected.key(row), expected.value(row)) for row in range(len(found))
    ]
    for name in (b"h", b"", b"none"):
        assert header(found, name, _records.headers_value) == header(expected, name, reference_decode.headers_value)
    return found


def header(records: Records, name: bytes, find: Callable[..., Any]) -> list[bytes | None]:
    """A header of every record."""
    return [
        None if length < 0 else records.buffer[start : start + length]
        for start, length in zip(*(array.tolist() for array in find(records, name)))
    ]


@pytest.mark.parametrize("codec", HAVE)
def test_batches_of_kafka_python_are_read(codec: int) -> None:
    records = read(batch(ROWS, 100, codec) + batch(ROWS[:1], 104, codec) + batch(ROWS, 2**40, codec))
    rows = [*((100, row) for row in ROWS), (104, ROWS[0]), *((2**40, row) for row in ROWS)]
    assert records.offsets.tolist() == [base + row[0] for base, row in rows]
    assert records.timestamps.tolist() == [row[1] * 1000 for _, row in rows]
    assert [records.key(at) for at in range(len(rows))] == [row[2] for _, row in rows]
    assert [records.value(at) for at in range(len(rows))] == [row[3] for _, row in rows]
    assert header(records, b"h", _records.headers_value)[:4] == [None, b"3", None, None]
    assert header(records, b"", _records.headers_value)[3] == b""


def test_codecs_may_be_mixed_and_an_uncompressed_payload_is_not_copied() -> None:
    plain = batch(ROWS, 0) + batch(ROWS, 4)
    assert read(plain).buffer is plain
    codecs = [codec for codec in HAVE if HAVE[codec]()]
    records = read(b"".join(batch(ROWS, 10 * codec, codec) for codec in codecs))
    assert records.offsets.tolist() == [10 * codec + row[0] for codec in codecs for row in ROWS]


def test_snappy_is_read_plain_and_in_xerials_framing() -> None:
    payload = bytearray(batch(ROWS))
    for packed in (compress.compress(bytes(payload[61:]), "snappy"), _xerial(bytes(payload[61:]), 1000)):
        records = read(seal(payload[:61] + packed, 7, 2))
        assert [records.value(row) for row in range(4)] == [row[3] for row in ROWS]
    with pytest.raises(CorruptionError, match="offset 7"):
        _records.read_batches(seal(payload[:61] + _xerial(bytes(payload[61:]), 1000)[:-1], 7, 2))


def _xerial(data: bytes, block: int) -> bytes:
    blocks = [bytes(cramjam.snappy.compress_raw(data[at : at + block])) for at in range(0, len(data), block)]
    return compress.XERIAL + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">i", len(part)) + part for part in blocks)


@pytest.mark.parametrize("name", [name for name in compress.CODECS if name != "none"])
@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_codecs_round_trip(name: str, size: int) -> None:
    data = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    assert compress.decompress(compress.CODECS[name], compress.compress(data, name)) == data


@pytest.mark.parametrize("blocks", ["independent", "linked"])
@pytest.mark.parametrize("checksums", [False, True])
def test_lz4_frames_of_every_make_are_read(blocks: str, checksums: bool) -> None:
    frame = pytest.importorskip("lz4.frame")
    rng = random.Random(3)
    for data in (
        b"",
        b"a",
        bytes(300_000),
        b"".join(rng.choice([b"advertiser", b"campaign", rng.randbytes(5)]) for _ in range(40_000)),
        rng.randbytes(200_000),
    ):
        packed = frame.compress(
            data,
            block_size=frame.BLOCKSIZE_MAX64KB,
            block_linked=blocks == "linked",
            block_checksum=checksums,
            content_checksum=checksums,
            store_size=checksums,
        )
        assert compress.decompress(3, packed) == data
        for _ in range(50):
            damaged = bytearray(packed)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            try:
                compress.decompress(3, bytes(damaged), 1 << 20)
            except CorruptionError:
                continue


def test_a_block_that_looks_as_if_it_began_with_its_size_is_none() -> None:
    block = bytes.fromhex("500000001041")  # five literals; or a size of 80 bytes and then one literal
    frame = bytes.fromhex("04224d18604082") + struct.pack("<I", len(block)) + block + bytes(4)
    assert compress.decompress(3, frame) == block[1:]


@pytest.mark.parametrize("name", [name for name in compress.CODECS if name != "none"])
def test_what_a_payload_grows_to_may_change_from_call_to_call(name: str) -> None:
    rng = random.Random(5)
    plain = batch(ROWS[:1])
    for size in (10, 1_500_000, 100, 40_000, 1_500_000, 1, 1000):
        for value in (bytes(size), rng.randbytes(size), bytes(size // 2) + rng.randbytes(size - size // 2)):
            body = b"\0\0\0\x01" + varint(len(value)) + value + b"\0"
            data = seal(bytearray(plain[:61]) + compress.compress(varint(len(body)) + body, name), 3, compress.CODECS[name])
            records = _records.read_batches(data * 2)
            assert [records.value(0), records.value(1)] == [value, value] and records.buffer.endswith(value + b"\0")
            assert bytes(memoryview(records.buffer)) == records.buffer


def test_control_batches_are_left_out() -> None:
    data = batch(ROWS, 0) + batch(ROWS[:1], 4, attributes=0x30) + batch(ROWS[:1], 5, attributes=0x10)
    assert read(data).offsets.tolist() == [0, 1, 2, 3, 5]
    assert (
        _records.batch_spans(data).tolist()
        == reference_decode.batch_spans(data).tolist()
        == [
            [0, len(batch(ROWS)), 0, 4],
            [len(batch(ROWS)), len(batch(ROWS[:1])), 4, 5],
            [len(batch(ROWS)) + len(batch(ROWS[:1])), len(batch(ROWS[:1])), 5, 6],
        ]
    )


def test_log_append_time_is_the_batchs() -> None:
    assert set(read(batch(ROWS, 0, attributes=8)).timestamps.tolist()) == {1_800_000_000_000_000}


def test_absurd_timestamps_stay_at_the_end_of_the_range() -> None:
    for first, latest in ((2**63 - 1, 2**63 - 1), (-(2**63), -(2**63)), (-1, -1), (0, 2**62)):
        for attributes in (0, 8):
            data = bytearray(batch(ROWS, 0, attributes=attributes))
            data[27:43] = struct.pack(">qq", first, latest)
            read(seal(data))


def test_nothing_is_nothing() -> None:
    assert len(read(b"")) == 0 and _records.batch_spans(b"").shape == (0, 4)
    empty = bytearray(batch(ROWS[:1]))[:61]
    empty[57:61] = bytes(4)
    assert len(read(seal(empty))) == 0


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    data = batch(ROWS[:3], 5)
    for at in [*range(8, 12), *range(16, len(data))]:  # the base offset and the leader epoch are not under the checksum: brokers set them
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises(CorruptionError, match="offset 5"):
                _records.read_batches(bytes(damaged))
    for length in range(1, len(data)):
        for read_it in (_records.read_batches, _records.batch_spans, reference_decode.read_batches):
            with pytest.raises(CorruptionError):
                read_it(data + data[:length])


@pytest.mark.parametrize("codec", [0, 3])
def test_damage_under_a_right_checksum_is_judged_as_the_reference_judges(codec: int) -> None:
    seed = 11
    print(f"seed {seed}")
    rng = random.Random(seed)
    original, accepted = batch(ROWS, 5, codec), 0
    for _ in range(1500):
        damaged = bytearray(original)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(21, len(damaged))
            if rng.random() < 0.8:
                damaged[at] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, damaged[at] ^ 1 << rng.randrange(8)])
            else:
                del damaged[max(at, 61) : max(at, 61) + rng.randrange(4)]
        data = seal(damaged)
        try:
            reference_decode.read_batches(data)
        except CorruptionError:
            with pytest.raises(CorruptionError, match="offset 5"):
                _records.read_batches(data)
            continue
        read(data)
        accepted += 1
    assert 10 < accepted < 1490


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_bomb_is_corruption(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "LIMIT", 1 << 20)
    payload = compress.compress(bytes(3 << 20), compress.NAMES[codec])
    data = seal(bytearray(batch(ROWS))[:61] + payload, 9, codec)
    for read_it in (_records.read_batches, reference_decode.read_batches):
        with pytest.raises(CorruptionError, match="offset 9"):
            read_it(data)


def test_many_small_batches_together_have_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "LIMIT", 20_000)
    one = batch(ROWS, 1, 4) if HAVE[4]() else batch(ROWS, 1, 1)
    assert len(_records.read_batches(one * 3)) == 12
    with pytest.raises(CorruptionError, match="offset 1"):
        _records.read_batches(one * 4)


def test_headers_outside_of_the_buffer_are_refused() -> None:
    for find in (_records.headers_value, reference_decode.headers_value):
        records = _records.read_batches(batch(ROWS))
        records.headers_start[3] = len(records.buffer) - 1
        with pytest.raises(CorruptionError):
            find(records, b"h")
    assert np.array_equal(_records.headers_value(_records.read_batches(batch(ROWS[:1])), b"h")[1], [-1])
