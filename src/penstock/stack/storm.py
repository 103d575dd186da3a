"""Apache Storm: ZooKeeper, Nimbus and one supervisor, from Maven artifacts (there is no Storm distribution to unpack)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from penstock.stack import probe, tools
from penstock.stack.ports import HOST
from penstock.stack.server import QUICK, JavaServer, Program, Told, python_path

ZOOKEEPER_HEAP, NIMBUS_HEAP, SUPERVISOR_HEAP, WORKER_HEAP = "128m", "384m", "192m", "512m"
SLOTS = 4  # workers at most
WORKERS, PARALLELISM = 2, 2  # of topologies that the deployment `stack` runs

# One plain file each: the file that one follows is the file in which everything is, however long it gets.
_DAEMON_LOGGING = """\
<configuration shutdownHook="disable">
  <appenders>
    <Console name="A1"><PatternLayout pattern="%d{yyyy-MM-dd HH:mm:ss.SSS} %c{1.} %t [%p] %msg%n"/></Console>
  </appenders>
  <loggers>
    <root level="info"><appender-ref ref="A1"/></root>
    <logger name="org.apache.zookeeper" level="warn"/>
    <!-- Writes a stack trace for a question that comes before it has loaded its data; one is asked until it has. -->
    <logger name="org.apache.zookeeper.server.ServerCnxn" level="off"/>
    <logger name="org.apache.storm.shade.org.apache.zookeeper" level="warn"/>
  </loggers>
</configuration>
"""
_WORKER_LOGGING = """\
<configuration shutdownHook="disable">
  <appenders>
    <File name="A1" fileName="${sys:workers.artifacts}/${sys:storm.id}/${sys:worker.port}/${sys:logfile.name}">
      <PatternLayout pattern="%d{yyyy-MM-dd HH:mm:ss.SSS} %c{1.} %t [%p] %msg%n"/>
    </File>
  </appenders>
  <loggers><root level="info"><appender-ref ref="A1"/></root></loggers>
</configuration>
"""


class Storm(JavaServer):
    """ZooKeeper, Nimbus, the supervisor, and the workers that it starts.

    Nimbus, the supervisor and the workers listen on all interfaces: Storm has no setting for it. Everything else is on loopback.
    """

    name = "storm"
    ports = ("zookeeper", "nimbus", "supervisor", *(f"slot-{number}" for number in range(1, SLOTS + 1)))
    processes = ("zookeeper", "nimbus", "supervisor")
    outlived = True  # workers go on counting without any of them, and a new supervisor takes them over

    def prepare(self, told: Told) -> None:
        """Jars and configuration."""
        super().prepare(told)
        conf = self.folder / "conf"
        for folder in (conf, self.folder / "zookeeper", self.folder / "logs", self.artifacts):
            folder.mkdir(parents=True, exist_ok=True)
        # JSON is YAML: no library to write it, no text that YAML would read as something else.
        (conf / "storm.yaml").write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in self._configuration().items()))
        (conf / "cluster.xml").write_text(_DAEMON_LOGGING)
        (conf / "worker.xml").write_text(_WORKER_LOGGING)
        (conf / "zoo.cfg").write_text("".join(f"{name}={value}\n" for name, value in self._zookeeper().items()))

    @property
    def artifacts(self) -> Path:
        """The folder of the workers' logs: TOPOLOGY-ID/PORT/worker.log below it."""
        return self.folder / "workers-artifacts"

    def _zookeeper(self) -> dict[str, Any]:
        return {
            "tickTime": 2_000,
            "dataDir": self.folder / "zookeeper",
            "clientPort": self.site.ports["zookeeper"],
            "clientPortAddress": HOST,
            "admin.enableServer": "false",
            "maxClientCnxns": 0,
            # It would keep every snapshot that it ever took.
            "autopurge.snapRetainCount": 3,
            "autopurge.purgeInterval": 1,
        }

    def _configuration(self) -> dict[str, Any]:
        ports = self.site.ports
        return {
            "storm.zookeeper.servers": [HOST],
            "storm.zookeeper.port": ports["zookeeper"],
            # How long a Nimbus that was killed stays the leader, and its successor waits.
            "storm.zookeeper.session.timeout": 10_000,
            "storm.zookeeper.connection.timeout": 10_000,
            "nimbus.seeds": [HOST],
            "nimbus.thrift.port": ports["nimbus"],
            "storm.local.hostname": HOST,
            "storm.local.dir": str(self.folder / "local"),
            "storm.log.dir": str(self.folder / "logs"),
            "storm.workers.artifacts.dir": str(self.artifacts),
            "storm.log4j2.conf.dir": str(self.folder / "conf"),
            # RocksDB under Nimbus serves the charts of a UI that is not here.
            "storm.metricstore.class": "org.apache.storm.metricstore.NoOpMetricStore",
            "supervisor.thrift.port": ports["supervisor"],
            "supervisor.slots.ports": [ports[name] for name in self.ports if name.startswith("slot-")],
            # In development one restarts often: see a dead worker, and start what is assigned, within a second or two.
            "supervisor.monitor.frequency.secs": 1,
            "supervisor.heartbeat.frequency.secs": 2,
            "nimbus.monitor.freq.secs": 5,
            "supervisor.worker.shutdown.sleep.secs": 2,
            # A worker is given up when it has been silent for so long. Not less: two cores are busy at times.
            "supervisor.worker.timeout.secs": 30,
            "nimbus.task.timeout.secs": 30,
            "supervisor.worker.start.timeout.secs": 90,
            "nimbus.task.launch.secs": 90,
            # A supervisor that was killed a few times would not be used for half an hour; here it is the only one.
            "blacklist.scheduler.tolerance.count": 1_000,
            "worker.heap.memory.mb": int(WORKER_HEAP.removesuffix("m")),
            # Storm's own default asks for garbage collection logs with options that Java 17 does not have.
            "worker.childopts": "-Xmx%HEAP-MEM%m -Djava.net.preferIPv4Stack=true -XX:+ExitOnOutOfMemoryError",
            # Each worker runs under a second JVM that does nothing but pass its output on.
            "topology.worker.logwriter.childopts": "-Xmx32m -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            # Of control groups that nobody set up: an error in each worker's log.
            "worker.metrics": {},
        }

    def programs(self) -> list[Program]:
        """ZooKeeper, Nimbus, the supervisor."""
        ports = self.site.ports
        return [
            Program(
                "zookeeper",
                lambda: self._java("zookeeper", "org.apache.zookeeper.server.quorum.QuorumPeerMain", "./conf/zoo.cfg", heap=ZOOKEEPER_HEAP),
                lambda timeout: probe.zookeeper(ports["zookeeper"], timeout),
                ("zookeeper",),
                self.folder,
            ),
            Program(
                "nimbus",
                lambda: self._java("nimbus", "org.apache.storm.daemon.nimbus.Nimbus", heap=NIMBUS_HEAP),
                lambda timeout: probe.nimbus(ports["nimbus"], timeout),
                ("nimbus",),
                self.folder,
                environment=self._environment,
            ),
            Program(
                "supervisor",
                lambda: self._java("supervisor", "org.apache.storm.daemon.supervisor.Supervisor", heap=SUPERVISOR_HEAP),
                self._supervised,
                # Not its slots: workers that outlived it still listen there, and it takes them over.
                ("supervisor",),
                self.folder,
                environment=self._environment,
            ),
        ]

    def _supervised(self, timeout: float) -> None:
        """That it listens tells it from one that Nimbus still lists though it was killed."""
        probe.listening(self.site.ports["supervisor"], timeout)
        probe.supervisors(self.site.ports["nimbus"], timeout)

    def _java(self, daemon: str, main: str, *arguments: str, heap: str) -> list[str]:
        flags = (
            *QUICK,
            f"-Ddaemon.name={daemon}",
            f"-Dlogfile.name={daemon}.log",
            f"-Dstorm.home={self.home}",
            f"-Dstorm.log.dir={self.folder / 'logs'}",
            "-Dstorm.conf.file=storm.yaml",
            f"-Dlog4j.configurationFile={self.folder / 'conf' / 'cluster.xml'}",
        )
        return self.java(main, *arguments, heap=heap, flags=flags, classpath=f"{self.home / 'lib'}/*:{self.folder / 'conf'}")

    def _environment(self) -> dict[str, str]:
        """What workers inherit: this environment's Python is the `python` that they find, and the Java that runs here is theirs."""
        return {
            "PATH": f"{python_path()}:{tools.java().parent}:{os.environ.get('PATH', os.defpath)}",
            "STORM_CONF_DIR": str(self.folder / "conf"),
        }

    def settings(self) -> dict[str, Any]:
        """Where Nimbus listens, and how topologies run. No heap of the workers: what a topology needs is derived from it."""
        return {
            "nimbus": self.site.address("nimbus"),
            "workers": WORKERS,
            "parallelism": PARALLELISM,
            "python": f"{python_path()}/python",
        }

    def exports(self) -> dict[str, str]:
        """STORM_NIMBUS."""
        return {"STORM_NIMBUS": self.site.address("nimbus")}
