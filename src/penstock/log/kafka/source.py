"""kafka-python's consumer without a group, as `reader` uses it."""

from __future__ import annotations

import logging
from typing import Any, Iterable

import kafka
from kafka import TopicPartition
from kafka.net.compat import KafkaNetClient

from penstock.log.kafka import raw
from penstock.log.kafka.client import CONNECT
from penstock.log.kafka.raw import Fetched
from penstock.log.kafka.records import segment_of
from penstock.log.kafka.settings import Settings

PARTITION_BYTES = 4 << 20  # of a partition in one answer of a broker
ANSWER_BYTES = 64 << 20  # of one answer
LONG_POLL = 50  # milliseconds that a broker holds back an answer that has little: a seek has to wait for it
WORTH_BYTES = 1 << 18  # of an answer that is not held back: less is sent no sooner by a spout, and costs the broker as much
RECORDS = 20_000  # a poll, where records are decoded one by one
log = logging.getLogger(__name__)


class Source:
    """Fetches partitions from where each was sought to. mode: "raw", or "records" where they are decoded and encoded again. For one thread.

    Connects when it is made; raises kafka-python's errors.
    """

    def __init__(self, settings: Settings) -> None:
        reason = raw.problem()
        self.mode = "records" if reason else "raw"
        self._clients: list[Any] = []
        self._sought: dict[Any, int] = {}
        given = {"client_id": "penstock", **settings.resolved()}
        try:
            self._consumer: Any = kafka.KafkaConsumer(
                **given,
                auto_offset_reset="none",  # to skip silently what is gone is to lose it
                enable_auto_commit=False,
                isolation_level="read_committed",
                check_crcs=self.mode == "records",  # the raw batches' decoder checks theirs
                allow_auto_create_topics=False,
                fetch_min_bytes=WORTH_BYTES,
                fetch_max_wait_ms=LONG_POLL,
                fetch_max_bytes=ANSWER_BYTES,
                max_partition_fetch_bytes=PARTITION_BYTES,
                max_poll_records=RECORDS,
                request_timeout_ms=10_000,
                retry_backoff_ms=20,
                reconnect_backoff_max_ms=500,
                bootstrap_timeout_ms=int(CONNECT * 1000),
                metrics_enabled=False,
                kafka_client=self._client,
            )
        except Exception:
            for client in self._clients:  # kafka-python leaves its thread running
                client.close()
            raise
        if reason:
            log.warning("Kafka is read record by record, about 30 times slower: %s. Install kafka-python>=3.0.12,<3.1", reason)
        else:
            raw.install(self._consumer)

    def _client(self, **configs: Any) -> Any:
        client = KafkaNetClient(**configs)
        self._clients.append(client)
        return client

    def assign(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Fetch these; those fetched before keep their positions."""
        wanted = [TopicPartition(*one) for one in partitions]
        self._consumer.assign(wanted)
        self._sought = {one: offset for one, offset in self._sought.items() if one in wanted}

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Fetch a partition from here on."""
        where = TopicPartition(topic, partition)
        self._consumer.seek(where, offset)
        self._sought[where] = offset

    def hold(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Fetch no more of these for now, and of all others again."""
        wanted = {TopicPartition(*one) for one in partitions}
        paused = self._consumer.paused()
        if paused - wanted:
            self._consumer.resume(*(paused - wanted))
        if wanted - paused:
            self._consumer.pause(*(wanted - paused))

    def poll(self, seconds: float) -> list[Fetched]:
        """What has come, after at most so long a wait."""
        came = self._consumer.poll(timeout_ms=int(seconds * 1000))
        if self.mode == "raw":
            return [one for found in came.values() for one in found]
        found = []
        for where, start in list(self._sought.items()):
            end = self._consumer.position(where, timeout_ms=0)
            if end is not None and end != start:
                self._sought[where] = end
                found.append(Fetched(where.topic, where.partition, segment_of(came.get(where, ()), start, end)))
        return found

    def close(self) -> None:
        """Let go of the connections."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=1000)
        except Exception as problem:
            log.debug("while a consumer was closed: %s", problem)
