"""What tests of the query API share: a deployment with the numbers of two sites, of which one must never see the other's, and its application."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent / "contract"))
from query_world import BEGIN, DAY, HOUR, MINUTE, World, by_site, events, expected, iso

from penstock.deployment import Deployment
from penstock.serve.app import create_app
from penstock.serve.scope import Scope
from penstock.serve.service import Service

__all__ = ["BEGIN", "DAY", "HOUR", "OURS", "SECRET_COST", "SECRET_COUNTRY", "THEIRS", "Served", "expected", "iso"]

OURS, THEIRS = "shoes", "bakery"
SECRET_COUNTRY, SECRET_COST = "Zembla", "7777777.7777"  # of the other site alone: not to be found in any answer to ours


class Still(Deployment):
    """A local deployment whose clock the test sets."""

    clock = BEGIN + 6 * DAY

    def now(self) -> int:
        """The clock, microseconds since 1970."""
        return self.clock


class Served:
    """A served deployment with five days of visits of both sites. settings: of `[test.serve]`."""

    def __init__(self, folder: Path, count: int = 3000, **settings: Any) -> None:
        self.deployment = Still("test", {"local": str(folder), "serve": settings})
        self.world = World(self.deployment.table, partitions=2, rollup=by_site())
        for partition in range(2):
            made = [self.of(one) for one in events(partition, count // 2)]
            for start in range(0, len(made), 500):
                self.world.produce(partition, made[start : start + 500])
                self.world.count(partition)
        self.service = Service(self.deployment)
        self.app: FastAPI = create_app(self.service)

    @staticmethod
    def of(event: dict[str, Any]) -> dict[str, Any]:
        """The event as one of either site; the other's is easy to recognise in whatever it may leak into."""
        if event["site"] == "a":
            return {**event, "site": OURS}
        return {**event, "site": THEIRS, "country": SECRET_COUNTRY, "cost": SECRET_COST, "status": 404}

    def add(self, count: int = 50) -> None:
        """More events of both sites, after all that there are."""
        at = max(one["ts"] for one in self.world.counted)
        for partition in range(2):
            made = [{**self.of(one), "ts": at + MINUTE + index} for index, one in enumerate(events(partition + at, count))]
            self.world.produce(partition, made)
            self.world.count(partition)

    def key(self, *entities: str, **options: Any) -> str:
        """The text of a new key that reaches some sites; all of them if none is named."""
        scope = Scope(options.pop("actions", ("read",)), entities={"site": entities} if entities else None, **options.pop("scope", {}))
        return self.service.keys.create("test", scope, **options)[0]

    def client(self, key: str | None = None, **options: Any) -> TestClient:
        """A client of the application in this process."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False, **options)

    def close(self) -> None:
        """Let go of everything."""
        self.service.close()
        self.deployment.close()
