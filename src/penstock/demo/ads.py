"""The demo on made-up ad events."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Iterator, Mapping

import click

from penstock.cli.base import load, schemas_of
from penstock.cli.output import Meter, heading
from penstock.cli.produce import create_topic, generate_events
from penstock.cli.sql import show
from penstock.demo import reconcile
from penstock.demo.check import Check
from penstock.demo.reconcile import DAY_US
from penstock.query import Analytics, render

if TYPE_CHECKING:
    import duckdb

    from penstock.deployment import Deployment
    from penstock.log.produce import ProduceReport
    from penstock.rollup.registry import BoltDefinition

STANDARD_ERRORS = 5  # an estimate that is further off than this is not one


class Ads:
    """A day of made-up ad events; one in 5,000 records is malformed."""

    topology = "penstock.topologies.advertiser_analytics"
    day, seed, malformed = "2026-03-02", 2026, 0.0002
    hours = 25  # so that the day itself is over
    counts = ("impressions", "clicks", "saves", "conversions")

    def __init__(self, events: int) -> None:
        self.events = events
        self.input_title = f"Generate {events:,} ad events: {self.day}, and an hour more"

    def produce(self, deployment: Deployment, shown: Meter) -> ProduceReport:
        """Made-up events, the same every time."""
        schema = schemas_of(load(self.topology))[0]
        create_topic(deployment, schema, None)
        return generate_events(
            deployment, schema, self.events, self.seed, shown, start=self.day, hours=self.hours, malformed=self.malformed
        )

    def look_up(self, deployment: Deployment) -> None:
        """The busiest advertiser's day."""
        analytics = Analytics(deployment)
        span: dict[str, Any] = {"entity": 1001, "start": self.day, "end": "2026-03-03"}
        heading("advertiser 1001, hour by hour")
        click.echo(
            render(analytics.query("by_advertiser", **span, interval="1h", measures=["impressions", "clicks", "ctr", "spend", "reach"]))
        )
        heading("by country")
        click.echo(
            render(
                analytics.query(
                    "by_advertiser",
                    **span,
                    by=["country"],
                    order="-impressions",
                    limit=8,
                    measures=["impressions", "clicks", "ctr", "spend", "reach"],
                )
            )
        )
        heading("by campaign")
        click.echo(
            render(
                analytics.query(
                    "by_advertiser",
                    **span,
                    by=["campaign"],
                    order="-impressions",
                    limit=8,
                    measures=["impressions", "clicks", "conversions", "spend"],
                )
            ),
            nl=False,
        )

    def report(self, deployment: Deployment) -> None:
        """The campaigns that spent most."""
        sql = (
            "SELECT campaign, advertiser,\n"
            "       count(*) FILTER (type = 'impression') AS impressions, count(*) FILTER (type = 'click') AS clicks,\n"
            "       round(100.0 * clicks / nullif(impressions, 0), 2) AS ctr_percent, sum(cost) AS spend\n"
            "FROM ads GROUP BY ALL ORDER BY spend DESC, campaign LIMIT 8"
        )
        click.echo(sql + "\n")
        show(deployment.warehouse.query(sql), "table")

    def reconcile(self, deployment: Deployment, definitions: list[BoltDefinition]) -> list[Check]:
        """Every advertiser's totals, its countries and its hours; verdicts; the warehouse."""
        fields = {
            "ts": "BIGINT",
            "event_id": "VARCHAR",
            "advertiser_id": "BIGINT",
            "user_id": "BIGINT",
            "type": "VARCHAR",
            "campaign_id": "BIGINT",
            "country": "VARCHAR",
            "device": "VARCHAR",
            "cost": "DECIMAL(18,6)",
        }
        fits = (
            "ts IS NOT NULL AND event_id IS NOT NULL AND advertiser_id IS NOT NULL AND user_id IS NOT NULL AND campaign_id IS NOT NULL "
            "AND type IN ('impression', 'click', 'save', 'conversion')"
        )
        raw = reconcile.raw_records(deployment, deployment.topic("ads"))
        with reconcile.judged(raw, fields, fits, "ts * 1000", DAY_US) as connection:
            checks = list(reconcile.accounting(deployment, definitions, connection))
            checks += self._cells(deployment, connection)
            checks += reconcile.warehouse_rows(deployment, "ads", connection)
            theirs = reconcile.rows(connection, "SELECT type, sum(cost) FROM events WHERE verdict = 'accepted' GROUP BY ALL")
            ours = deployment.warehouse.query("SELECT type, sum(cost) FROM ads GROUP BY ALL")
            checks.append(
                reconcile.compare("warehouse: spend by type", dict(zip(*(column.to_pylist() for column in ours.columns))), theirs)
            )
        return checks

    def _cells(self, deployment: Deployment, connection: duckdb.DuckDBPyConnection) -> Iterator[Check]:
        """All advertisers' cells, in every breakdown."""
        analytics = Analytics(deployment)
        measured = (
            "count(*) FILTER (type = 'impression') AS impressions, count(*) FILTER (type = 'click') AS clicks, count(*) FILTER (type = 'save') AS saves, "
            "count(*) FILTER (type = 'conversion') AS conversions, coalesce(sum(cost), 0) AS spend"
        )
        first, last = connection.execute("SELECT min(event_time), max(event_time) FROM events WHERE verdict = 'accepted'").fetchone() or (
            0,
            0,
        )
        span = {"start": first // DAY_US * DAY_US, "end": (last // DAY_US + 1) * DAY_US}
        advertisers = [
            row[0]
            for row in connection.execute("SELECT DISTINCT advertiser_id FROM events WHERE verdict = 'accepted' ORDER BY ALL").fetchall()
        ]
        for what, dimension, arguments in (
            (f"{len(advertisers)} advertisers' totals", None, {}),
            ("advertisers by hour", "event_time // 3600000000", {"interval": "1h"}),
            ("advertisers by country", "country", {"by": ["country"]}),
            ("advertisers by device", "device", {"by": ["device"]}),
            ("advertisers by campaign and country", "campaign_id || ' ' || country", {"by": ["campaign", "country"]}),
        ):
            ours: dict[Any, Any] = {}
            for advertiser in advertisers:
                for row in analytics.query("by_advertiser", entity=advertiser, measures=[*self.counts, "spend"], **span, **arguments):
                    place = self._place(row, arguments)
                    ours.update({(advertiser, place, name): row[name] for name in (*self.counts, "spend")})
            found = connection.execute(
                f"SELECT advertiser_id, {dimension or 'NULL'} AS place, {measured} FROM events WHERE verdict = 'accepted' GROUP BY 1, 2"
            ).fetchall()
            theirs = {
                (advertiser, place if place is None else str(place), name): value
                for advertiser, place, *values in found
                for name, value in zip((*self.counts, "spend"), values)
            }
            yield reconcile.compare(f"roll-up: {what}, events / spend", ours, theirs, events_and_spend)
        reach = {advertiser: analytics.query("by_advertiser", entity=advertiser, measures=["reach"], **span) for advertiser in advertisers}
        exact = reconcile.rows(
            connection, "SELECT advertiser_id, count(DISTINCT user_id) FROM events WHERE verdict = 'accepted' GROUP BY ALL"
        )
        yield estimate(
            "roll-up: reach, an estimate",
            {key: answer.rows[0]["reach"] for key, answer in reach.items()},
            exact,
            max(answer.errors["reach"] for answer in reach.values()),
        )

    def _place(self, row: dict[str, Any], arguments: dict[str, Any]) -> str | None:
        if "interval" in arguments:
            return str(int(dt.datetime.fromisoformat(row["time"].replace("Z", "+00:00")).timestamp()) // 3600)
        return " ".join(str(row[name]) for name in arguments["by"]) if "by" in arguments else None

    def next_steps(self, on: str) -> list[str]:
        """More of the same."""
        return [
            f"penstock query by_advertiser --entity 1002 --from {self.day} --to 2026-03-03 --by country --order=-spend --on {on}",
            f"penstock status --on {on}",
            f'penstock sql "SELECT country, count(*) AS events FROM ads GROUP BY ALL ORDER BY events DESC" --on {on}',
            f"penstock serve --on {on}",
        ]


def events_and_spend(side: Mapping[Any, Any]) -> str:
    """The numbers of many (advertiser, place, measure) in two."""
    spend = sum(value for (_, _, name), value in side.items() if name == "spend")
    events = sum(value for (_, _, name), value in side.items() if name != "spend")
    return f"{events:,} / {spend:,}"


def estimate(what: str, ours: dict[Any, int], exact: dict[Any, int], error: float) -> Check:
    """Estimates against exact numbers: each must be within STANDARD_ERRORS of the stated one."""
    off = {key: abs(ours.get(key, 0) - value) / value for key, value in exact.items()}
    wrong = [
        f"{key}: {ours.get(key)} and {exact[key]}"
        for key, by in off.items()
        if by > STANDARD_ERRORS * error and abs(ours.get(key, 0) - exact[key]) > 1
    ]
    return Check(
        what,
        f"±{error:.1%} stated",
        f"±{(sum(by * by for by in off.values()) / max(1, len(off))) ** 0.5:.1%} found",
        len(exact),
        tuple(wrong[:3]),
    )
