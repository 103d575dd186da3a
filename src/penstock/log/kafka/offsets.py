"""Where partitions start and end, and which offset a time has."""

from __future__ import annotations

import time
from typing import Any, Iterable

from kafka import errors as kafka_errors
from kafka.protocol.consumer import IsolationLevel, ListOffsetsRequest, OffsetSpec

from penstock.errors import PenstockError, UnavailableError
from penstock.log.kafka.client import PATIENCE, Client
from penstock.log.kafka.problems import MISSING, error_of, translated
from penstock.log.kafka.topics import Topics

EARLIEST, LATEST = int(OffsetSpec.EARLIEST), int(OffsetSpec.LATEST)
COMMITTED, UNCOMMITTED = int(IsolationLevel.READ_COMMITTED), int(IsolationLevel.READ_UNCOMMITTED)


class Offsets:
    """Asks the leaders of partitions. For any number of threads."""

    def __init__(self, client: Client, topics: Topics) -> None:
        self._client, self._topics = client, topics

    def one(self, topic: str, partition: int, when: int, isolation: int = COMMITTED) -> int:
        """As `many`, of one partition."""
        return self.many([(topic, partition)], when, isolation)[topic, partition]

    def many(self, wanted: Iterable[tuple[str, int]], when: int, isolation: int = COMMITTED) -> dict[tuple[str, int], int]:
        """By topic and partition, the first offset (`when` EARLIEST), the one behind the last (LATEST), or the first whose log timestamp is at or
        behind `when` milliseconds since 1970, -1 if there is none. Of committed records unless `isolation` is UNCOMMITTED.
        """
        missing, found = set(wanted), dict[tuple[str, int], int]()
        until = time.monotonic() + PATIENCE
        while missing:
            nodes: dict[int, list[tuple[str, int]]] = {}
            problem: Exception | None = None
            for name, partition in sorted(missing):
                topic = self._topics.get(name)
                topic.check(partition)
                nodes.setdefault(topic.leaders[partition], []).append((name, partition))
            for node, partitions in nodes.items():
                problem = self._ask(node, partitions, when, isolation, found) or problem
            missing -= set(found)
            if missing and time.monotonic() > until:
                what = ", ".join(f"{name}/{partition}" for name, partition in sorted(missing))
                if problem is None:
                    raise UnavailableError(f"{what}: no broker leads it just now")
                raise translated(problem, what)
            if missing:
                for name in {name for name, _ in missing}:
                    self._topics.forget(name)
                time.sleep(0.05)
        return found

    def _ask(
        self, node: int, partitions: list[tuple[str, int]], when: int, isolation: int, found: dict[tuple[str, int], int]
    ) -> Exception | None:
        """Add the answers of one broker to `found`; returns an error that may pass."""
        if node < 0:
            return None
        kind = ListOffsetsRequest.ListOffsetsTopic
        names = sorted({name for name, _ in partitions})

        def make(_: Any) -> Any:
            return ListOffsetsRequest(
                replica_id=-1,
                isolation_level=isolation,
                topics=[
                    kind(
                        name=name,
                        partitions=[
                            kind.ListOffsetsPartition(partition_index=number, current_leader_epoch=-1, timestamp=when)
                            for one, number in partitions
                            if one == name
                        ],
                    )
                    for name in names
                ],
                min_version=2,
                max_version=7,
            )

        try:
            answer = self._client.ask(f"offsets of {', '.join(names)}", make, node, patience=0.0)
        except PenstockError as problem:
            if not problem.retriable or isinstance(problem.__cause__, kafka_errors.KafkaTimeoutError):
                raise
            return problem
        passing: Exception | None = None
        for topic in answer.topics:
            for one in topic.partitions:
                failed = error_of(one.error_code)
                if failed is None:
                    found[topic.name, one.partition_index] = one.offset
                elif isinstance(failed, (kafka_errors.RetriableError, *MISSING)):
                    passing = failed
                else:
                    raise translated(failed, f"{topic.name}/{one.partition_index}")
        return passing
