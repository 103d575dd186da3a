"""Every report, on DuckDB and on the Redshift stand-in, loaded by real topologies: the same rows, those of plain Python over the events."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pytest
import report_oracle as oracle

from penstock.cli.published import GenerationView, datasets
from penstock.deployment import Deployment
from penstock.log.generate import AdEvents, generate_into
from penstock.log.producer import Producer
from penstock.model import Schema
from penstock.query.sql import SqlSession
from penstock.reports import reports
from penstock.runner.local import LocalRunner, prepare
from penstock.topology import load_topology
from penstock.warehouse.export import export_hour

COUNT, SEED = 12_000, 7
MADE: dict[str, Any] = {"advertisers": 4, "users": 60, "start": "2026-03-02", "hours": 40, "too_late": 0.0}
DAY = dt.datetime(2026, 3, 2)


def page_views() -> list[dict[str, Any]]:
    rng = random.Random(5)
    paths = ["/", "/shop", "/shop/it's", "/Über", "/a b", *(f"/p/{n}" for n in range(30))]
    start = int(DAY.replace(tzinfo=dt.timezone.utc).timestamp() * 1000)
    return [
        {
            "ts": start + n * 20_000 + rng.randrange(1000),
            "ip": f"10.0.0.{rng.randrange(40)}",
            "method": "GET",
            "path": paths[int(len(paths) * rng.random() ** 3)],
            "status": rng.choice((200, 200, 200, 404, 503)),
            "bytes": rng.choice((None, rng.randrange(10**6))),
        }
        for n in range(3000)
    ]


@pytest.fixture(params=["duckdb", "redshift"])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """Ads and page views, archived by their topologies and loaded into a warehouse."""
    settings: dict[str, Any] = {"local": str(tmp_path / "data"), "partitions": 2}
    if request.param == "redshift":
        settings |= {"s3": request.getfixturevalue("s3"), "redshift": request.getfixturevalue("redshift")}
    with Deployment("reports", settings) as deployment:
        for name in ("ads", "pages"):
            deployment.log.create(name, 2)
        ads, pages = load_topology("advertiser_analytics"), load_topology("page_analytics")
        generate_into(deployment.log, schema_of(ads), COUNT, SEED, **MADE)
        with Producer(deployment.log, "pages") as producer:
            for view in page_views():
                producer.send(json.dumps(view).encode(), key=view["path"].encode(), timestamp=view["ts"] * 1000)
        for topology in (ads, pages):
            definitions = prepare(topology, deployment)
            LocalRunner(topology, deployment, definitions).run(until_caught_up=True)
            with deployment.warehouse.session():
                for definition in definitions:
                    if definition.kind == "archive":
                        load(deployment, definition)
        yield deployment


def schema_of(topology: Any) -> Schema:
    return Schema.from_json(next(iter(topology.definitions.values())).schema)


def load(deployment: Deployment, definition: Any) -> None:
    view = GenerationView(deployment.archive, definition.generation)
    for dataset in datasets(definition):
        for hour in view.hours(dataset.name):
            export_hour(view, deployment.warehouse, dataset, hour, deployment.now())


def answer(deployment: Deployment, name: str, values: dict[str, str]) -> list[tuple[Any, ...]]:
    """A report's rows, from the warehouse itself and through a session: the same."""
    statement = reports()[name].statement(values, deployment.now())
    direct = deployment.warehouse.query(statement)
    with SqlSession(deployment).run(statement) as reader:
        joined = reader.read_all()
    assert direct.column_names == joined.column_names
    found = [tuple(row.values()) for row in direct.to_pylist()]
    assert [tuple(row.values()) for row in joined.to_pylist()] == found
    return found


def test_every_report_gives_what_the_events_come_to(loaded: Deployment) -> None:
    events = list(AdEvents(SEED, **MADE).dicts(COUNT))
    assert None not in events and len(events) == COUNT
    views = page_views()
    spans = [(DAY, DAY + dt.timedelta(days=2)), (DAY + dt.timedelta(hours=20), DAY + dt.timedelta(hours=31))]
    asked: set[str] = set()
    for start, end in spans:
        span = {"from": start.isoformat(), "to": end.isoformat()}
        for name in ("campaign_performance", "audience", "funnel", "new_versus_returning"):
            for advertiser in (None, 1002):
                only = {} if advertiser is None else {"advertiser": str(advertiser)}
                wanted = getattr(oracle, name)(events, start, end, advertiser)
                assert answer(loaded, name, span | only) == wanted, (name, span, only)
                assert len(wanted) > 1 or name == "new_versus_returning"
                if name == "funnel" and advertiser is None:  # every step is taken by somebody, or the report was not tried
                    assert all(sum(row[step] for row in wanted) for step in (2, 3, 4))
                asked.add(name)
        paced = answer(loaded, "pacing_and_spend", span | {"advertiser": "1001", "budget": "7.25"})
        assert paced == oracle.pacing_and_spend(events, start, end, 1001, D("7.25")) and len(paced) > 5
        for top in (5, 100):
            found = answer(loaded, "top_content", span | {"top": str(top)})
            assert found == oracle.top_content(views, start, end, top)
    assert asked | {"pacing_and_spend", "top_content"} == set(reports())


def test_one_statement_joins_live_rollups_archived_detail_and_the_warehouse(loaded: Deployment) -> None:
    events = list(AdEvents(SEED, **MADE).dicts(COUNT))
    statement = """
        SELECT r.advertiser, r.clicks AS live, a.clicks AS archived, w.clicks AS loaded, r.spend, w.spend AS loaded_spend
        FROM rollup.by_advertiser_1d r
        JOIN (SELECT advertiser, count(*) AS clicks FROM archive.ads WHERE type = 'click' AND ts < '2026-03-03' GROUP BY 1) a USING (advertiser)
        JOIN (SELECT advertiser, count(*) FILTER (type = 'click') AS clicks, sum(cost) AS spend FROM warehouse.ads WHERE ts < '2026-03-03' GROUP BY 1) w
          USING (advertiser)
        WHERE r.time = '2026-03-02' ORDER BY 1
    """
    with SqlSession(loaded).run(statement) as reader:
        found = [tuple(row.values()) for row in reader.read_all().to_pylist()]
    wanted = []
    for advertiser in range(1001, 1005):
        day = oracle.between(events, DAY, DAY + dt.timedelta(days=1), advertiser)
        clicks, spend = len(oracle.kinds(day, "click")), oracle.spend(day)
        wanted.append((advertiser, clicks, clicks, clicks, spend, spend))
    assert found == wanted and all(row[1] for row in wanted)
