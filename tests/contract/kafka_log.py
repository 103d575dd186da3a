"""KafkaLog as the contract's cases want it: topics of its own, and by Kafka's own tools what the protocol has no call for."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any, Sequence

import pytest

from penstock.errors import NotFoundError
from penstock.kernels.framing import CONTROL
from penstock.log import Chunk

SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}")


def kafka_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How to reach the stack's Kafka, for topics whose records of 1970 are not too old to keep, nor a reason to begin another file,
    which a fetch does not reach across."""
    return {**request.getfixturevalue("kafka"), "topic_config": {"retention.ms": "-1", "segment.ms": str((1 << 63) - 1)}}


class OnKafka:
    """A KafkaLog whose topics have a prefix that nobody sees.

    Beyond the protocol, as the other logs have it: `delete`, and `truncate_before`, which removes whole appends. Control batches, which no client can
    write, become aborted transactions that take as many offsets.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import kafka

        from penstock.log.kafka import KafkaLog

        self.log, self.prefix = KafkaLog(settings), f"contract-{uuid.uuid4().hex[:8]}-"
        self.bootstrap = settings["bootstrap"]
        self.admin = kafka.KafkaAdminClient(bootstrap_servers=self.bootstrap)
        self.appended: dict[tuple[str, int], list[int]] = {}

    def name(self, topic: str) -> str:
        return self.prefix + topic if SAFE.fullmatch(topic) else topic

    def create(self, topic: str, partitions: int) -> None:
        self.log.create(self.name(topic), partitions)

    def topics(self) -> list[str]:
        return [name.removeprefix(self.prefix) for name in self.log.topics() if name.startswith(self.prefix)]

    def incarnation(self, topic: str) -> str:
        return self.log.incarnation(self.name(topic))

    def partitions(self, topic: str) -> int:
        return self.log.partitions(self.name(topic))

    def start(self, topic: str, partition: int) -> int:
        return self.log.start(self.name(topic), partition)

    def end(self, topic: str, partition: int) -> int:
        return self.log.end(self.name(topic), partition)

    def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        return self.log.offset_at(self.name(topic), partition, timestamp)

    def read(self, topic: str, partition: int, offset: int, max_bytes: int, max_offsets: int) -> Chunk | None:
        return self.log.read(self.name(topic), partition, offset, max_bytes, max_offsets)

    def append(self, topic: str, partition: int, batches: Sequence[bytes]) -> int:
        if not any(len(batch) > 61 and int.from_bytes(batch[21:23], "big") & CONTROL for batch in batches):
            first = self.log.append(self.name(topic), partition, batches)
            if batches:
                self.appended.setdefault((topic, partition), []).append(first)
            return first
        first = self.end(topic, partition)
        for batch in batches:
            if int.from_bytes(batch[21:23], "big") & CONTROL:
                self.abort(topic, partition, int.from_bytes(batch[23:27], "big"))
            else:
                self.append(topic, partition, [batch])
        return first

    def abort(self, topic: str, partition: int, records: int) -> None:
        """Write records in a transaction that is aborted, and wait until its marker lies behind them."""
        from confluent_kafka import Producer

        end = self.end(topic, partition) + records + 1
        producer = Producer({"bootstrap.servers": self.bootstrap, "transactional.id": uuid.uuid4().hex, "linger.ms": 50})
        producer.init_transactions(20)
        producer.begin_transaction()
        for number in range(records):
            producer.produce(self.name(topic), b"aborted %d" % number, partition=partition)
        producer.flush(20)
        producer.abort_transaction(20)
        self.until(lambda: self.end(topic, partition) == end)

    def report(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        self.log.report(group, self.name(topic), offsets)

    def delete(self, topic: str) -> None:
        self.incarnation(topic)
        self.admin.delete_topics([self.name(topic)])
        self.appended = {}
        self.until(lambda: not self.there(topic))

    def there(self, topic: str) -> bool:
        try:
            self.incarnation(topic)
        except NotFoundError:
            return False
        return True

    def truncate_before(self, topic: str, partition: int, offset: int) -> int:
        import kafka

        end, firsts = self.end(topic, partition), self.appended[topic, partition]
        edge = end if offset >= end else max(first for first in firsts if first <= offset)
        self.admin.delete_records({kafka.TopicPartition(self.name(topic), partition): edge})
        return self.start(topic, partition)

    def until(self, holds: Any) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, "the broker takes longer than 20 s"
            time.sleep(0.02)

    def close(self) -> None:
        self.log.close()

    def remove(self) -> None:
        """Delete what was made."""
        if made := [self.name(topic) for topic in self.topics()]:
            self.admin.delete_topics(made)
        self.admin.close()
        self.log.close()
