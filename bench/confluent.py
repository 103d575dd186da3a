"""What one would write on Kafka instead: confluent-kafka, the fastest client that Python has, tuned, and a loop; and the topics of all sides.

Each is favoured: librdkafka checks no checksum and works in threads of its own; a malformed record would end the loop; nothing is made durable.
"""

from __future__ import annotations

import itertools
import os
from typing import Any, Callable, Iterable, Iterator

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from penstock.errors import ConfigurationError
from penstock.log.kafka import KafkaLog
from penstock.secrets import resolve

from bench.answers import Answer
from bench.baselines import LOADS, Loop
from bench.measure import Bench, BenchError
from bench.workload import PARTITIONS, Topic, Workload, texts

AT_ONCE = 10_000  # messages of one call of `consume`
PATIENCE = 30.0  # seconds without a message
TUNED = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 1 << 18,
    "fetch.message.max.bytes": 8 << 20,
    "fetch.max.bytes": 64 << 20,
    "fetch.wait.max.ms": 50,
}
SECURITY = {  # kafka-python's names
    "security_protocol": "security.protocol",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
}


def client(settings: dict[str, Any]) -> dict[str, Any]:
    """How librdkafka reaches the Kafka of a deployment. Raises ConfigurationError for a setting that it has nothing like."""
    unknown = sorted(set(settings) - set(SECURITY) - {"bootstrap", "replication", "topic_config", "append_timeout"})
    if unknown:
        raise ConfigurationError(f"the benchmarks' baselines cannot do with kafka.{unknown[0]}", hint="use a deployment without it")
    return {
        "bootstrap.servers": settings["bootstrap"],
        "log_level": 4,
        **{SECURITY[key]: resolve(settings[key]) for key in SECURITY if key in settings},
    }


class Values:
    """The value of every record of a topic, once."""

    def __init__(self, events: int, topic: Topic) -> None:
        self.events, self.topic = events, topic
        self.consumer = Consumer({**client(topic.settings), "group.id": f"bench-{os.getpid()}", **TUNED})
        self.consumer.list_topics(topic.name, PATIENCE)  # it is connected when the time begins

    def __iter__(self) -> Iterator[bytes]:
        """Raises BenchError where Kafka reports an error."""
        self.consumer.assign([TopicPartition(self.topic.name, number, 0) for number in range(PARTITIONS)])
        return itertools.chain.from_iterable(map(Message.value, batch) for batch in self._batches())

    def _batches(self) -> Iterator[list[Message]]:
        left = self.events
        while left:
            batch = self.consumer.consume(AT_ONCE, PATIENCE)
            if not batch:
                raise BenchError(f"{self.topic.name}: no record came in {PATIENCE:.0f} s, and {left:,} are missing")
            if any(map(Message.error, batch)):
                raise BenchError(f"{self.topic.name}: {next(filter(None, map(Message.error, batch)))}")
            left -= len(batch)
            yield batch


class Rollup(Loop):
    """The loop of the other benchmarks, over what `consume` returns."""

    def __init__(self, workload: Workload, topic: Topic) -> None:
        super().__init__(Values(workload.events, topic), LOADS[workload.format])


class Decode:
    """Every value to a dict, and no more: what columns would cost is not in it."""

    def __init__(self, workload: Workload, topic: Topic) -> None:
        self.values: Iterable[bytes] = Values(workload.events, topic)
        self.load: Callable[[bytes], Any] = LOADS[workload.format]
        self.records = self.total = 0

    def run(self) -> None:
        """Decode."""
        load, records, total = self.load, 0, 0
        for value in self.values:
            total += load(value)["ts"]
            records += 1
        self.records, self.total = records, total

    def answer(self) -> Answer:
        """How many records there were, and the sum of their times in milliseconds."""
        return {("all",): [self.records, self.total]}


class KafkaBench(Bench):
    """Measurements on a Kafka, which has the other cores to itself as far as the side under measurement leaves them: none is pinned.

    Its topics are its own, and are deleted when it is closed.
    """

    def __init__(self, bench: Bench, settings: dict[str, Any]) -> None:
        super().__init__(bench.directory, None, bench.say)
        self.settings = settings
        # The events are of a day that is long over by the broker's clock: with the usual retention it would delete them while they are read.
        self.log = KafkaLog({**settings, "topic_config": {**settings.get("topic_config", {}), "retention.ms": "-1"}})
        self._topics: dict[Workload, str] = {}

    def place(self, workload: Workload) -> dict[str, Any]:
        """See Bench.place. The topic is in Kafka alone: what of it is in the page cache is there for all sides."""
        if workload not in self._topics:
            self._topics[workload] = name = self.new_topic(PARTITIONS)
            fill(self.log, Topic(name, self.settings), workload)
            held = sum(self.log.end(name, number) - self.log.start(name, number) for number in range(PARTITIONS))
            if held != workload.events:
                raise BenchError(f"{name} holds {held:,} records of {workload.events:,}: has the broker's retention taken some?")
        return {"topic": {"name": self._topics[workload], "settings": self.settings}}

    def new_topic(self, partitions: int) -> str:
        """An empty topic."""
        name = f"bench-{os.getpid()}-{os.urandom(4).hex()}"
        self.log.create(name, partitions)
        return name

    def forget(self, workload: Workload) -> None:
        """Delete the workload's topic."""
        if workload in self._topics:
            self.delete(self._topics.pop(workload))

    def delete(self, topic: str) -> None:
        """Delete a topic, with patience, but not for ever."""
        admin = AdminClient(client(self.settings))  # which must live until it is done
        for done in admin.delete_topics([topic]).values():
            done.result(PATIENCE)

    def close(self) -> None:
        """Delete what topics are left."""
        for workload in list(self._topics):
            self.forget(workload)
        self.log.close()


def fill(log: KafkaLog, topic: Topic, workload: Workload) -> None:
    """Append a workload to a topic that is there. Batches of one record are librdkafka's, which has more requests under way at a time."""
    if workload.batch_bytes:
        workload.send(log, topic.name)
        return
    codec = workload.codec
    producer = Producer(
        {
            **client(topic.settings),
            "acks": "all",
            "batch.num.messages": 1,
            "linger.ms": 0,
            "compression.type": codec,
            "partitioner": "murmur2_random",
        }
    )
    for values, keys, timestamps in workload.blocks():
        for value, key, timestamp in zip(texts(values), texts(keys), (timestamps // 1000).tolist()):
            while True:
                try:
                    producer.produce(topic.name, value, key, timestamp=timestamp)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    if producer.flush(PATIENCE):
        raise BenchError(f"{topic.name}: Kafka did not take all events")
