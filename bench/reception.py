"""Events per second into the log over HTTP: the reception against what one writes by oneself, each on one core, the load from another.

    python -m bench.reception                     # 500,000 events a side, 3 rounds
    python -m bench.reception --quick             # 20,000 events, one round: shows that all runs and agrees; its rates mean nothing

A request holds 100 ad events as a JSON array, about 190 bytes each, uncompressed; 32 connections send one after the other. Sides, in turn:

- `reception`: the whole application of `penstock serve`, a key checked, no idempotency key: events judged against the schema, keyed by advertiser, into a
  local log of 4 partitions, synced before the answer.
- `reception-once`: the same with an idempotency key in each request, remembered durably.
- `fastapi`: FastAPI with a pydantic model of the same event, which judges the same fields; a line an event appended to one file, and an fsync, for each request. The
  key is a comparison of two texts.

All three are uvicorn with httptools and uvloop, where they are installed. In the end every event that was sent is looked for in what was kept: a side that lost or doubled one
reports no rate.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Iterator

BATCH, CONNECTIONS = 100, 32
SIDES = ("fastapi", "reception", "reception-once")
SECRET = "Bearer a-key-that-is-compared"


def requests(count: int) -> Iterator[bytes]:
    """The bodies of `count` events, no two with the same id."""
    from penstock.log.generate import AdEvents

    waiting: list[bytes] = []
    for block in AdEvents(7, malformed=0).blocks(count):
        for row in range(len(block.values)):
            waiting.append(block.values.get(row) or b"")
            if len(waiting) == BATCH:
                yield b"[" + b",".join(waiting) + b"]"
                waiting = []
    if waiting:
        yield b"[" + b",".join(waiting) + b"]"


# The sides


def serve_reception(folder: str, port: int) -> None:
    """The application of `penstock serve`."""
    import uvicorn

    from penstock.deployment import Deployment
    from penstock.serve.app import create_app
    from penstock.serve.service import Service

    with Deployment.named(f"local:{folder}") as deployment:
        uvicorn.run(create_app(Service(deployment)), host="127.0.0.1", port=port, log_level="warning", access_log=False)


def serve_fastapi(folder: str, port: int) -> None:
    """What one writes by oneself."""
    import threading
    from decimal import Decimal
    from typing import Literal

    import uvicorn
    from fastapi import FastAPI, Header, HTTPException
    from pydantic import BaseModel, Field

    class AdEvent(BaseModel):
        ts: int = Field(ge=0)
        event_id: str = Field(max_length=8192)
        advertiser_id: int
        user_id: int
        type: Literal["impression", "click", "save", "conversion"]
        campaign_id: int
        country: str = "??"
        device: str = "??"
        cost: Decimal | None = None

    app, lock = FastAPI(), threading.Lock()
    file = os.open(os.path.join(folder, "events.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def post(events: list[AdEvent], authorization: str = Header()) -> dict[str, Any]:  # in a thread: the fsync holds nobody up
        if authorization != SECRET:
            raise HTTPException(401)
        lines = b"".join(event.model_dump_json(exclude_none=True).encode() + b"\n" for event in events)
        with lock:
            os.write(file, lines)
        os.fdatasync(file)
        return {"accepted": len(events), "rejected": []}

    post.__annotations__ = {"events": list[AdEvent], "authorization": str, "return": dict[str, Any]}
    app.post("/v1/events/ads")(post)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def prepared(folder: str) -> str:
    """A deployment of the shipped topology, and a key to write to it."""
    from penstock.deployment import Deployment
    from penstock.runner.local import prepare
    from penstock.serve.keys import KeyStore
    from penstock.serve.scope import Scope
    from penstock.topologies.advertiser_analytics import AdvertiserAnalytics

    with Deployment.named(f"local:{folder}") as deployment:
        prepare(AdvertiserAnalytics, deployment)
        text, _ = KeyStore(lambda: deployment.table, deployment.now).create("bench", Scope(actions=("write",)))
        return f"Bearer {text}"


def kept(side: str, folder: str) -> collections.Counter[str]:
    """How often each event is in what a side kept."""
    if side == "fastapi":
        return collections.Counter(json.loads(line)["event_id"] for line in Path(folder, "events.jsonl").read_bytes().splitlines())
    from penstock.deployment import Deployment
    from penstock.kernels import read_batches

    found: collections.Counter[str] = collections.Counter()
    with Deployment.named(f"local:{folder}") as deployment:
        for partition in range(deployment.log.partitions("ads")):
            at = 0
            while (chunk := deployment.log.read("ads", partition, at, 4 << 20, 1 << 40)) is not None:
                at = chunk.next
                records = read_batches(chunk.data)
                found.update(json.loads(records.value(row) or b"")["event_id"] for row in range(len(records)))
    return found


# The load


async def load(port: int, key: str, once: bool, bodies: list[bytes]) -> float:
    """Send all bodies; the seconds from the first to the last answer."""
    heads = [
        f"POST /v1/events/ads HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\nContent-Type: application/json\r\n"
        f"{f'Idempotency-Key: {uuid.uuid4()}{chr(13)}{chr(10)}' if once else ''}Content-Length: {len(body)}\r\n\r\n".encode()
        for body in bodies
    ]
    todo = iter(range(len(bodies)))

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in todo:
            writer.write(heads[number])
            writer.write(bodies[number])
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode() + (await reader.read(2000)).decode())
            length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))[15:])
            if f'"accepted":{bodies[number].count(b"event_id")}' not in (await reader.readexactly(length)).decode().replace(" ", ""):
                raise RuntimeError("an event was rejected")
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return time.perf_counter() - began


def measure(side: str, events: int, directory: str, cpu: int) -> dict[str, float]:
    """One measurement of a side."""
    with tempfile.TemporaryDirectory(prefix="reception-", dir=directory) as folder:
        key = SECRET if side == "fastapi" else prepared(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = subprocess.Popen([sys.executable, "-m", "bench.reception", "--serve", side, folder, str(port), str(cpu)])
        try:
            wait_for(port, server)
            asyncio.run(load(port, key, side == "reception-once", list(requests(2000))))  # warm: imports, the schema, the table
            bodies = [body.replace(b'"event_id":"', b'"event_id":"m') for body in requests(events)]
            before = cpu_seconds(server.pid)
            seconds = asyncio.run(load(port, key, side == "reception-once", bodies))
            used = cpu_seconds(server.pid) - before
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
        found = kept(side, folder)
        wrong = {one: count for one, count in found.items() if count != 1}
        if wrong or len(found) != events + 2000:
            raise SystemExit(f"{side}: {len(found)} different events were kept of {events + 2000}, {len(wrong)} of them not once")
        return {"seconds": seconds, "cpu": used}


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Until a server listens."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if server.poll() is not None:
                raise SystemExit("the server did not start") from None
            time.sleep(0.05)


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--serve"]:
        _, _, side, folder, port, cpu = sys.argv
        os.sched_setaffinity(0, {int(cpu)})
        (serve_fastapi if side == "fastapi" else serve_reception)(folder, int(port))
        return 0
    parser = argparse.ArgumentParser(prog="python -m bench.reception", description="Events per second into the log over HTTP, on one core.")
    parser.add_argument("--events", type=int, default=500_000, metavar="N", help="events of each measurement (default: 500,000)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measurements of each side, in turn (default: 3)")
    parser.add_argument("--quick", action="store_true", help="20,000 events, one round; its rates mean nothing")
    parser.add_argument("--directory", default="build", metavar="DIR", help="for logs; its disk's fsync is measured (default: build)")
    options = parser.parse_args()
    events, rounds = (20_000, 1) if options.quick else (options.events, options.rounds)
    events -= events % BATCH
    os.makedirs(options.directory, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[:-1]) or set(cores))  # the load; the server has the last core
    samples: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            samples[side].append(measure(side, events, options.directory, cores[-1]))
            print(f"{side}: {events / samples[side][-1]['seconds']:,.0f} events/s", file=sys.stderr, flush=True)
    print("| side | events/s | CPU s per million | ratio |\n|---|--:|--:|--:|")
    for side in SIDES:
        seconds = statistics.median(sample["seconds"] for sample in samples[side])
        used = statistics.median(sample["cpu"] for sample in samples[side])
        ratio = statistics.median(base["seconds"] / one["seconds"] for base, one in zip(samples[SIDES[0]], samples[side]))
        print(f"| {side} | {events / seconds:,.0f} | {used * 1e6 / events:.1f} | {ratio:.2f}x |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
