"""`penstock status`: how far every bolt is, and what is archived and loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.base import LAGGING, OK, command, json_option, load, number_of, on_option, open_deployment, say
from penstock.cli.output import bad, good, heading, number, table

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.rollup.control import Control


@command(
    "status",
    [
        ("everything that ever ran here", "penstock status"),
        ("one topology, for a program", "penstock status advertiser_analytics --json"),
        ("for an alarm: exit code 3 if any partition is more than 100,000 offsets behind", "penstock status --fail-lag 100000"),
    ],
    short_help="Show how far everything is.",
)
@click.argument("topology", required=False)
@json_option
@click.option(
    "--fail-lag", type=number_of(0), metavar="N", help="Exit with 3 if a partition's lag, of any generation that runs, is above N."
)
@on_option
def status(topology: str | None, as_json: bool, fail_lag: int | None, on: str) -> int:
    """Show each bolt's partitions: log end, committed, lag, watermark, and what became of the offsets; and each dataset's hours.

    It looks at what is durable, beside a running process or without one. lag: offsets of the log that are not committed yet.
    """
    with open_deployment(on) as deployment:
        shards = shards_of(deployment, topology)
        datasets = datasets_of(deployment, {shard["bolt"] for shard in shards})
    worst = max((shard["lag"] for shard in shards if shard["lag"] is not None), default=0)
    if as_json:
        click.echo(json.dumps({"deployment": on, "shards": shards, "datasets": datasets, "worst_lag": worst}, indent=1))
    else:
        printed(shards, datasets)
    if fail_lag is not None and worst > fail_lag:
        say(f"lag {number(worst)} is above {number(fail_lag)}")
        return LAGGING
    return OK


def shards_of(deployment: Deployment, topology: str | None = None) -> list[dict[str, Any]]:
    """Each partition of each generation of each bolt, as pure data. Partitions that nobody has started yet are among them."""
    from penstock.errors import NotFoundError
    from penstock.rollup.registry import Registry

    registry = Registry(deployment.table)
    bolts = registry.bolts()
    if topology is not None:
        wanted = [definition.bolt for definition in load(topology).definitions.values()]
        bolts = [bolt for bolt in bolts if bolt in wanted]
        if not bolts:
            raise NotFoundError(f"{topology} never ran here", hint="`penstock run` starts it; --on names another deployment")
    found = []
    for bolt in bolts:
        served = registry.published(bolt)
        for generation in registry.generations(bolt):
            definition = registry.definition(bolt, generation)
            topic = deployment.topic(definition.schema["name"])
            controls = {(shard.topic, shard.incarnation, shard.partition): control for shard, control in registry.shards(bolt, generation)}
            there = deployment.log.topics()
            if topic in there:
                incarnation = deployment.log.incarnation(topic)
                missing = [
                    (topic, incarnation, p) for p in range(deployment.log.partitions(topic)) if (topic, incarnation, p) not in controls
                ]
            else:
                missing = []
            for name, incarnation, partition in sorted([*controls, *missing]):
                live = name in there and incarnation == deployment.log.incarnation(name)
                found.append(
                    {
                        "bolt": bolt,
                        "kind": definition.kind,
                        "generation": generation,
                        "published": generation == served,
                        "topic": name,
                        "incarnation": incarnation,
                        **one(
                            controls.get((name, incarnation, partition)), partition, deployment.log.end(name, partition) if live else None
                        ),
                    }
                )
    return found


def one(control: Control | None, partition: int, end: int | None) -> dict[str, Any]:
    """What a control cell says of a partition. end: of the log; None where that incarnation of the topic is gone."""
    from penstock.model.units import iso
    from penstock.rollup.control import NO_WATERMARK

    if control is None:
        return {
            "partition": partition,
            "log_end": end,
            "committed": None,
            "lag": end,
            "watermark": None,
            "start": None,
            "accepted": 0,
            "rejected": 0,
            "late": 0,
            "skipped": 0,
            "lost": 0,
            "flushing": False,
            "caught_up_at": None,
        }
    done = control.done
    return {
        "partition": partition,
        "log_end": end,
        "committed": done.offset,
        "lag": None if end is None else max(0, end - done.offset),
        "watermark": None if done.watermark == NO_WATERMARK else iso(done.watermark),
        "start": control.start,
        "accepted": done.accepted,
        "rejected": done.rejected,
        "late": done.late,
        "skipped": done.skipped,
        "lost": done.lost_count,
        "flushing": control.flushing > done.offset,
        "caught_up_at": None if control.caught_up_at is None else iso(control.caught_up_at),
    }


def datasets_of(deployment: Deployment, bolts: set[str]) -> list[dict[str, Any]]:
    """Each dataset of the published archive bolts among `bolts`: hours and rows, archived and loaded, as pure data."""
    from penstock.cli import published
    from penstock.model.units import hour_text
    from penstock.rollup.registry import Registry
    from penstock.warehouse.export import manifest_of

    registry = Registry(deployment.table)
    found = []
    for definition in published.published(registry, [bolt for bolt in registry.bolts() if bolt in bolts]):
        if definition.kind != "archive":
            continue
        view = published.GenerationView(deployment.archive, definition.generation)
        for dataset in published.datasets(definition):
            manifests = {hour: manifest_of(view, dataset.name, hour) for hour in view.hours(dataset.name)}
            ledger = {row.hour: row for row in deployment.warehouse.ledger(dataset.name)}
            hours = sorted(manifests)
            found.append(
                {
                    "dataset": dataset.name,
                    "first_hour": hour_text(hours[0]) if hours else None,
                    "last_hour": hour_text(hours[-1]) if hours else None,
                    "hours_archived": len(hours),
                    "rows_archived": sum(manifest.rows for manifest in manifests.values()),
                    "files": sum(len(manifest.entries) for manifest in manifests.values()),
                    "hours_loaded": len(ledger),
                    "rows_loaded": sum(row.rows for row in ledger.values()),
                    "hours_changed": sum(hour in manifests and row.manifest_hash != manifests[hour].hash for hour, row in ledger.items()),
                }
            )
    return found


def printed(shards: list[dict[str, Any]], datasets: list[dict[str, Any]]) -> None:
    """The same for people."""
    if not shards:
        click.echo("nothing ever ran here")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for shard in shards:
        groups.setdefault((shard["bolt"], shard["generation"]), []).append(shard)
    for (bolt, generation), some in groups.items():
        heading(f"{bolt}  {generation}  {'published' if some[0]['published'] else 'not published'}  topic {some[0]['topic']}")
        rows = [
            [
                shard["partition"],
                number(shard["log_end"]) if shard["log_end"] is not None else "gone",
                number(shard["committed"]),
                lag(shard["lag"]),
                shard["watermark"] or "-",
                *(number(shard[name]) for name in ("accepted", "rejected", "late", "skipped", "lost")),
                shard["caught_up_at"] or "-",
            ]
            for shard in some
        ]
        table(
            ["partition", "log end", "committed", "lag", "watermark", "accepted", "rejected", "late", "skipped", "lost", "caught up at"],
            rows,
            right=(0, 1, 2, 3, 5, 6, 7, 8, 9),
        )
        click.echo()
    if datasets:
        rows = [
            [
                one["dataset"],
                one["first_hour"] or "-",
                one["last_hour"] or "-",
                number(one["hours_archived"]),
                number(one["rows_archived"]),
                number(one["files"]),
                number(one["hours_loaded"]),
                number(one["rows_loaded"]),
                number(one["hours_changed"]),
            ]
            for one in datasets
        ]
        table(
            ["dataset", "from", "to", "hours archived", "rows", "files", "hours loaded", "rows loaded", "changed since"],
            rows,
            title="archive and warehouse",
            right=range(3, 9),
        )


def lag(value: int | None) -> Any:
    """A lag, red where there is one."""
    return "-" if value is None else bad(number(value)) if value else good("0")
