"""`penstock status`: how far every bolt is, and what is archived and loaded."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.base import LAGGING, OK, command, json_option, load, number_of, on_option, open_deployment, say
from penstock.cli.output import bad, good, heading, number, table

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.rollup.control import Control


SHOWN = 5  # failed hours of a dataset that are spelt out


@command(
    "status",
    [
        ("everything that ever ran here", "penstock status"),
        ("one topology, for a program", "penstock status advertiser_analytics --json"),
        ("for an alarm: exit code 3 if any partition is more than 100,000 offsets behind", "penstock status --fail-lag 100000"),
        ("the same if an hour that could be in the warehouse ended more than three hours ago", "penstock status --fail-export-lag 3h"),
    ],
    short_help="Show how far everything is.",
)
@click.argument("topology", required=False)
@json_option
@click.option(
    "--fail-lag", type=number_of(0), metavar="N", help="Exit with 3 if a partition's lag, of any generation that runs, is above N."
)
@click.option(
    "--fail-export-lag",
    metavar="DURATION",
    help="Exit with 3 if an hour that is due and not loaded, failed ones too, ended longer ago than this: 3h.",
)
@on_option
def status(topology: str | None, as_json: bool, fail_lag: int | None, fail_export_lag: str | None, on: str) -> int:
    """Show each bolt's partitions: log end, committed, lag, watermark, and what became of the offsets; and each dataset's hours.

    It looks at what is durable, beside a running process or without one. lag: offsets of the log that are not committed yet. due: hours that are
    complete and not loaded, or changed since; export lag: how long ago the oldest of them ended.
    """
    from penstock.model.units import SECOND
    from penstock.model.units import duration as duration_of

    limit = None if fail_export_lag is None else duration_of(fail_export_lag, "--fail-export-lag") // SECOND
    with open_deployment(on) as deployment:
        shards = shards_of(deployment, topology)
        bolts = {shard["bolt"] for shard in shards}
        datasets, exporters = datasets_of(deployment, bolts), exporters_of(deployment, bolts)
        reading = getattr(deployment.log, "mode", None)
    worst = max((shard["lag"] for shard in shards if shard["lag"] is not None), default=0)
    behind = max((one["export_lag_seconds"] for one in datasets), default=0)
    if as_json:
        found = {"deployment": on, "reading": reading, "shards": shards, "datasets": datasets, "exporters": exporters}
        click.echo(json.dumps({**found, "worst_lag": worst, "worst_export_lag_seconds": behind}, indent=1))
    else:
        printed(shards, datasets, exporters)
        if reading == "records":
            say("Kafka is read record by record here, about 30 times slower than by whole batches: install kafka-python>=3.0.12,<3.1")
    code = OK
    if fail_lag is not None and worst > fail_lag:
        say(f"lag {number(worst)} is above {number(fail_lag)}")
        code = LAGGING
    if limit is not None and behind > limit:
        say(f"the oldest hour that is due ended {number(behind)} s ago: longer than {fail_export_lag}")
        code = LAGGING
    return code


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
    """Each dataset of the published archive bolts among `bolts`: its hours, archived, due, failed and loaded, as pure data."""
    from penstock.cli import published
    from penstock.model.units import hour_text, iso
    from penstock.rollup.registry import Registry
    from penstock.warehouse.export import GRACE, RELOAD_INTERVAL, plan_hours
    from penstock.warehouse.health import health_of
    from penstock.warehouse.metrics import lag

    registry = Registry(deployment.table)
    found = []
    for definition in published.published(registry, [bolt for bolt in registry.bolts() if bolt in bolts]):
        if definition.kind != "archive":
            continue
        health = health_of(deployment.table, definition.bolt.partition(".")[0])
        there = deployment.topic(definition.schema["name"]) in deployment.log.topics()
        progress = published.progress_of(definition, deployment) if there else []  # before the index: see penstock.warehouse.export
        view, now = published.GenerationView(deployment.archive, definition.generation), deployment.now()
        for dataset in published.datasets(definition):
            ledger = deployment.warehouse.ledger(dataset.name)
            plans = plan_hours(
                view,
                dataset.name,
                progress,
                ledger,
                now,
                grace=GRACE if health.grace is None else health.grace,
                reload_interval=RELOAD_INTERVAL if health.reload_interval is None else health.reload_interval,
            )
            states = Counter(plan.state for plan in plans)
            due = [plan.hour for plan in plans if plan.due]
            failed = [(hour, health.failed[dataset.name, hour]) for hour in due if (dataset.name, hour) in health.failed]
            found.append(
                {
                    "dataset": dataset.name,
                    "first_hour": hour_text(plans[0].hour) if plans else None,
                    "last_hour": hour_text(plans[-1].hour) if plans else None,
                    "hours_archived": len(plans),
                    "rows_archived": sum(plan.rows for plan in plans),
                    "files": sum(plan.files for plan in plans),
                    "bytes": sum(plan.bytes for plan in plans),
                    "hours_loaded": len(ledger),
                    "rows_loaded": sum(row.rows for row in ledger),
                    "newest_loaded": hour_text(ledger[-1].hour) if ledger else None,
                    "hours_changed": states["changed"] + states["held"],
                    "hours_due": len(due),
                    "hours_waiting": states["waiting"],
                    "export_lag_seconds": lag(due, now) // 1_000_000,
                    "failed": [
                        {
                            "hour": hour_text(hour),
                            "error": one.error,
                            "hint": one.hint,
                            "since": iso(one.since),
                            "at": iso(one.at),
                            "tries": one.tries,
                            "again": iso(one.again),
                        }
                        for hour, one in failed
                    ],
                }
            )
    return found


def exporters_of(deployment: Deployment, bolts: set[str]) -> list[dict[str, Any]]:
    """Each topology's `export --follow`, if there ever was one: who leads, what it waits for, what was loaded last, as pure data."""
    from penstock.model.units import hour_text, iso
    from penstock.warehouse.health import health_of
    from penstock.warehouse.lease import leader_of

    found = []
    for topology in sorted({bolt.partition(".")[0] for bolt in bolts}):
        leader, health = leader_of(deployment.table, topology), health_of(deployment.table, topology)
        if leader is None and health.last is None and not health.failed:
            continue
        lives = leader is not None and leader.lives(deployment.now())
        found.append(
            {
                "topology": topology,
                "leads": {"host": leader.host, "pid": leader.pid, "since": iso(leader.since)} if leader is not None and lives else None,
                "last_beat": iso(leader.beat_at) if leader is not None else None,
                "waits_for": health.trouble[0] if health.trouble else None,
                "waits_since": iso(health.trouble[1]) if health.trouble else None,
                "last_load": None
                if health.last is None
                else {"dataset": health.last[0], "hour": hour_text(health.last[1]), "rows": health.last[2], "at": iso(health.last[3])},
            }
        )
    return found


def printed(shards: list[dict[str, Any]], datasets: list[dict[str, Any]], exporters: list[dict[str, Any]]) -> None:
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
                *(number(one[name]) for name in ("hours_archived", "rows_archived", "files", "hours_loaded", "rows_loaded")),
                lag(one["hours_due"]),
                bad(number(len(one["failed"]))) if one["failed"] else "0",
                number(one["hours_waiting"]),
                number(one["hours_changed"]),
                duration(one["export_lag_seconds"]),
            ]
            for one in datasets
        ]
        names = ["hours archived", "rows", "files", "hours loaded", "rows loaded", "due", "failed", "incomplete", "changed", "export lag"]
        table(["dataset", "from", "to", *names], rows, title="archive and warehouse", right=range(3, 13))
    for one in datasets:
        for failure in one["failed"][:SHOWN]:
            click.echo(f"failed: {failure['error']} (tried {failure['tries']} times since {failure['since']})")
        if len(one["failed"]) > SHOWN:
            click.echo(f"failed: and {len(one['failed']) - SHOWN} more hours of {one['dataset']}")
    for one in exporters:
        leads = one["leads"]
        who = f"process {leads['pid']} on {leads['host']} leads since {leads['since']}" if leads else "nobody follows"
        last = one["last_load"]
        did = f"; loaded last: {last['dataset']} {last['hour']}, {number(last['rows'])} rows, at {last['at']}" if last else ""
        click.echo(f"export of {one['topology']}: {who}{did}")
        if leads and one["waits_for"]:
            click.echo(f"  waits since {one['waits_since']}: {one['waits_for']}")


def duration(seconds: int) -> Any:
    """How far behind something is, for people."""
    if not seconds:
        return good("0")
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return bad(f"{seconds // length} {unit}")
    return bad(f"{seconds} s")


def lag(value: int | None) -> Any:
    """A lag, red where there is one."""
    return "-" if value is None else bad(number(value)) if value else good("0")
