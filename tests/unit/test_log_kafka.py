"""The parts of KafkaLog that need no broker."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import kafka
import numpy as np
import pytest
from crc32c import crc32c
from kafka import errors as kafka_errors
from kafka.consumer.fetcher import ConsumerRecord, Fetcher

from penstock.errors import ConfigurationError, CorruptionError, NotFoundError, PenstockError, UnavailableError
from penstock.kernels import read_batches
from penstock.kernels.encode import encode_list
from penstock.kernels.framing import CONTROL
from penstock.log import Chunk
from penstock.log.batches import check_batches
from penstock.log.kafka import KafkaLog, raw
from penstock.log.kafka.append import stamped
from penstock.log.kafka.problems import translated
from penstock.log.kafka.records import segment_of
from penstock.log.kafka.segments import TRANSACTIONAL, Segment, packed, parse
from penstock.log.kafka.settings import Settings

FAR = 1 << 40


def batch(first: int, count: int, *, producer: int = -1, attributes: int = 0) -> bytes:
    """A record batch at offset `first`, as a broker would have it."""
    made = stamped(
        encode_list([b"%d" % (first + n) for n in range(count)], [0] * count, attributes=attributes, codec="none"), producer, 0, 0
    )
    return first.to_bytes(8, "big") + made[8:]


def offsets(segment: Segment, start: int, max_bytes: int = FAR) -> tuple[list[int], set[int]]:
    """Read a segment through: the offsets of its records, and those that hold none."""
    found, empty, at = list[int](), set[int](), start
    while at < segment.next:
        chunk = segment.chunk(at, max_bytes, FAR)
        assert chunk.previous == at < chunk.next and not chunk.lost
        found += [int(one) for one in read_batches(chunk.data).offsets if one >= at]
        gone = {one for first, end in chunk.skipped for one in range(first, end)}
        assert not gone & empty
        empty |= gone
        at = chunk.next
    assert sorted([*found, *empty]) == list(range(start, segment.next))
    return found, empty


def test_kafka_pythons_private_part_is_as_we_know_it() -> None:
    assert raw.problem() is None, "look at Fetcher again: _parse_fetched_data, _append and fetched_records use PartitionRecords"
    assert tuple(int(part) for part in kafka.__version__.split(".")) >= (3, 0, 12) and kafka.__version__.startswith("3.0.")
    code = Fetcher._append.__code__.co_names + Fetcher.fetched_records.__code__.co_names + Fetcher._parse_fetched_data.__code__.co_names
    assert {"PartitionRecords", "take", "drain", "next_fetch_offset", "leader_epoch", "topic_partition"} <= set(code)


@pytest.mark.parametrize("version", ["3.0.11", "3.1.0", "2.2.1", "4.0.0"])
def test_another_kafka_python_is_not_reached_into(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "__version__", version)
    assert version in (raw.problem() or "")


def test_a_private_part_that_moved_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __init__(self, fetch_offset: int, records: Any) -> None: ...

    monkeypatch.setattr(Fetcher, "PartitionRecords", Other)
    assert "PartitionRecords" in (raw.problem() or "")
    monkeypatch.delattr(Fetcher, "PartitionRecords")
    assert "PartitionRecords" in (raw.problem() or "")


def test_batches_of_aborted_transactions_are_skipped_as_a_list_says() -> None:
    seed = 11
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(150):
        data, expected, aborted, begun = [], list[int](), list[tuple[int, int]](), dict[int, tuple[int, list[int]]]()
        at = start = rng.randrange(1000)
        for _ in range(rng.randrange(1, 40)):
            producer, count = rng.randrange(4), rng.randrange(1, 4)
            if producer == 0:
                data.append(batch(at, count))
                expected += range(at, at + count)
            elif producer not in begun or rng.random() < 0.6:
                first, mine = begun.setdefault(producer, (at, []))
                mine += range(at, at + count)
                data.append(batch(at, count, producer=producer, attributes=TRANSACTIONAL))
            else:
                count = 1
                first, mine = begun.pop(producer)
                data.append(batch(at, 1, producer=producer, attributes=TRANSACTIONAL | CONTROL))
                if rng.random() < 0.5:
                    aborted.append((producer, first))
                else:
                    expected += mine
            at += count
        for _, mine in begun.values():
            expected += mine  # a broker sends none of an open transaction; if it did, they would be records
        rng.shuffle(aborted)
        segment = parse("t/0", start, b"".join(data), aborted)
        assert isinstance(segment, Segment) and segment.next == at
        for size in (1, 200, FAR):
            assert offsets(segment, start, size)[0] == sorted(expected)


def test_offsets_between_batches_hold_nothing() -> None:
    segment = parse("t/0", 3, batch(5, 2) + batch(10, 3) + batch(13, 1))
    assert isinstance(segment, Segment)
    assert segment.chunk(3, FAR, FAR).skipped == ((3, 5), (7, 10))
    assert segment.chunk(8, FAR, FAR).skipped == ((8, 10),) and segment.chunk(6, 1, FAR).next == 7
    for start in range(3, 14):
        for size in (1, FAR):
            assert offsets(segment, start, size) == (
                [one for one in (5, 6, 10, 11, 12, 13) if one >= start],
                {one for one in (3, 4, 7, 8, 9) if one >= start},
            )


def test_a_batch_that_is_cut_off_is_left_for_the_next_fetch() -> None:
    whole = batch(0, 3) + batch(3, 4)
    for cut in range(len(whole)):
        found = parse("t/0", 0, whole[:cut])
        assert (found.next if isinstance(found, Segment) else found) == (3 if cut >= len(batch(0, 3)) else None)


@pytest.mark.parametrize("magic", [0, 1])
def test_the_old_message_format_is_refused(magic: int) -> None:
    old = bytearray(batch(4, 1))
    old[16] = magic
    found = parse("t/0", 4, bytes(old))
    assert isinstance(found, ConfigurationError) and f"format {magic}" in found.message and "t/0" in found.message
    before = parse("t/0", 0, batch(0, 4) + bytes(old))
    assert isinstance(before, Segment) and before.next == 4, "what is before it is read"


def test_what_is_no_batch_is_corrupt() -> None:
    bad = bytearray(batch(4, 1))
    bad[16] = 9
    assert isinstance(parse("t/0", 4, bytes(bad)), CorruptionError)


def test_a_batch_from_which_compaction_took_records_is_refused() -> None:
    holed = bytearray(batch(4, 3))
    holed[57:61] = (2).to_bytes(4, "big")
    found = parse("t/0", 4, bytes(holed))
    assert isinstance(found, ConfigurationError) and "compacted" in found.message and "offset 4" in found.message
    before = parse("t/0", 0, batch(0, 4) + bytes(holed) + batch(7, 1))
    assert isinstance(before, Segment) and before.next == 4


def test_chunks_that_follow_one_another_are_packed() -> None:
    first, second = Chunk(0, 5, ((3, 5),), (), b"a"), Chunk(5, 9, ((5, 6), (8, 9)), (), b"b")
    assert packed([first, second]) == Chunk(0, 9, ((3, 6), (8, 9)), (), b"ab") and packed([first]) is first


def test_a_stamp_is_in_the_header_and_the_checksum_covers_it() -> None:
    plain = encode_list([b"a", b"b"], [1_000_000, 2_000_000], keys=[b"k", None])
    found = stamped(plain, 7_000_000_001, 3, 2**31 - 1)
    assert int.from_bytes(found[43:51], "big") == 7_000_000_001 and int.from_bytes(found[51:53], "big") == 3
    assert int.from_bytes(found[53:57], "big") == 2**31 - 1 and found[57:] == plain[57:] and found[21:43] == plain[21:43]
    assert int.from_bytes(found[17:21], "big") == crc32c(found[21:]) and check_batches([found]) == 2


def test_records_become_batches_again() -> None:
    def record(offset: int, headers: Any = ()) -> Any:
        return ConsumerRecord("t", 0, 0, offset, 1_700_000_000_000 + offset, 0, b"k", b"v%d" % offset, list(headers), None, 1, 1, 1)

    segment = segment_of([record(3), record(4, [("h", b"x")]), record(9)], 2, 12)
    assert offsets(segment, 2) == ([3, 4, 9], {2, 5, 6, 7, 8, 10, 11})
    found = read_batches(segment.chunk(2, FAR, FAR).data)
    assert [found.value(row) for row in range(3)] == [b"v3", b"v4", b"v9"] and found.key(0) == b"k"
    assert np.array_equal(found.timestamps, [1_700_000_000_000_000 + 1000 * one for one in (3, 4, 9)])
    assert segment_of([], 2, 12).chunk(5, FAR, FAR) == Chunk(5, 12, ((5, 12),), (), b"")


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({}, "names no brokers", "host:9092"),
        ({"bootstrap": "localhost"}, "names no brokers", "host:9092"),
        ({"bootstrap": "a:9092,b:x"}, "names no brokers", "host:9092"),
        ({"bootstrap": "a:1", "bootstrap_servers": "a:1"}, "bootstrap_servers is not a setting", "bootstrap"),
        ({"bootstrap": "a:1", "sasl_plain_pasword": {"env": "X"}}, "sasl_plain_pasword", "sasl_plain_password"),
        ({"bootstrap": "a:1", "sasl_plain_password": "hunter2"}, "is written out", "env"),
        ({"bootstrap": "a:1", "ssl_password": "hunter2"}, "is written out", "file"),
        ({"bootstrap": "a:1", "security_protocol": "TLS"}, "'TLS' is not known", "SASL_SSL"),
        ({"bootstrap": "a:1", "security_protocol": "SASL_SSL"}, "sasl_mechanism is missing", "PLAIN"),
        ({"bootstrap": "a:1", "sasl_mechanism": "OAUTHBEARER"}, "cannot be used", "SCRAM-SHA-512"),
        ({"bootstrap": "a:1", "ssl_check_hostname": "no"}, "not true or false", "false"),
        ({"bootstrap": "a:1", "ssl_cafile": 3}, "not a text", "ssl_cafile"),
        ({"bootstrap": "a:1", "replication": 0}, "not a number of copies", "from 1"),
        ({"bootstrap": "a:1", "append_timeout": 0}, "not a time", "seconds"),
        ({"bootstrap": "a:1", "topic_config": {"cleanup.policy": "compact"}}, "compacted", "leave"),
        ({"bootstrap": "a:1", "topic_config": "x"}, "not a table", "retention.ms"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_connected(table: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as problem:
        KafkaLog(table)
    assert message in problem.value.message and hint in (problem.value.hint or "") and "hunter2" not in str(problem.value)


def test_secrets_are_taken_where_they_are_when_they_are_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "key").write_text("from a file\n")
    settings = Settings.of(
        {
            "bootstrap": "a:1, b:2",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "me",
            "sasl_plain_password": {"env": "KAFKA_PASSWORD_OF_TEST"},
            "ssl_password": {"file": str(tmp_path / "key")},
            "topic_config": {"retention.ms": 5, "preallocate": True},
        }
    )
    assert settings.topic_config == {"cleanup.policy": "delete", "retention.ms": "5", "preallocate": "true"} and settings.encrypted
    with pytest.raises(ConfigurationError, match="KAFKA_PASSWORD_OF_TEST"):
        settings.resolved()
    monkeypatch.setenv("KAFKA_PASSWORD_OF_TEST", "sesame")
    found = settings.resolved()
    assert (found["sasl_plain_password"], found["ssl_password"]) == ("sesame", "from a file")
    assert "sesame" not in repr(settings)


def test_a_broker_that_is_not_there_is_said_soon_and_then_at_once() -> None:
    log = KafkaLog({"bootstrap": "127.0.0.1:1", "append_timeout": 0.1})
    for longest in (7.0, 0.2):
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="127.0.0.1:1"):
            log.read("t", 0, 0, 1, 1)
        assert time.monotonic() - started < longest
    log.report("g", "t", {0: 1})
    log.close()


def test_an_outage_that_lasts_blocks_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.log.kafka.client.STALE", 0.0)
    monkeypatch.setattr("penstock.log.kafka.client.REST", 0.0)
    monkeypatch.setattr("penstock.log.kafka.client.CONNECT", 0.3)
    log, said = KafkaLog({"bootstrap": "127.0.0.1:1"}), list[str]()

    def call() -> None:
        for _ in range(3):
            with pytest.raises(UnavailableError) as problem:
                log.end("t", 0)
            said.append(problem.value.message)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(said) == 6
    log.close()


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (kafka_errors.KafkaTimeoutError(), UnavailableError),
        (kafka_errors.NotLeaderForPartitionError(), UnavailableError),
        (kafka_errors.NotEnoughReplicasError(), UnavailableError),
        (kafka_errors.TopicAuthorizationFailedError(), ConfigurationError),
        (kafka_errors.MessageSizeTooLargeError(), ConfigurationError),
        (kafka_errors.UnsupportedVersionError(), ConfigurationError),
        (kafka_errors.UnknownTopicIdError(), NotFoundError),
        (kafka_errors.CorruptRecordError(), CorruptionError),
        (kafka_errors.PolicyViolationError(), PenstockError),
        (RuntimeError("IO thread"), UnavailableError),
    ],
)
def test_errors_say_whether_trying_again_can_help(problem: Exception, kind: type[PenstockError]) -> None:
    found = translated(problem, "reading ads/3")
    assert type(found) is kind and "reading ads/3" in found.message
    assert translated(found, "other") is found
