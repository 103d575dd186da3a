"""`penstock produce`: events into the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from penstock.cli.base import (
    INTERRUPTED,
    command,
    load,
    notice_kernels,
    number_of,
    on_option,
    open_deployment,
    say,
    schemas_of,
    topology_argument,
)
from penstock.cli.output import Meter, meter, number, pairs
from penstock.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.log.produce import ProduceReport
    from penstock.model import Schema
    from penstock.topology import Topology

GENERATED = {
    "ts",
    "event_id",
    "advertiser_id",
    "user_id",
    "type",
    "campaign_id",
    "country",
    "device",
    "cost",
}  # what a generated event holds


@command(
    "produce",
    [
        ("a file of JSON, one event a line", "penstock produce topologies/page_analytics.py pageviews.jsonl"),
        ("the access log that a web server wrote", "penstock produce page_analytics /var/log/nginx/access.log --format combined"),
        ("from another program", "zcat events.gz | penstock produce page_analytics -"),
        ("a million made-up ad events, the same for the same seed", "penstock produce advertiser_analytics --generate 1000000 --seed 7"),
    ],
    short_help="Put events into the log.",
)
@topology_argument
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "msgpack", "csv", "combined"]),
    help="What the files hold, if their names do not tell. combined: a web server's access log.",
)
@click.option("--schema", "schema_name", metavar="NAME", help="Which of the topology's schemas, where it has several.")
@click.option(
    "--partitions", type=number_of(1), help="How many partitions the topic gets, if it is not there yet. [default: the deployment's, 4]"
)
@click.option(
    "--generate", type=number_of(1), metavar="N", help="Make up N ad events instead; for the schema of advertiser_analytics alone."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of --generate: the same seed makes the same events.")
@on_option
def produce(
    topology: str,
    files: tuple[str, ...],
    format_: str | None,
    schema_name: str | None,
    partitions: int | None,
    generate: int | None,
    seed: int,
    on: str,
) -> int:
    """Put the events of files, or of standard input (-), into the log of a topology.

    Every line becomes a record, durable when the command ends. A line that does not parse is kept as it is: it ends as a reject, with its bytes, and not
    in nothing. The topic is created if it is not there.
    """
    if bool(files) == (generate is not None):
        raise click.UsageError("name FILEs (- for standard input), or say --generate N" + (": not both" if files else ""))
    schema = schema_of(load(topology), schema_name)
    if generate is not None:
        check_generated(schema)
    notice_kernels()
    with open_deployment(on, must_exist=False) as deployment, meter() as shown:
        topic = create_topic(deployment, schema, partitions)
        try:
            made = (
                generate_events(deployment, schema, generate, seed, shown)
                if generate is not None
                else produce_files(deployment, schema, files, format_, shown)
            )
        except KeyboardInterrupt:
            ends = [deployment.log.end(topic, partition) for partition in range(deployment.log.partitions(topic))]
            say(f"interrupted: the {number(sum(ends))} records that topic {topic} has now are durable, the rest of the input is not there")
            return INTERRUPTED
    pairs(
        [
            ("topic", topic),
            ("records", number(made.records)),
            ("unparsed", number(made.unparsed) + (" (kept as they are: rejects)" if made.unparsed else "")),
            (
                "offsets",
                f"{number(sum(made.ends.values()))} in {len(made.ends)} partitions: "
                + ", ".join(f"{p}: {number(end)}" for p, end in sorted(made.ends.items())),
            ),
        ]
    )
    return 0


def schema_of(topology: type[Topology], name: str | None) -> Schema:
    """The schema called so, or the only one. Raises UsageError."""
    schemas = {schema.name: schema for schema in schemas_of(topology)}
    if name is None and len(schemas) == 1:
        return next(iter(schemas.values()))
    if name not in schemas:
        raise NotFoundError(
            f"{topology.__name__} has no schema {name!r}" if name else f"{topology.__name__} reads {len(schemas)} schemas",
            hint=f"--schema {', '.join(schemas)}",
        )
    return schemas[name]


def create_topic(deployment: Deployment, schema: Schema, partitions: int | None) -> str:
    """The schema's topic, made if it is not there. Raises ConfigurationError if it has another number of partitions than asked for."""
    topic = deployment.topic(schema)
    if partitions is not None or topic not in deployment.log.topics():
        deployment.log.create(topic, partitions or deployment.partitions)
    return topic


def produce_files(deployment: Deployment, schema: Schema, files: tuple[str, ...], format_: str | None, shown: Meter) -> ProduceReport:
    """The files' records into the schema's topic, with progress."""
    from penstock.log import produce as log_produce

    def progress(read: int, total: int | None, records: int) -> None:
        shown.update("produce", read, total, unit="bytes", detail=f"{records:,} records")

    return log_produce.produce_files(
        deployment.log, schema, list(files), format=format_, topic=deployment.topic(schema), on_progress=progress
    )


def check_generated(schema: Schema) -> None:
    """Raise UsageError for a schema that asks for what made-up events do not hold."""
    asked = {
        field.keys(name)[0]: name
        for name, field in schema.fields.items()
        if field.source == "value" and not field.nullable and field.default is None
    }
    missing = [name for key, name in asked.items() if key not in GENERATED]
    if missing:
        raise UsageError(
            f"--generate makes ad events, and schema {schema.name!r} wants {', '.join(missing)}",
            hint="use the topology advertiser_analytics, or produce a file",
        )


def generate_events(deployment: Deployment, schema: Schema, count: int, seed: int, shown: Meter, **settings: Any) -> ProduceReport:
    """Made-up events into the schema's topic, with progress."""
    from penstock.log.generate import generate_into

    return generate_into(
        deployment.log,
        schema,
        count,
        seed,
        topic=deployment.topic(schema),
        on_progress=lambda done, total: shown.update("generate", done, total),
        **settings,
    )
