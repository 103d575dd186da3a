"""What the browser's tests look at: an advertiser's two weeks up to now, counted by a running topology and served, all in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from penstock.deployment import Deployment
from penstock.log.producer import Producer
from penstock.serve.keys import KeyStore
from penstock.serve.scope import Scope

OURS, THEIRS = 1001, 1002
HOUR, DAY = 3_600_000, 86_400_000  # milliseconds
DAYS = 16
PATIENCE = 120  # seconds after which a test gives up
COUNTS = {"impression": "impressions", "click": "clicks", "save": "saves", "conversion": "conversions"}
TOPOLOGY = "penstock.topologies.advertiser_analytics"


def made(now: int, count: int = 6000) -> list[dict[str, Any]]:
    """Events of both advertisers over DAYS days, more by day than by night and more of late, in the order of their time. now: milliseconds."""
    rng, found = random.Random(11), []
    for index in range(count):
        at = now - DAYS * DAY + int(DAYS * DAY * (index / count) ** 0.75)
        if rng.random() < (0.7 if (at // HOUR) % 24 < 7 else 0.1):
            continue
        found.append(event(rng, at, rng.choice((OURS, OURS, OURS, THEIRS)), index))
    found += [event(rng, now - HOUR + index * 4_000, OURS, count + index) for index in range(880)]
    return found


def event(rng: random.Random, at: int, advertiser: int, index: int) -> dict[str, Any]:
    """One ad event."""
    return {
        "ts": at,
        "event_id": f"e{index}",
        "advertiser_id": advertiser,
        "user_id": rng.randrange(2500),
        "type": rng.choices(tuple(COUNTS), (80, 12, 5, 3))[0],
        "campaign_id": rng.choice((7001, 7002, 7003, 7004)),
        "country": rng.choices(("DE", "FR", "NL", "US", "BR", "??"), (40, 25, 12, 30, 9, 2))[0],
        "device": rng.choices(("mobile", "desktop", "tablet"), (60, 30, 10))[0],
        "cost": f"{rng.randrange(40)}.{rng.randrange(10**6):06d}",
    }


def counted(events: list[dict[str, Any]], advertiser: int, start: int, end: int, by: str | None = None) -> dict[Any, dict[str, Any]]:
    """The oracle: what an advertiser's events from start to end (milliseconds) come to, by a field of theirs."""
    found: dict[Any, dict[str, Any]] = defaultdict(lambda: {**dict.fromkeys(COUNTS.values(), 0), "spend": Decimal(0)})
    for one in events:
        if one["advertiser_id"] == advertiser and start <= one["ts"] < end:
            group = found[one[by] if by else None]
            group[COUNTS[one["type"]]] += 1
            group["spend"] += Decimal(one["cost"])
    return dict(found)


class DashboardWorld:
    """A local deployment with its topology running and its server at `address`."""

    def __init__(self, folder: Path) -> None:
        self.on = f"local:{folder}"
        self.processes: list[subprocess.Popen[str]] = []
        self.events = made(int(time.time() * 1000))
        with Deployment.named(self.on) as deployment:
            deployment.log.create("ads", 2)
            with Producer(deployment.log, "ads") as producer:
                for one in self.events:
                    producer.send(json.dumps(one).encode(), key=str(one["advertiser_id"]).encode())
            keys = KeyStore(lambda: deployment.table, deployment.now)
            self.key = keys.create("Shoes Inc", Scope(("read",), entities={"advertiser": (str(OURS),)}), rate=100_000)[0]
            self.writer = keys.create("app", Scope(("write",), datasets=("ads",)), rate=100_000)[0]
        try:
            self._start("run", TOPOLOGY)
            line = self._line(self._start("serve", "--port", "0", out=subprocess.PIPE))
            found = re.search(r"https?://[0-9.:]+", line)
            assert found, line
            self.address = found[0]
            self.until(lambda: self._total() == sum(one["advertiser_id"] == OURS for one in self.events))
        except BaseException:
            self.close()
            raise

    def _start(self, *arguments: str, out: Any = subprocess.DEVNULL) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "penstock", *arguments, "--on", self.on]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PENSTOCK_TRACEBACK": ""})
        self.processes.append(process)
        return process

    def _line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline()

    def _total(self) -> int:
        with contextlib.suppress(httpx.TransportError, KeyError):
            found = self.query(range="last_30d", measures=",".join(COUNTS.values()))
            return sum(found["rows"][0][name] for name in COUNTS.values()) if found["rows"] else 0
        return -1

    def query(self, **asked: Any) -> Any:
        """The API's answer to our key."""
        return httpx.get(
            f"{self.address}/v1/rollups/by_advertiser/query", params=asked, headers={"Authorization": f"Bearer {self.key}"}, timeout=60
        ).json()

    def token(self) -> str:
        """A token for embedding, of our key."""
        made = httpx.post(f"{self.address}/v1/tokens", json={"lifetime": "5m"}, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)
        return str(made.json()["token"])

    def post(self, events: list[dict[str, Any]]) -> None:
        """Post events as an application does."""
        answer = httpx.post(f"{self.address}/v1/events/ads", json=events, headers={"Authorization": f"Bearer {self.writer}"}, timeout=60)
        assert answer.status_code == 200, answer.text
        self.events += events

    @staticmethod
    def until(holds: Any) -> None:
        """Wait until something holds; fail after PATIENCE seconds."""
        for _ in range(PATIENCE * 4):
            if holds():
                return
            time.sleep(0.25)
        raise AssertionError("it did not come to hold")

    def close(self) -> None:
        """Stop what was started."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def world(folder: Path) -> Iterator[DashboardWorld]:
    """A world, closed at the end."""
    found = DashboardWorld(folder)
    try:
        yield found
    finally:
        found.close()
