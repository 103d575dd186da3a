"""What tests of reception share: a deployment with datasets, keys, a server in a thread and one in a process of its own, and a look into the log."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from penstock import By, Count, Decimal, Enum, Int, KafkaSpout, Rollup, RollupBolt, Schema, String, Timestamp, Topology
from penstock.deployment import Deployment
from penstock.kernels import headers_value, read_batches
from penstock.log import Log
from penstock.runner.local import prepare
from penstock.serve.keys import KeyStore
from penstock.serve.scope import Scope

clicks = Schema(
    "clicks",
    time="ts",
    key="shop",
    fields={
        "ts": Timestamp("ms"),
        "event_id": String(),
        "shop": Int(path="shop_id"),
        "kind": Enum("view", "click", default="view"),
        "price": Decimal(4, nullable=True),
        "ip": String(nullable=True),
        "user_agent": String(nullable=True, max_bytes=64),
        "received": Timestamp("ms", nullable=True),
    },
)
packed = Schema(
    "packed",
    time="ts",
    format="msgpack",
    fields={"ts": Timestamp("ms"), "event_id": String(), "n": Int(), "price": Decimal(6, nullable=True)},
)


class Shops(Topology):
    live = KafkaSpout.spec(clicks)
    rollups = RollupBolt.spec(live, [Rollup("by_shop", of=clicks, entity="shop", measures={"n": Count()}, by=[By(keep={"1h": "9d"})])])
    other = KafkaSpout.spec(packed)
    packed = RollupBolt.spec(other, [Rollup("by_n", of=packed, entity="n", measures={"n": Count()}, by=[By(keep={"1h": "9d"})])])


def deployment(folder: Path, **serve: Any) -> Deployment:
    """A local deployment in which the topology above was prepared. serve: of its `[NAME.serve]`."""
    made = Deployment("test", {"local": str(folder), "partitions": 3, "serve": {"audit": "", **serve}})
    prepare(Shops, made)
    return made


def key(made: Deployment, *datasets: str, entities: dict[str, list[str]] | None = None, rate: int | None = None) -> str:
    """A new key that may write some datasets; all unless named."""
    scope = Scope(actions=("write",), datasets=datasets or None, entities=entities)
    text, _ = KeyStore(lambda: made.table, made.now).create("test", scope, rate=rate)
    return text


def event(number: int, **more: Any) -> dict[str, Any]:
    """An event that fits `clicks`."""
    return {"ts": int(time.time() * 1000), "event_id": f"e{number}", "shop_id": number % 17, "kind": "click", **more}


class Recorded:
    """A record of the log."""

    def __init__(self, partition: int, offset: int, key: bytes | None, value: bytes, request: bytes | None, timestamp: int) -> None:
        self.partition, self.offset, self.key, self.value, self.request, self.timestamp = partition, offset, key, value, request, timestamp

    @property
    def json(self) -> dict[str, Any]:
        """Its value, parsed."""
        found: dict[str, Any] = json.loads(self.value)
        return found


def contents(log: Log, topic: str) -> list[Recorded]:
    """All records of a topic."""
    found = []
    for partition in range(log.partitions(topic)):
        at, end = log.start(topic, partition), log.end(topic, partition)
        while at < end:
            chunk = log.read(topic, partition, at, 1 << 22, 1 << 40)
            if chunk is None:
                time.sleep(0.01)
                continue
            at = chunk.next
            if not chunk.data:
                continue
            records = read_batches(chunk.data)
            start, length = headers_value(records, b"penstock-request")
            for row in range(len(records)):
                request = None if length[row] < 0 else records.buffer[int(start[row]) : int(start[row]) + int(length[row])]
                found.append(
                    Recorded(
                        partition,
                        int(records.offsets[row]),
                        records.key(row),
                        records.value(row) or b"",
                        request,
                        int(records.timestamps[row]),
                    )
                )
    return found


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def serving(made: Deployment, **options: Any) -> Iterator[str]:
    """A real server in a thread of this process; its address."""
    from penstock.serve.app import create_app
    from penstock.serve.reception import add_reception
    from penstock.serve.service import Service

    service = Service(made)
    config = uvicorn.Config(
        create_app(service, (add_reception,)),
        host="127.0.0.1",
        port=0,
        log_level="warning",
        lifespan="on",
        **{"proxy_headers": False, **options},
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        [listening] = server.servers[0].sockets
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        service.close()
        assert not thread.is_alive()


class ServerProcess:
    """A server in a process of its own, at one port for all of its lives."""

    def __init__(self, settings: dict[str, Any], port: int | None = None) -> None:
        self.settings, self.port = settings, port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "reception_world", json.dumps(self.settings), str(self.port)], env=environment
        )
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not start: {self.process.returncode}")
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)


def main() -> None:
    """A server process: settings of the deployment, and a port."""
    from penstock.serve.app import create_app
    from penstock.serve.reception import add_reception
    from penstock.serve.service import Service

    made = Deployment("test", json.loads(sys.argv[1]))
    uvicorn.run(
        create_app(Service(made), (add_reception,)), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", proxy_headers=False
    )
    made.close()


if __name__ == "__main__":
    main()
