"""Record batches across implementations: ours read by kafka-python and librdkafka, theirs read by us and kept in our log.

librdkafka takes part through its built-in mock cluster, which speaks the real protocol over a real socket; the two requests that a test needs are
written here by hand, from the protocol guide.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Iterator

import pytest

from penstock.kernels import read_batches
from penstock.kernels.encode import encode_list
from penstock.log.local import LocalLog

confluent_kafka = pytest.importorskip("confluent_kafka")
memory_records = pytest.importorskip("kafka.record.memory_records")

Headers = list[tuple[str, "bytes | None"]]
Record = tuple[int, int, "bytes | None", "bytes | None", Headers]  # offset, ms, key, value, headers

KEYS: list[bytes | None] = [b"k", None, b"", b"key-3", b"\xff\0"]
VALUES: list[bytes | None] = [b'{"a":1}', b"", None, b"x" * 70_000, bytes(range(256)) * 3]
TIMES_MS = [1_772_409_600_123, 1_772_409_600_000, 1_772_409_599_999, 1_772_409_700_000, 1]
HEADERS: list[Headers] = [[("h", b"v")], [], [("n", None), ("n", b"")], [], [("ü", b"\0" * 300)]]
EXPECTED: list[Record] = [(i, *rest) for i, rest in enumerate(zip(TIMES_MS, KEYS, VALUES, HEADERS))]


def ours(codec: str) -> bytes:
    return encode_list(VALUES, [ms * 1000 + 999 for ms in TIMES_MS], keys=KEYS, headers=HEADERS, codec=codec)


def through_kafka_python(data: bytes) -> list[Record]:
    batches, out = memory_records.MemoryRecords(data), []
    while batches.has_next():
        batch = batches.next_batch()
        assert batch.validate_crc()
        out += [(r.offset, r.timestamp, r.key, r.value, [tuple(h) for h in r.headers]) for r in batch]
    return out


def through_penstock(data: bytes) -> list[tuple[int, int, bytes | None, bytes | None]]:
    found = read_batches(data)
    return [(int(found.offsets[row]), int(found.timestamps[row]) // 1000, found.key(row), found.value(row)) for row in range(len(found))]


class Wire:
    """One connection to a broker: Produce version 3 and Fetch version 4, as the protocol guide lays them out."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=10)

    def close(self) -> None:
        self._socket.close()

    def produce(self, topic: str, batch: bytes) -> int:
        body = struct.pack(">hhii", -1, -1, 10_000, 1) + _text(topic) + struct.pack(">iii", 1, 0, len(batch)) + batch
        answer = self._call(0, 3, body)
        error, base = struct.unpack_from(">hq", answer, 4 + 2 + len(topic) + 4 + 4)
        assert error == 0, f"Produce answered error {error}"
        return int(base)

    def fetch(self, topic: str, offset: int) -> bytes:
        body = struct.pack(">iiiibi", -1, 1000, 1, 1 << 24, 0, 1) + _text(topic) + struct.pack(">iiqi", 1, 0, offset, 1 << 24)
        answer = self._call(1, 4, body)
        at = 4 + 4 + 2 + len(topic) + 4 + 4
        error, _, _, aborted = struct.unpack_from(">hqqi", answer, at)
        assert error == 0, f"Fetch answered error {error}"
        at += 22 + 16 * max(0, aborted)
        size = struct.unpack_from(">i", answer, at)[0]
        return answer[at + 4 : at + 4 + max(0, size)]

    def _call(self, api: int, version: int, body: bytes) -> bytes:
        request = struct.pack(">hhi", api, version, 7) + _text("penstock-test") + body
        self._socket.sendall(struct.pack(">i", len(request)) + request)
        answer = self._read(struct.unpack(">i", self._read(4))[0])
        assert answer[:4] == struct.pack(">i", 7)
        return answer[4:]

    def _read(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            piece = self._socket.recv(size - len(out))
            assert piece, "the broker closed the connection"
            out += piece
        return out


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


@pytest.fixture(scope="module")
def mock_cluster() -> Iterator[tuple[str, int]]:
    """A broker of librdkafka's mock cluster, which lives as long as this producer does."""
    owner = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(owner.list_topics(timeout=10).brokers.values()))
    yield broker.host, broker.port
    owner.flush(1)


@pytest.fixture
def wire(mock_cluster: tuple[str, int]) -> Iterator[Wire]:
    connection = Wire(*mock_cluster)
    yield connection
    connection.close()


@pytest.mark.parametrize("codec", ["lz4", "none"])
def test_kafka_python_reads_our_batches(codec: str) -> None:
    if codec == "lz4":
        pytest.importorskip("lz4.frame", reason="kafka-python reads lz4 through it")
    assert through_kafka_python(ours(codec)) == EXPECTED


@pytest.mark.parametrize("compression", [0, 1, 3])
def test_our_log_keeps_and_reads_batches_of_kafka_python(tmp_path: Any, compression: int) -> None:
    if compression == 3:
        pytest.importorskip("lz4.frame", reason="kafka-python writes lz4 through it")
    builder = memory_records.MemoryRecordsBuilder(magic=2, compression_type=compression, batch_size=1 << 20)
    for _, ms, key, value, headers in EXPECTED:
        builder.append(timestamp=ms, key=key, value=value, headers=headers)
    builder.close()
    with LocalLog(tmp_path / "log") as log:
        log.create("t", 1)
        log.append("t", 0, [bytes(builder.buffer())])
        chunk = log.read("t", 0, 0, 1 << 20, 100)
        assert log.offset_at("t", 0, TIMES_MS[3] * 1000) == 3
    assert chunk is not None and through_penstock(chunk.data) == [record[:4] for record in EXPECTED]


@pytest.mark.parametrize("codec", ["lz4", "none"])
def test_librdkafka_reads_our_batches(mock_cluster: tuple[str, int], wire: Wire, codec: str) -> None:
    host, port = mock_cluster
    topic = f"ours-{codec}"
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": f"{host}:{port}",
            "group.id": "g",
            "auto.offset.reset": "earliest",
            "check.crcs": True,
            "allow.auto.create.topics": True,
        }
    )
    try:
        consumer.list_topics(topic, timeout=10)  # the mock creates a topic when its metadata is asked for
        assert wire.produce(topic, ours(codec)) == 0
        assert wire.produce(topic, ours(codec)) == len(VALUES)
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        got: list[Record] = []
        for _ in range(100):
            for message in consumer.consume(100, timeout=0.2):
                assert message.error() is None, message.error()
                got.append((message.offset(), message.timestamp()[1], message.key(), message.value(), message.headers() or []))
            if len(got) >= 2 * len(VALUES):
                break
    finally:
        consumer.close()
    assert got == EXPECTED + [(offset + len(VALUES), *rest) for offset, *rest in EXPECTED]


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_our_log_keeps_and_reads_batches_of_librdkafka(mock_cluster: tuple[str, int], wire: Wire, tmp_path: Any, compression: str) -> None:
    host, port = mock_cluster
    topic = f"theirs-{compression}"
    producer = confluent_kafka.Producer({"bootstrap.servers": f"{host}:{port}", "compression.type": compression, "linger.ms": 50})
    failures: list[Any] = []
    for _, ms, key, value, headers in EXPECTED:
        producer.produce(
            topic,
            value,
            key,
            partition=0,
            timestamp=ms,
            headers=headers,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
    assert producer.flush(20) == 0 and not failures
    with LocalLog(tmp_path / "log") as log:
        log.create("t", 1)
        while log.end("t", 0) < len(EXPECTED):  # as many batches as the producer's timing made of them; the mock answers with one at a time
            raw, at = wire.fetch(topic, log.end("t", 0)), 0
            assert raw, "the mock broker answered no batch"
            while at < len(raw):  # the log takes one batch an element
                size = struct.unpack_from(">i", raw, at + 8)[0] + 12
                log.append("t", 0, [raw[at : at + size]])
                at += size
        chunk = log.read("t", 0, 0, 1 << 20, 100)
        assert log.offset_at("t", 0, TIMES_MS[3] * 1000) == 3
    assert chunk is not None and through_penstock(chunk.data) == [record[:4] for record in EXPECTED]
