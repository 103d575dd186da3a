"""Apache Kafka: one broker that is its own controller (KRaft)."""

from __future__ import annotations

import base64
import subprocess
import uuid
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.stack import probe
from penstock.stack.server import BUSY, QUICK, JavaServer, Program, Told

HEAP = "768m"

_LOGGING = """\
Configuration:
  Appenders:
    Console: {name: STDOUT, PatternLayout: {pattern: "[%d] %p %m (%c)%n"}}
  Loggers:
    Root: {level: INFO, AppenderRef: {ref: STDOUT}}
"""


class Kafka(JavaServer):
    """The broker."""

    name = "kafka"
    ports = ("kafka", "kafka-controller")
    processes = ("kafka",)

    def prepare(self, told: Told) -> None:
        """Jars, configuration, and the format of the data folder at the first time."""
        super().prepare(told)
        (self.folder / "log4j2.yaml").write_text(_LOGGING)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in self._configuration().items()))
        if not (self.folder / "data" / "meta.properties").exists():
            told("formatting")
            self._format()

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _configuration(self) -> dict[str, Any]:
        broker, controller = self.site.address("kafka"), self.site.address("kafka-controller")
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self.folder / "data",
            "num.partitions": 4,
            # One broker can hold one copy of anything.
            "default.replication.factor": 1,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # A group of a test is complete at once: waiting for further members is waiting for nobody.
            "group.initial.rebalance.delay.ms": 0,
            # A broker that was killed is registered until its session ends, and until then its successor is refused. Kafka's own 9 s
            # are for machines that fail, not for one that is restarted.
            "broker.heartbeat.interval.ms": 500,
            "broker.session.timeout.ms": 5_000,
            # A topic that springs up from a misspelt name has the wrong number of partitions and hides the mistake.
            "auto.create.topics.enable": "false",
            "message.max.bytes": 10_485_760,
            # Retention goes by the records' own time: events of last year would be gone within minutes.
            "log.retention.ms": -1,
        }

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = self.java(
            "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties), heap="128m", flags=(*QUICK, self._log4j)
        )
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=self.folder)
        if done.returncode != 0:
            raise PenstockError(f"Kafka cannot format {self.folder / 'data'}", hint="\n".join(done.stdout.strip().splitlines()[-8:]))

    @property
    def _log4j(self) -> str:
        return f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}"

    def programs(self) -> list[Program]:
        """The broker."""
        return [
            Program(
                "kafka",
                lambda: self.java("kafka.Kafka", str(self._properties), heap=HEAP, flags=("-Xms256m", *BUSY, self._log4j)),
                lambda timeout: probe.kafka(self.site.ports["kafka"], timeout),
                self.ports,
                self.folder,
                grace=30.0,
            )
        ]

    def settings(self) -> dict[str, Any]:
        """Where it listens; topics that are created have one copy."""
        return {"bootstrap": self.site.address("kafka"), "replication": 1}

    def exports(self) -> dict[str, str]:
        """KAFKA_BOOTSTRAP."""
        return {"KAFKA_BOOTSTRAP": self.site.address("kafka")}
