"""`penstock export`: hours of the archive into the warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

import click

from penstock.cli.base import FAILED, OK, command, load, on_option, open_deployment, say, topology_argument
from penstock.cli.output import number

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.topology import Topology
    from penstock.warehouse.export import ExportResult


@command(
    "export",
    [
        ("all hours that are due; run it every few minutes", "penstock export advertiser_analytics --due"),
        ("one hour, due or not", "penstock export page_analytics --hour 2015-05-17T10"),
    ],
    short_help="Load hours of the archive into the warehouse.",
)
@topology_argument
@click.option("--hour", metavar="TIME", help="The hour to load, in UTC: 2015-05-17T10.")
@click.option(
    "--due", is_flag=True, help="Load every hour that is complete: all partitions are archived past its end, or caught up and silent."
)
@click.option(
    "--grace", default="2m", show_default=True, metavar="DURATION", help="How far past an hour's end, in event time, the archive must be."
)
@click.option(
    "--reload",
    "reload_",
    default="15m",
    show_default=True,
    metavar="DURATION",
    help="How soon an hour is loaded again after late files came for it.",
)
@on_option
def export(topology: str, hour: str | None, due: bool, grace: str, reload_: str, on: str) -> int:
    """Load hours of the archive into the warehouse, each in one transaction, each exactly once however often this runs.

    All datasets of the topology's archive bolts: accepted events, late ones, rejects. Prints a line an hour; an hour that fails does not hold up the
    others, and makes the exit code 1.
    """
    if (hour is not None) == due:
        raise click.UsageError("say --hour TIME, or --due" + (": not both" if due else ""))
    from penstock.model.units import hour_text

    found = load(topology)
    results: list[ExportResult] = []
    with open_deployment(on) as deployment:
        for result in one_hour(found, deployment, hour) if hour is not None else due_hours(found, deployment, grace, reload_):
            results.append(result)
            click.echo(line(result))
        failed = {f"{result.dataset} {result.hour}" for result in results if result.outcome == "failed"}
        if due:
            if not results:
                say("no hour is due")
            waiting = [f"{dataset} {hour_text(at)}" for dataset, at in never_loaded(found, deployment) if f"{dataset} {at}" not in failed]
            if waiting:
                say(f"not complete yet: {', '.join(waiting[:6])}{f' and {len(waiting) - 6} more' if len(waiting) > 6 else ''}")
    return FAILED if failed else OK


def line(result: ExportResult) -> str:
    """What became of an hour, in a line."""
    from penstock.model.units import hour_text

    start = f"{result.dataset} {hour_text(result.hour)} {result.outcome}"
    if result.error is not None:
        return f"{start}: {result.error.message.removeprefix(f'{result.dataset} {hour_text(result.hour)}: ')}"
    return f"{start}: {number(result.rows)} rows of {result.files} files"


def one_hour(topology: type[Topology], deployment: Deployment, text: str) -> Iterator[ExportResult]:
    """Load one hour of each dataset that has something archived for it."""
    from penstock.cli.published import GenerationView, archive_bolts, datasets
    from penstock.errors import NotFoundError, PenstockError
    from penstock.model.units import HOUR, hour_text, instant
    from penstock.warehouse.export import ExportResult, export_hour

    hour = instant(text, "--hour") // HOUR * HOUR
    empty = True
    for definition in archive_bolts(topology, deployment):
        view = GenerationView(deployment.archive, definition.generation)
        for dataset in datasets(definition):
            if view.entries(dataset.name, hour):
                empty = False
                try:
                    yield export_hour(view, deployment.warehouse, dataset, hour, deployment.now())
                except PenstockError as problem:
                    yield ExportResult(dataset.name, hour, 0, 0, "failed", problem)
    if empty:
        raise NotFoundError(f"nothing of {hour_text(hour)} is archived", hint="`penstock status` lists the hours that are")


def due_hours(topology: type[Topology], deployment: Deployment, grace: str = "2m", reload_: str = "15m") -> Iterator[ExportResult]:
    """Load the hours that are due, of all datasets."""
    from penstock.cli.published import GenerationView, archive_bolts, datasets, progress_of
    from penstock.model.units import duration
    from penstock.warehouse.export import export_due

    pause, interval = duration(grace, "--grace"), duration(reload_, "--reload")
    for definition in archive_bolts(topology, deployment):
        progress = progress_of(definition, deployment)  # before the index: see penstock.warehouse.export
        view = GenerationView(deployment.archive, definition.generation)
        for dataset in datasets(definition):
            yield from export_due(view, deployment.warehouse, dataset, progress, deployment.now(), grace=pause, reload_interval=interval)


def never_loaded(topology: type[Topology], deployment: Deployment) -> list[tuple[str, int]]:
    """Datasets and hours that are archived and were never loaded."""
    from penstock.cli.published import GenerationView, archive_bolts, datasets

    found = []
    for definition in archive_bolts(topology, deployment):
        view = GenerationView(deployment.archive, definition.generation)
        for dataset in datasets(definition):
            loaded = {row.hour for row in deployment.warehouse.ledger(dataset.name)}
            found += [(dataset.name, hour) for hour in view.hours(dataset.name) if hour not in loaded]
    return found
