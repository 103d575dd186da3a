"""The sides of `query-30d`: who is asked, and how. All give the same numbers for the same question."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import psycopg

from penstock.model.units import DAY, MINUTE
from penstock.query import Analytics

MEASURES = ("impressions", "clicks", "spend")
INTERVALS = {DAY: "1d", MINUTE: "1m"}
MILLIONTHS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Question:
    """An advertiser's numbers over [start, end), microseconds since 1970, by windows of `width`."""

    advertiser: int
    start: int
    end: int
    width: int


Numbers = list[tuple[int, int, int]]  # impressions, clicks and millionths of spend, of each window in turn


@dataclasses.dataclass(frozen=True)
class Side:
    """ask: the question, and all values of its answer in this process: what is timed. numbers: the same in the one form of all sides."""

    ask: Callable[[Question], Any]
    numbers: Callable[[Any], Numbers]


def penstock(analytics: Analytics) -> Side:
    """The roll-up, by `Analytics`. An answer's values lie in columns."""

    def ask(one: Question) -> Any:
        found = analytics.query(
            "by_advertiser", entity=one.advertiser, start=one.start, end=one.end, interval=INTERVALS[one.width], measures=MEASURES
        )
        return [found.column(name) for name in ("time", *MEASURES)]

    return Side(ask, lambda columns: [(shown, clicks, round(spend * MILLIONTHS)) for _, shown, clicks, spend in zip(*columns)])


def _of_rows(rows: list[tuple[Any, ...]]) -> Numbers:
    return [(impressions, clicks, round(spend * MILLIONTHS)) for _, impressions, clicks, spend in rows]


_DUCKDB = """
SELECT w.at, coalesce(impressions, 0), coalesce(clicks, 0), coalesce(spend, 0)
FROM (SELECT unnest(generate_series($start::TIMESTAMPTZ, $end::TIMESTAMPTZ - to_microseconds($width), to_microseconds($width))) AS at) w
LEFT JOIN (
    SELECT time_bucket(to_microseconds($width), ts, $start::TIMESTAMPTZ) AS at, count(*) FILTER (WHERE type = 'impression') AS impressions,
        count(*) FILTER (WHERE type = 'click') AS clicks, coalesce(sum(cost), 0) AS spend
    FROM ads WHERE advertiser = $advertiser AND ts >= $start::TIMESTAMPTZ AND ts < $end::TIMESTAMPTZ GROUP BY 1
) a ON a.at = w.at ORDER BY 1
"""


@contextlib.contextmanager
def over_archive(files: list[str]) -> Iterator[Side]:
    """The archive's files, by DuckDB, which keeps their footers in memory."""
    with duckdb.connect() as connection:
        connection.execute("SET enable_object_cache = true")
        connection.execute(f"CREATE VIEW ads AS SELECT * FROM read_parquet({files})")

        def ask(one: Question) -> Any:
            told = {"start": utc(one.start), "end": utc(one.end), "width": one.width, "advertiser": one.advertiser}
            return connection.execute(_DUCKDB, told).fetchall()

        yield Side(ask, _of_rows)


_DETAIL = """
SELECT w.at, coalesce(impressions, 0), coalesce(clicks, 0), coalesce(spend, 0)
FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - %(width)s::interval, %(width)s::interval) w(at)
LEFT JOIN (
    SELECT date_bin(%(width)s::interval, ts, %(start)s::timestamptz) AS at, count(*) FILTER (WHERE type = 'impression') AS impressions,
        count(*) FILTER (WHERE type = 'click') AS clicks, coalesce(sum(cost), 0) AS spend
    FROM {table} WHERE advertiser = %(advertiser)s AND ts >= %(start)s AND ts < %(end)s GROUP BY 1
) a ON a.at = w.at ORDER BY 1
"""
ROLLUP = """
SELECT w.at, coalesce(impressions, 0), coalesce(clicks, 0), coalesce(spend, 0)
FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - %(width)s::interval, %(width)s::interval) w(at)
LEFT JOIN (SELECT * FROM {table} WHERE advertiser = %(advertiser)s AND at >= %(start)s AND at < %(end)s) a ON a.at = w.at ORDER BY 1
"""
TABLES, WIDTHS = {DAY: "days", MINUTE: "minutes"}, {DAY: "1 day", MINUTE: "1 minute"}


@contextlib.contextmanager
def in_postgres(files: list[str], schema: str) -> Iterator[dict[str, Side]]:
    """PostgreSQL, found by the environment: the detail with an index on its time, with one on advertiser and time, and roll-up tables."""
    with psycopg.connect("", autocommit=True, prepare_threshold=1) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            connection.execute(f"SET search_path = {schema}")
            _load(connection, files)
            yield {
                "detail": _postgres(connection, _DETAIL.format(table="detail")),
                "detail-indexed": _postgres(connection, _DETAIL.format(table="detail_indexed")),
                "rollup": _postgres(connection, ROLLUP),
            }
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


def _load(connection: psycopg.Connection[Any], files: list[str]) -> None:
    """The detail, twice, in the order of time, and the roll-up tables, made of it by PostgreSQL itself."""
    columns = 'ts timestamptz, advertiser int, "user" bigint, type text, campaign int, cost numeric(18, 6)'
    with duckdb.connect() as source, tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "detail.csv")
        source.execute(
            f"COPY (SELECT ts, advertiser, \"user\", type, campaign, cost FROM read_parquet({files}) ORDER BY ts) TO '{file}' (HEADER false)"
        )
        for table in ("detail", "detail_indexed"):
            connection.execute(f"CREATE TABLE {table} ({columns})")
            with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy, open(file, "rb") as rows:
                while block := rows.read(1 << 20):
                    copy.write(block)
    connection.execute("CREATE INDEX ON detail (ts)")
    connection.execute("CREATE INDEX ON detail_indexed (advertiser, ts)")
    for width, table in TABLES.items():
        connection.execute(
            f"CREATE TABLE {table} AS SELECT advertiser, date_trunc('{WIDTHS[width][2:]}', ts, 'UTC') AS at, count(*) FILTER (WHERE type = 'impression') AS impressions, "
            "count(*) FILTER (WHERE type = 'click') AS clicks, coalesce(sum(cost), 0) AS spend FROM detail GROUP BY 1, 2 ORDER BY 1, 2"
        )
        connection.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (advertiser, at)")
    connection.execute("VACUUM ANALYZE")


def _postgres(connection: psycopg.Connection[Any], statement: str) -> Side:
    texts = {width: statement.replace("{table}", table) for width, table in TABLES.items()}
    cursor = connection.cursor(binary=True)

    def ask(one: Question) -> Any:
        return cursor.execute(texts[one.width], told(one)).fetchall()

    return Side(ask, _of_rows)


def told(one: Question) -> dict[str, Any]:
    """The parameters of a question to PostgreSQL."""
    return {"start": utc(one.start), "end": utc(one.end), "width": WIDTHS[one.width], "advertiser": one.advertiser}


def utc(time: int) -> dt.datetime:
    """An event time for SQL."""
    return dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(microseconds=time)
