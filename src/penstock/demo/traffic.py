"""The demo on real traffic."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.base import load, schemas_of
from penstock.cli.output import Meter, heading
from penstock.cli.produce import create_topic, produce_files
from penstock.cli.sql import show
from penstock.demo import reconcile
from penstock.demo.check import Check
from penstock.demo.reconcile import DAY_US
from penstock.model.units import iso
from penstock.query import Analytics, render
from penstock.query.sql import SqlSession

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.log.produce import ProduceReport
    from penstock.rollup.registry import BoltDefinition


class Traffic:
    """A web server's own traffic: an access log, or its requests as JSON."""

    topology = "penstock.topologies.page_analytics"

    def __init__(self, file: str, format_: str | None) -> None:
        self.file, self.format = file, format_
        self.input_title = f"Produce the requests of {file}"

    def produce(self, deployment: Deployment, shown: Meter) -> ProduceReport:
        """The file's requests."""
        schema = schemas_of(load(self.topology))[0]
        create_topic(deployment, schema, None)
        return produce_files(deployment, schema, (self.file,), self.format, shown)

    def look_up(self, deployment: Deployment) -> None:
        """The busiest page."""
        path, start, end = self._busiest(deployment)
        self.span: dict[str, Any] = {"entity": path, "start": start, "end": end}
        analytics = Analytics(deployment)
        heading(f"{path}, every six hours")
        click.echo(render(analytics.query("traffic", **self.span, interval="6h")))
        heading("by status")
        click.echo(render(analytics.query("traffic", **self.span, by=["status"], order="-views")), nl=False)

    def _busiest(self, deployment: Deployment) -> tuple[str, int, int]:
        """The path with most views, and the days that the traffic spans."""
        sql = SqlSession(deployment)
        with sql.run("SELECT path, count(*) AS views FROM archive.pages GROUP BY ALL ORDER BY views DESC, path LIMIT 1") as rows:
            top = rows.read_all().to_pylist()[0]
        with sql.run("SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM archive.pages") as rows:
            first, last = rows.read_all().to_pylist()[0].values()
        return top["path"], first // DAY_US * DAY_US, (last // DAY_US + 1) * DAY_US

    def report(self, deployment: Deployment) -> None:
        """What each status code cost."""
        sql = (
            "SELECT status, count(*) AS views, count(DISTINCT ip) AS visitors, count(DISTINCT path) AS pages, sum(bytes) AS bytes\n"
            "FROM pages GROUP BY ALL ORDER BY views DESC"
        )
        click.echo(sql + "\n")
        show(deployment.warehouse.query(sql), "table")

    def reconcile(self, deployment: Deployment, definitions: list[BoltDefinition]) -> list[Check]:
        """Every page's views and bytes, in total and by status; verdicts; the warehouse."""
        fields = {"ts": "BIGINT", "ip": "VARCHAR", "method": "VARCHAR", "path": "VARCHAR", "status": "BIGINT", "bytes": "BIGINT"}
        fits = "ts IS NOT NULL AND ip IS NOT NULL AND method IS NOT NULL AND path IS NOT NULL AND status IS NOT NULL"
        raw = reconcile.raw_records(deployment, deployment.topic("pages"))
        analytics = Analytics(deployment)
        with reconcile.judged(raw, fields, fits, "ts * 1000", DAY_US) as connection:
            checks = list(reconcile.accounting(deployment, definitions, connection))
            pages = [
                row[0]
                for row in connection.execute(
                    "SELECT path FROM events WHERE verdict = 'accepted' GROUP BY ALL ORDER BY count(*) DESC, path LIMIT 2000"
                ).fetchall()
            ]
            known = set(pages)
            span = {key: value for key, value in self.span.items() if key != "entity"}
            for what, column, by in ((f"{len(pages)} pages' totals", "NULL", []), ("pages by status", "status", ["status"])):
                ours: dict[Any, Any] = {}
                for path in pages:
                    for row in analytics.query("traffic", entity=path, measures=["views", "bytes"], by=by, **span):
                        ours.update({(path, row.get("status"), name): row[name] for name in ("views", "bytes")})
                found = connection.execute(
                    f"SELECT path, {column}, count(*), coalesce(sum(bytes), 0) FROM events WHERE verdict = 'accepted' GROUP BY 1, 2"
                ).fetchall()
                theirs = {
                    (path, place, name): value
                    for path, place, *values in found
                    for name, value in zip(("views", "bytes"), values)
                    if path in known
                }
                checks.append(reconcile.compare(f"roll-up: {what}, views and bytes", ours, theirs))
            checks += reconcile.warehouse_rows(deployment, "pages", connection)
        return checks

    def next_steps(self, on: str) -> list[str]:
        """More of the same."""
        span = f"--entity {shlex.quote(self.span['entity'])} --from {iso(self.span['start'])} --to {iso(self.span['end'])}"
        return [
            f"penstock query traffic {span} --interval 1d --by method,status --on {on}",
            f"penstock status --on {on}",
            f"penstock serve --on {on}",
        ]
