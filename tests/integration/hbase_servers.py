"""Servers of one's own beside the HBase that tests share: a Thrift server that may be killed, a Java program with HBase's client, a TLS tunnel."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

THRIFT = "org.apache.hadoop.hbase.thrift.ThriftServer"


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listening_process(port: int) -> int:
    """The id of the process of this machine that listens on a port."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and any(os.readlink(handle) in sockets for handle in (entry / "fd").iterdir()):
                return int(entry.name)
    raise LookupError(f"nobody on this machine listens on port {port}")


class Java:
    """How a running Thrift server was started: its Java, flags, jars and configuration, to start other programs with."""

    def __init__(self, port: int) -> None:
        process = listening_process(port)
        command = [part.decode() for part in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[:-1]]
        self.flags = command[: command.index(THRIFT)]
        self.folder = os.readlink(f"/proc/{process}/cwd")

    def start(self, *arguments: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a program: a class of the jars or a source file, and its arguments."""
        command = [*(flag for flag in self.flags if not flag.startswith("-Xm")), "-Xmx512m", *arguments]
        return subprocess.Popen(command, cwd=self.folder, stdout=output, stderr=subprocess.DEVNULL, text=True)


class OwnThrift:
    """A Thrift server that the test may kill. idle: after how many milliseconds it hangs up on a silent client."""

    def __init__(self, java: Java, idle: int) -> None:
        self.java, self.idle, self.port = java, idle, free_port()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it listens."""
        self._process = self.java.start(
            THRIFT, "start", "-p", str(self.port), "-b", "127.0.0.1", "-threadpool", "--readTimeout", str(self.idle)
        )
        until = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None and time.monotonic() < until, "the Thrift server did not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def relay(to: int, *, listen: ssl.SSLContext | None = None, connect: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port whose connections go on to another; with TLS on the side that has a context. A tunnel is two of them."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(near: socket.socket) -> None:
        # One thread a connection: a TLS socket is not for two, one that reads and one that writes.
        with contextlib.suppress(OSError), contextlib.ExitStack() as ends:
            near = ends.enter_context(listen.wrap_socket(near, server_side=True) if listen else near)
            far = socket.create_connection(("127.0.0.1", to))
            far = ends.enter_context(connect.wrap_socket(far, server_hostname="localhost") if connect else far)
            while True:
                for source in select.select([near, far], [], [])[0]:
                    data = source.recv(1 << 16)
                    while isinstance(source, ssl.SSLSocket) and source.pending():
                        data += source.recv(source.pending())
                    if not data:
                        return
                    (far if source is near else near).sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=carry, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
