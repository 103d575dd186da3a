"""`penstock serve` in a process of its own: its command, its keys, live streams, the Python client, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve_world import BEGIN, DAY, OURS, THEIRS, Served, iso

from penstock.cli import execute
from penstock.client import AsyncRemoteAnalytics, RemoteAnalytics
from penstock.deployment import Deployment
from penstock.errors import AccessError, ConfigurationError, NotFoundError, QueryError, UnavailableError
from penstock.query import Analytics, Answer

DAYS: dict[str, Any] = {"start": iso(BEGIN), "end": iso(BEGIN + 5 * DAY)}
ANSWERED = 120  # seconds after which a test gives up


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("served"), 1000)
    yield made
    made.close()


@contextlib.contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server's address and process. It is stopped at the end if it runs still."""
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--on", f"local:{folder}", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PENSTOCK_TRACEBACK": ""}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"https?://[0-9.:]+", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        with httpx.Client(verify=False) as client:
            for _ in range(ANSWERED * 10):
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{found[0]}/ready").status_code == 200:
                        break
                time.sleep(0.1)
        yield found[0], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=ANSWERED)


@pytest.fixture(scope="module")
def url(served: Served) -> Iterator[str]:
    assert served.deployment.directory is not None
    with server(served.deployment.directory) as (address, _):
        yield address


def told(answer: Answer) -> Answer:
    """An answer without what the clock has a part in."""
    return dataclasses.replace(answer, incomplete=())


QUESTIONS: list[dict[str, Any]] = [
    {"interval": "1d"},
    {"by": ["country"], "order": "-users", "top": 2, "other": True, "totals": True, "measures": ["users", "spend", "ctr", "last"]},
    {"by": ("country", "status"), "where": {"status": {"ge": 300}}, "limit": 3, "offset": 1, "minimum_audience": 40},
    {
        "timezone": "Europe/Berlin",
        "interval": "1d",
        "compare": "previous_day",
        "start": iso(BEGIN + 2 * DAY - 3600 * 10**6)[:-1],
        "end": iso(BEGIN + 3 * DAY),
    },
    {"range": "last_2d", "now": BEGIN + 4 * DAY, "start": None, "end": None},
]


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_the_client_answers_as_analytics_beside_the_table_does(served: Served, url: str, question: dict[str, Any]) -> None:
    asked = {**DAYS, "entity": OURS, **question}
    with Deployment.named(f"local:{served.deployment.directory}") as deployment:
        wanted = told(Analytics(deployment).query("by_site", **asked))
    with Analytics.on(url, key=served.key()) as analytics:
        assert isinstance(analytics, RemoteAnalytics)
        found = told(analytics.query("by_site", **asked))
    assert found == wanted
    assert [list(map(type, row.values())) for row in found.rows] == [list(map(type, row.values())) for row in wanted.rows]
    assert found.to_arrow().equals(wanted.to_arrow())

    async def ask() -> Answer:
        async with AsyncRemoteAnalytics(url, key=served.key()) as client:
            return await client.query("by_site", **asked)

    assert told(asyncio.run(ask())) == wanted


def test_the_client_lists_and_trends_as_analytics_does(served: Served, url: str) -> None:
    local = Analytics(served.deployment)
    asked: dict[str, Any] = {"by": ["country"], "entity": OURS, "start": iso(BEGIN + 2 * DAY), "end": iso(BEGIN + 4 * DAY), "least": 0.1}
    with RemoteAnalytics(url, key=served.key()) as client:
        assert client.rollups() == local.rollups()
        assert client.trending("by_site", "views", **asked) == local.trending("by_site", "views", **asked)


def test_the_clients_errors_are_those_of_analytics(served: Served, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)
    with RemoteAnalytics(url, key=served.key(OURS)) as client:
        with pytest.raises(QueryError, match="interval: 'soon'") as caught:
            client.query("by_site", **DAYS, interval="soon")
        assert caught.value.hint
        with pytest.raises(AccessError, match="does not reach that site"):
            client.query("by_site", **DAYS, entity=THEIRS)
        with pytest.raises(NotFoundError, match="no roll-up"):
            client.query("nothing", **DAYS)
    with RemoteAnalytics(url, key="pk_wrong") as client, pytest.raises(AccessError):
        client.rollups()
    with pytest.raises(ConfigurationError, match="no key"):
        RemoteAnalytics(url)


def test_the_client_asks_again_what_could_not_be_answered() -> None:
    answers = [
        httpx.Response(503, headers={"Retry-After": "0"}),
        httpx.ConnectError("no"),
        httpx.Response(429),
        httpx.Response(200, json={"rollups": []}),
    ]

    def handle(_: httpx.Request) -> httpx.Response:
        one = answers.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def ask() -> Any:
        async with AsyncRemoteAnalytics("http://x", key="k", transport=httpx.MockTransport(handle), sleep=sleep) as client:
            return await client.rollups()

    assert asyncio.run(ask()) == [] and len(slept) == 3
    answers[:] = [httpx.ConnectError("no")] * 5
    with pytest.raises(UnavailableError, match="does not answer"):
        asyncio.run(ask())
    answers[:] = [httpx.Response(503, headers={"Retry-After": "3600"})]
    with pytest.raises(UnavailableError):
        asyncio.run(ask())


# Live.


def test_a_live_stream_grows_as_events_are_counted_and_ends_with_its_key(tmp_path: Path) -> None:
    served = Served(tmp_path, 400, refresh="1s")
    (tmp_path / "penstock.toml").write_text(f'[live]\nlocal = "{tmp_path}"\n[live.serve]\nrefresh = "1s"\n')
    key = served.key(OURS)
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--on", "live"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PENSTOCK_CONFIG": str(tmp_path / "penstock.toml")},
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://[0-9.:]+", process.stdout.readline())
        assert found is not None
        with RemoteAnalytics(found[0], key=key) as client:
            while True:
                with contextlib.suppress(UnavailableError):
                    client.rollups()
                    break
            answers = client.live("by_site", measures=["views"], minutes=5, clock="events")
            first = next(answers)
            assert first.entity == OURS and len(first.rows) == 5 + 1 or len(first.rows) == 5
            served.add(50)
            second = next(answers)
            assert second.as_of and first.as_of and second.as_of > first.as_of
            wanted = sum(
                one["site"] == OURS and one["kind"] == "view" and one["ts"] >= max(each["ts"] for each in served.world.counted) - 60 * 10**6
                for one in served.world.counted
            )
            assert sum(row["views"] for row in second.rows) >= wanted > 0
            served.service.keys.revoke(key.split("_")[1])
            with pytest.raises(AccessError):
                for _ in answers:
                    served.add(5)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=ANSWERED)
        served.close()


def test_a_live_stream_says_no_before_it_begins(served: Served, url: str) -> None:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {served.key(OURS)}"}) as client:
        for params, status in (({"entity": THEIRS}, 403), ({"measures": "vews"}, 422), ({"minutes": 0}, 422), ({"x": 1}, 422)):
            response = client.get("/v1/rollups/by_site/live", params=params)
            assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


def test_head_leaves_a_connection_in_order(served: Served, url: str) -> None:
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {served.key(OURS)}"}, limits=httpx.Limits(max_connections=1)
    ) as client:
        for path, params in (("/dashboard/assets/app.js", {}), ("/v1/rollups/by_site/query", DAYS), ("/v1/rollups/by_site/live", {})) * 2:
            head = client.head(path, params=params)
            assert head.content == b""
            if path.endswith("live"):
                assert (head.status_code, head.headers["allow"]) == (405, "GET")
                continue
            got = client.get(path, params=params)
            different = {name for name in {*got.headers, *head.headers} if got.headers.get(name) != head.headers.get(name)}
            assert head.status_code == got.status_code == 200 and different <= {"date", "transfer-encoding"}


# The command.


@pytest.mark.parametrize("which, options", [(signal.SIGINT, ()), (signal.SIGTERM, ("--workers", "2"))], ids=["Ctrl-C", "SIGTERM, workers"])
def test_it_stops_cleanly_while_somebody_watches(served: Served, which: signal.Signals, options: tuple[str, ...]) -> None:
    assert served.deployment.directory is not None
    with server(served.deployment.directory, *options) as (address, process):
        events: list[str] = []
        watching = threading.Event()

        def watch() -> None:
            with httpx.Client(headers={"Authorization": f"Bearer {served.key(OURS)}"}, timeout=ANSWERED) as client:
                with client.stream("GET", f"{address}/v1/rollups/by_site/live", params={"clock": "events"}) as response:
                    for line in response.iter_lines():
                        if line.startswith("event:"):
                            events.append(line)
                            watching.set()

        thread = threading.Thread(target=watch)
        thread.start()
        assert watching.wait(ANSWERED)
        process.send_signal(which)
        _, said = process.communicate(timeout=ANSWERED)
        thread.join(ANSWERED)
        assert events == ["event: answer", "event: bye"]
        assert process.returncode == 130 and "Traceback" not in said and said.strip().endswith("interrupted")


def test_a_port_that_is_taken_is_a_mistake_that_is_said(url: str, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    port = url.rpartition(":")[2]
    assert execute(["serve", "--port", port, "--on", f"local:{served.deployment.directory}"]) == 2
    assert f"port {port} of 127.0.0.1 is taken" in capsys.readouterr().err


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "fastapi" else found(name, *rest))
    assert execute(["serve", "--port", "0"]) == 2
    assert "pip install 'penstock[serve]'" in capsys.readouterr().err


def test_keys_are_made_listed_and_revoked_and_tokens_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = ["--on", f"local:{tmp_path}"]
    assert (
        execute(
            [
                "serve",
                "keys",
                "create",
                "--name",
                "Shoes",
                "--entity",
                "site=shoes",
                "--entity",
                "site=boots",
                "--expires",
                "90d",
                "--rate",
                "60",
                *on,
            ]
        )
        == 0
    )
    text, said = capsys.readouterr()
    id = text.split("_")[1]
    assert re.fullmatch(r"pk_[0-9a-f]{12}_\S{43}\n", text) and "cannot be shown again" in said and text.strip() not in said
    assert execute(["serve", "keys", "list", "--json", *on]) == 0
    [listed] = json.loads(capsys.readouterr().out)
    assert (listed["id"], listed["state"], listed["scope"], listed["rate"]) == (
        id,
        "active",
        {"actions": ["read"], "entities": {"site": ["shoes", "boots"]}},
        60,
    )
    assert "digest" not in listed
    assert execute(["serve", "token", "--key", id, "--entity", "site=shoes", "--for", "5m", "--json", *on]) == 0
    assert json.loads(capsys.readouterr().out)["token"].count(".") == 2
    assert execute(["serve", "token", "--key", id, "--entity", "site=other", *on]) == 2
    assert "is beyond the key's entities" in capsys.readouterr().err
    assert execute(["serve", "keys", "revoke", id, *on]) == 0
    assert execute(["serve", "keys", "list", *on]) == 0
    assert "revoked" in capsys.readouterr().out
    assert execute(["serve", "token", "--key", id, *on]) == 2
    for arguments in (["keys", "revoke", "0" * 12], ["keys", "create", "--name", "x", "--entity", "site"], ["token", "--key", "0" * 12]):
        assert execute(["serve", *arguments, *on]) == 2
        assert "error: " in capsys.readouterr().err
    assert execute(["serve", *on, "keys", "list"]) == 2
