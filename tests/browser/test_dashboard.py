"""An advertiser's journey in a real Chromium: what is on the page equals what the API answers, and what the events themselves come to."""

from __future__ import annotations

import csv
import datetime as dt
import random
import re
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dashboard_world import COUNTS, OURS, PATIENCE, THEIRS, DashboardWorld, counted, event

pytestmark = pytest.mark.browser
WAIT = PATIENCE * 1000
ZONE = "Europe/Berlin"


@pytest.fixture
def page(chromium: Any, shop: DashboardWorld, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page of a browser that nobody has used; it must not log an error, nor ask another host for anything."""
    with_scheme = getattr(request, "param", "light")
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, locale="en-GB", timezone_id=ZONE, color_scheme=with_scheme, accept_downloads=True
    )
    context.set_default_timeout(WAIT)
    made, wrong = context.new_page(), []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda message: "Content Security Policy" in message.text and wrong.append(message.text))
    made.on(
        "request", lambda asked: asked.url.startswith(("http", "ws")) and not asked.url.startswith(shop.address) and wrong.append(asked.url)
    )
    yield made
    context.close()
    assert wrong == []


def opened(page: Any, shop: DashboardWorld, state: str = "") -> None:
    """The page with its numbers, opened with our key."""
    page.goto(f"{shop.address}/dashboard{state}#key={shop.key}")
    settled(page)


def settled(page: Any) -> None:
    """Wait until nothing is loading."""
    page.wait_for_selector("#breakdown tbody tr")
    DashboardWorld.until(lambda: page.evaluate("document.querySelector('[aria-busy=true]') === null"))


def tile(page: Any, name: str) -> Decimal:
    """The number that a tile stands for."""
    return Decimal(page.get_attribute(f"[data-measure={name}] .value", "data-value"))


def days(first: int, last: int) -> tuple[str, int, int]:
    """A link's dates, from so many days ago to so many, and where they begin and end in milliseconds."""
    zone = ZoneInfo(ZONE)
    today = dt.datetime.now(zone).date()
    start, end = today - dt.timedelta(days=first), today - dt.timedelta(days=last)
    edges = [int(dt.datetime.combine(day, dt.time(), zone).timestamp() * 1000) for day in (start, end + dt.timedelta(days=1))]
    return f"?range=custom&start={start}&end={end}", *edges


def test_a_key_opens_the_page_and_a_wrong_one_does_not(page: Any, shop: DashboardWorld) -> None:
    page.goto(f"{shop.address}/dashboard")
    page.fill("#key", "pk_of_nobody")
    page.click("text=Open >> nth=-1")
    page.wait_for_selector("text=That key is not valid here")
    page.fill("#key", shop.key)
    page.keyboard.press("Enter")
    settled(page)
    assert page.inner_text("h1") == f"Advertiser {OURS}"
    assert shop.key not in page.url and shop.key not in page.content()
    cookie = page.context.cookies()[0]
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    page.click("#leave")
    page.wait_for_selector("#key")
    assert page.context.cookies() == []


def test_a_token_in_the_link_opens_the_page_and_leaves_the_address(page: Any, shop: DashboardWorld) -> None:
    page.goto(f"{shop.address}/dashboard#token={shop.token()}")
    settled(page)
    assert "token" not in page.url and page.inner_text("h1") == f"Advertiser {OURS}"
    page.goto(f"{shop.address}/dashboard?range=today#token=not.a.token")
    page.wait_for_selector("text=is not valid here, or has expired")


def test_the_overview_equals_the_api_and_the_events(page: Any, shop: DashboardWorld) -> None:
    link, start, end = days(6, 1)
    opened(page, shop, link)
    assert "#" not in page.url
    oracle = counted(shop.events, OURS, start, end)[None]
    first, past = (dt.datetime.fromtimestamp(at / 1000, ZoneInfo(ZONE)).date().isoformat() for at in (start, end))
    answer = shop.query(start=first, end=past, timezone=ZONE)["rows"][0]
    for name in COUNTS.values():
        assert tile(page, name) == oracle[name] == answer[name] > 0
        assert page.inner_text(f"[data-measure={name}] .value").replace(",", "") == str(oracle[name])
    assert round(tile(page, "spend"), 6) == oracle["spend"] == round(Decimal(str(answer["spend"])), 6)
    reach = {one["user_id"] for one in shop.events if one["advertiser_id"] == OURS and start <= one["ts"] < end}
    assert abs(int(tile(page, "reach")) - len(reach)) <= 0.1 * len(reach) and "±" in page.inner_text("[data-measure=reach] .value")
    before = counted(shop.events, OURS, start - (end - start), start)[None]
    assert f"from {before['clicks']}" in page.inner_text("[data-measure=clicks] .moved")


def test_another_range_interval_and_measure_and_the_link_to_them(page: Any, shop: DashboardWorld) -> None:
    opened(page, shop)
    page.select_option("label:has-text('Time') >> nth=0 >> select", "yesterday")
    page.wait_for_url("**range=yesterday**")
    settled(page)
    page.click("[data-measure=clicks]")
    page.select_option("label:has-text('Every') select", "1h")
    settled(page)
    _, start, end = days(1, 1)
    oracle = counted(shop.events, OURS, start, end)[None]
    assert tile(page, "clicks") == oracle["clicks"]
    page.click("section[aria-labelledby=series-title] summary")
    rows = page.locator("section[aria-labelledby=series-title] tbody tr")
    assert rows.count() == round((end - start) / 3_600_000)
    assert sum(int(text.replace(",", "")) for text in rows.locator("td:nth-child(2)").all_inner_texts()) == oracle["clicks"]
    again = page.context.new_page()
    again.goto(page.url)
    settled(again)
    assert again.inner_text("#series-title") == "Clicks" and tile(again, "clicks") == oracle["clicks"]
    assert again.input_value("label:has-text('Every') select") == "1h"


def test_a_breakdown_by_country_and_its_file(page: Any, shop: DashboardWorld, tmp_path: Path) -> None:
    link, start, end = days(6, 1)
    opened(page, shop, link)
    page.click(".tabs >> text=Country")
    settled(page)
    oracle = counted(shop.events, OURS, start, end, "country")
    shown = {}
    for row in page.locator("#breakdown tbody tr").all():
        cells = {name: row.locator(f"[data-column={name}]").inner_text().replace(",", "") for name in (*COUNTS.values(), "spend")}
        shown[row.locator("th").inner_text().replace("Unknown", "??")] = cells
    assert set(shown) == set(oracle)
    for country, numbers in oracle.items():
        assert {name: int(shown[country][name]) for name in COUNTS.values()} == {name: numbers[name] for name in COUNTS.values()}
        assert abs(Decimal(shown[country]["spend"]) - numbers["spend"]) <= Decimal("0.005")
    most = [int(cells["impressions"]) for cells in shown.values()]
    assert most == sorted(most, reverse=True)
    with page.expect_download() as waiting:
        page.click("#csv")
    waiting.value.save_as(tmp_path / "table.csv")
    saved = list(csv.DictReader((tmp_path / "table.csv").read_text("utf-8-sig").splitlines()))
    assert [one["country"] for one in saved] == list(shown)
    for one in saved:
        assert Decimal(one["spend"]) == oracle[one["country"]]["spend"]
        assert {name: one[name] for name in COUNTS.values()} == {name: shown[one["country"]][name] for name in COUNTS.values()}


def test_the_comparison_can_be_switched_off(page: Any, shop: DashboardWorld) -> None:
    opened(page, shop)
    assert page.locator(".tile .moved").count() > 0
    page.uncheck("#compare")
    page.wait_for_url("**compare=0**")
    settled(page)
    assert page.locator(".tile .moved").count() == 0


def test_live_numbers_grow_as_events_are_posted(page: Any, shop: DashboardWorld) -> None:
    opened(page, shop, "?range=today&measure=saves")
    page.wait_for_selector(".dot.on")
    before, rng = int(page.get_attribute("#live-total", "data-value")), random.Random(5)
    now = int(time.time() * 1000)
    shop.post([{**event(rng, now - index * 10, OURS, 10**6 + index), "type": "save"} for index in range(40)])
    shop.until(lambda: int(page.get_attribute("#live-total", "data-value")) >= before + 30)
    last_hour = counted(shop.events, OURS, now - 59 * 60_000 - now % 60_000, now + 1)[None]["saves"]
    assert abs(int(page.get_attribute("#live-total", "data-value")) - last_hour) <= 3  # a minute may have gone by


def test_another_advertisers_page_is_refused(page: Any, shop: DashboardWorld) -> None:
    page.goto(f"{shop.address}/dashboard?entity={THEIRS}#key={shop.key}")
    page.wait_for_selector("text=This page is not open to you")
    assert page.locator(".tile").count() == 0
    page.click("text=Open your own page")
    settled(page)
    assert page.inner_text("h1") == f"Advertiser {OURS}"


def test_what_the_api_refuses_is_said_in_place(page: Any, shop: DashboardWorld) -> None:
    opened(page, shop)
    page.goto(f"{shop.address}/dashboard?range=last_90d&interval=1m")
    page.wait_for_selector(".failure")
    assert re.search("interval|1m|minute|3d", page.inner_text(".failure"))


def test_a_time_without_events_is_empty_and_not_wrong(page: Any, shop: DashboardWorld) -> None:
    page.goto(f"{shop.address}/dashboard?range=custom&start=2023-01-01&end=2023-01-07&tz=UTC#key={shop.key}")
    page.wait_for_selector("text=Nothing happened in this time")


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_nothing_serious_is_found_by_axe(page: Any, shop: DashboardWorld) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened(page, shop)
    page.wait_for_selector(".dot.on")
    for opened_too in ("signed in", "with tables", "signed out"):
        if opened_too == "with tables":
            for summary in page.locator("summary").all():
                summary.click()
        if opened_too == "signed out":
            page.click("#leave")
            page.wait_for_selector("#key")
        found = Axe().run(page).response["violations"]
        serious = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], opened_too


def test_dark_mode_is_a_button_and_is_kept(page: Any, shop: DashboardWorld) -> None:
    opened(page, shop)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    dark = page.evaluate(ground)
    assert dark != light and page.get_attribute("#theme", "aria-pressed") == "true"
    page.reload()
    settled(page)
    assert page.evaluate(ground) == dark


def test_a_phone_shows_all_of_it_without_scrolling_sideways(page: Any, shop: DashboardWorld) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    opened(page, shop)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
