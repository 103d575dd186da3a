"""`penstock demo` at a terminal, as `make run` starts it: it ends with the dashboard, and live traffic flows in until Ctrl-C."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from terminal import PATIENCE, Terminal

from penstock.cli import execute

COUNTS = ("impressions", "clicks", "saves", "conversions")
LOADED = re.compile(r'(?:src|href)="([^"#:]+)"|\bfrom "(\./[^"]+)"')


@contextlib.contextmanager
def demo(on: str, events: int) -> Iterator[Terminal]:
    """A demo whose dashboard is open."""
    made = Terminal("demo", "--events", str(events), "--on", on, columns=300, environment={})
    try:
        made.read("Ctrl-C stops everything.")
        yield made
    finally:
        made.end()


def links(shown: str) -> list[str]:
    """The addresses that were shown, in their order."""
    return re.findall(r"http://\S+?(?=[.,;]?\s)", shown)


def until(what: Callable[[], Any]) -> Any:
    """What a call returns, once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.2)
    return found


def free(address: str) -> bool:
    """Whether nobody listens there any more."""
    try:
        httpx.get(f"{address}/health", timeout=5)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        pass
    return False


def printed(shown: str, title: str) -> list[dict[str, Any]]:
    """The table under a title, as the API has its rows."""
    after = shown[shown.index(f"\n{title}\r\n") :].split("\r\n")[1:]
    columns, rows = after[0].split(), []
    for line in after[2:]:
        if not line.strip():
            return rows
        cells = dict(zip(columns, line.replace(",", "").split()))
        rows.append({name: value if name == "country" else Decimal(value) for name, value in cells.items()})
    raise AssertionError("the table does not end")


def test_the_demo_ends_on_a_dashboard_whose_numbers_grow_until_ctrl_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = f"local:{tmp_path / 'demo'}"
    with demo(on, 5000) as shown:
        text = shown.shown
        assert "All numbers agree." in text and f"penstock serve --on {on}" in text
        page, day, documentation = links(text)[-3:]
        address = page.partition("/dashboard?")[0]
        key = urlsplit(page).fragment.removeprefix("key=")
        with httpx.Client(base_url=address, timeout=PATIENCE) as client:
            _the_page_and_all_that_it_loads(client, page)
            assert client.get(documentation).status_code == 200

            def ask(**asked: Any) -> Any:
                answer = client.get("/v1/rollups/by_advertiser/query", params=asked, headers={"Authorization": f"Bearer {key}"})
                assert answer.status_code == 200, answer.text
                return answer.json(parse_float=Decimal)

            linked = {name: value for name, [value] in parse_qs(urlsplit(day).query).items()}
            span = {"start": linked["start"], "end": "2026-03-03", "timezone": linked["tz"]}
            assert linked["start"] == linked["end"] == "2026-03-02"

            def live() -> int:
                rows = ask(range="last_60m", measures=",".join(COUNTS))["rows"]
                return sum(rows[0][name] for name in COUNTS) if rows else 0

            first = until(live)
            until(lambda: live() > first)
            # Now that the newest event is one of today, however long after the demo's own.
            measures = "impressions,clicks,ctr,spend,reach"
            rows = ask(**span, by="country", order="-impressions", limit=8, measures=measures)["rows"]
            wanted = printed(text, "by country")
            assert [{**row, "ctr": round(row["ctr"], 4)} for row in rows] == wanted and len(wanted) == 8
            assert ask(**span, interval=linked["interval"])["rows"]
        assert execute(["demo", "--events", "10", "--no-serve", "--on", on]) == 2
        assert "another demo runs in" in capsys.readouterr().err
        shown.type("\x03")
        rest = shown.read()
        assert shown.process.wait(PATIENCE) == 0
        assert "stopping: making durable what was taken" in rest and "Traceback" not in rest
        assert free(address)
    assert execute(["demo", "--events", "10", "--no-serve", "--keep", "--on", on]) == 2
    assert "live traffic has flowed" in capsys.readouterr().err


def _the_page_and_all_that_it_loads(client: httpx.Client, page: str) -> None:
    """What the page names, and what its scripts import."""
    todo, seen = [page.partition("#")[0]], set()
    while todo:
        url = todo.pop()
        answer = client.get(url)
        assert answer.status_code == 200 and answer.content, url
        seen.add(urlsplit(url).path)
        if "/dashboard/chart/" not in url and "/docs" not in url:  # what others wrote is not followed
            named = [str(answer.url.join(one or other)) for one, other in LOADED.findall(answer.text)]
            todo += [one for one in named if urlsplit(one).path not in {*seen, *(urlsplit(each).path for each in todo)}]
    assert {"/dashboard/assets/app.js", "/dashboard/assets/chart.js", "/dashboard/chart/uPlot.iife.js"} <= seen


def test_it_does_not_outlive_its_terminal(tmp_path: Path) -> None:
    with demo(f"local:{tmp_path / 'demo'}", 200) as shown:
        address = links(shown.shown)[-1].removesuffix("/docs")
        assert not free(address)
        shown.hang_up()
        shown.process.wait(PATIENCE)
        assert free(address)
