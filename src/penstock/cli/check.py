"""`penstock check`: what a topology declares, and what it would cost."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.base import (
    command,
    json_option,
    load,
    notice_kernels,
    number_of,
    on_option,
    open_deployment,
    rollups_of,
    schemas_of,
    topology_argument,
)
from penstock.cli.output import heading, number, pairs, size, table

if TYPE_CHECKING:
    from penstock.cli.sample import Sample
    from penstock.model import Rollup, Schema
    from penstock.topology import Topology

DAY_SECONDS = 86_400


@command(
    "check",
    [
        ("the declaration: what is read, counted and kept", "penstock check topologies/page_analytics.py"),
        (
            "what it would cost for these events, at 5,000 a second",
            "penstock check topologies/page_analytics.py --sample pageviews.jsonl --rate 5000",
        ),
        ("the same of what a deployment's log holds, for a program", "penstock check advertiser_analytics --on laptop --json"),
        ("the tables that an export makes, as SQL", "penstock check advertiser_analytics --ddl"),
    ],
    short_help="Show a declaration, and what it would cost.",
)
@topology_argument
@click.option("--sample", metavar="FILE", help="Events to look at; else those in the deployment's log, if it has some.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "msgpack", "csv", "combined"]),
    help="What the sample holds; by its name unless given.",
)
@click.option("--events", type=number_of(1), default=100_000, show_default=True, metavar="N", help="How many of them at most.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), metavar="R", help="Events a second to estimate for. [default: the sample's own]"
)
@click.option("--ddl", is_flag=True, help="Print the SQL that makes the warehouse's tables, for DuckDB and for Redshift, and nothing else.")
@json_option
@on_option
def check(
    topology: str, sample: str | None, format_: str | None, events: int, rate: float | None, ddl: bool, as_json: bool, on: str
) -> int:
    """Show what a topology declares; with a sample, what its roll-ups cost: cells per event, rows a second, bytes a day, hot keys, rejects by reason.

    Nothing is written. Mistakes in a declaration are found when it is loaded, so this is also the check to run before a commit.
    """
    found = load(topology)
    if ddl:
        statements = ddl_of(found, on)
        click.echo(json.dumps(statements, indent=1) if as_json else ddl_text(statements))
        return 0
    samples = measured(found, sample, format_, events, rate, on)
    if as_json:
        click.echo(json.dumps({**declared(found), "samples": [estimated(one) for one in samples]}, indent=1))
        return 0
    print_declaration(found)
    for one in samples:
        print_sample(estimated(one))
    return 0


def measured(topology: type[Topology], sample: str | None, format_: str | None, events: int, rate: float | None, on: str) -> list[Sample]:
    """A sample of each schema that there are events of."""
    from penstock.cli import sample as sampling
    from penstock.errors import UsageError

    schemas = schemas_of(topology)
    if sample is not None:
        if len(schemas) > 1:
            raise UsageError(
                f"{topology.__name__} reads {len(schemas)} schemas, and a sample is of one",
                hint="produce the events, then check --on that deployment",
            )
        notice_kernels()
        return [
            sampling.measure(schemas[0], counted(topology, schemas[0]), sampling.chunks_of_file(schemas[0], sample, format_, events), rate)
        ]
    with open_deployment(on, must_exist=False) as deployment:
        if not deployment.exists():
            return []
        topics = deployment.log.topics()
        there = [
            schema
            for schema in schemas
            if deployment.topic(schema) in topics and next(sampling.chunks_of_log(schema, deployment, 1), None) is not None
        ]
        return [
            sampling.measure(schema, counted(topology, schema), sampling.chunks_of_log(schema, deployment, events), rate)
            for schema in there
        ]


def counted(topology: type[Topology], schema: Schema) -> list[tuple[Rollup, float]]:
    """The roll-ups of a schema, each with the seconds between its bolt's flushes."""
    from penstock.model import Rollup
    from penstock.model.units import SECOND

    return [
        (Rollup.from_json(data), spec.flush / SECOND)
        for spec in bolts_of(topology)
        for data in topology.definitions[spec.name].rollups
        if data["schema"]["name"] == schema.name
    ]


def ddl_of(topology: type[Topology], on: str) -> dict[str, dict[str, str]]:
    """Per warehouse, the statement that makes each table that an export fills. Redshift's schema is that of the deployment, if it says one."""
    from penstock.cli.published import datasets
    from penstock.errors import NotFoundError
    from penstock.warehouse import duckdb
    from penstock.warehouse.redshift import ddl
    from penstock.warehouse.rollups import tables_of

    found = [one for definition in topology.definitions.values() if definition.kind == "archive" for one in datasets(definition)]
    found += [one.dataset for rollup in rollups_of(topology) for one in tables_of(rollup)]
    if not found:
        raise NotFoundError(
            f"{topology.__name__} archives nothing and keeps nothing by the hour, so nothing is exported",
            hint="give it a bolt: archive = ArchiveBolt.spec(detail)",
        )
    with open_deployment(on, must_exist=False) as deployment:
        schema = deployment.settings.get("redshift", {}).get("schema", "public")
    return {
        "duckdb": {one.name: duckdb.create_table(one) for one in found},
        "redshift": {one.name: ddl.create_table(one, schema) for one in found},
    }


def ddl_text(statements: dict[str, dict[str, str]]) -> str:
    """A script for each warehouse, one behind the other."""
    return "\n\n".join(
        f"-- {warehouse}\n" + "\n\n".join(f"{statement};" for statement in tables.values()) for warehouse, tables in statements.items()
    )


def bolts_of(topology: type[Topology]) -> list[Any]:
    """The bolts' specs, as declared."""
    return [spec for spec in topology.specs if spec.name in topology.definitions]


def declared(topology: type[Topology]) -> dict[str, Any]:
    """The declaration as pure data."""
    from penstock.model.units import duration_text

    bolts = [
        {
            "bolt": topology.definitions[spec.name].bolt,
            "kind": topology.definitions[spec.name].kind,
            "generation": topology.definitions[spec.name].generation,
            "spout": spec.source.name,
            "schema": spec.schema.name,
            "flush": duration_text(spec.flush),
        }
        for spec in bolts_of(topology)
    ]
    rollups = [
        {
            **rollup.to_json(),
            "schema": rollup.schema.name,
            "fingerprint": rollup.fingerprint,
            "tables": {name: duration_text(ttl) for name, ttl in rollup.tables()},
        }
        for rollup in rollups_of(topology)
    ]
    return {
        "topology": topology.topology_name,
        "bolts": bolts,
        "schemas": [{**schema.to_json(), "fingerprint": schema.fingerprint} for schema in schemas_of(topology)],
        "rollups": rollups,
    }


def estimated(sample: Sample) -> dict[str, Any]:
    """A sample and what follows from it, as pure data. Rates are upper bounds where the sample is less than a flush, or less than a day."""
    rollups = []
    for one in sample.rollups:
        stored = sum(cells.bytes for cells in one.cells)
        everything = sum(cells.cells for cells in one.cells)
        rollups.append(
            {
                "rollup": one.rollup,
                "entities": one.entities,
                "cells_per_event": one.written / sample.events,
                "cells_per_event_with_folded": everything / sample.events,
                "cells_per_flush": one.per_flush,
                "flush_events": one.flush_events,
                "rows_per_second": one.per_flush / one.flush_events * sample.rate,
                "bytes_per_day": stored / sample.events * sample.rate * DAY_SECONDS,
                "cells": [dataclasses.asdict(cells) for cells in one.cells],
                "hot": [{"entity": entity, "events": count, "share": count / max(1, sample.accepted)} for entity, count in one.hot],
            }
        )
    return {
        "schema": sample.schema,
        "events": sample.events,
        "accepted": sample.accepted,
        "rejected": sample.rejected,
        "late": sample.late,
        "span_seconds": sample.span,
        "rate": sample.rate,
        "reasons": sample.reasons,
        "rollups": rollups,
    }


def print_declaration(topology: type[Topology]) -> None:
    """The declaration for people."""
    from penstock.model.units import duration_text

    table(
        ["bolt", "kind", "generation", "reads", "flush"],
        [
            [one["bolt"], one["kind"], one["generation"], f"{one['schema']} by {one['spout']}", one["flush"]]
            for one in declared(topology)["bolts"]
        ],
        title=f"topology {topology.topology_name}",
    )
    for schema in schemas_of(topology):
        print_schema(schema)
    for rollup in rollups_of(topology):
        click.echo()
        heading(
            f"roll-up {rollup.name}: {rollup.schema.name} by {rollup.entity}"
            + (f" where {json.dumps(rollup.where)}" if rollup.where else "")
        )
        table(
            ["measure", "is", "where"],
            [
                [name, measure_text(measure.to_json()), json.dumps(measure.where) if measure.where else ""]
                for name, measure in rollup.measures.items()
            ],
        )
        click.echo()
        tables = dict(rollup.tables())
        table(
            ["breakdown", "windows", "made by", "kept", "table", "table's TTL"],
            [
                [
                    ", ".join(one.dimensions) or "(total)",
                    duration_text(width),
                    "stream" if width == one.widths[0] else "folded",
                    duration_text(kept),
                    rollup.table(width),
                    duration_text(tables[rollup.table(width)]),
                ]
                for one in rollup.by
                for width, kept in one.keep.items()
            ],
        )


def print_schema(schema: Schema) -> None:
    """A schema's fields."""
    from penstock.model.units import duration_text

    rows = [
        [
            name,
            field_text(field),
            ".".join(field.keys(name)) if field.source == "value" else field.source,
            "yes" if field.nullable else "",
            "" if field.default is None else repr(field.default),
        ]
        for name, field in schema.fields.items()
    ]
    rows += [
        [
            name,
            field_text(column.field),
            f"{column.function}({', '.join(column.of)})",
            "yes" if column.field.nullable else "",
            "" if column.field.default is None else repr(column.field.default),
        ]
        for name, column in schema.derive.items()
    ]
    click.echo()
    table(
        ["field", "type", "from", "nullable", "default"],
        rows,
        title=f"schema {schema.name}: {schema.format}, time {schema.time}, lateness {duration_text(schema.lateness)}"
        + (f", key {schema.key}" if schema.key else ""),
    )


def field_text(field: Any) -> str:
    """A field's type, with what belongs to it."""
    extra = {
        "timestamp": getattr(field, "unit", ""),
        "decimal": str(getattr(field, "scale", "")),
        "enum": ", ".join(getattr(field, "values", ())),
    }.get(field.kind, "")
    return f"{field.kind}({extra})" if extra else field.kind


def measure_text(data: dict[str, Any]) -> str:
    """A measure as declared, without its filter."""
    parts = [str(value) for key, value in data.items() if key not in ("type", "where")]
    return f"{data['type']}({', '.join(parts)})" if parts else data["type"]


def print_sample(found: dict[str, Any]) -> None:
    """What a sample says, for people."""
    click.echo()
    heading(f"sample of {found['schema']}: {number(found['events'])} events over {found['span_seconds'] / 3600:,.1f} h of event time")
    pairs(
        [
            ("accepted", number(found["accepted"])),
            ("late", number(found["late"])),
            ("rejected", number(found["rejected"])),
            *((f"  {reason}", number(count)) for reason, count in found["reasons"].items()),
            ("estimates are for", f"{number(float(found['rate']))} events/s"),
        ]
    )
    for one in found["rollups"]:
        click.echo()
        table(
            ["breakdown", "windows", "table", "cells", "cells/event", "bytes/cell", "made by"],
            [
                [
                    ", ".join(cells["by"]) or "(total)",
                    cells["granularity"],
                    cells["table"],
                    number(cells["cells"]),
                    f"{cells['cells'] / found['events']:.3f}",
                    f"{cells['bytes'] / cells['cells']:.0f}" if cells["cells"] else "-",
                    "folded" if cells["folded"] else "stream",
                ]
                for cells in one["cells"]
            ],
            title=f"roll-up {one['rollup']}",
            right=(3, 4, 5),
        )
        pairs(
            [
                (
                    "cells per event",
                    f"{one['cells_per_event']:.3f} by the stream, {one['cells_per_event_with_folded']:.3f} with folded ones",
                ),
                ("rows written", f"{one['rows_per_second']:,.2f}/s, in flushes of {number(one['flush_events'])} events"),
                ("new bytes", f"at most {size(one['bytes_per_day'])} a day"),
                ("hot keys", ", ".join(f"{hot['entity']} {hot['share']:.1%}" for hot in one["hot"]) + f" (of {number(one['entities'])})"),
            ]
        )
