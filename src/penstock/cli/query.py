"""`penstock query`: what was rolled up."""

from __future__ import annotations

import json
from typing import Any

import click

from penstock.cli.base import command, number_of, on_option, open_deployment
from penstock.errors import QueryError


@command(
    "query",
    [
        ("a page's day, hour by hour", "penstock query traffic --entity /index.html --from 2015-05-17 --to 2015-05-18 --interval 1h"),
        (
            "split by a dimension, most views first",
            "penstock query traffic --entity /index.html --from 2015-05-17 --to 2015-05-21 --by status --order -views",
        ),
        (
            "a week by Berlin's days, against the week before",
            "penstock query by_advertiser --entity 1001 --range previous_1w --timezone Europe/Berlin --interval 1d --compare previous_period --totals",
        ),
        (
            "the five countries with the largest reach, and all others together",
            "penstock query by_advertiser --entity 1001 --range last_7d --by country --order=-reach --top 5 --other",
        ),
        (
            "some measures, a quotient of two, and a filter; for a program",
            "penstock query by_advertiser --entity 1001 --from 2026-03-02 --to 2026-03-03 --measures clicks,ctr --where country=DE --format json",
        ),
    ],
    short_help="Look up what was rolled up.",
)
@click.argument("rollup")
@click.option("--entity", required=True, help="Whose numbers: a value of the roll-up's entity.")
@click.option(
    "--from", "start", metavar="TIME", help="The first instant: ISO 8601, in --timezone unless it has a zone; or -24h, -7d, today."
)
@click.option("--to", "end", metavar="TIME", help="The instant to stop before. [default: now]")
@click.option("--range", "range_", metavar="RANGE", help="Instead of both: today, yesterday, last_7d, last_60m, previous_1w, this_month.")
@click.option(
    "--timezone", default="UTC", show_default=True, metavar="ZONE", help="Whose days and hours: an IANA name such as Europe/Berlin."
)
@click.option("--interval", metavar="DURATION", help="A row for each window so long (1m, 1h, 1d, 1w, 1mo); without it, one for all.")
@click.option("--by", multiple=True, metavar="DIMENSION", help="A row for each value; a,b or repeated for several dimensions.")
@click.option(
    "--where", multiple=True, metavar="FIELD=VALUE|JSON", help='Only these; repeated ones must all hold. JSON: {"status": {"ge": 500}}.'
)
@click.option("--measures", metavar="A,B,C/D", help="Which, in this order; C/D or name=C/D is a quotient. [default: all]")
@click.option("--order", metavar="[-]COLUMN", help="Sort by columns; a - before a name puts the largest first: --order=-views,time.")
@click.option("--limit", type=number_of(1), metavar="N", help="At most N rows.")
@click.option("--offset", type=number_of(0), default=0, metavar="N", help="Leave out the first N rows.")
@click.option(
    "--top", type=number_of(1), metavar="N", help="Only the N groups that are largest in the first measure of --order, or of all."
)
@click.option("--other", is_flag=True, help="With --top: also what the other groups come to together.")
@click.option("--totals", is_flag=True, help="Also what all rows come to together.")
@click.option(
    "--compare",
    type=click.Choice(["previous_period", "previous_day", "previous_week", "previous_month", "previous_year"]),
    help="Also what was before, and the change.",
)
@click.option("--minimum-audience", type=number_of(1), metavar="K", help="Hide what fewer than K people stand behind.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="How the answer is printed.",
)
@on_option
def query(
    rollup: str,
    entity: str,
    start: str | None,
    end: str | None,
    range_: str | None,
    timezone: str,
    interval: str | None,
    by: tuple[str, ...],
    where: tuple[str, ...],
    measures: str | None,
    order: str | None,
    limit: int | None,
    offset: int,
    top: int | None,
    other: bool,
    totals: bool,
    compare: str | None,
    minimum_audience: int | None,
    format_: str,
    on: str,
) -> int:
    """Look up one entity's measures. The answer says as of when it is, whether it is complete, and how exact its estimates are."""
    from penstock.query import Analytics, render

    filters = condition(where)
    with open_deployment(on) as deployment:
        answer = Analytics(deployment).query(
            rollup,
            entity=entity,
            start=start,
            end=end,
            range=range_,
            timezone=timezone,
            interval=interval,
            by=names(by),
            where=filters,
            measures=names([measures]) if measures is not None else None,
            order=order,
            limit=limit,
            offset=offset,
            top=top,
            other=other,
            totals=totals,
            compare=compare,
            minimum_audience=minimum_audience,
        )
    click.echo(render(answer, format_), nl=False)
    return 0


def names(texts: Any) -> list[str]:
    """Comma-separated names, from one text or several."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def condition(texts: tuple[str, ...]) -> dict[str, Any] | None:
    """The filter of some --where: field=value pairs and JSON objects, all of which must hold. Raises QueryError."""
    merged: dict[str, Any] = {}
    for text in texts:
        for name, value in one_condition(text).items():
            if name in merged and merged[name] != value:
                raise QueryError(
                    f"--where: {name!r} is given twice", hint=f"for one of several values write JSON: {json.dumps({name: ['a', 'b']})}"
                )
            merged[name] = value
    return merged or None


def one_condition(text: str) -> dict[str, Any]:
    """The filter of one --where."""
    if text.lstrip().startswith("{"):
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError as problem:
            raise QueryError(
                f"--where: {text} is not JSON ({problem})", hint='write {"status": {"ge": 500}} in single quotes, or field=value'
            ) from None
        return found
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise QueryError(
            f"--where: {text!r} is neither field=value nor JSON", hint='write --where country=DE, or --where \'{"country": ["DE", "AT"]}\''
        )
    return {name.strip(): value}
