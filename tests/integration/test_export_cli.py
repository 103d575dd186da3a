"""`penstock export` as a user runs it: every accepted event of the log is in the warehouse once, whatever happens on the way."""

from __future__ import annotations

import functools
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ad_oracle import FIELDS, FITS
from exports import STORES, TOPOLOGY, WHEN, World, interrupt, running, said, toml, until

from penstock.cli.published import GenerationView
from penstock.demo.reconcile import judged, raw_records
from penstock.model.units import DAY, instant
from penstock.rollup.registry import Registry
from penstock.warehouse.duckdb import STEPS as DUCKDB_STEPS

if TYPE_CHECKING:
    from penstock.stack.redshift.faults import Control

EVENTS = 5000
embedded = pytest.mark.parametrize("world", ["embedded"], indirect=True)  # what differs by nothing but the time it takes


@pytest.fixture(params=list(STORES))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A deployment without an event."""
    text = toml("test", {"local": "data"})
    if request.param == "s3-redshift":
        text += toml("test.s3", request.getfixturevalue("s3")) + toml("test.redshift", request.getfixturevalue("redshift"))
    (tmp_path / "penstock.toml").write_text(text)
    yield World(tmp_path, request.param)


@pytest.fixture
def filled(world: World) -> World:
    """A deployment with events, rolled up and archived, and nothing loaded."""
    world.fill(EVENTS)
    return world


def event(ts: int, name: str) -> str:
    """An event as a line of JSON."""
    made = {"ts": ts // 1000, "event_id": name, "advertiser_id": 1001, "user_id": 1, "type": "click", "campaign_id": 10010}
    return json.dumps(made) + "\n"


def files_of(world: World, dataset: str, hour: str) -> list[str]:
    """The files of an hour."""
    with world.deployment() as deployment:
        [bolt] = [bolt for bolt in Registry(deployment.table).bolts() if bolt.endswith(".archive")]
        view = GenerationView(deployment.archive, Registry(deployment.table).published(bolt))
        return [entry.path for entry in view.entries(dataset, instant(hour))]


def test_followed_while_the_topology_runs_every_event_is_loaded_once(world: World) -> None:
    world.produce(EVENTS)
    run = world.start("run", TOPOLOGY)
    with running(run):
        until(lambda: "advertiser_analytics.archive" in world("status", code=None), run)
        export = world.start("export", TOPOLOGY, "--follow", "--every", "1s", *WHEN)
        with running(export):
            until(lambda: said(export), export)  # some hour is loaded
            world.produce(EVENTS // 2, seed=2)

            def done() -> bool:
                found = world.status()
                return not found["worst_lag"] and all(
                    one["hours_loaded"] and one["rows_loaded"] == one["rows_archived"] for one in found["datasets"] if one["hours_archived"]
                )

            until(done, run, export)
            [exporter] = world.status()["exporters"]
            assert exporter["leads"]["pid"] == export.pid
            interrupt(export)
        interrupt(run)
    assert world.check()["ads"] > EVENTS
    world.check_nothing_left()
    found = world.status()
    assert found["worst_export_lag_seconds"] == 0 and found["exporters"][0]["leads"] is None
    assert world.json("--due", *WHEN) == [], "running it again loads nothing"
    assert {one["outcome"] for one in world.json("--from", "2026-01-01")} == {"unchanged"}


def test_a_late_event_loads_exactly_its_hour_again_and_one_that_is_too_late_is_loaded_as_such(filled: World) -> None:
    first = filled.json("--due", *WHEN)
    assert {one["outcome"] for one in first} == {"loaded"} and len({one["hour"] for one in first if one["dataset"] == "ads"}) == 24
    before = filled.check()
    newest = instant("2026-03-02T23:30")
    late, too_late = instant("2026-03-02T05:30"), newest - 3 * DAY
    filled("produce", TOPOLOGY, "-", stdin=event(newest, "now") + event(late, "late") + event(too_late, "too late"))
    filled("run", TOPOLOGY, "--until-caught-up")
    held = filled.json("--due", "--grace", "0s")
    assert [one for one in held if one["hour"] == "2026-03-02T05"] == [], "the floor between two loads of an hour"
    planned = {(one["dataset"], one["hour"]): one for one in filled.json("--due", "--dry-run", "--grace", "0s")}
    assert planned["ads", "2026-03-02T05"]["state"] == "held" and not planned["ads", "2026-03-02T05"]["load"]
    again = filled.json("--due", *WHEN)
    assert sorted((one["dataset"], one["hour"], one["outcome"]) for one in [*held, *again]) == [
        ("ads", "2026-03-02T05", "loaded"),
        ("ads", "2026-03-02T23", "loaded"),
        ("ads_late", "2026-02-27T23", "loaded"),
    ]
    after = filled.check()
    assert (after["ads"] - before["ads"], after["ads_late"] - before["ads_late"]) == (2, 1)


def test_a_corrupt_and_a_missing_file_fail_their_hours_by_name_and_the_next_ones_go_on(filled: World) -> None:
    corrupt, missing = files_of(filled, "ads", "2026-03-02T04")[1], files_of(filled, "ads", "2026-03-02T07")[0]
    with filled.deployment() as deployment:
        kept = {path: deployment.archive.read(path) for path in (corrupt, missing)}
        data = kept[corrupt]
        deployment.archive.write(corrupt, data[:60] + bytes([data[60] ^ 255]) + data[61:])
        deployment.archive.remove([missing])
    out = filled("export", TOPOLOGY, "--due", *WHEN, code=1)
    failed = {line.split()[1]: line for line in out.splitlines() if " failed: " in line}
    assert set(failed) == {"2026-03-02T04", "2026-03-02T07"}
    assert corrupt.rsplit("/", 1)[1] in failed["2026-03-02T04"] and missing.rsplit("/", 1)[1] in failed["2026-03-02T07"]
    assert "ads 2026-03-02T23 loaded" in out and "Traceback" not in filled.err
    with filled.deployment() as deployment:
        hours = deployment.warehouse.query("SELECT DISTINCT extract(hour FROM ts) AS h FROM ads").column(0).to_pylist()
    assert sorted(map(int, hours)) == [hour for hour in range(24) if hour not in (4, 7)], "nothing of a failed hour"
    [ads] = [one for one in filled.status()["datasets"] if one["dataset"] == "ads"]
    assert [one["hour"] for one in ads["failed"]] == ["2026-03-02T04", "2026-03-02T07"] and corrupt.rsplit("/", 1)[1] in ads["failed"][0][
        "error"
    ]
    assert ads["hours_due"] == 2 and ads["export_lag_seconds"] > 0
    filled("status", "--fail-export-lag", "1h", code=3)
    with filled.deployment() as deployment:
        for path, data in kept.items():
            deployment.archive.write(path, data)
    assert sorted(one["hour"] for one in filled.json("--due", *WHEN)) == ["2026-03-02T04", "2026-03-02T07"]
    filled.check()
    assert [one["failed"] for one in filled.status()["datasets"]] == [[], [], []]
    filled("status", "--fail-export-lag", "1h")


def test_killed_at_every_step_of_a_load_and_followed_by_the_next_one_every_event_is_loaded_once(filled: World) -> None:
    if filled.kind == "embedded":
        steps: tuple[str, ...] = DUCKDB_STEPS
    else:
        from penstock.warehouse.redshift import STEPS as steps
    for number, step in enumerate(steps):
        follow = ("--follow", "--every", "200ms", "--lease", "400ms") if number % 2 else ("--due",)
        assert filled.dying(step, 1 + number % 2, *follow, *WHEN) == -signal.SIGKILL, step
    filled.json("--due", *WHEN)
    assert filled.check()["ads"] > EVENTS * 0.9
    filled.check_nothing_left()
    assert filled.json("--due", *WHEN) == []


@embedded
def test_killed_at_random_moments_every_event_is_loaded_once(filled: World) -> None:
    seed = 7
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(6):
        export = filled.start("export", TOPOLOGY, "--follow", "--every", "200ms", "--lease", "300ms", *WHEN)
        with running(export):
            until(functools.partial(leads, export), export)
            time.sleep(rng.random() * 0.6)
            export.send_signal(signal.SIGKILL)
            export.communicate()
    filled.json("--due", *WHEN)
    filled.check()
    filled.check_nothing_left()
    assert filled.json("--due", *WHEN) == []


@pytest.mark.parametrize("world", ["s3-redshift"], indirect=True)
def test_through_conflicts_and_lost_connections_at_random_every_event_is_loaded_once(world: World, redshift_faults: Control) -> None:
    """One statement in 30 fails, or loses its connection before it took effect or after; each load is tried twice, and the export run until all is loaded."""
    seed = 8
    print(f"seed {seed}")
    settings = world.folder / "penstock.toml"
    settings.write_text(settings.read_text() + "attempts = 2\n")  # the last table is Redshift's
    for events in (EVENTS, EVENTS // 2):  # of the second ones, many come late for hours that are loaded by then
        world.fill(events, seed + events)
        faults = [
            redshift_faults.add(".", action, times=None, probability=1 / 90, seed=10 * seed + number)
            for number, action in enumerate(("1023", "drop-before", "drop-after"))
        ]
        failed = 0
        while (export := world.start("export", TOPOLOGY, "--due", *WHEN)).wait(240) != 0:
            failed += 1
            assert export.returncode == 1 and "Traceback" not in said(export, 1), said(export, 1)
            assert failed < 60, said(export, 1)
        assert all(redshift_faults.hits(fault) for fault in faults)
        redshift_faults.clear()
        world.check()
        world.check_nothing_left()
        assert world.json("--due", *WHEN) == []


@embedded
def test_of_two_that_follow_one_stands_by_and_takes_over_when_the_first_is_killed(filled: World) -> None:
    follow = ("export", TOPOLOGY, "--follow", "--every", "300ms", "--lease", "1s", "--json", *WHEN)
    first = filled.start(*follow)
    with running(first):
        until(lambda: said(first), first)
        second = filled.start(*follow)
        with running(second):
            until(lambda: "stands by" in said(second, 1), first, second)
            assert f"process {first.pid} on " in said(second, 1)
            first.send_signal(signal.SIGKILL)
            first.communicate()
            until(functools.partial(leads, second), second)
            until(lambda: not sum(one["hours_due"] for one in filled.status()["datasets"]), second)
            interrupt(second)
    loads = Counter((one["dataset"], one["hour"]) for out in (first, second) for one in map(json.loads, said(out).splitlines()))
    assert max(loads.values()) == 1
    filled.check()


def test_two_at_once_load_every_hour_once(filled: World) -> None:
    both = [filled.start("export", TOPOLOGY, "--from", "2026-01-01", "--json", "--no-merge") for _ in range(2)]
    with running(*both):
        for process in both:
            process.communicate(timeout=240)
            assert process.returncode == 0, said(process, 1)
    outcomes: dict[Any, Counter[str]] = {}
    for process in both:
        for one in map(json.loads, said(process).splitlines()):
            outcomes.setdefault((one["dataset"], one["hour"]), Counter())[one["outcome"]] += 1
    assert all(found == {"loaded": 1, "unchanged": 1} for found in outcomes.values())
    filled.check()


@embedded
def test_ranges_hours_datasets_and_what_is_refused(filled: World) -> None:
    plan = filled.json("--from", "2026-03-02T03", "--to", "2026-03-02T05", "--dataset", "ads", "--dry-run")
    assert [(one["hour"], one["load"]) for one in plan] == [("2026-03-02T03", True), ("2026-03-02T04", True)]
    assert plan[0]["rows"] > 0 and plan[0]["files"] > 0 and plan[0]["bytes"] > 0
    assert filled.status()["datasets"][0]["hours_loaded"] == 0, "a dry run loads nothing"
    table = filled("export", TOPOLOGY, "--due", "--dry-run")
    assert table.splitlines()[0].split() == ["dataset", "hour", "files", "rows", "size", "load", "why"] and "complete" in table
    loads = filled.json("--hour", "2026-03-02T03", "--hour", "2026-03-02T09", "--dataset", "ads")
    assert [(one["hour"], one["outcome"]) for one in loads] == [("2026-03-02T03", "loaded"), ("2026-03-02T09", "loaded")]
    assert "nothing of 2015-05-17T10 is archived" in refusal(filled, "--hour", "2015-05-17T10")
    assert "makes no dataset 'clicks'" in refusal(filled, "--due", "--dataset", "clicks")
    assert "not both" in refusal(filled, "--due", "--follow")
    assert "is not after" in refusal(filled, "--from", "2026-03-02", "--to", "2026-03-01")
    assert "say --hour" in refusal(filled)
    assert "'soon' is not a duration" in refusal(filled, "--due", "--grace", "soon")


def leads(export: Any) -> bool:
    """Whether it says that it does."""
    return "leads: it loads" in said(export, 1)


def refusal(world: World, *arguments: str) -> str:
    """What is said of arguments that cannot be meant."""
    world("export", TOPOLOGY, *arguments, code=2)
    return world.err


@embedded
def test_many_small_files_are_merged_before_a_load_and_none_that_was_loaded(filled: World) -> None:
    for seed in range(2, 12):  # a file a flush: each run makes at least one an hour and partition
        filled.produce(400, seed)
        filled("run", TOPOLOGY, "--until-caught-up")
    before = files_of(filled, "ads", "2026-03-02T20")
    filled.json("--hour", "2026-03-02T20", "--dataset", "ads")
    merged = files_of(filled, "ads", "2026-03-02T20")
    assert len(merged) < len(before) and any("-merged-" in path for path in merged)
    filled.json("--due", "--no-merge", *WHEN)
    assert files_of(filled, "ads", "2026-03-02T20") == merged
    assert not any("-merged-" in path for path in files_of(filled, "ads", "2026-03-02T19"))
    filled.check()
    assert filled.json("--due", *WHEN) == [], "a merge is no reason to load again"


@embedded
def test_roll_ups_are_loaded_by_day_and_hold_what_the_log_does(filled: World) -> None:
    loads = filled.json("--due", "--rollups", *WHEN)
    days = {one["dataset"]: one for one in loads if one["dataset"].startswith("rollup_")}
    assert len(days) == 7 and {one["outcome"] for one in loads} == {"loaded"}
    sql = "SELECT advertiser, epoch_us(time) // 3600000000, clicks, spend FROM rollup_by_advertiser_1h"
    with filled.deployment() as deployment, judged(raw_records(deployment, "ads"), FIELDS, FITS, "ts * 1000", DAY) as events:
        ours = Counter(tuple(row.values()) for row in deployment.warehouse.query(sql).to_pylist())
        expected = events.execute("""
            SELECT advertiser_id, event_time // 3600000000, count(*) FILTER (type = 'click'), coalesce(sum(cost), 0) FROM events
            WHERE verdict = 'accepted' AND event_time >= epoch_us(TIMESTAMP '2026-03-02') GROUP BY ALL""").fetchall()
    assert ours == Counter(expected)
    assert filled.json("--due", "--rollups", "--grace", "0s") == [], "the floor between two loads of a day"
    assert {one["outcome"] for one in filled.json("--due", "--rollups", *WHEN)} == {"unchanged"}
