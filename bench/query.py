"""`query-30d`: what a dashboard asks, of the roll-ups on HBase, beside DuckDB over the archive and PostgreSQL over the detail and over roll-up tables of its own.

10,000 advertisers and 30 days of ad events go through a topology into HBase and into the archive's Parquet files, and as they are into PostgreSQL. Two questions, each of one
advertiser after the other, drawn in proportion to the traffic that they have:

- `30d`: 30 days, a row a day;
- `24h`: 24 hours that end on some minute, a row a minute.

Each side answers all of it, windows without events as zeros, and all must give the same numbers:

- `penstock`: `Analytics.query`, over Thrift. Nothing that was answered is kept.
- `duckdb`: SQL over the archive's files, which it is told by name.
- `detail`: PostgreSQL, the events as they are, with an index on their time.
- `detail-indexed`: the same with an index on advertiser and time.
- `rollup`: PostgreSQL, a table of minutes and one of days, each with the primary key (advertiser, window), made and vacuumed beforehand.

PostgreSQL is asked by psycopg, prepared statements and binary results. A side is one client; `queries_per_second` is that of one client that is pinned to one core.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psycopg

from penstock import ArchiveBolt, By, Count, Decimal, Enum, Int, KafkaSpout, Ratio, Rollup, RollupBolt, Schema, Sum, Timestamp, Topology
from penstock.deployment import Deployment
from penstock.log.generate import TYPES
from penstock.model.units import DAY, HOUR, MINUTE, instant
from penstock.query import Analytics
from penstock.runner.local import LocalRunner, prepare

from bench.measure import Bench, BenchError
from bench.suite import Result, short
from bench.workload import START, Workload

NAME = "query-30d"
ADVERTISERS, DAYS, EVENTS = 10_000, 30, 4_000_000
FIRST = 1001  # the generator's first advertiser
QUESTIONS = {"penstock": 2000, "rollup": 2000, "detail-indexed": 1000, "detail": 60, "duckdb": 60}
PINNED = 3.0  # seconds in which the rate of one core is measured
OF_DETAIL, OF_ROLLUP = 10, 2  # the bars: p99 of both kinds of detail over ours, at least, and ours over the roll-up table's, at most
BEGIN = instant(START)
_SEED = 11

ads = Schema(
    "ads",
    time="ts",
    lateness="1d",
    key="advertiser",
    fields={
        "ts": Timestamp("ms"),
        "advertiser": Int(path="advertiser_id"),
        "user": Int(path="user_id"),
        "type": Enum(*TYPES),
        "campaign": Int(path="campaign_id"),
        "cost": Decimal(6, nullable=True),
    },
)
by_advertiser = Rollup(
    "by_advertiser",
    of=ads,
    entity="advertiser",
    measures={
        "impressions": Count(where={"type": "impression"}),
        "clicks": Count(where={"type": "click"}),
        "spend": Sum("cost"),
        "ctr": Ratio("clicks", "impressions"),
    },
    by=[By(keep={"1m": "60d", "1h": "90d", "1d": "5y"})],
)


class Queried(Topology):
    """Minutes, hours and days of each advertiser, and the detail."""

    live = KafkaSpout.spec(ads)
    rollups = RollupBolt.spec(live, [by_advertiser], flush="5s")
    detail = KafkaSpout.spec(ads)
    archive = ArchiveBolt.spec(detail)


@dataclasses.dataclass(frozen=True)
class Question:
    """An advertiser's numbers over [start, end), microseconds since 1970, by windows of `width`."""

    advertiser: int
    start: int
    end: int
    width: int


Numbers = list[tuple[int, int, int]]  # impressions, clicks and millionths of spend, of each window in turn
Ask = Callable[[Question], Any]


@dataclasses.dataclass(frozen=True)
class Side:
    """ask: the question and nothing else, timed. numbers: what came of it, in the one form of all sides."""

    ask: Ask
    numbers: Callable[[Any], Numbers]


def run(bench: Bench, settings: dict[str, Any], *, events: int | None = None) -> Result:
    """Measure. settings: of a deployment with HBase and PostgreSQL. Raises BenchError where two sides give other numbers."""
    total = events or EVENTS
    bench.say(f"{NAME}: {total:,} events of {ADVERTISERS:,} advertisers in {DAYS} days")
    with tempfile.TemporaryDirectory(dir=bench.directory) as folder, _deployment(settings, Path(folder)) as deployment:
        weights = _fill(bench, deployment, Workload(total, hours=DAYS * 24, users=1_000_000, advertisers=ADVERTISERS))
        with contextlib.ExitStack() as stack:
            sides = _sides(bench, stack, deployment)
            found = {kind: _measure(bench, kind, sides, weights, events is not None) for kind in ("30d", "24h")}
            rates = {side: {kind: _rate(sides[side], kind, weights, bench.cpu) for kind in found} for side in ("penstock", "rollup")}
    return _result(found, rates, total)


@contextlib.contextmanager
def _deployment(settings: dict[str, Any], folder: Path) -> Iterator[Deployment]:
    """The log and the archive in a folder, tables of its own in HBase, which are removed in the end."""
    import happybase

    prefix = f"bench_{os.getpid()}_{os.urandom(4).hex()}_"
    deployment = Deployment("bench", {"local": str(folder), "partitions": 2, "hbase": {**settings["hbase"], "prefix": prefix}})
    try:
        yield deployment
    finally:
        deployment.close()
        connection = happybase.Connection(settings["hbase"]["host"], settings["hbase"]["port"])
        for table in connection.tables():
            if table.startswith(prefix.encode()):
                connection.delete_table(table, disable=True)
        connection.close()


def _fill(bench: Bench, deployment: Deployment, workload: Workload) -> np.ndarray[Any, Any]:
    """Run the events through the topology. How many each advertiser has, from FIRST on."""
    began = time.perf_counter()
    deployment.log.create("ads", 2)
    workload.send(deployment.log, "ads")
    LocalRunner(Queried, deployment, prepare(Queried, deployment)).run(until_caught_up=True)
    bench.say(f"  in HBase and archived after {time.perf_counter() - began:.0f} s")
    files = _files(deployment)
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT advertiser, count(*) FROM read_parquet({files}) GROUP BY ALL").fetchall()
    counts = np.zeros(ADVERTISERS, np.int64)
    for advertiser, count in rows:
        counts[advertiser - FIRST] = count
    if counts.sum() != workload.events:
        raise BenchError(f"{NAME}: the archive has {counts.sum():,} of {workload.events:,} events")
    return counts / counts.sum()


def _files(deployment: Deployment) -> list[str]:
    archive = deployment.archive
    return [archive.location(entry.path) for hour in archive.hours("ads") for entry in archive.entries("ads", hour)]


def _sides(bench: Bench, stack: contextlib.ExitStack, deployment: Deployment) -> dict[str, Side]:
    files = _files(deployment)
    connection = stack.enter_context(psycopg.connect("", autocommit=True, prepare_threshold=1))
    began = time.perf_counter()
    schema = f"bench_{os.getpid()}"
    connection.execute(f"CREATE SCHEMA {schema}")
    stack.callback(lambda: connection.execute(f"DROP SCHEMA {schema} CASCADE"))
    connection.execute(f"SET search_path = {schema}")
    _load(connection, files)
    bench.say(f"  in PostgreSQL after {time.perf_counter() - began:.0f} s")
    over = stack.enter_context(duckdb.connect())
    over.execute("SET enable_object_cache = true")
    over.execute(f"CREATE VIEW ads AS SELECT * FROM read_parquet({files})")
    return {
        "penstock": _penstock(Analytics(deployment)),
        "duckdb": _duckdb(over),
        "detail": _postgres(connection, _DETAIL.format(table="detail")),
        "detail-indexed": _postgres(connection, _DETAIL.format(table="detail_indexed")),
        "rollup": _postgres(connection, _ROLLUP),
    }


def _load(connection: psycopg.Connection[Any], files: list[str]) -> None:
    """The detail, twice, and the roll-up tables, made of it by PostgreSQL itself."""
    for table in ("detail", "detail_indexed"):
        connection.execute(
            f'CREATE TABLE {table} (ts timestamptz, advertiser int, "user" bigint, type text, campaign int, cost numeric(18, 6))'
        )
    with duckdb.connect() as source, tempfile.NamedTemporaryFile(suffix=".csv") as file:
        source.execute(
            f"COPY (SELECT ts, advertiser, \"user\", type, campaign, cost FROM read_parquet({files}) ORDER BY ts) TO '{file.name}' (HEADER false)"
        )
        for table in ("detail", "detail_indexed"):
            with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy, open(file.name, "rb") as rows:
                while block := rows.read(1 << 20):
                    copy.write(block)
    connection.execute("CREATE INDEX ON detail (ts)")
    connection.execute("CREATE INDEX ON detail_indexed (advertiser, ts)")
    for table, unit in (("minutes", "minute"), ("days", "day")):
        connection.execute(
            f"CREATE TABLE {table} AS SELECT advertiser, date_trunc('{unit}', ts, 'UTC') AS at, count(*) FILTER (WHERE type = 'impression') AS impressions, "
            "count(*) FILTER (WHERE type = 'click') AS clicks, coalesce(sum(cost), 0) AS spend FROM detail GROUP BY 1, 2 ORDER BY 1, 2"
        )
        connection.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (advertiser, at)")
    connection.execute("VACUUM ANALYZE")


def _penstock(analytics: Analytics) -> Side:
    def ask(one: Question) -> Any:
        interval = "1d" if one.width == DAY else "1m"
        return analytics.query(
            "by_advertiser",
            entity=one.advertiser,
            start=one.start,
            end=one.end,
            interval=interval,
            measures=["impressions", "clicks", "spend"],
        )

    def numbers(answer: Any) -> Numbers:
        return [(row["impressions"], row["clicks"], round(row["spend"] * 1_000_000)) for row in answer.rows]

    return Side(ask, numbers)


def _of_rows(rows: list[tuple[Any, ...]]) -> Numbers:
    return [(impressions, clicks, round(spend * 1_000_000)) for _, impressions, clicks, spend in rows]


_DUCKDB = """
SELECT w.at, coalesce(impressions, 0), coalesce(clicks, 0), coalesce(spend, 0)
FROM (SELECT unnest(generate_series($start::TIMESTAMPTZ, $end::TIMESTAMPTZ - to_microseconds($width), to_microseconds($width))) AS at) w
LEFT JOIN (
    SELECT time_bucket(to_microseconds($width), ts, $start::TIMESTAMPTZ) AS at, count(*) FILTER (WHERE type = 'impression') AS impressions,
        count(*) FILTER (WHERE type = 'click') AS clicks, coalesce(sum(cost), 0) AS spend
    FROM ads WHERE advertiser = $advertiser AND ts >= $start::TIMESTAMPTZ AND ts < $end::TIMESTAMPTZ GROUP BY 1
) a ON a.at = w.at ORDER BY 1
"""


def _duckdb(connection: Any) -> Side:
    def ask(one: Question) -> Any:
        told = {"start": _utc(one.start), "end": _utc(one.end), "width": one.width, "advertiser": one.advertiser}
        return connection.execute(_DUCKDB, told).fetchall()

    return Side(ask, _of_rows)


_DETAIL = """
SELECT w.at, coalesce(impressions, 0), coalesce(clicks, 0), coalesce(spend, 0)
FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - %(width)s::interval, %(width)s::interval) w(at)
LEFT JOIN (
    SELECT date_bin(%(width)s::interval, ts, %(start)s::timestamptz) AS at, count(*) FILTER (WHERE type = 'impression') AS impressions,
        count(*) FILTER (WHERE type = 'click') AS clicks, coalesce(sum(cost), 0) AS spend
    FROM {table} WHERE advertiser = %(advertiser)s AND ts >= %(start)s AND ts < %(end)s GROUP BY 1
) a ON a.at = w.at ORDER BY 1
"""
_ROLLUP = """
SELECT w.at, coalesce(impressions, 0), coalesce(clicks, 0), coalesce(spend, 0)
FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - %(width)s::interval, %(width)s::interval) w(at)
LEFT JOIN (SELECT * FROM {table} WHERE advertiser = %(advertiser)s AND at >= %(start)s AND at < %(end)s) a ON a.at = w.at ORDER BY 1
"""


def _postgres(connection: psycopg.Connection[Any], statement: str) -> Side:
    texts = {width: statement.replace("{table}", "days" if width == DAY else "minutes") for width in (DAY, MINUTE)}
    widths = {DAY: "1 day", MINUTE: "1 minute"}
    cursor = connection.cursor(binary=True)

    def ask(one: Question) -> Any:
        told = {"start": _utc(one.start), "end": _utc(one.end), "width": widths[one.width], "advertiser": one.advertiser}
        return cursor.execute(texts[one.width], told).fetchall()

    return Side(ask, _of_rows)


def _utc(time_us: int) -> Any:
    import datetime as dt

    return dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(microseconds=time_us)


def _questions(kind: str, count: int, weights: Any) -> list[Question]:
    draw = np.random.default_rng(_SEED)
    advertisers = (FIRST + draw.choice(len(weights), count, p=weights)).tolist()
    if kind == "30d":
        return [Question(one, BEGIN, BEGIN + DAYS * DAY, DAY) for one in advertisers]
    ends = (BEGIN + draw.integers(DAY // MINUTE, DAYS * DAY // MINUTE, count) * MINUTE).tolist()
    return [Question(one, end - 24 * HOUR, end, MINUTE) for one, end in zip(advertisers, ends)]


def _measure(bench: Bench, kind: str, sides: dict[str, Side], weights: Any, few: bool) -> dict[str, list[float]]:
    """Seconds of every question, by side."""
    took: dict[str, list[float]] = {}
    known: dict[int, Numbers] = {}
    for side, one in sides.items():
        questions = _questions(kind, max(QUESTIONS.values()), weights)[: min(QUESTIONS[side], 200) if few else QUESTIONS[side]]
        for question in questions[:5]:
            one.ask(question)
        gc.collect()
        took[side] = []
        for number, question in enumerate(questions):
            began = time.perf_counter()
            answer = one.ask(question)
            took[side].append(time.perf_counter() - began)
            numbers = one.numbers(answer)
            if known.setdefault(number, numbers) != numbers:
                raise BenchError(f"{NAME}: {side} and penstock do not agree over {question}")
        p50, p95, p99 = (1e3 * value for value in np.percentile(took[side], (50, 95, 99)))
        bench.say(f"  {kind}, {side}: p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms")
    return took


def _rate(side: Side, kind: str, weights: Any, cpu: int | None) -> float:
    """Questions a second of one client on one core."""
    questions, before = _questions(kind, 5000, weights), os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        began, done = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < PINNED:
            side.ask(questions[done % len(questions)])
            done += 1
        return done / took
    finally:
        os.sched_setaffinity(0, before)


def _result(found: dict[str, dict[str, list[float]]], rates: dict[str, dict[str, float]], events: int) -> Result:
    def at(kind: str, side: str, percent: int) -> float:
        return float(np.percentile(found[kind][side], percent))

    times = {
        f"{kind}_p{percent}_ms": {side: round(1e3 * at(kind, side, percent), 2) for side in found[kind]}
        for kind in found
        for percent in (50, 95, 99)
    }
    return {
        "name": NAME,
        "baseline": "DuckDB over the archive, p99",
        "ratio": short(at("30d", "duckdb", 99) / at("30d", "penstock", 99)),
        "bar": OF_DETAIL,
        "events": events,
        **times,
        **{f"{kind}_of_detail": short(at(kind, "detail", 99) / at(kind, "penstock", 99)) for kind in found},
        **{f"{kind}_of_rollup": short(at(kind, "penstock", 99) / at(kind, "rollup", 99)) for kind in found},
        **{f"{kind}_queries_per_second": {side: round(rates[side][kind]) for side in rates} for kind in found},
        "24h_ratio": short(at("24h", "duckdb", 99) / at("24h", "penstock", 99)),
    }


__all__ = ["NAME", "run"]
