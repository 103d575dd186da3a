"""The exporter as a scheduler: failing hours, stores that do not answer, who leads, what is kept of it all."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.archive import Entry
from penstock.archive.memory import MemoryArchive
from penstock.errors import ConfigurationError, CorruptionError, LoadError, PenstockError, UnavailableError
from penstock.model.units import DAY, HOUR, MINUTE, SECOND, instant
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE
from penstock.table.memory import MemoryTable
from penstock.warehouse import Column, Dataset
from penstock.warehouse.duckdb import DuckDbWarehouse
from penstock.warehouse.export import ExportResult, PartitionProgress, merge_worthy
from penstock.warehouse.health import Failure, Health, health_of, note
from penstock.warehouse.lease import Lease, leader_of
from penstock.warehouse.metrics import PrometheusExportMetrics
from penstock.warehouse.schedule import Exporter, Feed, Options

H = instant("2015-05-17T10")
ADS = Dataset("ads", (Column("ts", "timestamp", False), Column("log_offset", "int", False)), "ts", None)
OTHER = dataclasses.replace(ADS, name="others")


class World:
    """Stores, and a clock that is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.archive, self.table = MemoryArchive(), MemoryTable()
        self.table.create(CONTROL_TABLE)
        self.warehouse: Any = DuckDbWarehouse(folder / "w.duckdb")
        self.at = H + 30 * DAY
        self.watermark = self.at
        self.said: list[str] = []
        self.looked: list[tuple[str, int]] = []

    def file(self, first: int, end: int, *, hour: int = H, dataset: Dataset = ADS) -> Entry:
        """A file of a row an offset."""
        table = pa.table(
            {
                "ts": pa.array([hour + n for n in range(end - first)], pa.timestamp("us")),
                "log_offset": pa.array(range(first, end), pa.int64()),
            }
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, store_schema=False)
        data, path = sink.getvalue(), f"{dataset.name}/hour={hour}/{first}-{end}.parquet"
        self.archive.write(path, data)
        entry = Entry(dataset.name, hour, path, "g-ads-i-0", first, end, end - first, len(data), hashlib.sha256(data).hexdigest())
        self.archive.add([entry])
        return entry

    def exporter(self, *datasets: Dataset, **options: Any) -> Exporter:
        """An exporter of the stores as they are now."""

        def feeds() -> Iterator[Feed]:
            yield Feed(self.archive, datasets or (ADS,), (PartitionProgress(0, self.watermark, 10, 20, None),))

        return Exporter("ads_topology", self.table, self.warehouse, feeds, lambda: self.at, Options(**options), say=self.said.append)

    def lease(self, owner: str = "me", silence: int = 60 * SECOND) -> Lease:
        """A lease of the exporters' lead."""
        return Lease(self.table, "ads_topology", owner, lambda: self.at, silence=silence)

    def follow(
        self, exporter: Exporter, rounds: int = 1, *, lease: Lease | None = None, after: Callable[[], None] = lambda: None
    ) -> list[ExportResult]:
        """What comes of following for some rounds: of loading, or of waiting for a store."""
        left = itertools.count(rounds - 1, -1)

        def sleep(seconds: float) -> None:
            self.at += round(max(seconds, 1) * SECOND)
            after()
            if next(left) <= 0:
                exporter.stop()

        exporter._sleep = sleep  # type: ignore[method-assign]
        return list(exporter.follow(lease or self.lease(), 30 * SECOND))

    @property
    def offsets(self) -> list[int]:
        """All rows loaded."""
        return self.warehouse.query("SELECT log_offset FROM ads ORDER BY 1").column(0).to_pylist()  # type: ignore[no-any-return]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Failing:
    """A store, some of whose calls fail."""

    def __init__(self, store: Any, fails: Callable[[str, tuple[Any, ...]], Exception | None]) -> None:
        self._store, self._fails = store, fails

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        def made(*arguments: Any, **named: Any) -> Any:
            problem = self._fails(name, arguments)
            if problem is not None and getattr(problem, "before", True):
                raise problem
            answer = call(*arguments, **named)
            if problem is not None:
                raise problem
            return answer

        return made


def outcomes(results: list[ExportResult]) -> list[tuple[int, str]]:
    return [((result.hour - H) // HOUR, result.outcome) for result in results]


def test_what_is_due_is_loaded_by_hour_across_datasets_and_then_nothing_is(world: World) -> None:
    world.file(0, 3, hour=H + HOUR)
    world.file(0, 3)
    world.file(0, 5, dataset=OTHER)
    results = world.follow(world.exporter(ADS, OTHER), rounds=3)
    assert [(result.dataset, result.hour) for result in results] == [("ads", H), ("others", H), ("ads", H + HOUR)]
    health = health_of(world.table, "ads_topology")
    assert health.last is not None and health.last[:3] == ("ads", H + HOUR, 3)
    assert health.grace == 2 * MINUTE and health.failed == {} and world.said == ["leads: it loads what is due"]


def test_what_becomes_due_while_it_follows_is_loaded(world: World) -> None:
    world.file(0, 3)
    world.watermark = H
    exporter = world.exporter()
    assert world.follow(exporter, rounds=2) == []

    def go_on() -> None:
        world.watermark = H + 2 * HOUR

    exporter = world.exporter()
    assert outcomes(world.follow(exporter, rounds=3, after=go_on)) == [(0, "loaded")]


def test_a_late_file_of_a_loaded_hour_is_loaded_after_the_floor_between_two_loads_and_not_before(world: World) -> None:
    world.file(0, 3)
    world.file(0, 2, hour=H + HOUR)
    exporter = world.exporter()
    assert outcomes(world.follow(exporter)) == [(0, "loaded"), (1, "loaded")]
    world.file(3, 5)
    rounds, at = [], world.at

    def look() -> None:
        rounds.append((world.at - at, len(world.offsets)))

    assert outcomes(world.follow(world.exporter(), rounds=60, after=look)) == [(0, "loaded")]
    assert all((rows == 7) == (since > 15 * MINUTE + 30 * SECOND) for since, rows in rounds if not 14 * MINUTE < since <= 16 * MINUTE), (
        rounds
    )


def test_an_hour_that_fails_backs_off_and_the_next_ones_go_on(world: World) -> None:
    world.file(0, 3)
    world.file(0, 3, hour=H + HOUR)
    tries: list[int] = []

    def fails(name: str, arguments: tuple[Any, ...]) -> Exception | None:
        if name == "load" and arguments[0].hour == H:
            tries.append(world.at)
            return LoadError("ads 2015-05-17T10: x.parquet is not there", hint="restore it")
        return None

    world.warehouse = Failing(world.warehouse, fails)
    results = world.follow(world.exporter(), rounds=40)
    assert [outcome for hour, outcome in outcomes(results) if hour == 1] == ["loaded"]
    waits = [(b - a) // SECOND for a, b in zip(tries, tries[1:])]
    assert 3 < len(tries) < 8 and waits == sorted(waits) and waits[-1] >= 4 * waits[0], waits
    [(key, failure)] = health_of(world.table, "ads_topology").failed.items()
    assert key == ("ads", H) and failure.tries == len(tries) and "x.parquet" in failure.error and failure.hint == "restore it"
    assert failure.since == tries[0] and failure.again - failure.at <= HOUR
    again = world.exporter()
    assert outcomes(list(again.once([task for task in again.tasks() if task.plan.due]))) == [(0, "failed")], "who asks for it gets it"


def test_a_failure_is_forgotten_once_the_hour_is_loaded_by_whomever(world: World) -> None:
    world.file(0, 3)
    note(world.table, "ads_topology", lambda health: health.failure("ads", H, LoadError("no"), world.at - DAY))
    assert outcomes(world.follow(world.exporter())) == [(0, "loaded")]
    assert health_of(world.table, "ads_topology").failed == {}
    note(world.table, "ads_topology", lambda health: health.failure("ads", H, LoadError("no"), world.at))
    assert world.follow(world.exporter()) == []
    assert health_of(world.table, "ads_topology").failed == {}


@pytest.mark.parametrize("call", ["ledger", "load", "prepare", "session"])
def test_a_store_that_does_not_answer_is_waited_for_and_no_hour_is_at_fault(world: World, call: str) -> None:
    for number in range(4):
        world.file(0, 3, hour=H + number * HOUR)
    left = [2]

    def fails(name: str, arguments: tuple[Any, ...]) -> Exception | None:
        if name == call and left[0]:
            left[0] -= 1
            return UnavailableError("the warehouse does not answer")
        return None

    world.warehouse = Failing(world.warehouse, fails)
    troubles = []
    results = world.follow(world.exporter(), rounds=4, after=lambda: troubles.append(health_of(world.table, "ads_topology").trouble))
    assert outcomes(results) == [(0, "loaded"), (1, "loaded"), (2, "loaded"), (3, "loaded")]
    assert troubles[0] is not None and troubles[0][0] == "the warehouse does not answer" and troubles[-1] is None
    assert world.said[1:] == ["waits for a store: the warehouse does not answer", "goes on: all stores answer again"]
    assert health_of(world.table, "ads_topology").failed == {}


def test_a_load_that_never_gets_an_answer_is_put_aside_while_others_do(world: World) -> None:
    world.file(0, 3)
    world.file(0, 3, hour=H + HOUR)

    def fails(name: str, arguments: tuple[Any, ...]) -> Exception | None:
        return UnavailableError("it takes too long") if name == "load" and arguments[0].hour == H else None

    world.warehouse = Failing(world.warehouse, fails)
    assert outcomes(world.follow(world.exporter(), rounds=3)) == [(0, "failed"), (1, "loaded")]


def test_a_table_that_does_not_answer_holds_up_nothing_but_the_lead(world: World) -> None:
    for number in range(3):
        world.file(0, 3, hour=H + number * HOUR)
    table, silent = world.table, [False]
    lease = world.lease()
    assert lease.take() is None
    world.table = Failing(table, lambda name, arguments: UnavailableError("no table") if silent[0] else None)  # type: ignore[assignment]
    exporter = world.exporter()
    loads = exporter.once(exporter.tasks())
    assert next(loads).outcome == "loaded"
    silent[0] = True
    assert [result.outcome for result in loads] == ["loaded", "loaded"]
    lease.release()


def test_a_dataset_that_the_warehouse_refuses_fails_once_and_the_others_are_loaded(world: World) -> None:
    for number in range(3):
        world.file(0, 3, hour=H + number * HOUR)
        world.file(0, 3, hour=H + number * HOUR, dataset=OTHER)

    def fails(name: str, arguments: tuple[Any, ...]) -> Exception | None:
        return ConfigurationError("column 'x' is no longer in the schema") if name == "prepare" and arguments[0] is OTHER else None

    world.warehouse = Failing(world.warehouse, fails)
    exporter = world.exporter(ADS, OTHER)
    results = list(exporter.once(exporter.tasks()))
    assert [(one.dataset, one.outcome) for one in results] == [
        ("ads", "loaded"),
        ("others", "failed"),
        ("ads", "loaded"),
        ("ads", "loaded"),
    ]


def test_a_bug_in_one_hour_does_not_hold_up_the_others(world: World) -> None:
    world.file(0, 3)
    world.file(0, 3, hour=H + HOUR)
    world.warehouse = Failing(
        world.warehouse, lambda name, arguments: ZeroDivisionError("oops") if name == "load" and arguments[0].hour == H else None
    )
    first, second = world.follow(world.exporter())
    assert first.error is not None and "ZeroDivisionError: oops" in first.error.message and second.outcome == "loaded"


def test_it_stops_after_the_hour_under_way(world: World) -> None:
    for number in range(3):
        world.file(0, 3, hour=H + number * HOUR)
    exporter = world.exporter()
    loads = exporter.follow(world.lease(), 30 * SECOND)
    next(loads)
    exporter.stop()
    assert list(loads) == []
    leader = leader_of(world.table, "ads_topology")
    assert leader is not None and leader.owner == "" and not leader.lives(world.at)


def test_hours_seen_to_be_loaded_rest_and_old_ones_rest_longer(world: World) -> None:
    for hours in (0, 24, 24 * 20, 24 * 20 + 1):
        world.file(0, 3, hour=H + hours * HOUR)
    exporter = world.exporter()
    list(exporter.once(exporter.tasks()))

    def looked() -> list[int]:
        return [(task.plan.hour - H) // HOUR for task in exporter.tasks(skip=True)]

    assert looked() == [0, 24, 480, 481] and looked() == []
    world.at += 5 * MINUTE
    assert looked() == [480, 481]
    world.at += 5 * HOUR
    assert looked() == [0, 24, 480, 481]
    assert [task.plan.state for task in exporter.tasks()] == ["loaded"] * 4


@pytest.mark.parametrize("seed", range(12))
def test_stores_that_fail_at_random_change_nothing_but_the_time_it_takes(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    world = World(tmp_path)
    real, archive, table = world.warehouse, world.archive, world.table
    for hour in range(4):
        for n in range(rng.randrange(1, 12)):
            world.file(100 * hour + 2 * n, 100 * hour + 2 * n + 2, hour=H + hour * HOUR)

    def fails(name: str, arguments: tuple[Any, ...]) -> Exception | None:
        if rng.random() > 0.15 or name == "location":
            return None
        problem = UnavailableError(f"{name}: no answer")
        problem.before = rng.random() < 0.5  # type: ignore[attr-defined]
        return problem

    world.warehouse, world.archive, world.table = (Failing(store, fails) for store in (real, archive, table))  # type: ignore[assignment]
    late = [0]

    def more() -> None:
        if rng.random() < 0.3 and late[0] < 5:
            keep, world.archive = world.archive, archive
            hour = rng.randrange(4)
            world.file(100 * hour + 50 + 2 * late[0], 100 * hour + 52 + 2 * late[0], hour=H + hour * HOUR)
            world.archive = keep
            late[0] += 1

    world.follow(world.exporter(reload_interval=0), rounds=60, after=more)
    world.warehouse, world.archive, world.table = real, archive, table
    exporter = world.exporter(reload_interval=0)
    list(exporter.once([task for task in exporter.tasks() if task.plan.due]))
    expected = sorted(n for hour in archive.hours("ads") for entry in archive.entries("ads", hour) for n in range(entry.first, entry.next))
    assert world.offsets == expected, f"seed {seed}"
    assert not [task for task in exporter.tasks() if task.plan.due]
    tables = world.warehouse.query("SELECT table_name FROM information_schema.tables ORDER BY 1").column(0).to_pylist()
    assert tables == ["ads", "penstock_datasets", "penstock_ledger", "penstock_lock"]


def test_files_are_merged_where_there_are_many_and_none_that_was_loaded(world: World) -> None:
    for n in range(6):
        world.file(n, n + 1)
    exporter = world.exporter(reload_interval=0)
    list(exporter.once(exporter.tasks()))
    assert len(world.archive.entries("ads", H)) == 6
    for n in range(6, 20):
        world.file(n, n + 1)
    first = world.archive.entries("ads", H)[:6]
    assert outcomes(list(exporter.once([task for task in exporter.tasks() if task.plan.due]))) == [(0, "loaded")]
    entries = world.archive.entries("ads", H)
    assert entries[:6] == first and len(entries) == 7 and entries[6].rows == 14 and world.offsets == list(range(20))
    [row] = world.warehouse.ledger("ads")
    assert merge_worthy(world.archive, "ads", H, row) == 0
    world.file(0, 20, hour=H + HOUR)
    list(world.exporter(merge=False).once(exporter.tasks()))
    assert not [task for task in exporter.tasks() if task.plan.due]


def test_a_merge_that_cannot_be_made_leaves_the_load_to_say_what_is_wrong(world: World) -> None:
    entries = [world.file(n, n + 1) for n in range(9)]
    world.archive._files[entries[4].path] = b"other bytes"
    exporter = world.exporter()
    [result] = exporter.once(exporter.tasks())
    assert result.outcome == "failed" and "4-5.parquet" in str(result.error)


# The lease.


def test_one_leads_the_other_stands_by_and_takes_over_when_the_first_gives_up(world: World) -> None:
    first, second = world.lease("first"), world.lease("second")
    assert first.take() is None and first.held
    other = second.take()
    assert other is not None and other.owner == "first" and not second.held
    assert first.take() is None
    first.release()
    assert not first.held and second.take() is None and second.held
    second.release()


def test_one_that_says_nothing_for_as_long_as_it_said_is_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    dead, second = world.lease("dead", silence=10 * SECOND), world.lease("second", silence=600 * SECOND)
    monkeypatch.setattr(dead, "_keep", lambda: None)  # as if its process had been killed
    assert dead.take() is None
    assert second.take() is not None
    clock[0] += 9.9
    assert second.take() is not None and dead.held
    clock[0] += 0.2
    assert not dead.held, "it may be followed now, and must know"
    assert second.take() is None and second.held
    other = dead.take()
    assert other is not None and other.owner == "second" and not dead.held
    second.release()


def test_one_that_goes_on_saying_so_is_never_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    first, second = world.lease("first", silence=10 * SECOND), world.lease("second")
    monkeypatch.setattr(first, "_keep", lambda: None)
    for _ in range(10):
        assert first.take() is None
        assert second.take() is not None
        clock[0] += 7
    first.release()


def test_the_lead_is_kept_while_a_load_takes_long(world: World) -> None:
    lease = world.lease("first", silence=SECOND // 10)
    assert lease.take() is None
    before = leader_of(world.table, "ads_topology")
    deadline = time.monotonic() + 20
    while (now := leader_of(world.table, "ads_topology")) and before and now.beat < before.beat + 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lease.release()


def test_an_answer_that_was_lost_costs_no_lead(world: World) -> None:
    lost = [True]

    def fails(name: str, arguments: tuple[Any, ...]) -> Exception | None:
        if name == "compare_and_set" and lost[0]:
            lost[0] = False
            problem = UnavailableError("no answer")
            problem.before = False  # type: ignore[attr-defined]
            return problem
        return None

    world.table = Failing(world.table, fails)  # type: ignore[assignment]
    lease = world.lease()
    with pytest.raises(UnavailableError):
        lease.take()
    assert not lease.held and lease.take() is None and lease.held
    lost[0] = True
    with pytest.raises(UnavailableError):
        lease.take()
    assert lease.take() is None and lease.held
    lease.release()


def test_a_lead_that_is_lost_ends_the_loading_before_the_next_hour(world: World) -> None:
    for number in range(3):
        world.file(0, 3, hour=H + number * HOUR)
    lease, exporter = world.lease("first"), world.exporter()
    loads = exporter.follow(lease, 30 * SECOND)
    assert next(loads).hour == H
    found = world.table.get(CONTROL_TABLE, [(b"exporter/ads_topology/leader", CONTROL_COLUMN)])[0]
    assert found is not None
    other = dataclasses.replace(leader_of(world.table, "ads_topology"), owner="other", pid=1, host="elsewhere")  # type: ignore[type-var]
    assert world.table.compare_and_set(CONTROL_TABLE, b"exporter/ads_topology/leader", CONTROL_COLUMN, found, other.encode())  # type: ignore[union-attr]
    assert lease.take() is not None
    exporter._sleep = lambda seconds: exporter.stop()  # type: ignore[method-assign]
    assert list(loads) == []
    assert len(world.warehouse.ledger("ads")) == 1


def test_a_leaders_cell_that_does_not_parse_is_an_error(world: World) -> None:
    world.table.compare_and_set(CONTROL_TABLE, b"exporter/ads_topology/leader", CONTROL_COLUMN, None, b"{}")
    with pytest.raises(CorruptionError, match="leader"):
        world.lease().take()


# The health.


def test_health_is_read_back_as_it_was(world: World) -> None:
    made = Health({("ads", H): Failure("no", None, 1, 2, 3, 4)}, ("out", 5), ("ads", H, 6, 7), 8, 9, 10)
    assert Health.decode(made.encode()) == made
    assert Health.decode(b"nonsense") == Health() and health_of(world.table, "none") == Health()


def test_two_that_note_at_once_both_are_heard(world: World) -> None:
    def between(health: Health) -> Health:
        if not health.failed:
            note(world.table, "x", lambda other: other.failure("ads", H, LoadError("a"), 1))
        return health.failure("ads", H + HOUR, LoadError("b"), 2)

    note(world.table, "x", between)
    assert {hour for _, hour in health_of(world.table, "x").failed} == {H, H + HOUR}


def test_the_cell_does_not_grow_with_the_hours_that_fail() -> None:
    health = Health()
    for number in range(2000):
        health = health.failure("ads", H + number * HOUR, LoadError("x" * 100), number)
    assert len(Health.decode(health.encode()).failed) == 500 and len(health.encode()) < 200_000


def test_pauses_between_tries_double_up_to_an_hour() -> None:
    health, pauses = Health(), []
    for number in range(12):
        health = health.failure("ads", H, PenstockError("no"), number)
        failure = health.failed["ads", H]
        pauses.append((failure.again - failure.at) // SECOND)
    assert pauses == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600, 3600]


def test_prometheus_is_told_what_is_due_what_failed_and_who_leads(world: World) -> None:
    from prometheus_client import REGISTRY

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(f"penstock_export_{name}", labels)

    told = dataclasses.replace(ADS, name="told")
    world.file(0, 3, dataset=told)
    world.file(0, 2, hour=H + HOUR, dataset=told)
    world.warehouse = Failing(
        world.warehouse, lambda name, arguments: LoadError("no") if name == "load" and arguments[0].hour == H + HOUR else None
    )
    exporter = world.exporter(told)
    exporter._metrics = PrometheusExportMetrics({"port": 9400})
    world.follow(exporter, rounds=2)
    assert value("loads_total", dataset="told", outcome="loaded") == 1
    assert value("loads_total", dataset="told", outcome="failed") == 2, "at once, and half a minute later"
    assert value("rows_total", dataset="told") == 3 and value("load_seconds_count", dataset="told") == 1
    assert value("hours", dataset="told", state="due") == value("hours", dataset="told", state="failed") == 1
    assert value("newest_hour_seconds", dataset="told") == H / 1e6
    assert value("lag_seconds", dataset="told") == 30 * 86_400 - 2 * 3600 + 30
    assert (value("leads"), value("waits")) == (1, 0)
    assert PrometheusExportMetrics({"port": 9400}).port == 9399 and PrometheusExportMetrics({"port": 1, "export_port": 5}).port == 5
