"""`query-30d`: what a dashboard asks, of roll-ups on HBase, beside DuckDB over the archive, and PostgreSQL over the detail and over roll-up tables.

Ad events of 10,000 advertisers and 30 days go through a topology into HBase and into the archive's Parquet files; PostgreSQL gets the same. Two questions, each of
one advertiser after the other, drawn in proportion to the traffic that they have:

- `30d`: 30 days, a row a day;
- `24h`: 24 hours that end on some minute, a row a minute.

Each side answers all of it, windows without events as zeros, and all must give the same numbers:

- `penstock`: `Analytics.query` on HBase, over Thrift, as it is by default: rows are kept until something is committed. No answer is kept.
- `penstock-read`: the same, but no row is kept either, and each question is three requests to HBase.
- `penstock-live`: as `penstock`, while another process counts events and commits every 5 s (`bench.query_live`).
- `duckdb`: SQL over the archive's files, which it is told by name.
- `detail`: PostgreSQL, the events as they are, with an index on their time; `detail-indexed`: with one on advertiser and time.
- `rollup`: PostgreSQL, a table of minutes and one of days, each with the primary key (advertiser, window), made and vacuumed beforehand.
- `api`: the same as `penstock`, asked over HTTP of `penstock serve`; `api-rollup`: the same as `rollup`, of a small service (`bench.query_service`).

PostgreSQL is asked by psycopg: prepared statements, binary results. One client asks one question after the other; the rate is that of a client on one core. Each
side has been asked all of its questions before, so that PostgreSQL's and HBase's pages, and our rows, are in memory.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from penstock.deployment import Deployment
from penstock.model.units import DAY, HOUR, MINUTE, instant
from penstock.query import Analytics
from penstock.runner.local import LocalRunner, prepare

from bench import query_live, query_service, query_sides
from bench.measure import Bench, BenchError
from bench.own_servers import own_servers
from bench.query_sides import Question, Side
from bench.queried import Queried
from bench.suite import Result, short
from bench.workload import START, Workload

NAME = "query-30d"
NAMES = (NAME,)
ADVERTISERS, DAYS, EVENTS = 10_000, 30, 4_000_000
FIRST = 1001  # the generator's first advertiser
QUESTIONS = {
    "detail-indexed": 1000,
    "detail": 60,
    "duckdb": 60,
    "rollup": 2000,
    "penstock": 2000,
    "penstock-read": 2000,
    "penstock-live": 2000,
    "api-rollup": 2000,
    "api": 2000,
}
SIDES = {
    "penstock": "Analytics on HBase, rows kept",
    "penstock-read": "Analytics on HBase, no rows kept",
    "penstock-live": f"Analytics on HBase, rows kept, while {query_live.RATE:,} events/s are counted",
    "rollup": "PostgreSQL, indexed roll-up tables",
    "detail-indexed": "PostgreSQL, detail, index on advertiser and time",
    "detail": "PostgreSQL, detail, index on time",
    "duckdb": "DuckDB over the archive",
    "api": "penstock serve on HBase, over HTTP",
    "api-rollup": "FastAPI over PostgreSQL's roll-up tables, over HTTP",
}
FEW = 100  # of each, where --events says that it is a trial
PINNED = 3.0  # seconds in which the rate of one core is measured
OF_DETAIL, OF_ROLLUP = 10, 2  # the bars: p99 of DuckDB and of the detail over ours, at least; ours over the roll-up tables', at most
PAUSE = 0.01  # seconds before a question, while events are counted: the questions see several commits
LAG = 0.2  # seconds, as `penstock serve` has it
BEGIN = instant(START)
KINDS = ("30d", "24h")
OURS = ("penstock", "penstock-read")
_SEED = 11


def run(bench: Bench, *, events: int | None = None) -> Result:
    """Measure, on an HBase and a PostgreSQL of its own. Raises BenchError where two sides give other numbers, or a server does not start."""
    total, folder = events or EVENTS, bench.directory / NAME
    bench.say(f"{NAME}: {total:,} events of {ADVERTISERS:,} advertisers in {DAYS} days")
    with own_servers(NAME, bench.directory / "stack", ("hbase", "postgres")) as (settings, _):
        with contextlib.closing(Deployment("bench", deployed(settings, folder, "bench_"))) as deployment:
            began = time.perf_counter()
            weights = fill(deployment, Workload(total, hours=DAYS * 24, users=1_000_000, advertisers=ADVERTISERS))
            bench.say(f"  in HBase and archived after {time.perf_counter() - began:.0f} s")
            compact(deployment)
            return measure(bench, deployment, weights, total, few=events is not None)


def deployed(settings: dict[str, Any], folder: Path, prefix: str) -> dict[str, Any]:
    """The settings of the deployment. No rate limit: one key asks everything. No answer is kept: nothing changes here that would make it stale."""
    return {
        "local": str(folder),
        "partitions": 2,
        "hbase": {**settings["hbase"], "prefix": prefix},
        "serve": {"rate": 1_000_000_000, "cache": 0},
    }


def fill(deployment: Deployment, workload: Workload) -> Any:
    """Run the events through the topology. Each advertiser's part of the traffic, from FIRST on."""
    deployment.log.create("ads", 2)
    workload.send(deployment.log, "ads")
    LocalRunner(Queried, deployment, prepare(Queried, deployment)).run(until_caught_up=True)
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT advertiser, count(*) FROM read_parquet({_files(deployment)}) GROUP BY ALL").fetchall()
    counts = np.zeros(ADVERTISERS, np.int64)
    for advertiser, count in rows:
        counts[advertiser - FIRST] = count
    if counts.sum() != workload.events:
        raise BenchError(f"{NAME}: the archive has {counts.sum():,} of {workload.events:,} events")
    return counts / counts.sum()


def compact(deployment: Deployment) -> None:
    """Have HBase put each region's files together, as PostgreSQL is vacuumed. It goes on while PostgreSQL is filled."""
    import happybase

    settings = deployment.settings["hbase"]
    with contextlib.closing(happybase.Connection(settings["host"], settings["port"])) as connection:
        for table in connection.tables():
            if table.startswith(settings["prefix"].encode()):
                connection.compact_table(table, major=True)


def _files(deployment: Deployment) -> list[str]:
    archive = deployment.archive
    return [archive.location(entry.path) for hour in archive.hours("ads") for entry in archive.entries("ads", hour)]


def measure(bench: Bench, deployment: Deployment, weights: Any, events: int, *, few: bool) -> Result:
    """Ask all sides about what `fill` has put there. few: a trial."""
    schema, files = f"bench_{os.getpid()}", _files(deployment)
    took: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}
    rates: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    known: dict[str, dict[int, int]] = {kind: {} for kind in KINDS}
    with contextlib.ExitStack() as stack:
        began = time.perf_counter()
        sides = {
            "penstock": query_sides.penstock(Analytics(deployment, lag=LAG)),
            "penstock-read": query_sides.penstock(Analytics(deployment, lag=LAG, kept=0)),
            "penstock-live": query_sides.penstock(Analytics(deployment, lag=LAG)),
        }
        sides.update(stack.enter_context(query_sides.in_postgres(files, schema)))
        bench.say(f"  in PostgreSQL after {time.perf_counter() - began:.0f} s")
        sides["duckdb"] = stack.enter_context(query_sides.over_archive(files))
        services = {"api": query_service.penstock(deployment, bench.cpu), "api-rollup": query_service.postgres(schema, bench.cpu)}
        for side, count in QUESTIONS.items():
            with services[side] if side in services else contextlib.nullcontext(sides.get(side)) as one, contextlib.ExitStack() as beside:
                assert one is not None
                if side == "penstock-live":
                    beside.enter_context(query_live.counting(deployment, BEGIN + DAYS * DAY, ADVERTISERS, bench.cpu))
                for kind in KINDS:
                    questions = _questions(kind, max(QUESTIONS.values()), weights)[: min(count, FEW) if few else count]
                    pause = PAUSE if side == "penstock-live" else 0.0
                    took[kind][side] = _times(f"{kind}, {side}", one, questions, known[kind], pause)
                    p50, p95, p99 = (1e3 * value for value in np.percentile(took[kind][side], (50, 95, 99)))
                    bench.say(f"  {kind}, {side}: p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms")
                    if side in (*OURS, "rollup"):
                        rates[kind][side] = _rate(one, questions, bench.cpu)
    return _result(took, rates, events)


def _questions(kind: str, count: int, weights: Any) -> list[Question]:
    draw = np.random.default_rng(_SEED)
    advertisers = (FIRST + draw.choice(len(weights), count, p=weights)).tolist()
    if kind == "30d":
        return [Question(one, BEGIN, BEGIN + DAYS * DAY, DAY) for one in advertisers]
    ends = (BEGIN + draw.integers(DAY // MINUTE, DAYS * DAY // MINUTE, count) * MINUTE).tolist()
    return [Question(one, end - 24 * HOUR, end, MINUTE) for one, end in zip(advertisers, ends)]


def _times(what: str, side: Side, questions: list[Question], known: dict[int, int], pause: float = 0.0) -> list[float]:
    """Seconds of every question. known: what the first side's numbers hash to, which the others are held against. pause: seconds before each."""
    for question in questions:
        side.ask(question)
    gc.collect()
    gc.freeze()  # what the sides hold is not looked through again and again, as in a server
    took = []
    for number, question in enumerate(questions):
        if pause:
            time.sleep(pause)
        began = time.perf_counter()
        answer = side.ask(question)
        took.append(time.perf_counter() - began)
        numbers = hash(tuple(side.numbers(answer)))  # all of them kept would be looked through by every collection
        del answer
        if known.setdefault(number, numbers) != numbers:
            raise BenchError(f"{NAME}: {what} has other numbers than the first side for {question}")
    return took


def _rate(side: Side, questions: list[Question], cpu: int | None) -> float:
    """Questions a second of one client on one core."""
    before = os.sched_getaffinity(0)
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


def _result(took: dict[str, dict[str, list[float]]], rates: dict[str, dict[str, float]], events: int) -> Result:
    def p99(kind: str, side: str) -> float:
        return float(np.percentile(took[kind][side], 99))

    percentiles = {
        kind: {side: [round(1e3 * float(one), 2) for one in np.percentile(times, (50, 95, 99))] for side, times in took[kind].items()}
        for kind in KINDS
    }
    return {
        "name": NAME,
        "baseline": "DuckDB over the archive, by the 99th percentile",
        "ratio": short(p99("30d", "duckdb") / p99("30d", "penstock")),
        "bar": OF_DETAIL,
        "events": events,
        "milliseconds": percentiles,  # p50, p95, p99
        "sides": SIDES,
        "queries_per_second": {kind: {side: round(rate) for side, rate in rates[kind].items()} for kind in KINDS},
        "at_least_times": {
            _quotient(kind, side, one): short(p99(kind, side) / p99(kind, one))
            for kind in KINDS
            for one in OURS
            for side in ("duckdb", "detail")
        },
        "at_most_times": {
            _quotient(kind, one, other): short(p99(kind, one) / p99(kind, other))
            for kind in KINDS
            for one, other in (*((one, "rollup") for one in OURS), ("api", "api-rollup"))
        },
        "at_most": OF_ROLLUP,
    }


def _quotient(kind: str, one: str, other: str) -> str:
    return f"{kind}: {SIDES[one]} / {SIDES[other]}"


__all__ = ["NAME", "run"]
