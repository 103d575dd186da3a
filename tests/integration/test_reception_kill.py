"""kill -9 of servers and senders under load: every event that was acknowledged is in the log, once."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reception_world import ServerProcess, contents, deployment, event, key

from penstock.deployment import Deployment
from penstock.sender import Sender

KILLS = int(os.environ.get("PENSTOCK_KILLS", "6"))


def counted(made: Deployment) -> collections.Counter[str]:
    """How often each event is in the log."""
    return collections.Counter(record.json["event_id"] for record in contents(made.log, "clicks"))


class Client(threading.Thread):
    """Posts requests one after the other, each to one server or another until it is answered for."""

    def __init__(self, number: int, urls: list[str], token: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number, self.urls, self.token, self.stop = number, urls, token, stop
        self.acknowledged: list[str] = []
        self.tries = self.replayed = self.requests = 0
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            with httpx.Client(headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}, timeout=10) as client:
                while not self.stop.is_set():
                    self.request(client)
        except BaseException as problem:
            self.problem = problem
            raise

    def request(self, client: httpx.Client) -> None:
        events = [event(0, event_id=f"{self.number}-{self.requests}-{index}", shop_id=index) for index in range(20)]
        body, name = json.dumps(events), str(uuid.uuid4())
        self.requests += 1
        at = random.randrange(len(self.urls))
        while True:
            self.tries += 1
            try:
                answer = client.post(f"{self.urls[at % len(self.urls)]}/v1/events/clicks", content=body, headers={"Idempotency-Key": name})
            except httpx.HTTPError:
                time.sleep(0.02)
            else:
                if answer.status_code == 200:
                    assert answer.json()["accepted"] == 20
                    self.acknowledged += [one["event_id"] for one in events]
                    self.replayed += "idempotency-replayed" in answer.headers
                    return
                assert answer.status_code in (409, 503), answer.text
                time.sleep(0.05)
            at += 1


def test_two_servers_are_killed_again_and_again_and_every_event_is_in_the_log_once(tmp_path: Path) -> None:
    with deployment(tmp_path) as made:
        token = key(made)
        servers = [ServerProcess(made.settings), ServerProcess(made.settings)]
        for server in servers:
            server.start()
        stop = threading.Event()
        clients = [Client(number, [server.url for server in servers], token, stop) for number in range(4)]
        try:
            for client in clients:
                client.start()
            for number in range(KILLS):
                before = [len(client.acknowledged) for client in clients]
                until = time.monotonic() + 60
                while any(len(client.acknowledged) < had + 60 for client, had in zip(clients, before)):
                    assert time.monotonic() < until and all(client.problem is None for client in clients)
                    time.sleep(random.uniform(0.005, 0.03))
                servers[number % 2].kill()
                servers[number % 2].start()
            stop.set()
            for client in clients:
                client.join(60)
                assert not client.is_alive() and client.problem is None
        finally:
            stop.set()
            codes = [server.stop() for server in servers]
        found = counted(made)
        acknowledged = [one for client in clients for one in client.acknowledged]
        assert len(acknowledged) == len(set(acknowledged)) == 20 * sum(client.requests for client in clients)
        assert {one: found[one] for one in acknowledged if found[one] != 1} == {}
        assert set(found) == set(acknowledged)
        assert sum(client.tries for client in clients) > sum(client.requests for client in clients)
        assert codes == [0, 0] or set(codes) <= {0, -signal.SIGTERM}


SENDING = """
import sys
sys.path.insert(0, sys.argv[4])
from reception_world import event
from penstock.sender import Sender
url, token, spool, _, first, count = sys.argv[1:]
with Sender(url, "clicks", token, spool=spool, batch_events=50, linger=0.05, backoff=(0.02, 0.5)) as sender:
    for number in range(int(first), int(first) + int(count)):
        sender.send(event(number))
        if number % 100 == 0:
            print(number, flush=True)
    print("all", flush=True)
    sender.flush()
    print("flushed", sender.accepted, flush=True)
"""


def test_server_and_sender_are_killed_and_the_next_sender_goes_on(tmp_path: Path) -> None:
    with deployment(tmp_path / "data") as made:
        token, server = key(made), ServerProcess(made.settings)
        server.start()
        try:
            kept = 0  # events that a sender had taken over: all before the number that it printed last
            first, numbers = 0, set()
            for round in range(4):
                child = subprocess.Popen(
                    [
                        sys.executable,
                        "-c",
                        SENDING,
                        server.url,
                        token,
                        str(tmp_path / "spool"),
                        str(Path(__file__).parents[1]),
                        str(first),
                        "5000",
                    ],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert child.stdout is not None
                for line in child.stdout:
                    if line.startswith("flushed"):
                        break
                    if line.strip() != "all":
                        kept = int(line)
                        numbers.update(range(first, kept + 1))
                    if round in (0, 2) and kept == first + 2000:
                        server.kill()
                        if round == 0:
                            child.kill()  # the sender as well
                            break
                        server.start()
                child.wait(60)
                child.stdout.close()
                if server.process is None or server.process.poll() is not None:
                    server.start()
                first += 5000
            with Sender(server.url, "clicks", token, spool=tmp_path / "spool", backoff=(0.02, 0.5)) as last:
                last.flush(60)
        finally:
            server.stop()
        found = counted(made)
        assert {one: count for one, count in found.items() if count != 1} == {}
        assert {f"e{number}" for number in numbers} - set(found) == set()
        assert list((tmp_path / "spool").glob("*-*")) == []


@pytest.mark.servers
def test_on_kafka_and_hbase_a_server_is_killed_and_every_event_is_in_the_log_once(stack: dict[str, Any], tmp_path: Path) -> None:
    from reception_world import Shops

    from penstock.runner.local import prepare

    suffix = uuid.uuid4().hex[:8]
    settings = {
        **stack,
        "partitions": 3,
        "topics": {"clicks": f"clicks-{suffix}", "packed": f"packed-{suffix}"},
        "hbase": {**stack["hbase"], "prefix": f"r{suffix}"},
        "serve": {"audit": ""},
    }
    made = Deployment("test", settings)
    try:
        prepare(Shops, made)
        token, server = key(made), ServerProcess(settings)
        server.start()
        stop = threading.Event()
        clients = [Client(number, [server.url], token, stop) for number in range(4)]
        for client in clients:
            client.start()
        for _ in range(3):
            before = [len(client.acknowledged) for client in clients]
            until = time.monotonic() + 180
            while any(len(client.acknowledged) < had + 60 for client, had in zip(clients, before)):
                assert time.monotonic() < until and all(client.problem is None for client in clients)
                time.sleep(random.uniform(0.005, 0.03))
            server.kill()
            server.start()
        stop.set()
        for client in clients:
            client.join(180)
            assert not client.is_alive() and client.problem is None
        server.stop()
        found = collections.Counter(record.json["event_id"] for record in contents(made.log, made.topic("clicks")))
        acknowledged = [one for client in clients for one in client.acknowledged]
        assert {one: found[one] for one in acknowledged if found[one] != 1} == {} and set(found) == set(acknowledged)
    finally:
        made.close()
