"""The one place that reaches into kafka-python: has its consumer hand out record batches as they came, instead of decoding each record in Python.

`kafka.consumer.fetcher.Fetcher` makes a `PartitionRecords` of each partition's part of a fetch response and takes records from it. `RawRecords`
stands in its place and gives out one `Fetched`; fetch sessions, positions and errors stay kafka-python's. It is private: `problem` says whether it
still is as it was.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Callable

import kafka
from kafka.consumer.fetcher import Fetcher

from penstock.errors import PenstockError
from penstock.log.kafka.segments import Segment, parse

VERSIONS = ((3, 0, 12), (3, 1))  # from the first up to, not including, the second
CONSTRUCTOR = (
    "fetch_offset",
    "tp",
    "records",
    "key_deserializer",
    "value_deserializer",
    "check_crcs",
    "isolation_level",
    "aborted_transactions",
    "metric_aggregator",
    "on_drain",
)
USED = ("take", "drain", "__bool__")  # what the fetcher calls
EPOCH_AT = 12  # of the leader, in a batch's header


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What came of one partition: a segment, or what is wrong with it."""

    topic: str
    partition: int
    found: Segment | PenstockError


class RawRecords:
    """What the fetcher knows as PartitionRecords. Names and meanings of attributes are the fetcher's."""

    def __init__(
        self,
        fetch_offset: int,
        tp: Any,
        records: Any,
        aborted_transactions: Any = None,
        on_drain: Callable[[Any], None] = lambda _: None,
        **_: Any,
    ) -> None:
        self.topic_partition, self.fetch_offset, self.next_fetch_offset = tp, fetch_offset, fetch_offset
        self.leader_epoch = -1
        self.bytes_read = self.records_read = 0
        self._data: bytes | None = bytes(records._buffer)
        self._aborted = [(one.producer_id, one.first_offset) for one in aborted_transactions or ()]
        self._on_drain = on_drain

    def __bool__(self) -> bool:
        return self._data is not None

    def take(self, n: int | None = None) -> list[Fetched]:
        """All that came, as one."""
        data, self._data = self._data, None
        found = (
            parse(f"{self.topic_partition.topic}/{self.topic_partition.partition}", self.fetch_offset, data, self._aborted)
            if data
            else None
        )
        if isinstance(found, Segment):
            assert data is not None
            last = int(found.rows[-1, 0])
            self.next_fetch_offset = found.next
            self.leader_epoch = int.from_bytes(data[last + EPOCH_AT : last + EPOCH_AT + 4], "big", signed=True)
            self.bytes_read = len(data)
        self._on_drain(self)
        return [] if found is None else [Fetched(self.topic_partition.topic, self.topic_partition.partition, found)]

    def drain(self) -> None:
        """Let go of what was not taken."""
        if self._data is not None:
            self._data = None
            self._on_drain(self)


def problem() -> str | None:
    """Why the consumer cannot be made to hand out raw batches; None if it can."""
    version = tuple(int(part) for part in kafka.__version__.split(".")[:3] if part.isdigit())
    if not VERSIONS[0] <= version < VERSIONS[1]:
        return f"kafka-python is {kafka.__version__}, not 3.0.12 or later and before 3.1"
    kind = getattr(Fetcher, "PartitionRecords", None)
    if kind is None:
        return "kafka-python's fetcher has no PartitionRecords"
    if tuple(inspect.signature(kind.__init__).parameters)[1:] != CONSTRUCTOR or not all(hasattr(kind, name) for name in USED):
        return "kafka-python's PartitionRecords is another one"
    return None


def install(consumer: Any) -> None:
    """Make a KafkaConsumer's `poll` give out `Fetched` instead of records."""
    consumer._fetcher.PartitionRecords = RawRecords
