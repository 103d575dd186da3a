"""Roll-ups in every warehouse: which days are due, and that a day is loaded whole and once."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from warehouse_worlds import World

from penstock.errors import ConfigurationError, LoadError
from penstock.model import By, Count, Decimal, Enum, Int, Max, Ratio, Rollup, Schema, Sum, Timestamp, Uniques
from penstock.model.units import DAY, HOUR, instant
from penstock.warehouse.export import PartitionProgress
from penstock.warehouse.rollups import RollupTable, due_days, export_day, first_window, tables_of

D = instant("2015-05-17")
ADS = Schema(
    "ads",
    time="ts",
    lateness="1h",
    fields={
        "ts": Timestamp("ms"),
        "advertiser": Int(),
        "type": Enum("click", "save"),
        "user": Int(),
        "cost": Decimal(6, nullable=True),
    },
)
ROLLUP = Rollup(
    "by_advertiser",
    of=ADS,
    entity="advertiser",
    measures={
        "clicks": Count(),
        "spend": Sum("cost"),
        "dearest": Max("cost"),
        "reach": Uniques("user"),
        "each": Ratio("spend", "clicks"),
    },
    by=[By(keep={"1m": "3d", "1h": "90d"}), By("type", keep={"1h": "90d", "1d": "1y"})],
)
TABLES = {table.name: table for table in tables_of(ROLLUP)}
HOURLY, DAILY = TABLES["rollup_by_advertiser_type_1h"], TABLES["rollup_by_advertiser_type_1d"]


@pytest.fixture(params=["duckdb", "redshift"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "duckdb":
        return World("duckdb", tmp_path)
    return World("redshift", (request.getfixturevalue("s3"), request.getfixturevalue("redshift")))


def rows_of(table: RollupTable, clicks: int, *, entities: int = 3) -> Callable[[int, int], Iterable[pa.RecordBatch]]:
    """What a reader of the cells gives: rows in an order of its own, of every window."""

    def read(first: int, end: int) -> Iterable[pa.RecordBatch]:
        keys = [
            (time, entity, kind)
            for entity in reversed(range(entities))
            for time in range(first, end, table.width)
            for kind in ("save", "click")
        ]
        spend = decimal.Decimal("12345678901234567890123.000001")
        columns = {
            "advertiser": pa.array([entity for _, entity, _ in keys], pa.int64()),
            "type": pa.array([kind for _, _, kind in keys]),
            "time": pa.array([time for time, _, _ in keys], pa.timestamp("us")),
            "clicks": pa.array([clicks] * len(keys), pa.int64()),
            "spend": pa.array([spend] * len(keys), pa.decimal128(38, 6)),
            "dearest": pa.array([None] * len(keys), pa.decimal128(38, 6)),
            "reach": pa.array([7] * len(keys), pa.int64()),
            "each": pa.array([0.5] * len(keys), pa.float64()),
        }
        yield pa.record_batch(columns).slice(0, 5)
        yield pa.record_batch(columns).slice(5)

    return read


def test_granularities_of_whole_hours_are_tables() -> None:
    assert list(TABLES) == ["rollup_by_advertiser_1h", "rollup_by_advertiser_type_1h", "rollup_by_advertiser_type_1d"]
    dataset = HOURLY.dataset
    assert [(c.name, c.kind, c.precision, c.scale) for c in dataset.columns if c.kind == "decimal"] == [
        ("spend", "decimal", 38, 6),
        ("dearest", "decimal", 18, 6),
    ]
    assert [c.name for c in dataset.columns] == ["advertiser", "type", "time", "clicks", "spend", "dearest", "reach", "reach_error", "each"]
    assert (dataset.time, dataset.key) == ("time", "advertiser")


def test_a_measure_may_not_have_the_name_of_an_estimates_error() -> None:
    twice = Rollup(
        "r", of=ADS, entity="advertiser", measures={"reach": Uniques("user"), "reach_error": Count()}, by=[By(keep={"1h": "9d"})]
    )
    with pytest.raises(ConfigurationError, match="two columns 'reach_error'"):
        print(next(tables_of(twice)).dataset)


@pytest.mark.parametrize("table", [HOURLY, DAILY], ids=lambda table: table.name)
def test_a_day_is_loaded_whole_and_once_and_takes_the_place_of_what_was_there(world: World, table: RollupTable) -> None:
    archive, store = world.archive(), world.open()

    def export(day: int, clicks: int, final: bool, now: int) -> str:
        return export_day(archive, store, table, day, final, rows_of(table, clicks), now).outcome

    windows = DAY // table.width
    assert export(D, 1, False, 1) == "loaded"
    assert export(D + DAY, 1, True, 2) == "loaded"
    assert export(D, 1, False, 3) == "unchanged"
    assert export(D, 2, True, 4) == "loaded"  # what came late
    found = store.query(f"SELECT * FROM {table.name} ORDER BY time, advertiser, type").to_pylist()
    assert len(found) == 2 * windows * 6
    assert {row["clicks"] for row in found[: windows * 6]} == {2} and {row["clicks"] for row in found[windows * 6 :]} == {1}
    assert found[0] == {
        "advertiser": 0,
        "type": "click",
        "time": dt.datetime(2015, 5, 17),
        "clicks": 2,
        "spend": decimal.Decimal("12345678901234567890123.000001"),
        "dearest": None,
        "reach": 7,
        "reach_error": pytest.approx(1.04 / 2**5.5),
        "each": 0.5,
    }
    with pytest.raises(LoadError, match="no longer has all"):
        export(D, 3, False, 5)  # a final export is not followed by a provisional one
    assert [(row.hour, row.rows) for row in store.ledger(table.name)] == [(D, windows * 6), (D + DAY, windows * 6)]
    assert list(archive.files("_rollups")) == [] and world.left_over() == []


def test_a_day_without_a_row_is_remembered_as_loaded(world: World) -> None:
    store = world.open()
    assert export_day(world.archive(), store, DAILY, D, True, rows_of(DAILY, 1, entities=0), 1).outcome == "loaded"
    assert [(row.hour, row.rows) for row in store.ledger(DAILY.name)] == [(D, 0)]
    assert store.query(f"SELECT * FROM {DAILY.name}").num_rows == 0


def at(watermark: int | None, *, caught_up: int | None = None, partition: int = 0) -> PartitionProgress:
    return PartitionProgress(partition, watermark, 5, 5 if caught_up else 6, caught_up)


class Loaded:
    """A row of the ledger, as far as `due_days` looks."""

    def __init__(self, hour: int, end: int, loaded_at: int = 0) -> None:
        self.hour, self.loaded_at, self.ranges = hour, loaded_at, {"by_advertiser": [(0, end)]}


def test_a_day_is_due_when_all_partitions_are_past_its_end_and_lateness() -> None:
    def due(*progress: PartitionProgress, ledger: Any = (), now: int = 10 * DAY + D) -> list[tuple[int, bool]]:
        return due_days(HOURLY, progress, ledger, now, grace=0, first=D + 5 * HOUR)

    assert due() == [] and due(at(None)) == []
    assert due(at(D + DAY + HOUR - 1)) == []
    assert due(at(D + DAY + HOUR)) == [(D, True)]
    assert due(at(D + 3 * DAY), at(D + DAY, partition=1)) == []
    assert due(at(D + 2 * DAY + HOUR), at(D + 3 * DAY, partition=1)) == [(D, True), (D + DAY, True)]


def test_with_a_silent_partition_a_day_is_provisional_and_due_again_until_it_is_past() -> None:
    now = D + 9 * DAY
    silent = at(D, caught_up=now, partition=1)
    progress = (at(D + 2 * DAY), silent)
    assert due_days(HOURLY, progress, (), now, grace=0, first=D) == [(D, False)]
    assert due_days(HOURLY, progress, [Loaded(D, 1, now - HOUR)], now, grace=0, reload_interval=2 * HOUR) == []
    assert due_days(HOURLY, progress, [Loaded(D, 1, now - HOUR)], now, grace=0, reload_interval=HOUR) == [(D, False)]
    past = (at(D + 2 * DAY), at(D + 2 * DAY, partition=1))
    assert due_days(HOURLY, past, [Loaded(D, 1, now - HOUR)], now, grace=0, reload_interval=HOUR) == [(D, True)]
    assert due_days(HOURLY, past, [Loaded(D, 2)], now, grace=0) == []
    never_used = PartitionProgress(2, None, 0, 0, now)
    assert due_days(HOURLY, (*past, never_used), (), now, grace=0, first=D) == [(D, True)]


def test_days_that_are_no_longer_kept_whole_are_not_due() -> None:
    newest = D + 100 * DAY + 5 * HOUR
    days = [day for day, _ in due_days(HOURLY, [at(newest)], (), newest, grace=0, first=D)]
    assert days[0] == D + 11 * DAY and days[-1] == D + 99 * DAY


def test_the_first_window_is_the_oldest_of_all_batches() -> None:
    assert first_window(HOURLY, rows_of(HOURLY, 1)(D, D + DAY)) == D
    assert first_window(HOURLY, []) is None
