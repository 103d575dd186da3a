"""The log on Apache Kafka."""

from __future__ import annotations

from typing import Any, Sequence

from penstock.errors import ConfigurationError, OutOfRangeError
from penstock.log import Chunk
from penstock.log.kafka import raw
from penstock.log.kafka.append import Appender
from penstock.log.kafka.client import Client
from penstock.log.kafka.offsets import EARLIEST, LATEST, Offsets
from penstock.log.kafka.reader import Reader
from penstock.log.kafka.report import Reporter
from penstock.log.kafka.settings import Settings
from penstock.log.kafka.topics import Topics
from penstock.log.local import check_topic


class KafkaLog:
    """`penstock.log.Log` on a Kafka cluster, 2.8 or later.

    settings: the `kafka` table of a deployment; docs/kafka.md lists what it may say. Connects when it is first used; after `close` it connects
    again. For any number of threads; appends and reads do not hold up each other.

    What is read is what was committed: records of aborted transactions, and control records, are skipped offsets. Every call ends within a few
    seconds, an append within `append_timeout`; UnavailableError says that Kafka did not answer and that the call may be made again.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = Settings.of(settings)
        self._client = Client(self.settings)
        self._topics = Topics(self._client)
        self._offsets = Offsets(self._client, self._topics)
        self._reader = Reader(self._client, self._topics, self._offsets)
        self._appender = Appender(self._client, self._topics, self._offsets)
        self._reporter = Reporter(self._client)

    @property
    def mode(self) -> str:
        """How it is read: "raw", whole record batches, or, where kafka-python's private part is another one, the much slower "records"."""
        return self._reader.mode or ("records" if raw.problem() else "raw")

    def create(self, topic: str, partitions: int) -> None:
        """See Log.create. The topic gets the deployment's replication and topic_config."""
        check_topic(topic)
        if partitions < 1:
            raise ConfigurationError(f"topic {topic!r} cannot have {partitions} partitions", hint="use 1 or more")
        self._topics.create(topic, partitions)
        if self.partitions(topic) != partitions:
            raise ConfigurationError(
                f"topic {topic!r} has {self.partitions(topic)} partitions, not {partitions}",
                hint="say so in partitions, or add partitions with Kafka's own tools",
            )

    def topics(self) -> list[str]:
        """See Log.topics. Kafka's own, whose names begin with two underscores, are left out."""
        return self._topics.names()

    def incarnation(self, topic: str) -> str:
        """See Log.incarnation: Kafka's topic id. Looked up once a second at most."""
        return self._topics.get(topic).incarnation

    def partitions(self, topic: str) -> int:
        """See Log.partitions. Partitions that were added are seen within a second."""
        return len(self._topics.get(topic).leaders)

    def start(self, topic: str, partition: int) -> int:
        """See Log.start."""
        return self._offsets.one(topic, partition, EARLIEST)

    def end(self, topic: str, partition: int) -> int:
        """See Log.end. Where a transaction is open, that is where its first record lies."""
        return self._offsets.one(topic, partition, LATEST)

    def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        """See Log.offset_at. Kafka's timestamps are in milliseconds."""
        found = self._offsets.one(topic, partition, max(0, -(-timestamp // 1000)))
        return self.end(topic, partition) if found < 0 else found

    def read(self, topic: str, partition: int, offset: int, max_bytes: int, max_offsets: int) -> Chunk | None:
        """See Log.read. Raises ConfigurationError for a compacted topic and for records in the message format of before Kafka 0.11.

        None is believed for 20 ms where nothing arrives, so that a reader at the end does not keep the broker busy.
        """
        found = self._topics.get(topic)
        found.check(partition)
        if offset < 0:
            raise OutOfRangeError(f"{topic}/{partition}: there is no offset {offset}", hint="offsets are counted from 0")
        return self._reader.read(found, partition, offset, max_bytes, max_offsets)

    def append(self, topic: str, partition: int, batches: Sequence[bytes]) -> int:
        """See Log.append. Written once even where answers were lost: after an UnavailableError, append the same batches again."""
        if not batches:
            return self.end(topic, partition)
        return self._appender.append(topic, partition, batches)

    def report(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        """See Log.report: commits them as the offsets of a consumer group without members, in the background."""
        self._reporter.report(group, topic, offsets)

    def close(self) -> None:
        """See Log.close."""
        self._reader.close()
        self._client.close()
