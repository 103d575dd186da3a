"""The producer: partitions, order, what is durable when, bounded memory, and what it does when an append fails."""

from __future__ import annotations

from typing import Sequence

import numpy as np
import pytest

from penstock.errors import ConfigurationError, NotFoundError, UnavailableError
from penstock.kernels import read_batches
from penstock.kernels.encode import Slices, encode_headers
from penstock.log import Log
from penstock.log.memory import MemoryLog
from penstock.log.producer import STICKY, Producer
from penstock.model import Int, Schema, Timestamp


def made(partitions: int = 4) -> MemoryLog:
    log = MemoryLog()
    log.create("t", partitions)
    return log


def contents(log: Log, partition: int) -> list[tuple[bytes | None, bytes | None, int]]:
    out, at = [], 0
    while (chunk := log.read("t", partition, at, 1 << 20, 1 << 40)) is not None:
        found = read_batches(chunk.data)
        out += [(found.key(row), found.value(row), int(found.timestamps[row])) for row in range(len(found))]
        at = chunk.next
    return out


def test_send_and_send_many_put_keyed_records_where_kafkas_clients_put_them() -> None:
    from kafka.partitioner.default import murmur2

    keys = [b"key-%d" % (i * 7919 % 101) for i in range(1000)]
    values = [b"%d" % i for i in range(1000)]
    expected: dict[int, list[bytes]] = {p: [] for p in range(4)}
    for key, value in zip(keys, values):
        expected[(murmur2(key) & 0x7FFFFFFF) % 4].append(value)
    one, many = made(), made()
    with Producer(one, "t") as producer:
        for key, value in zip(keys, values):
            producer.send(value, key)
    with Producer(many, "t") as producer:
        producer.send_many(Slices.of(values), Slices.of(keys))
    for log in (one, many):
        for partition in range(4):
            assert [value for _, value, _ in contents(log, partition)] == expected[partition]


def test_records_without_a_key_go_to_the_partitions_in_turn() -> None:
    one, many = made(3), made(3)
    count = STICKY * 3 + 10
    with Producer(one, "t") as producer:
        for i in range(count):
            producer.send(b"%d" % i)
    with Producer(many, "t") as producer:
        for start in range(0, count, 500):
            producer.send_many(Slices.of([b"%d" % i for i in range(start, min(count, start + 500))]))
    for log in (one, many):
        assert [log.end("t", p) for p in range(3)] == [STICKY + 10, STICKY, STICKY]
        assert [value for _, value, _ in contents(log, 0)] == [b"%d" % i for i in (*range(STICKY), *range(3 * STICKY, count))]


def test_order_is_kept_between_send_and_send_many() -> None:
    log = made(1)
    with Producer(log, "t") as producer:
        for round in range(5):
            producer.send(b"s%d" % round)
            producer.send_many(Slices.of([b"m%d" % round, None]))
    assert [value for _, value, _ in contents(log, 0)] == [x for r in range(5) for x in (b"s%d" % r, b"m%d" % r, None)]


def test_headers_timestamps_and_partition_are_the_callers() -> None:
    log = made()
    with Producer(log, "t", clock=lambda: 5_000_000) as producer:
        producer.send(b"a", b"k", timestamp=1_234_000, headers=[("h", b"1"), ("n", None)], partition=2)
        producer.send(b"b", b"k", partition=2)
        headers = Slices.of([encode_headers([("h", b"2")])])
        producer.send_many(Slices.of([b"c"]), timestamps=np.array([7_000_000]), headers=headers, partitions=np.array([2], np.int32))
        producer.send_many(Slices.of([b"d"]), partitions=np.array([2], np.int32))
    assert contents(log, 2) == [(b"k", b"a", 1_234_000), (b"k", b"b", 5_000_000), (None, b"c", 7_000_000), (None, b"d", 5_000_000)]
    assert (chunk := log.read("t", 2, 0, 1 << 20, 100)) is not None
    assert read_batches(chunk.data).headers_count.tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize("partition", [-1, 4])
def test_a_partition_that_is_not_there_is_refused(partition: int) -> None:
    producer = Producer(made(), "t")
    with pytest.raises(ConfigurationError, match="partition"):
        producer.send(b"a", partition=partition)
    with pytest.raises(ConfigurationError, match="partition"):
        producer.send_many(Slices.of([b"a"]), partitions=np.array([partition], np.int32))


def test_a_schema_names_the_topic_and_a_missing_topic_is_named() -> None:
    schema = Schema("t", time="ts", fields={"ts": Timestamp("ms"), "n": Int()})
    assert Producer(made(), schema).topic == "t"
    with pytest.raises(NotFoundError, match="'t'"):
        Producer(MemoryLog(), schema)


def test_flush_makes_durable_and_what_waits_is_bounded_and_counted() -> None:
    log = made(1)
    producer = Producer(log, "t", codec="none", buffer_bytes=10_000)
    producer.send(b"x" * 100)
    assert log.end("t", 0) == 0
    producer.flush()
    assert log.end("t", 0) == 1
    for _ in range(1000):
        producer.send(b"x" * 100)
        assert producer.sent - log.end("t", 0) <= 101, "100 values of 100 bytes fill the buffer"
    producer.send_many(Slices.of([b"y" * 1000] * 50))
    assert log.end("t", 0) > 1000
    assert (producer.sent, producer.sent_bytes) == (1051, 1001 * 100 + 50 * 1000)


def test_a_block_left_by_an_error_is_not_flushed() -> None:
    log = made(1)
    with pytest.raises(RuntimeError), Producer(log, "t") as producer:
        producer.send(b"a")
        raise RuntimeError
    assert log.end("t", 0) == 0


class Flaky(MemoryLog):
    """Refuses every other append to partition 1."""

    calls = 0

    def append(self, topic: str, partition: int, batches: Sequence[bytes]) -> int:
        if partition == 1:
            self.calls += 1
            if self.calls % 2:
                raise UnavailableError("not now")
        return super().append(topic, partition, batches)


def test_what_was_not_appended_stays_for_the_next_flush_and_nothing_is_sent_twice() -> None:
    log = Flaky()
    log.create("t", 3)
    producer = Producer(log, "t")
    for partition in range(3):
        producer.send(b"%d" % partition, partition=partition)
    with pytest.raises(UnavailableError):
        producer.flush()
    producer.flush()
    producer.flush()
    assert [[value for _, value, _ in contents(log, p)] for p in range(3)] == [[b"0"], [b"1"], [b"2"]]
