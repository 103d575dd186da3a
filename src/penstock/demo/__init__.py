"""`penstock demo`: a million ad events, or a site's own traffic, from the log to exact numbers, and a check of every one of them.

`ads` and `traffic` hold what differs between the two; `reconcile` computes the same numbers from the raw log, with another engine's JSON reader.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Protocol

import click

from penstock.cli.base import FAILED, INTERRUPTED, OK, load, say
from penstock.cli.output import Meter, bad, good, heading, meter, number, size, table
from penstock.cli.run import logged, run_here, seconds_since, summary
from penstock.demo.check import Check
from penstock.errors import ConfigurationError

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.log.produce import ProduceReport
    from penstock.rollup.registry import BoltDefinition

MARK = "penstock-demo.json"  # what tells a demo's folder from one that must not be deleted
LIVE = "live traffic has flowed in"


class Scene(Protocol):
    """What differs between the demos."""

    topology: str
    input_title: str

    def produce(self, deployment: Deployment, shown: Meter) -> ProduceReport:
        """Fill the log."""

    def look_up(self, deployment: Deployment) -> None:
        """Print what was rolled up."""

    def report(self, deployment: Deployment) -> None:
        """Print an SQL report."""

    def reconcile(self, deployment: Deployment, definitions: list[BoltDefinition]) -> list[Check]:
        """Compare all numbers with the raw log's."""

    def next_steps(self, on: str) -> list[str]:
        """Commands to try."""


def play(scene: Scene, deployment: Deployment, *, workers: int = 1) -> int:
    """Run the whole demo in a folder that is `fresh`; the exit code. Every step says how long it took."""
    began = time.monotonic()
    topology = load(scene.topology)
    with deployment, logged():
        title(1, scene.input_title)
        at = time.monotonic()
        with meter() as shown:
            made = scene.produce(deployment, shown)
        click.echo(
            f"{number(made.records)} records, {size(made.bytes)}, in {len(made.ends)} partitions, durable: {seconds_since(at)} ({rate(made.records, at)})"
        )

        title(2, f"Run topology {topology.topology_name}: roll up and archive every event, exactly once")
        at = time.monotonic()
        definitions, interrupted = run_here(topology, scene.topology, deployment, until_caught_up=True, workers=workers)
        click.echo(f"{number(made.records)} events through {len(definitions)} bolts: {seconds_since(at)} ({rate(made.records, at)})\n")
        summary(deployment, definitions)
        if interrupted:
            say("interrupted: what the table says is durable")
            return INTERRUPTED

        title(3, "Look up")
        scene.look_up(deployment)

        title(4, "Load the archived hours into the warehouse")
        at = time.monotonic()
        failed = load_hours(definitions, deployment, at)

        title(5, "Ask in SQL")
        scene.report(deployment)

        title(6, "Reconcile: the same numbers from the raw log, its JSON read by DuckDB")
        at = time.monotonic()
        checks = scene.reconcile(deployment, definitions)
        wrong = print_checks(checks)
        click.echo(f"\n{number(sum(check.numbers for check in checks))} numbers compared: {seconds_since(at)}")
    click.echo()
    heading("All numbers agree." if not wrong and not failed else f"{wrong} checks differ, {failed} hours failed.")
    click.echo(f"It took {seconds_since(began)}. Go on with:")
    for line in scene.next_steps(deployment.name):
        click.echo(f"  {line}")
    return FAILED if wrong or failed else OK


@contextlib.contextmanager
def fresh(deployment: Deployment, keep: bool) -> Iterator[None]:
    """The deployment's folder, emptied unless `keep`, for this demo alone: another one would delete it while this one serves it.

    Raises ConfigurationError for one that is not a demo's, or that a demo runs in, or that is not to be gone on with.
    """
    directory = deployment.directory
    if directory is None or {"kafka", "hbase"} & set(deployment.settings):
        raise ConfigurationError(
            f"the demo makes its stores anew, and does not touch those of {deployment.name}", hint="use --on local:DIR"
        )
    mark = directory / MARK
    if directory.exists() and any(directory.iterdir()) and not mark.is_file():
        raise ConfigurationError(f"{directory} is not empty, and not of an earlier demo", hint="name a new folder: --on local:DIR")
    directory.mkdir(parents=True, exist_ok=True)
    with open(mark, "a", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another demo runs in {directory}", hint="end it with Ctrl-C, or name another folder: --on local:DIR"
            ) from None
        if not keep:
            _empty(directory, mark)
            held.truncate(0)
            held.write(json.dumps({"made by": "penstock demo; the next one deletes this folder"}) + "\n")
            held.flush()
        elif LIVE in mark.read_text():
            raise ConfigurationError(
                f"live traffic has flowed into {directory}: beside it the demo's day is late", hint="leave out --keep, and begin anew"
            )
        yield


def went_live(deployment: Deployment) -> None:
    """Remember that traffic of today flows in."""
    assert deployment.directory is not None
    with open(deployment.directory / MARK, "a", encoding="utf-8") as mark:
        mark.write(LIVE + "\n")


def _empty(directory: Path, but: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != but:
            path.unlink()


def title(step: int, text: str) -> None:
    """What comes next."""
    click.echo()
    heading(f"{step}. {text}")


def rate(count: int, since: float) -> str:
    """Events a second, since a moment."""
    return f"{count / max(time.monotonic() - since, 1e-9):,.0f} events/s"


def load_hours(definitions: list[BoltDefinition], deployment: Deployment, began: float) -> int:
    """Load every hour that is archived; how many failed."""
    from penstock.cli.published import GenerationView, datasets
    from penstock.errors import PenstockError
    from penstock.warehouse.export import export_hour

    archives = [definition for definition in definitions if definition.kind == "archive"]
    wanted = [
        (GenerationView(deployment.archive, definition.generation), dataset) for definition in archives for dataset in datasets(definition)
    ]
    hours = [(view, dataset, hour) for view, dataset in wanted for hour in view.hours(dataset.name)]
    rows: dict[str, list[int]] = {}
    failed = 0
    with meter() as shown:
        for done, (view, dataset, hour) in enumerate(hours, 1):
            try:
                result = export_hour(view, deployment.warehouse, dataset, hour, deployment.now())
                counts = rows.setdefault(dataset.name, [0, 0, 0])
                rows[dataset.name] = [counts[0] + 1, counts[1] + result.rows, counts[2] + result.files]
            except PenstockError as problem:
                failed += 1
                shown.say(f"{dataset.name}: {problem.message}")
            shown.update("load", done, len(hours), unit="hours", detail=f"{sum(counts[1] for counts in rows.values()):,} rows")
    table(
        ["dataset", "hours", "rows", "files"],
        [[name, *(number(count) for count in counts)] for name, counts in rows.items()],
        right=(1, 2, 3),
    )
    click.echo(f"\neach hour in one transaction, with its row in the ledger: {seconds_since(began)}")
    return failed


def print_checks(checks: list[Check]) -> int:
    """The checks as a table; how many differ."""
    rows: list[list[Any]] = [
        [check.what, check.ours, check.theirs, number(check.numbers), bad("DIFFERS") if check.differences else good("OK")]
        for check in checks
    ]
    table(["", "Penstock", "raw log", "compared", ""], rows, right=(1, 2, 3))
    for check in checks:
        for difference in check.differences:
            click.echo(f"  {check.what}: {difference}")
    return sum(bool(check.differences) for check in checks)
