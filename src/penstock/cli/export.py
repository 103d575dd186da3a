"""`penstock export`: hours of the archive into the warehouse."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Callable, Iterator

import click

from penstock.cli.base import FAILED, INTERRUPTED, OK, command, load, on_option, open_deployment, say, topology_argument
from penstock.cli.output import Meter, meter, number, size, table
from penstock.cli.run import logged

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.topology import Topology
    from penstock.warehouse.export import ExportResult, HourPlan
    from penstock.warehouse.schedule import Exporter, Feed, Options, Task


@command(
    "export",
    [
        ("all hours that are due; run it every few minutes", "penstock export advertiser_analytics --due"),
        ("whatever becomes due, for as long as this runs", "penstock export advertiser_analytics --follow"),
        ("roll-ups by hour and by day as tables, too", "penstock export advertiser_analytics --due --rollups"),
        ("one hour, due or not", "penstock export page_analytics --hour 2015-05-17T10"),
        ("a day that was archived before anybody exported", "penstock export page_analytics --from 2015-05-17 --to 2015-05-18"),
        ("what would be loaded, and what would not and why", "penstock export page_analytics --due --dry-run"),
    ],
    short_help="Load hours of the archive into the warehouse.",
)
@topology_argument
@click.option("--hour", "hours", multiple=True, metavar="TIME", help="An hour to load, in UTC: 2015-05-17T10. May be given several times.")
@click.option(
    "--from", "start", metavar="TIME", help="Load the hours from this one on, due or not; with --due or --follow, those that are."
)
@click.option("--to", "end", metavar="TIME", help="And before this one.")
@click.option(
    "--due", is_flag=True, help="Load every hour that is complete: all partitions are archived past its end, or caught up and silent."
)
@click.option("--follow", is_flag=True, help="Load what is due, and go on until Ctrl-C. Of several that run at once, one leads.")
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="This dataset alone. May be given several times.")
@click.option("--dry-run", is_flag=True, help="Load nothing: list the hours, and what would be done with each and why.")
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
@click.option("--every", default="30s", show_default=True, metavar="DURATION", help="How often --follow looks for hours that are due.")
@click.option(
    "--lease",
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long a --follow that leads may be silent before another takes its place.",
)
@click.option(
    "--merge/--no-merge", default=True, show_default=True, help="Merge an hour's small files before it is loaded, where there are many."
)
@click.option(
    "--rollups",
    is_flag=True,
    help="With --due or --follow, load roll-ups too: a table for each breakdown by hour and by day, a day at a time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON an hour, for programs.")
@on_option
def export(
    topology: str,
    hours: tuple[str, ...],
    start: str | None,
    end: str | None,
    due: bool,
    follow: bool,
    datasets: tuple[str, ...],
    dry_run: bool,
    grace: str,
    reload_: str,
    every: str,
    lease: str,
    merge: bool,
    rollups: bool,
    as_json: bool,
    on: str,
) -> int:
    """Load hours of the archive into the warehouse, each in one transaction, each exactly once however often this runs.

    All datasets of the topology's archive bolts: accepted events, late ones, rejects. Prints a line an hour; an hour that fails does not hold up the
    others, and makes the exit code 1. Ctrl-C stops after the hour under way; a second one at once, and the hour is as it was.
    """
    if due and follow:
        raise click.UsageError("say --due or --follow: not both")
    if hours and (due or follow or start or end):
        raise click.UsageError("--hour names the hours to load: it goes without --due, --follow, --from and --to")
    if not (hours or start or end or due or follow):
        raise click.UsageError("say --hour TIME, --from and --to, --due, or --follow")
    if rollups and not (due or follow):
        raise click.UsageError("--rollups goes with --due or --follow")
    if follow and dry_run:
        raise click.UsageError("--dry-run looks once: say --due --dry-run")
    from penstock.model.units import SECOND, duration

    found = load(topology)
    options = options_of(hours, start, end, datasets, grace, reload_, merge)
    pauses = {name: duration(text, name) for name, text in {"--every": every, "--lease": lease}.items()}
    for name, pause in pauses.items():
        if pause < SECOND // 10:
            raise click.UsageError(f"{name} is 100ms at least")
    with open_deployment(on) as deployment, logged():
        exporter = exporter_of(found, deployment, options, serve=follow, datasets=datasets, rollups=rollups)
        if follow:
            return followed(exporter, deployment, pauses["--every"], pauses["--lease"], as_json)
        tasks = chosen(exporter, hours, start or end, due)
        if dry_run:
            return planned(tasks, due, as_json)
        return loaded(exporter, tasks, due, as_json)


def options_of(
    hours: tuple[str, ...], start: str | None, end: str | None, datasets: tuple[str, ...], grace: str, reload_: str, merge: bool
) -> Options:
    """What the command line asks for. Raises UsageError, naming the option."""
    from penstock.model.units import HOUR, duration, instant
    from penstock.warehouse.schedule import Options

    chosen_hours = {instant(text, "--hour") // HOUR * HOUR for text in hours}
    first = instant(start, "--from") // HOUR * HOUR if start else None
    last = instant(end, "--to") if end else None
    if first is not None and last is not None and last <= first:
        raise click.UsageError(f"--to {end} is not after --from {start}")

    def wanted(dataset: str, hour: int) -> bool:
        return (
            (not datasets or dataset in datasets)
            and (not chosen_hours or hour in chosen_hours)
            and (first is None or hour >= first)
            and (last is None or hour < last)
        )

    return Options(duration(grace, "--grace"), duration(reload_, "--reload"), merge, wanted)


def feeds_of(topology: type[Topology], deployment: Deployment) -> Iterator[Feed]:
    """What each archive bolt of a topology has for the warehouse now: of the generation that is published, its progress read first."""
    from penstock.cli.published import GenerationView, archive_bolts, datasets, progress_of
    from penstock.warehouse.schedule import Feed

    for definition in archive_bolts(topology, deployment):
        progress = tuple(progress_of(definition, deployment))  # before the index: see penstock.warehouse.export
        yield Feed(GenerationView(deployment.archive, definition.generation), datasets(definition), progress)


def exporter_of(
    topology: type[Topology],
    deployment: Deployment,
    options: Options,
    *,
    serve: bool = False,
    datasets: tuple[str, ...] = (),
    rollups: bool = False,
) -> Exporter:
    """The exporter of a topology. serve: let Prometheus ask it. Raises NotFoundError for a dataset that the topology does not make."""
    from penstock.cli import published
    from penstock.errors import NotFoundError
    from penstock.warehouse.metrics import NoExportMetrics, PrometheusExportMetrics
    from penstock.warehouse.schedule import Exporter

    names = [dataset.name for definition in published.archive_bolts(topology, deployment) for dataset in published.datasets(definition)]
    more: Any = tuple
    if rollups:
        from penstock.cli.base import rollups_of
        from penstock.cli.rolled import RolledDays
        from penstock.warehouse.rollups import tables_of

        more = RolledDays(topology, deployment, options).tasks
        names += [table.name for rollup in rollups_of(topology) for table in tables_of(rollup)]
    for name in datasets:
        if name not in names:
            raise NotFoundError(f"{topology.topology_name} makes no dataset {name!r}", hint=f"it makes {', '.join(names)}")
    metrics: Any = NoExportMetrics()
    if serve and "metrics" in deployment.settings:
        metrics = PrometheusExportMetrics(deployment.settings["metrics"])
        metrics.serve()
    return Exporter(
        topology.topology_name,
        deployment.table,
        deployment.warehouse,
        lambda: feeds_of(topology, deployment),
        deployment.now,
        options,
        more=more,
        metrics=metrics,
        say=say,
    )


def chosen(exporter: Exporter, hours: tuple[str, ...], ranged: str | None, due: bool) -> list[Task]:
    """The hours that the command line names. Raises NotFoundError where nothing is archived of them."""
    from penstock.errors import NotFoundError

    tasks = exporter.tasks()
    if not tasks and not due:
        what = ", ".join(hours) if hours else "these hours" if ranged else "any hour"
        raise NotFoundError(f"nothing of {what} is archived", hint="`penstock status` lists the hours that are")
    return tasks


def planned(tasks: list[Task], due: bool, as_json: bool) -> int:
    """List what would be loaded, and what would not and why."""
    from penstock.model.units import hour_text

    plans = [task.plan for task in tasks]
    if due:
        plans = [plan for plan in plans if plan.state not in ("loaded", "foreign")]
    if as_json:
        for plan in plans:
            click.echo(json.dumps({**of_plan(plan), "load": plan.due or not due, "why": plan.why}))
        return OK
    if not plans:
        say("every hour that is archived is loaded")
        return OK
    rows = [[plan.dataset, hour_text(plan.hour), *sizes(plan), verb(plan, due), plan.why] for plan in plans]
    table(["dataset", "hour", "files", "rows", "size", "load", "why"], rows, right=(2, 3, 4))
    some = [plan for plan in plans if plan.due or not due]
    say(
        f"would load {number(len(some))} hours: {number(sum(p.rows for p in some))} rows of {number(sum(p.files for p in some))} files, {size(sum(p.bytes for p in some))}"
    )
    return OK


def sizes(plan: HourPlan) -> tuple[str, str, str]:
    """Files, rows and bytes; dashes for what is not made yet, a day of a roll-up."""
    return (number(plan.files), number(plan.rows), size(plan.bytes)) if plan.files else ("-", "-", "-")


def verb(plan: HourPlan, due: bool) -> str:
    """What would be done with an hour."""
    return "no" if due and not plan.due else "again" if plan.state in ("changed", "held", "foreign") else "yes"


def of_plan(plan: HourPlan) -> dict[str, Any]:
    """An hour's plan as pure data."""
    from penstock.model.units import hour_text

    return {
        "dataset": plan.dataset,
        "hour": hour_text(plan.hour),
        "files": plan.files,
        "rows": plan.rows,
        "bytes": plan.bytes,
        "state": plan.state,
    }


def loaded(exporter: Exporter, tasks: list[Task], due: bool, as_json: bool) -> int:
    """Load hours once; the exit code."""
    some = [task for task in tasks if task.plan.due or not due]
    failed = False
    with printing(as_json) as (show, shown), interruptible(exporter.stop, shown) as state:
        rows = 0
        shown.update("load", 0, len(some), unit="hours")
        for count, result in enumerate(exporter.once(some), 1):
            show(result)
            failed |= result.outcome == "failed"
            rows += result.rows
            shown.update("load", count, len(some), unit="hours", detail=f"{rows:,} rows")
    if due and not as_json:
        if not some:
            say("no hour is due")
        waiting(tasks)
    return INTERRUPTED if state["interrupted"] else FAILED if failed else OK


def waiting(tasks: list[Task]) -> None:
    """Say which hours were never loaded because more is expected of them, and what for."""
    from penstock.model.units import hour_text

    left = [task.plan for task in tasks if task.plan.state == "waiting" and task.loaded is None]
    if left:
        names = ", ".join(f"{plan.dataset} {hour_text(plan.hour)}" for plan in left[:6])
        say(f"not complete yet: {names}{f' and {len(left) - 6} more' if len(left) > 6 else ''}")
        say(f"  the first of them: {left[0].why}")


def followed(exporter: Exporter, deployment: Deployment, every: int, silence: int, as_json: bool) -> int:
    """Load what is due until Ctrl-C; the exit code."""
    from penstock.warehouse.lease import Lease

    lease = Lease(deployment.table, exporter.name, deployment.fresh(), deployment.now, silence=silence)
    with printing(as_json, bars=False) as (show, shown), interruptible(exporter.stop, shown):
        for result in exporter.follow(lease, every):
            show(result)
    return INTERRUPTED


@contextlib.contextmanager
def printing(as_json: bool, *, bars: bool = True) -> Iterator[tuple[Callable[[ExportResult], None], Meter]]:
    """What shows results, on standard output, and progress. A terminal's bars take what is written meanwhile above them, a file's lines stay its own."""
    out = None if sys.stdout.isatty() else sys.stdout

    def show(result: ExportResult) -> None:
        click.echo(json.dumps(of_result(result)) if as_json else line(result), file=out)
        (out or sys.stdout).flush()

    with meter() if bars else contextlib.nullcontext(Meter(None)) as shown:
        yield show, shown


@contextlib.contextmanager
def interruptible(stop: Callable[[], None], shown: Meter) -> Iterator[dict[str, bool]]:
    """Ctrl-C and SIGTERM: the first stops after the hour under way, the second at once, which a load survives as it does a crash."""
    state = {"interrupted": False}

    def handle(number_: int, frame: object) -> None:
        if state["interrupted"]:
            show_cursor = b"\x1b[?25h\n" if os.isatty(2) else b""
            os.write(2, show_cursor + b"stopped at once: the hour under way is as it was before\n")
            os._exit(INTERRUPTED)
        state["interrupted"] = True
        stop()
        os.write(2, b"stopping after the hour under way (once more to stop at once)\n")

    before = {which: signal.signal(which, handle) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield state
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def line(result: ExportResult) -> str:
    """What became of an hour, in a line."""
    from penstock.model.units import hour_text

    start = f"{result.dataset} {hour_text(result.hour)} {result.outcome}"
    if result.error is not None:
        return f"{start}: {result.error.message.removeprefix(f'{result.dataset} {hour_text(result.hour)}: ')}"
    return f"{start}: {number(result.rows)} rows of {result.files} files"


def of_result(result: ExportResult) -> dict[str, Any]:
    """The same as pure data."""
    from penstock.model.units import hour_text

    known = {"dataset": result.dataset, "hour": hour_text(result.hour), "outcome": result.outcome}
    if result.error is not None:
        return {**known, "error": result.error.message, "hint": result.error.hint}
    return {**known, "rows": result.rows, "files": result.files, "bytes": result.bytes}
