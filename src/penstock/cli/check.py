"""`penstock check`: what a topology declares, and what it would cost."""
from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.base import command, json_option, load, notice_kernels, number_of, on_option, open_deployment, topology_argument
from penstock.cli.output import heading, number, pairs, size, table

if TYPE_CHECKING:
    from penstock.cli.sample import Sample
    from penstock.model import Rollup, Schema
    from penstock.topology import Topology

DAY_SECONDS = 86_400


@command("check", [
    ("the declaration: what is read, counted and kept", "penstock check topologies/page_analytics.py"),
    ("what it would cost for these events, at 5,000 a second", "penstock check topologies/page_analytics.py --sample pageviews.jsonl --rate 5000"),
    ("the same of what a deployment's log holds, for a program", "penstock check advertiser_analytics --on laptop --json")])
@topology_argument
@click.option("--sample", metavar="FILE", help="Events to look at; else those in the deployment's log, if it has some.")
@click.option("--format", "format_", type=click.Choice(["jsonl", "msgpack", "csv", "combined"]), help="What the sample holds; by its name unless given.")
@click.option("--events", type=number_of(1), default=100_000, show_default=True, metavar="N", help="How many of them at most.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="R", help="Events a second to estimate for. [default: the sample's own, by event time]")
@json_option
@on_option
def check(topology: str, sample: str | None, format_: str | None, events: int, rate: float | None, as_json: bool, on: str) -> int:
    """Show what a topology declares; with a sample, what its roll-ups cost: cells per event, rows a second, bytes a day, hot keys, rejects by reason.

    Nothing is written. Mistakes in a declaration are found when it is loaded, so this is also the check to run before a commit.
    """
    found = load(topology)
    samples = measured(found, sample, format_, events, rate, on)
    if as_json:
        click.echo(json.dumps({**declared(found), "samples": [estimated(found, one, rate) for one in samples]}, indent=1))
        return 0
    print_declaration(found)
    for one in samples:
        print_sample(estimated(found, one, rate))
    return 0


def measured(topology: type[Topology], sample: str | None, format_: str | None, events: int, rate: float | None, on: str) -> list[Sample]:
    """A sample of each schema that there are events of."""
    from penstock.cli import sample as sampling
    from penstock.errors import UsageError

    schemas = topology.schemas()
    if sample is None:
        with open_deployment(on, must_exist=False) as deployment:
            if not deployment.exists():
                return []
            there = [schema for schema in schemas if deployment.topic(schema) in deployment.log.topics()
                     and any(deployment.log.end(deployment.topic(schema), p) for p in range(deployment.log.partitions(deployment.topic(schema))))]
            if there:
                notice_kernels()
            return [sampling.measure(schema, *_of(topology, schema, rate), sampling.chunks_of_log(schema, deployment, events)) if False else
                    _measure(topology, schema, lambda schema=schema: sampling.chunks_of_log(schema, deployment, events), rate) for schema in there]
    if len(schemas) > 1:
        raise UsageError(f"{topology.__name__} reads {len(schemas)} schemas, and a sample is of one", hint="produce the events, then check --on that deployment")
    notice_kernels()
    return [_measure(topology, schemas[0], lambda: sampling.chunks_of_file(schemas[0], sample, format_, events), rate)]
