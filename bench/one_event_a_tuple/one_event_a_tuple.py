"""What one would write with streamparse instead: an event a tuple, grouped by its key, a dict in the bolt, its counts into HBase every few seconds.

It is favoured: librdkafka reads in threads of its own; a call of the spout emits many events; a tuple is acked when it is counted, not when that is
durable, and a bolt that dies has lost its counts; event times are not looked at.
"""

from __future__ import annotations

import json
from typing import Any

import happybase
import orjson
from confluent_kafka import Consumer, TopicPartition
from streamparse import Bolt, Grouping, Spout, Stream

from penstock import Topology

AT_ONCE = 100  # events of one call of the spout
BATCH = 1_000  # cells of one call to HBase
TABLE, FAMILY = "counts", "c"
KEPT = ("impression", "click")
HANDLED = b"~handled/%d"  # the row that says how many events a bolt's task has taken, whose counts are all written


def deployment(settings: dict[str, Any]) -> dict[str, Any]:
    """Where Kafka and HBase are, as `penstock submit` puts it into every topology's settings."""
    found: dict[str, Any] = json.loads(settings["penstock.deployment"])["settings"]
    return found


class EventSpout(Spout):
    """Reads partitions p with p mod tasks == its index, and emits every event as a tuple."""

    outputs = [Stream(["advertiser", "event"])]

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:
        """Begin to fetch, from the start of the topic."""
        found = deployment(storm_conf)
        tasks = sorted(int(task) for task, name in context["task->component"].items() if name == self.component_name)
        topic, index = found["topics"]["ads"], tasks.index(int(context["taskid"]))
        self.consumer = Consumer(
            {
                "bootstrap.servers": found["kafka"]["bootstrap"],
                "group.id": "one-event-a-tuple",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "queued.min.messages": 200_000,
            }
        )
        partitions = self.consumer.list_topics(topic, 10).topics[topic].partitions
        self.consumer.assign([TopicPartition(topic, number, 0) for number in partitions if number % len(tasks) == index])
        self.sent = 0

    def next_tuple(self) -> None:
        """Emit what has come."""
        for message in self.consumer.consume(AT_ONCE, 0.01):
            if message.error():
                raise RuntimeError(str(message.error()))
            self.sent += 1
            self.emit([message.key().decode(), message.value().decode()], tup_id=str(self.sent))


class CountBolt(Bolt):
    """Counts and sums by advertiser, type and minute in a dict."""

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:
        """Connect."""
        found = deployment(storm_conf)["hbase"]
        self.table = happybase.Connection(found["host"], found["port"]).table(found["prefix"] + TABLE)
        self.task = int(context["taskid"])
        self.groups: dict[bytes, list[int]] = {}
        self.changed: set[bytes] = set()
        self.handled = 0

    def process(self, tup: Any) -> None:
        """Count one event."""
        event = orjson.loads(tup.values[1])
        self.handled += 1
        if event["type"] in KEPT:
            key = b"%d/%s/%d" % (event["advertiser_id"], event["type"].encode(), event["ts"] // 60_000)
            group = self.groups.setdefault(key, [0, 0])
            group[0] += 1
            if event["cost"] is not None:
                group[1] += round(event["cost"] * 1_000_000)
            self.changed.add(key)

    def process_tick(self, tup: Any) -> None:
        """Write what has changed since the last time, and then how far that is."""
        with self.table.batch(batch_size=BATCH) as batch:
            for key in self.changed:
                count, cost = self.groups[key]
                batch.put(key, {b"c:count": b"%d" % count, b"c:cost": b"%d" % cost})
        self.changed.clear()
        self.table.put(HANDLED % self.task, {b"c:count": b"%d" % self.handled})


class OneEventATuple(Topology):
    """The events to the bolt that has their advertiser."""

    config = {"topology.max.spout.pending": 2_000, "topology.shellbolt.max.pending": 100, "topology.executor.receive.buffer.size": 32_768}
    events = EventSpout.spec()
    counts = CountBolt.spec(inputs={events: Grouping.fields("advertiser")}, config={"topology.tick.tuple.freq.secs": 5})
