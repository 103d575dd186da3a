"""The record-batch encoder, Kafka's partitioner and the walk over headers: compiled and reference alike, against kafka-python and other libraries."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import cramjam
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigurationError
from penstock.kernels import framing, reference_encode
from penstock.kernels.encode import encode_list
from penstock.kernels.framing import Slices, encode_headers

compiled = pytest.importorskip("penstock.kernels._encode")
default_records = pytest.importorskip("kafka.record.default_records")
BACKENDS = [pytest.param(compiled, id="compiled"), pytest.param(reference_encode, id="reference")]

maybe_bytes = st.none() | st.binary(max_size=300)
headers = st.lists(st.tuples(st.text(max_size=8), maybe_bytes), max_size=3)
times = st.integers(-(2**40), 2**50)
record = st.tuples(maybe_bytes, maybe_bytes, times, headers)


def arrays(records: list[Any]) -> tuple[Slices, np.ndarray, Slices, Slices]:
    return (
        Slices.of([r[0] for r in records]),
        np.array([r[2] for r in records], np.int64),
        Slices.of([r[1] for r in records]),
        Slices.of([encode_headers(r[3]) for r in records]),
    )


def read(batch: bytes) -> list[Any]:
    found = default_records.DefaultRecordBatch(batch)
    assert found.validate_crc()
    return [(r.value, r.key, r.timestamp, [tuple(h) for h in r.headers], r.offset) for r in found]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("codec", ["lz4", "none"])
@given(records=st.lists(record, min_size=1, max_size=40), base=st.integers(0, 2**62))
@settings(max_examples=60, deadline=None)
def test_kafka_python_reads_what_is_encoded(backend: ModuleType, codec: str, records: list[Any], base: int) -> None:
    values, timestamps, keys, header_slices = arrays(records)
    batch = backend.encode_batch(values, timestamps, keys=keys, headers=header_slices, base_offset=base, codec=codec)
    assert read(batch) == [(value, key, at // 1000, head, base + i) for i, (value, key, at, head) in enumerate(records)]
    found = default_records.DefaultRecordBatch(batch)
    assert (found.max_timestamp, found.first_timestamp) == (max(r[2] // 1000 for r in records), records[0][2] // 1000)
    assert (found.magic, found.timestamp_type, found.is_transactional, found.is_control_batch) == (2, 0, False, False)


@given(records=st.lists(record, min_size=1, max_size=30), limit=st.integers(0, 3000), data=st.data())
@settings(max_examples=100, deadline=None)
def test_compiled_and_reference_encode_the_same_bytes(records: list[Any], limit: int, data: st.DataObject) -> None:
    values, timestamps, keys, header_slices = arrays(records)
    rows = np.array(data.draw(st.lists(st.integers(0, len(records) - 1), min_size=1, max_size=50)), np.int64)
    first = data.draw(st.integers(0, len(rows) - 1))
    for options in ((), (keys,), (keys, header_slices), (None, header_slices)):
        mine = compiled.encode_records(values, timestamps, rows, first, limit, *options)
        assert mine == reference_encode.encode_records(values, timestamps, rows, first, limit, *options)
        assert len(mine[0]) <= limit or mine[1] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_are_cut_by_size_and_keep_the_order_of_rows(backend: ModuleType) -> None:
    values = Slices.of([b"v%d" % i * 10 for i in range(1000)])
    rows = np.arange(999, -1, -3, dtype=np.int64)
    batches = backend.encode_batches(values, np.arange(1000) * 1000, rows=rows, batch_bytes=500, codec="none")
    assert len(batches) > 10 and all(len(batch) <= 500 + framing.HEADER_BYTES for batch in batches)
    assert [value for batch in batches for value, *_ in read(batch)] == [b"v%d" % i * 10 for i in rows]


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_large_record_makes_a_batch_of_its_own(backend: ModuleType) -> None:
    values = Slices.of([b"a", b"b" * 100_000, b"c"])
    batches = backend.encode_batches(values, np.zeros(3, np.int64), batch_bytes=100)
    assert [[value[:1] for value, *_ in read(batch)] for batch in batches] == [[b"a"], [b"b"], [b"c"]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, 11), (10, 1), (2**62, 5), (5, 2**31 - 1)])
def test_a_slice_outside_its_buffer_is_refused(backend: ModuleType, start: int, length: int) -> None:
    bad, good = Slices(b"0123456789", np.array([start]), np.array([length], np.int32)), Slices.of([b"x"])
    for values, keys, heads in ((bad, None, None), (good, bad, None), (good, None, bad)):
        with pytest.raises(ValueError, match="buffer of 10"):
            backend.encode_batch(values, np.zeros(1, np.int64), keys=keys, headers=heads)
    with pytest.raises(ValueError, match="buffer of 10"):
        backend.partitions_of(bad, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_that_is_not_there_is_refused(backend: ModuleType) -> None:
    values, timestamps = Slices.of([b"a", b"b"]), np.zeros(2, np.int64)
    for rows in ([2], [0, 5], [-1]):
        with pytest.raises(ValueError, match="row"):
            backend.encode_batch(values, timestamps, rows=np.array(rows, np.int64))
    with pytest.raises(ValueError, match="timestamps"):
        backend.encode_batch(values, timestamps[:1])
    with pytest.raises(ValueError, match="row 0 of 0"):
        backend.encode_batch(Slices.of([]), timestamps[:0])


def test_a_codec_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'zstd'"):
        encode_list([b"a"], [0], codec="zstd")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("key", "java"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_what_kafkas_own_tests_expect(backend: ModuleType, key: bytes, java: int) -> None:
    assert backend.murmur2(key) == java & 0xFFFFFFFF


@given(keys=st.lists(maybe_bytes, max_size=50), count=st.integers(1, 1000))
@settings(max_examples=100, deadline=None)
def test_partitions_are_those_of_kafka_pythons_default_partitioner(keys: list[bytes | None], count: int) -> None:
    from kafka.partitioner.default import murmur2

    expected = [-1 if key is None else (murmur2(key) & 0x7FFFFFFF) % count for key in keys]
    for backend in (compiled, reference_encode):
        assert backend.partitions_of(Slices.of(keys), count).tolist() == expected


@given(block=st.lists(st.sampled_from([b"a", b"{}", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\0"])).map(b"".join))
@settings(max_examples=200, deadline=None)
def test_lines_are_found_and_blank_ones_left_out(block: bytes) -> None:
    whole = block[: block.rfind(b"\n") + 1]
    lines = [line[:-1] if line.endswith(b"\r") else line for line in whole.split(b"\n")[:-1]]
    expected = [line for line in lines if line.strip(b" \t")]
    for backend in (compiled, reference_encode):
        starts, lengths, end = backend.find_lines(block)
        assert [block[s : s + n] for s, n in zip(starts.tolist(), lengths.tolist())] == expected and end == len(whole)


TOKENS = [b"[", b"]", b"{", b"}", b",", b'"', b"\\", b" ", b"\n", b"1", b"x", b'"a"', b'{"k":[1,"]"]}', b'"\\""']


@given(body=st.lists(st.sampled_from(TOKENS)).map(b"".join), wrapped=st.booleans(), most=st.integers(0, 6))
@settings(max_examples=500, deadline=None)
def test_elements_of_an_array_are_the_references(body: bytes, wrapped: bool, most: int) -> None:
    block = b" [" + body + b"]\n" if wrapped else body
    found = []
    for backend in (compiled, reference_encode):
        try:
            starts, lengths = backend.find_elements(block, most)
            found.append([block[s : s + n] for s, n in zip(starts.tolist(), lengths.tolist())])
        except (ValueError, OverflowError) as problem:
            found.append((type(problem), str(problem)))
    assert found[0] == found[1]


@given(
    values=st.lists(
        st.recursive(st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
    )
)
@settings(max_examples=200, deadline=None)
def test_elements_of_an_array_are_its_values(values: list[object]) -> None:
    for block in (json.dumps(values).encode(), json.dumps(values, indent=2, ensure_ascii=False).encode()):
        starts, lengths = compiled.find_elements(block, len(values))
        assert [json.loads(block[s : s + n]) for s, n in zip(starts.tolist(), lengths.tolist())] == values


@given(
    cut=st.integers(0, 400), damage=st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), max_size=4), position=st.integers(0, 200)
)
@settings(max_examples=200, deadline=None)
def test_the_walk_over_damaged_headers_is_the_references(cut: int, damage: list[tuple[int, int]], position: int) -> None:
    data = bytearray(b"".join(encode_list([b"x" * 9] * n, [n * 1000] * n, base_offset=n * 7, codec="none") for n in (1, 2, 3)))
    for at, byte in damage:
        data[at % len(data)] = byte
    view = bytes(data[:cut])
    mine, theirs = compiled.walk_batches(view, position, len(view)), reference_encode.walk_batches(view, position, len(view))
    assert mine[0].tolist() == theirs[0].tolist() and mine[1] == theirs[1]


def test_the_walk_gives_position_size_offsets_time_and_attributes() -> None:
    batches = [
        encode_list([b"x"] * n, [n * 1_000_000] * n, base_offset=n * 7, codec="none", attributes=framing.CONTROL * (n == 2))
        for n in (1, 2, 300)
    ]
    rows, broken = compiled.walk_batches(b"".join(batches), 0, 1 << 40)
    ends = np.cumsum([len(batch) for batch in batches])
    assert rows.tolist() == [
        [int(ends[i]) - len(batches[i]), len(batches[i]), n * 7, n * 7 + n, n * 1000, 32 * (n == 2)] for i, n in enumerate((1, 2, 300))
    ]
    assert broken == -1


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 262_145, 1_048_577, (1 << 22) + 1, 10 << 20])
@pytest.mark.parametrize("random", [False, True])
def test_lz4_frames_hold_independent_blocks_that_any_library_reads(size: int, random: bool) -> None:
    payload = np.random.default_rng(1).bytes(size) if random else (b"0123456789abcdef" * (size // 16 + 1))[:size]
    frame = framing.lz4_frame(payload)
    flags = frame[4]
    assert flags >> 6 == 1 and flags & 0x20, "Kafka's Java reader refuses blocks that depend on each other"
    assert frame[6] == xxhash.xxh32(frame[4:6]).intdigest() >> 8 & 0xFF
    assert bytes(cramjam.lz4.decompress(frame)) == payload
    assert len(frame) < len(payload) + 64
