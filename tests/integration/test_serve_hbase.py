"""`penstock serve` on HBase, of roll-ups that were run from Kafka: its answers are the events', and no key sees what is not its own."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import happybase
import httpx
import pytest
from cluster import toml

from penstock import KafkaSpout, RollupBolt, Topology
from penstock.deployment import Deployment
from penstock.log.producer import Producer
from penstock.runner.local import LocalRunner, prepare
from penstock.table.hbase import HBaseTable
from penstock.topologies.advertiser_analytics import ads, by_advertiser

pytestmark = pytest.mark.servers
OURS, THEIRS = 1001, 1002
COUNTS = {"impression": "impressions", "click": "clicks", "save": "saves", "conversion": "conversions"}
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000  # milliseconds
SPAN = 60 * HOUR  # of the events: their minutes are kept still
PATIENCE = 180  # seconds after which a test gives up
UTC, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")
SECRET = "PENSTOCK_TEST_SIGNING_KEY"


class Served(Topology):
    live = KafkaSpout.spec(ads)
    rollups = RollupBolt.spec(live, [by_advertiser], flush="1s")


class World:
    """A topic, tables and a server of the test's own on the stack's Kafka and HBase; there is no local folder."""

    def __init__(self, stack: dict[str, Any], folder: Path) -> None:
        mark = uuid.uuid4().hex[:8]
        self.settings: dict[str, Any] = {
            "partitions": 3,
            "topics": {"ads": f"ads-{mark}"},
            "kafka": stack["kafka"],
            "hbase": {**stack["hbase"], "prefix": f"s{mark}_", "regions": 4, "timeout": 60},
            "serve": {"refresh": "1s", "signing_key": {"env": SECRET}},
        }
        (folder / "penstock.toml").write_text(toml(self.settings, "hb"))
        self.environment = {**os.environ, "PENSTOCK_CONFIG": str(folder / "penstock.toml"), "PENSTOCK_ON": "hb", SECRET: "s" * 48}
        self.environment.pop("PENSTOCK_TRACEBACK", None)
        self.events: list[dict[str, Any]] = []
        self.now = int(time.time() * 1000) // MINUTE * MINUTE
        self.rng = random.Random(7)
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def run(self, first: int, last: int, count: int) -> None:
        """Make up events of both advertisers between two instants, in the order of their time, produce them and roll them up."""
        made = [self._event(first + (last - first) * index // count) for index in range(count)]
        with Deployment("hb", self.settings) as deployment:
            definitions = prepare(Served, deployment)
            with Producer(deployment.log, deployment.topic("ads")) as producer:
                for one in made:  # by the user: each advertiser has events in all partitions
                    producer.send(json.dumps(one).encode(), key=str(one["user_id"]).encode())
            LocalRunner(Served, deployment, definitions).run(until_caught_up=True)
        self.events += made

    def _event(self, at: int) -> dict[str, Any]:
        advertiser = self.rng.choice((OURS, OURS, THEIRS))
        return {
            "ts": at,
            "event_id": uuid.uuid4().hex,
            "advertiser_id": advertiser,
            "user_id": self.rng.randrange(900),
            "type": self.rng.choices(tuple(COUNTS), (80, 12, 5, 3))[0],
            "campaign_id": self.rng.randrange(3),
            "country": self.rng.choices(("DE", "FR", "NL", "US"), (40, 25, 15, 8))[0] if advertiser == OURS else "ZZ",
            "device": "mobile",
            "cost": f"{self.rng.randrange(40)}.{self.rng.randrange(10**6):06d}",
        }

    def start(self) -> None:
        """Start the server, and wait until its table answers."""
        command = [sys.executable, "-m", "penstock", "serve", "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://[0-9.:]+", line)
        assert found, line + self.process.stderr.read()
        self.url = found[0]
        assert httpx.get(f"{self.url}/ready", timeout=PATIENCE).status_code == 200

    def penstock(self, *arguments: str, code: int = 0) -> str:
        """A command's output."""
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *arguments], env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def client(self, key: str) -> Iterator[httpx.Client]:
        """A client with a key."""
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE) as made:
            yield made

    def close(self) -> None:
        """Stop the server, and drop the tables."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.communicate(timeout=PATIENCE)
        store, connection = (
            HBaseTable(self.settings["hbase"]),
            happybase.Connection(*(self.settings["hbase"][name] for name in ("host", "port"))),
        )
        for name in store.tables():
            connection.delete_table(self.settings["hbase"]["prefix"] + name, disable=True)
        connection.close()
        store.close()


@pytest.fixture(scope="module")
def world(stack: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(stack, tmp_path_factory.mktemp("hb"))
    try:
        made.run(made.now - SPAN, made.now, 4000)
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def ours(world: World) -> str:
    return world.penstock("serve", "keys", "create", "--name", "Shoes Inc", "--entity", f"advertiser={OURS}").strip()


def start_of(at: int, width: int, zone: ZoneInfo) -> str:
    """The window that an instant is in, as an answer writes it. width: a day, an hour or a minute."""
    local = dt.datetime.fromtimestamp(at / 1000, zone)
    if width == DAY:
        local = local.replace(hour=0, minute=0, second=0, microsecond=0)
    else:
        local = dt.datetime.fromtimestamp(at // width * width / 1000, zone)
    return local.isoformat().replace("+00:00", "Z")


def expected(
    events: list[dict[str, Any]], first: int, last: int, group: Callable[[dict[str, Any]], Any] = lambda event: None
) -> dict[Any, dict[str, Any]]:
    """The oracle: what our events from first to last come to, in groups."""
    found: dict[Any, dict[str, Any]] = {}
    for one in events:
        if one["advertiser_id"] == OURS and first <= one["ts"] < last:
            cell = found.setdefault(group(one), {**dict.fromkeys(COUNTS.values(), 0), "spend": Decimal(0), "users": set()})
            cell[COUNTS[one["type"]]] += 1
            cell["spend"] += Decimal(one["cost"])
            cell["users"].add(one["user_id"])
    return found


def same(row: dict[str, Any], wanted: dict[str, Any], error: float) -> bool:
    """Whether a row has these measures: exactly, but for the estimate."""
    exact = all(row[name] == wanted[name] for name in (*COUNTS.values(), "spend"))
    return exact and abs(row["reach"] - len(wanted["users"])) <= max(1, 5 * error * len(wanted["users"]))


def asked(client: httpx.Client, **question: Any) -> Any:
    """The answer to a question, its numbers exact."""
    response = client.get("/v1/rollups/by_advertiser/query", params=question)
    assert response.status_code == 200, response.text
    return response.json(parse_float=Decimal)


def text(at: int) -> str:
    """ISO 8601."""
    return dt.datetime.fromtimestamp(at / 1000, dt.timezone.utc).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("zone", [UTC, BERLIN], ids=str)
@pytest.mark.parametrize("interval, width", [("1d", DAY), ("1h", HOUR), ("1m", MINUTE)])
def test_windows_are_the_events(world: World, ours: str, zone: ZoneInfo, interval: str, width: int) -> None:
    first = world.now - (2 * HOUR if width == MINUTE else SPAN)
    if width == DAY:
        first = int(dt.datetime.fromtimestamp(first / 1000, zone).replace(hour=0, minute=0, second=0).timestamp() * 1000)
    first -= first % MINUTE if width == MINUTE else first % HOUR
    with world.client(ours) as client:
        answer = asked(client, start=text(first), end=text(world.now), interval=interval, timezone=str(zone))
    wanted = expected(world.events, first, world.now, lambda event: start_of(event["ts"], width, zone))
    rows = {row["time"]: row for row in answer["rows"]}
    assert len(rows) == len(answer["rows"]) and set(wanted) <= set(rows)
    error = float(answer["errors"]["reach"])
    for moment, row in rows.items():
        nothing = {**dict.fromkeys(COUNTS.values(), 0), "spend": Decimal(0), "users": set()}
        assert same(row, wanted.get(moment, nothing), error), (moment, row)
    assert answer["entity"] == OURS and answer["as_of"]


def test_groups_totals_the_top_and_the_time_before(world: World, ours: str) -> None:
    middle = world.now // HOUR * HOUR - 24 * HOUR
    span = {"start": text(middle), "end": text(middle + 24 * HOUR)}
    now = expected(world.events, middle, middle + 24 * HOUR, lambda event: event["country"])
    before = expected(world.events, middle - 24 * HOUR, middle, lambda event: event["country"])
    [every] = expected(world.events, middle, middle + 24 * HOUR).values()
    largest = sorted(now, key=lambda country: -now[country]["spend"])
    with world.client(ours) as client:
        full = asked(client, **span, by="country", order="-spend", totals=True)
        error = float(full["errors"]["reach"])
        assert [row["country"] for row in full["rows"]] == largest and len(largest) == 4
        assert all(same(row, now[row["country"]], error) for row in full["rows"]) and same(full["totals"], every, error)
        top = asked(client, **span, by="country", order="-spend", top=2, other=True)
        assert [row["country"] for row in top["rows"]] == largest[:2]
        assert top["other"][0]["spend"] == sum(now[country]["spend"] for country in largest[2:])
        compared = asked(client, **span, by="country", compare="previous_day", measures="clicks,spend")
        for row in compared["rows"]:
            country = row["country"]
            for name in ("clicks", "spend"):
                assert (row[name], row[f"{name}_previous"]) == (now[country][name], before[country][name])
                assert row[f"{name}_change"] == now[country][name] - before[country][name]
        where = asked(client, **span, where=json.dumps({"country": largest[1:3]}), measures="impressions")
        assert where["rows"] == [{"impressions": sum(now[country]["impressions"] for country in largest[1:3])}]
        # By campaign there are whole days alone.
        day = middle // DAY * DAY
        campaigns = expected(world.events, day, day + DAY, lambda event: (event["campaign_id"], event["country"]))
        found = asked(client, start=text(day), end=text(day + DAY), by="campaign,country")
        assert {(row["campaign"], row["country"]) for row in found["rows"]} == set(campaigns)
        assert all(same(row, campaigns[row["campaign"], row["country"]], error) for row in found["rows"])


def test_another_advertiser_is_refused(world: World, ours: str) -> None:
    span = {"start": text(world.now - SPAN), "end": text(world.now)}
    with world.client(ours) as client:
        for response in (
            client.get("/v1/rollups/by_advertiser/query", params={**span, "entity": THEIRS}),
            client.post("/v1/rollups/by_advertiser/query", json={**span, "entity": THEIRS}),
            client.put("/v1/saved/theirs", json={"rollup": "by_advertiser", **span, "entity": THEIRS}),
            client.get("/v1/rollups/by_advertiser/live", params={"entity": THEIRS}),
            client.post("/v1/tokens", json={"scope": {"entities": {"advertiser": [str(THEIRS)]}}}),
        ):
            assert response.status_code in (403, 422) and "ZZ" not in response.text and response.json()["detail"]
        token = client.post("/v1/tokens", json={"lifetime": "5m"}).json()["token"]
    with world.client(token) as client:
        assert asked(client, **span)["entity"] == OURS
        assert client.get("/v1/rollups/by_advertiser/query", params={**span, "entity": THEIRS}).status_code == 403


def test_keys_are_made_listed_and_revoked(world: World) -> None:
    made = json.loads(
        world.penstock("serve", "keys", "create", "--name", "ann", "--entity", f"advertiser={THEIRS}", "--expires", "2d", "--json")
    )
    with world.client(made["key"]) as client:
        assert client.get("/v1/me").json()["scope"]["entities"] == {"advertiser": [str(THEIRS)]}
        listed = {one["id"]: one for one in json.loads(world.penstock("serve", "keys", "list", "--json"))}
        assert listed[made["id"]]["state"] == "active" and "key" not in listed[made["id"]]
        world.penstock("serve", "keys", "revoke", made["id"])
        deadline = time.monotonic() + PATIENCE
        while (response := client.get("/v1/me")).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert response.status_code == 401 and "revoked" in response.json()["detail"]
    assert {one["id"]: one["state"] for one in json.loads(world.penstock("serve", "keys", "list", "--json"))}[made["id"]] == "revoked"
    world.penstock("serve", "keys", "revoke", "0" * 12, code=2)


def test_a_saved_query_is_answered_and_follows_what_is_committed(world: World, ours: str) -> None:
    span = {"start": text(world.now - HOUR), "end": text(world.now + DAY)}
    with world.client(ours) as client:
        assert client.put("/v1/saved/hour", json={"rollup": "by_advertiser", **span}).status_code == 200
        first = client.get("/v1/saved/hour/answer")
        [wanted] = expected(world.events, world.now - HOUR, world.now + DAY).values()
        answer = first.json(parse_float=Decimal)
        assert same(answer["rows"][0], wanted, float(answer["errors"]["reach"]))
        assert client.get("/v1/saved/hour/answer", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        with client.stream("GET", "/v1/rollups/by_advertiser/live", params={"minutes": 60}) as stream:
            lines = stream.iter_lines()
            versions = [next(line for line in lines if line.startswith("id: "))]
            world.run(world.now, int(time.time() * 1000), 300)
            versions.append(next(line for line in lines if line.startswith("id: ")))
            assert versions[0] != versions[1]
        [wanted] = expected(world.events, world.now - HOUR, world.now + DAY).values()
        deadline = time.monotonic() + PATIENCE
        while not same(answer["rows"][0], wanted, float(answer["errors"]["reach"])):
            assert time.monotonic() < deadline, (answer, wanted)
            time.sleep(0.2)
            answer = client.get("/v1/saved/hour/answer").json(parse_float=Decimal)
        assert client.get("/v1/saved/hour/answer", headers={"If-None-Match": first.headers["etag"]}).status_code == 200
