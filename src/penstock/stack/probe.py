"""Whether a server answers, asked in its own protocol with the standard library alone: an open port proves little.

Each probe returns when the server is ready for work; else it raises one of `UNREADY`.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import urllib.request
from typing import Any, Iterator

from penstock.stack.ports import HOST

TIMEOUT = 3.0  # seconds that a server has for an answer, unless its probe is told otherwise
_LARGEST = 64 << 20  # bytes of an answer


class NotReady(Exception):
    """The server answers, but not as one that is ready for work."""


UNREADY = (OSError, NotReady, struct.error, http.client.HTTPException)  # what a probe raises; the last two for an answer that is cut short


class _Stream:
    """A connection to the loopback interface that reads exactly as many bytes as asked for."""

    def __init__(self, port: int, timeout: float) -> None:
        self._socket = socket.create_connection((HOST, port), timeout)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _LARGEST:
            raise NotReady(f"an answer of {count} bytes")
        data = bytearray()
        while len(data) < count:
            piece = self._socket.recv(min(count - len(data), 65_536))
            if not piece:
                raise ConnectionError("the connection was closed")
            data += piece
        return bytes(data)

    def rest(self) -> bytes:
        """Whatever comes until the other side closes."""
        return b"".join(iter(lambda: self._socket.recv(4096), b""))

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def _connected(port: int, timeout: float) -> Iterator[_Stream]:
    stream = _Stream(port, timeout)
    try:
        yield stream
    finally:
        stream.close()


def listening(port: int, timeout: float = TIMEOUT) -> None:
    """Somebody listens."""
    with _connected(port, timeout):
        return


def kafka(port: int, timeout: float = TIMEOUT) -> None:
    """The broker answers a Metadata request (version 4), and is registered: the cluster that it describes has a broker."""
    client = b"penstock"
    body = struct.pack(">hhih", 3, 4, 1, len(client)) + client + struct.pack(">ib", 0, 0)  # of no topic, creating none
    with _connected(port, timeout) as stream:
        stream.send(struct.pack(">i", len(body)) + body)
        answer = stream.read(*struct.unpack(">i", stream.read(4)))
    _, _, brokers = struct.unpack_from(">iii", answer)
    if brokers < 1:
        raise NotReady("the broker is not registered yet")


def zookeeper(port: int, timeout: float = TIMEOUT) -> None:
    """ZooKeeper answers `srvr`, and serves."""
    with _connected(port, timeout) as stream:
        stream.send(b"srvr")
        answer = stream.rest()
    if not answer.startswith(b"Zookeeper version"):
        raise NotReady(answer.decode(errors="replace").strip() or "no answer")


def hbase_thrift(port: int, timeout: float = TIMEOUT) -> None:
    """HBase's Thrift1 lists the tables, which the master has to answer."""
    _thrift(port, "getTableNames", timeout)


def hbase_thrift2(port: int, timeout: float = TIMEOUT) -> None:
    """HBase's Thrift2 lists the namespaces, which a master answers only after its initialisation."""
    _thrift(port, "listNamespaceDescriptors", timeout)


def nimbus(port: int, timeout: float = TIMEOUT) -> None:
    """Nimbus is the leader, which alone accepts topologies."""
    leader = _thrift(port, "getLeader", timeout, framed=True).get(0, {})
    if not leader.get(4):  # NimbusSummary.isLeader
        raise NotReady("Nimbus is not the leader yet")


def supervisors(port: int, timeout: float = TIMEOUT) -> None:
    """A supervisor is registered with Nimbus."""
    summary = _thrift(port, "getClusterInfo", timeout, framed=True).get(0, {})
    if not summary.get(1):  # ClusterSummary.supervisors
        raise NotReady("no supervisor is registered with Nimbus yet")


def postgres(port: int, user: str, database: str, timeout: float = TIMEOUT) -> None:
    """PostgreSQL lets the user in and is ready for a query."""
    names = b"".join(part.encode() + b"\0" for part in ("user", user, "database", database)) + b"\0"
    with _connected(port, timeout) as stream:
        stream.send(struct.pack(">ii", len(names) + 8, 196_608) + names)
        while True:
            kind, length = struct.unpack(">ci", stream.read(5))
            body = stream.read(length - 4)
            if kind == b"E":
                raise NotReady(_postgres_message(body))
            if kind == b"Z":
                stream.send(struct.pack(">ci", b"X", 4))
                return


def web(port: int, path: str, timeout: float = TIMEOUT) -> None:
    """An HTTP server answers with success."""
    with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=timeout) as answer:
        answer.read()


def bucket(port: int, name: str, timeout: float = TIMEOUT) -> None:
    """An S3 that takes any key has a bucket; it is made if it is not there."""
    request = urllib.request.Request(f"http://{HOST}:{port}/{name}", method="PUT")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        answer.read()


def _postgres_message(body: bytes) -> str:
    fields = {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
    return fields.get(b"M", "an error")


def _thrift(port: int, method: str, timeout: float, *, framed: bool = False) -> dict[int, Any]:
    """Call a method that takes no arguments, in Thrift's binary protocol. The fields of its result: 0 is what it returns."""
    name = method.encode()
    call = struct.pack(">Ii", 0x80010001, len(name)) + name + struct.pack(">ib", 0, 0)
    with _connected(port, timeout) as stream:
        stream.send(struct.pack(">i", len(call)) + call if framed else call)
        if framed:
            stream.read(4)
        version, length = struct.unpack(">Ii", stream.read(8))
        stream.read(length + 4)
        fields: dict[int, Any] = _thrift_value(stream, 12)
    if version & 0xFF == 3:  # an exception of the server, not one that the method declares
        raise NotReady(str(fields.get(1) or f"{method} failed"))
    if 0 not in fields:
        declared: Any = next(iter(fields.values()), {})
        texts = [value for value in declared.values() if isinstance(value, str)] if isinstance(declared, dict) else []
        raise NotReady((texts or [f"{method} returned nothing"])[0].strip().splitlines()[0])
    return fields


def _thrift_value(stream: _Stream, kind: int) -> Any:
    """A value of one of Thrift's types: a structure as a dictionary by field id, a set as a list."""
    if kind in _FIXED:
        return struct.unpack(_FIXED[kind], stream.read(struct.calcsize(_FIXED[kind])))[0]
    if kind == 11:
        return stream.read(*struct.unpack(">i", stream.read(4))).decode(errors="replace")
    if kind == 12:
        fields = {}
        while (inner := stream.read(1)[0]) != 0:
            (field,) = struct.unpack(">h", stream.read(2))
            fields[field] = _thrift_value(stream, inner)
        return fields
    if kind == 13:
        key, value, count = struct.unpack(">bbi", stream.read(6))
        pairs = [(_thrift_value(stream, key), _thrift_value(stream, value)) for _ in range(count)]
        return {one: other for one, other in pairs if not isinstance(one, (dict, list))}
    if kind in (14, 15):
        of, count = struct.unpack(">bi", stream.read(5))
        return [_thrift_value(stream, of) for _ in range(count)]
    raise NotReady(f"a value of the unknown Thrift type {kind}")


_FIXED = {2: ">?", 3: ">b", 4: ">d", 6: ">h", 8: ">i", 10: ">q"}
