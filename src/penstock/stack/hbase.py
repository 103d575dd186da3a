"""Apache HBase in one process (master, region server and ZooKeeper), and its two Thrift servers."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from penstock.stack import probe
from penstock.stack.ports import HOST
from penstock.stack.server import BUSY, QUICK, JavaServer, Program, Told

HEAP, THRIFT_HEAP, THRIFT2_HEAP = "2g", "1g", "256m"
# A question to a master that is not initialised yet holds one of its handlers until it is: asking every few seconds would take them all.
_PATIENCE = 20.0
PREFIX, REGIONS = "penstock_", 4  # of the tables that the deployment `stack` creates

# HBase 2.6 on Java 17 reaches into the JDK by reflection: for direct buffers, for Kerberos (linked even when unused), for its own RPC.
_OPENS = (
    "--add-modules=jdk.unsupported",
    *(
        f"--add-opens={module}=ALL-UNNAMED"
        for module in (
            "java.base/java.nio",
            "java.base/sun.nio.ch",
            "java.base/java.lang",
            "java.base/jdk.internal.ref",
            "java.base/java.lang.reflect",
            "java.base/java.util",
            "java.base/java.util.concurrent",
            "java.security.jgss/sun.security.krb5",
        )
    ),
    "--add-exports=java.base/jdk.internal.misc=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "-Dorg.apache.hbase.thirdparty.io.netty.tryReflectionSetAccessible=true",
)

_LOGGING = """\
log4j.rootLogger=INFO, console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d %p [%t] %c{2}: %m%n
# Warns at every start that there is no native library.
log4j.logger.org.apache.hadoop.util.NativeCodeLoader=ERROR
log4j.logger.org.apache.hadoop.metrics2=WARN
log4j.logger.org.apache.zookeeper=WARN
"""


class HBase(JavaServer):
    """HBase and its Thrift servers."""

    name = "hbase"
    ports = ("hbase-zookeeper", "hbase-master", "hbase-regionserver", "hbase-thrift", "hbase-thrift2")
    processes = ("hbase", "hbase-thrift", "hbase-thrift2")

    def prepare(self, told: Told) -> None:
        """Jars and configuration."""
        super().prepare(told)
        conf = self.folder / "conf"
        conf.mkdir(exist_ok=True)
        properties = "".join(
            f"<property><name>{name}</name><value>{escape(str(value))}</value></property>\n"
            for name, value in self._configuration().items()
        )
        (conf / "hbase-site.xml").write_text(f"<configuration>\n{properties}</configuration>\n")
        (conf / "log4j.properties").write_text(_LOGGING)

    def _configuration(self) -> dict[str, Any]:
        ports = self.site.ports
        return {
            "hbase.rootdir": (self.folder / "data").as_uri(),
            "hbase.tmp.dir": self.folder / "tmp",
            "hbase.cluster.distributed": "false",
            "hbase.zookeeper.quorum": HOST,
            "hbase.zookeeper.property.dataDir": self.folder / "zookeeper",
            "hbase.zookeeper.property.clientPort": ports["hbase-zookeeper"],
            # A local file system has no hsync. What was written survives the end of the process all the same (the kernel has it),
            # and a development server need not survive the end of the machine.
            "hbase.unsafe.stream.capability.enforce": "false",
            "hbase.procedure.store.wal.use.hsync": "false",
            "hbase.wal.provider": "filesystem",
            # Its own name may resolve to another address than the one that it listens on.
            "hbase.master.hostname": "localhost",
            "hbase.regionserver.hostname": "localhost",
            "hbase.master.ipc.address": HOST,
            "hbase.regionserver.ipc.address": HOST,
            "hbase.master.port": ports["hbase-master"],
            "hbase.regionserver.port": ports["hbase-regionserver"],
            # No web pages.
            "hbase.master.info.port": -1,
            "hbase.regionserver.info.port": -1,
            "hbase.thrift.info.port": -1,
            "hbase.thrift.support.proxyuser": "false",
            "hbase.regionserver.handler.count": 30,
            # There is one region server, and none to wait for beside it; it reports every second instead of every three.
            "hbase.master.wait.on.regionservers.mintostart": 1,
            "hbase.master.wait.on.regionservers.maxtostart": 1,
            "hbase.regionserver.msginterval": 1_000,
            # Long: on a busy machine of two cores, a pause that ends the session with ZooKeeper ends the whole process.
            "zookeeper.session.timeout": 120_000,
            "hbase.zookeeper.property.tickTime": 6_000,
            "hbase.rpc.timeout": 120_000,
            "hbase.rpc.shortoperation.timeout": 60_000,
            "hbase.client.operation.timeout": 240_000,
            "hbase.client.scanner.timeout.period": 240_000,
        }

    def programs(self) -> list[Program]:
        """HBase, Thrift1, Thrift2."""
        ports = self.site.ports
        return [
            Program(
                "hbase",
                lambda: self._java("org.apache.hadoop.hbase.master.HMaster", "start", heap=HEAP, flags=("-Xms512m", *BUSY)),
                self._ready,
                ("hbase-zookeeper", "hbase-master", "hbase-regionserver"),
                self.folder,
                grace=60.0,
            ),
            Program(
                "hbase-thrift",
                lambda: self._thrift("thrift.ThriftServer", "hbase-thrift", heap=THRIFT_HEAP, flags=("-Xms128m", *BUSY)),
                lambda timeout: probe.hbase_thrift(ports["hbase-thrift"], timeout),
                ("hbase-thrift",),
                self.folder,
                patience=_PATIENCE,
            ),
            Program(
                "hbase-thrift2",
                lambda: self._thrift("thrift2.ThriftServer", "hbase-thrift2", heap=THRIFT2_HEAP, flags=QUICK),
                lambda timeout: probe.hbase_thrift2(ports["hbase-thrift2"], timeout),
                ("hbase-thrift2",),
                self.folder,
                patience=_PATIENCE,
            ),
        ]

    def _ready(self, timeout: float) -> None:
        """Whether its three listeners are there. Whether it serves, its Thrift servers say: their probes go through to the master."""
        probe.zookeeper(self.site.ports["hbase-zookeeper"], timeout)
        probe.listening(self.site.ports["hbase-master"], timeout)
        probe.listening(self.site.ports["hbase-regionserver"], timeout)

    def _java(self, main: str, *arguments: str, heap: str, flags: tuple[str, ...]) -> list[str]:
        classpath = f"{self.folder / 'conf'}:{self.home / 'lib'}/*"
        return self.java(main, *arguments, heap=heap, flags=(*flags, *_OPENS), classpath=classpath)

    def _thrift(self, kind: str, port: str, *, heap: str, flags: tuple[str, ...]) -> list[str]:
        arguments = ("start", "-p", str(self.site.ports[port]), "-b", HOST, "-threadpool")
        return self._java(f"org.apache.hadoop.hbase.{kind}", *arguments, heap=heap, flags=flags)

    def settings(self) -> dict[str, Any]:
        """Where its Thrift servers listen."""
        ports = self.site.ports
        return {"host": HOST, "port": ports["hbase-thrift"], "thrift2_port": ports["hbase-thrift2"], "prefix": PREFIX, "regions": REGIONS}

    def exports(self) -> dict[str, str]:
        """HBASE_THRIFT and HBASE_THRIFT2."""
        return {"HBASE_THRIFT": self.site.address("hbase-thrift"), "HBASE_THRIFT2": self.site.address("hbase-thrift2")}
