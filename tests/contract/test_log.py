"""What every log promises, on each of them. See the docstrings of penstock.log.Log."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import pytest
from kafka_log import OnKafka, kafka_settings

from penstock.errors import ConfigurationError, CorruptionError, NotFoundError, OutOfRangeError
from penstock.kernels import read_batches
from penstock.kernels.encode import encode_list
from penstock.kernels.framing import CONTROL
from penstock.log import Chunk, Log
from penstock.log.local import LocalLog
from penstock.log.memory import MemoryLog

SECOND = 1_000_000
FAR = 1 << 40


@pytest.fixture(params=["local", "memory", pytest.param("kafka", marks=pytest.mark.servers)])
def log(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    if request.param == "kafka":
        on_kafka = OnKafka(kafka_settings(request))
        yield on_kafka
        on_kafka.remove()
        return
    made = (
        LocalLog(tmp_path / "log", segment_bytes=1) if request.param == "local" else MemoryLog()
    )  # a segment an append: retention has something to cut
    yield made
    made.close()


def batch(*values: bytes | None, at: int = 1000 * SECOND, step: int = SECOND, codec: str = "lz4") -> bytes:
    return encode_list(list(values), [at + step * i for i in range(len(values))], codec=codec)


def filled(log: Log, sizes: tuple[int, ...] = (3, 1, 4)) -> list[bytes]:
    """Topic t, partition 0, with one append of one batch for each size; returns the values."""
    log.create("t", 2)
    values, first = [], 0
    for size in sizes:
        new = [b"%d" % (first + i) for i in range(size)]
        assert log.append("t", 0, [batch(*new, at=(1000 + first) * SECOND)]) == first
        values += new
        first += size
    return values


def records(chunk: Chunk) -> list[tuple[int, bytes | None]]:
    """The records that a reader takes from a chunk: those at or beyond the offset it asked for."""
    found = read_batches(chunk.data)
    return [(int(found.offsets[row]), found.value(row)) for row in range(len(found)) if found.offsets[row] >= chunk.previous]


def everything(log: Log, offset: int = 0, max_bytes: int = 1 << 20, max_offsets: int = FAR) -> list[tuple[int, bytes | None]]:
    out: list[tuple[int, bytes | None]] = []
    while (chunk := log.read("t", 0, offset, max_bytes, max_offsets)) is not None:
        assert chunk.previous == offset < chunk.next
        got = records(chunk)
        gone = {at for start, end in (*chunk.skipped, *chunk.lost) for at in range(start, end)}
        assert {at for at, _ in got} | gone == set(range(offset, chunk.next)) and not {at for at, _ in got} & gone
        out += got
        offset = chunk.next
    assert offset == log.end("t", 0)
    return out


def test_an_empty_partition_has_nothing_to_read(log: Log) -> None:
    log.create("t", 2)
    assert (log.start("t", 1), log.end("t", 1), log.read("t", 1, 0, 100, 100), log.offset_at("t", 1, 0)) == (0, 0, None, 0)


def test_what_is_appended_is_read_in_order(log: Log) -> None:
    values = filled(log)
    assert everything(log) == list(enumerate(values))
    assert log.end("t", 0) == 8 and log.end("t", 1) == 0


def test_several_batches_in_one_append_get_consecutive_offsets(log: Log) -> None:
    log.create("t", 1)
    assert log.append("t", 0, [batch(b"a", b"b"), batch(b"c", codec="none"), batch(None)]) == 0
    assert log.append("t", 0, [batch(b"e")]) == 4
    assert everything(log) == [(0, b"a"), (1, b"b"), (2, b"c"), (3, None), (4, b"e")]


def test_an_append_of_nothing_changes_nothing(log: Log) -> None:
    filled(log)
    assert log.append("t", 0, []) == 8 and log.end("t", 0) == 8


@pytest.mark.parametrize("offset", range(8))
def test_a_read_in_the_middle_of_a_batch_returns_the_whole_batch(log: Log, offset: int) -> None:
    values = filled(log)
    chunk = log.read("t", 0, offset, 1, FAR)
    assert chunk is not None
    first = {0: 0, 1: 0, 2: 0, 3: 3}.get(offset, 4)
    assert int(read_batches(chunk.data).offsets[0]) == first and chunk.previous == offset
    assert everything(log, offset) == list(enumerate(values))[offset:]


def test_a_chunk_holds_at_most_the_bytes_asked_for_unless_its_first_batch_is_larger(log: Log) -> None:
    log.create("t", 1)
    batches = [batch(b"x" * size, codec="none") for size in (10, 500, 20, 20)]
    log.append("t", 0, batches)
    for limit in range(0, sum(map(len, batches)) + 50, 7):
        chunk = log.read("t", 0, 0, limit, FAR)
        assert chunk is not None
        fits = max(1, sum(sum(map(len, batches[: n + 1])) <= limit for n in range(len(batches))))
        assert chunk.next == fits and len(chunk.data) == sum(map(len, batches[:fits]))
    assert (chunk := log.read("t", 0, 1, 50, FAR)) is not None and chunk.next == 2 and len(chunk.data) > 50


def test_no_batch_ends_behind_the_offsets_asked_for_unless_it_is_the_first(log: Log) -> None:
    log.create("t", 1)
    log.append("t", 0, [batch(b"0", b"1", b"2"), batch(b"3", b"4"), batch(b"5")])
    ends = [chunk.next for n in range(1, 8) if (chunk := log.read("t", 0, 0, 1 << 20, n))]
    assert ends == [3, 3, 3, 3, 5, 6, 6]
    assert (chunk := log.read("t", 0, 2, 1 << 20, 3)) is not None and chunk.next == 5


def test_the_end_is_none_and_beyond_it_is_an_error(log: Log) -> None:
    filled(log)
    assert log.read("t", 0, 8, 100, 100) is None
    for offset in (9, -1):
        with pytest.raises(OutOfRangeError, match=str(offset)):
            log.read("t", 0, offset, 100, 100)


def test_control_batches_are_skipped_offsets_and_not_data(log: Log) -> None:
    log.create("t", 1)
    marker = encode_list([b"\0" * 6] * 2, [0, 0], keys=[b"\0\0\0\1"] * 2, codec="none", attributes=CONTROL)
    log.append("t", 0, [batch(b"0", b"1"), marker, batch(b"4"), marker, marker])
    assert [at for at, _ in everything(log)] == [0, 1, 4]
    chunk = log.read("t", 0, 0, 1 << 20, FAR)
    assert chunk is not None and chunk.skipped == ((2, 4), (5, 9)) and chunk.next == 9
    chunk = log.read("t", 0, 3, 1 << 20, FAR)
    assert chunk is not None and chunk.skipped == ((3, 4), (5, 9)) and chunk.first == 4
    chunk = log.read("t", 0, 6, 1 << 20, FAR)
    assert chunk is not None and (chunk.skipped, chunk.data, chunk.first, chunk.next) == (((6, 9),), b"", 9, 9)


@pytest.mark.parametrize(("before", "start"), [(0, 0), (2, 0), (3, 3), (4, 4), (7, 4), (8, 8), (100, 8)])
def test_retention_removes_whole_segments_and_reads_say_what_is_lost(log: Any, before: int, start: int) -> None:
    values = filled(log)
    assert log.truncate_before("t", 0, before) == start == log.start("t", 0)
    assert log.end("t", 0) == 8
    assert everything(log, start) == list(enumerate(values))[start:]
    if start:
        assert log.read("t", 0, 0, 100, 100) == Chunk(0, start, (), ((0, start),), b"")
        assert log.read("t", 0, start - 1, 100, 100) == Chunk(start - 1, start, (), ((start - 1, start),), b"")
    assert log.append("t", 0, [batch(b"new")]) == 8
    assert log.truncate_before("t", 0, 0) == start, "retention never gives back"


def test_an_offset_is_found_by_log_time(log: Log) -> None:
    log.create("t", 1)
    times = [10, 10, 30, 20, 20, 50, 40, 60]  # out of order inside a batch and across batches
    for start, end in ((0, 3), (3, 5), (5, 8)):
        log.append("t", 0, [encode_list([b"x"] * (end - start), [at * SECOND for at in times[start:end]])])
    for wanted in range(0, 70, 5):
        expected = next((offset for offset, at in enumerate(times) if at >= wanted), 8)
        assert log.offset_at("t", 0, wanted * SECOND) == expected, wanted
    assert log.offset_at("t", 0, 10 * SECOND + 1) == 2, "a microsecond later is later"


def test_an_offset_found_by_time_is_never_before_the_start(log: Any) -> None:
    filled(log)
    log.truncate_before("t", 0, 4)
    assert log.offset_at("t", 0, 0) == 4


def test_creating_a_topic_again_changes_nothing(log: Log) -> None:
    filled(log)
    incarnation = log.incarnation("t")
    log.create("t", 2)
    assert log.incarnation("t") == incarnation and log.end("t", 0) == 8
    with pytest.raises(ConfigurationError, match="has 2 partitions, not 3"):
        log.create("t", 3)


def test_a_topic_created_anew_is_another_incarnation(log: Any) -> None:
    filled(log)
    before = log.incarnation("t")
    log.delete("t")
    assert log.topics() == []
    log.create("t", 1)
    assert log.incarnation("t") != before and log.end("t", 0) == 0 and log.read("t", 0, 0, 1, 1) is None
    assert len(before) == 32 and int(before, 16) >= 0


def test_topics_are_sorted(log: Log) -> None:
    for name in ("b", "a-1", "A.b_c"):
        log.create(name, 1)
    assert log.topics() == ["A.b_c", "a-1", "b"] and log.partitions("b") == 1


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", ".hidden", "a\0b", "a b", "ä", "x" * 250])
def test_a_name_that_is_not_safe_in_a_path_is_refused(log: Log, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a topic"):
        log.create(name, 1)


def test_a_topic_without_partitions_is_refused(log: Log) -> None:
    with pytest.raises(ConfigurationError, match="0 partitions"):
        log.create("t", 0)


CALLS: list[Callable[[Log, str, int], Any]] = [
    lambda log, topic, partition: log.start(topic, partition),
    lambda log, topic, partition: log.end(topic, partition),
    lambda log, topic, partition: log.read(topic, partition, 0, 1, 1),
    lambda log, topic, partition: log.append(topic, partition, [batch(b"x")]),
    lambda log, topic, partition: log.offset_at(topic, partition, 0),
]


@pytest.mark.parametrize("call", CALLS)
def test_what_is_not_there_is_not_found(log: Log, call: Callable[[Log, str, int], Any]) -> None:
    with pytest.raises(NotFoundError, match="t'"):
        call(log, "t", 0)
    log.create("t", 2)
    for partition in (2, -1):
        with pytest.raises(NotFoundError, match="has no partition"):
            call(log, "t", partition)


def test_incarnation_and_partitions_of_a_topic_that_is_not_there(log: Any) -> None:
    for call in (log.incarnation, log.partitions, log.delete):
        with pytest.raises(NotFoundError, match="t'"):
            call("t")


def test_what_is_not_a_whole_batch_is_not_appended(log: Log) -> None:
    log.create("t", 1)
    whole = batch(b"abc", b"def")
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for bad in (b"", whole[:-1], whole + b"x", whole + whole, bytes(flipped), b"\0" * 61):
        with pytest.raises(CorruptionError, match="record batch"):
            log.append("t", 0, [whole, bad])
    assert log.end("t", 0) == 0, "nothing of an append that is refused"


def test_random_reads_agree_with_a_list(log: Any) -> None:
    seed = 20260302
    print("seed", seed)
    rng = np.random.default_rng(seed)
    log.create("t", 1)
    values: list[bytes] = []
    for _ in range(40):
        batches = []
        for _ in range(int(rng.integers(1, 4))):
            new = [bytes(rng.integers(0, 256, int(rng.integers(0, 200)), np.uint8)) for _ in range(int(rng.integers(1, 9)))]
            values += new
            batches.append(batch(*new, codec=("lz4", "none")[int(rng.integers(2))]))
        log.append("t", 0, batches)
        offset = int(rng.integers(0, len(values)))
        assert everything(log, offset, int(rng.integers(0, 5000)), int(rng.integers(1, 30))) == list(enumerate(values))[offset:]
