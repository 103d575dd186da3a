"""`penstock submit`: a topology onto a Storm cluster."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.base import command, load, notice_kernels, number_of, on_option, open_deployment, say, topology_argument
from penstock.cli.output import Meter, heading, meter, pairs, table
from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.rollup.registry import BoltDefinition
    from penstock.storm.compose import Composed
    from penstock.storm.nimbus import NimbusClient
    from penstock.storm.submit import Standing
    from penstock.topology import Topology


@command(
    "submit",
    [
        ("see what would be submitted, and with which settings", "penstock submit advertiser_analytics --on prod --dry-run"),
        ("submit it, and wait until all of it is up", "penstock submit advertiser_analytics --on prod"),
        ("put a new version in place of the one that runs", "penstock submit advertiser_analytics --on prod --replace"),
        ("begin a changed definition at the start of the log", "penstock submit advertiser_analytics --on prod --replace --from earliest"),
        ("with a setting of Storm's", "penstock submit topologies/shop.py --on prod -o topology.priority=10"),
    ],
    short_help="Run a topology on a Storm cluster.",
)
@topology_argument
@click.option("--name", metavar="NAME", help="What it is called on the cluster. [default: the topology's own name]")
@click.option("--replace", is_flag=True, help="Kill the one of that name that runs, and go on from where it ended.")
@click.option(
    "--from",
    "start",
    metavar="earliest|latest|TIME",
    help="Where a new generation begins; a known one goes on. [default: earliest, for the first]",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until every component is up and every partition is taken up.")
@click.option("--timeout", type=number_of(1), default=300, show_default=True, metavar="SECONDS", help="How long to wait for that.")
@click.option("--dry-run", is_flag=True, help="Print the components and the settings; change nothing.")
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of Storm's, before those of the deployment. Repeatable.",
)
@click.option(
    "--jar",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A jar that `penstock storm jar` made, instead of a new one.",
)
@click.option("--inactive", is_flag=True, help="Submit it with its spouts silent; `penstock storm activate` lets them emit.")
@on_option
def submit(
    topology: str,
    name: str | None,
    replace: bool,
    start: str | None,
    wait: bool,
    timeout: int,
    dry_run: bool,
    options: tuple[str, ...],
    jar: Path | None,
    inactive: bool,
    on: str,
) -> int:
    """Run a topology on the Storm cluster of a deployment, exactly as `penstock run` runs it here.

    Tables, topics and positions are made before the first tuple. It goes on from where an earlier run ended, wherever that ran. A changed definition is
    a new generation: it says where it begins with --from, and the one that is served goes on counting beside it.
    """
    from penstock.model.units import instant
    from penstock.storm.cluster import ClusterTable
    from penstock.storm.compose import compose, definitions_of
    from penstock.storm.nimbus import NimbusClient
    from penstock.storm.submit import launcher

    if start not in (None, "earliest", "latest"):
        instant(start or "", "--from")
    found, given = load(topology), parsed(options)
    notice_kernels()
    with open_deployment(on, must_exist=False) as deployment:
        cluster = ClusterTable.of(deployment)
        launch = launcher(cluster)
        composed = compose(found, deployment, definitions_of(found, deployment), launch, name=name, options=given)
        if dry_run:
            shown(composed, cluster.nimbus)
            return 0
        with NimbusClient(cluster.nimbus) as client, meter() as progress:
            definitions, before = place(
                client, found, deployment, composed, progress, replace=replace, start=start, jar=jar, active=not inactive
            )
            if wait and not inactive:
                came_up(client, composed, deployment, definitions, before, progress, timeout)
    return 0


def parsed(options: tuple[str, ...]) -> dict[str, Any]:
    """`-o key=value` as settings: a value is JSON, or else a text. Raises UsageError."""
    found: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"-o {option}: is not a setting", hint="write -o key=value, such as -o topology.priority=10")
        try:
            found[key.strip()] = json.loads(text)
        except ValueError:
            found[key.strip()] = text
    return found


def project_of(topology: type[Topology]) -> Path | None:
    """The folder that a topology's own modules are imported from; None for one that comes with Penstock."""
    module = sys.modules[topology.__module__]
    if module.__name__.partition(".")[0] == "penstock" or not module.__file__:
        return None
    return Path(module.__file__).resolve().parents[module.__name__.count(".")]


def place(
    client: NimbusClient,
    topology: type[Topology],
    deployment: Deployment,
    composed: Composed,
    progress: Meter,
    *,
    replace: bool,
    start: str | None,
    jar: Path | None,
    active: bool,
) -> tuple[list[BoltDefinition], dict[bytes, str]]:
    """Prepare, upload, make way and submit. What runs now, and who owned the shards before."""
    from penstock.runner.local import prepare
    from penstock.storm.cluster import ClusterTable
    from penstock.storm.submit import check_may_run, check_slots, make_jar, make_way, owners

    name = composed.name
    there = check_may_run(client, name, replace=replace)
    check_slots(client, composed, replaces=there.workers if there else 0)
    for note in composed.notes:
        progress.say(note)
    definitions = prepare(topology, deployment, start)
    with tempfile.TemporaryDirectory(prefix="penstock-submit-") as scratch:
        if jar is None:
            (empty := Path(scratch, "project")).mkdir()
            cluster = ClusterTable.of(deployment)
            progress.say("packing the Python environment into the jar" if cluster.packed else "making the jar")
            jar = make_jar(Path(scratch, f"{name}.jar"), cluster, project_of(topology) or empty, Path(scratch))
        location = client.upload(jar, lambda sent, total: progress.update("upload", sent, total, unit="bytes"))
    if make_way(client, name, replace=replace, on_wait=lambda seconds: progress.update("old one ends", seconds, None, unit="seconds")):
        progress.say(f"{name}: the one that ran is gone")
    before = owners(deployment, definitions)
    client.submit(name, location, composed.settings, composed.topology, active=active)
    progress.say(f"{name} is submitted" + ("" if active else ", with its spouts silent: `penstock storm activate` lets them emit"))
    return definitions, before


def came_up(
    client: NimbusClient,
    composed: Composed,
    deployment: Deployment,
    definitions: list[BoltDefinition],
    before: dict[bytes, str],
    progress: Meter,
    timeout: int,
) -> None:
    """Wait until it is up, with progress and the errors of its components."""
    from penstock.storm.submit import wait_until_up

    def look(standing: Standing) -> None:
        placed = f"{standing.placed} of {standing.tasks} tasks have a worker"
        progress.update("partitions taken up", standing.claimed, standing.shards, detail=placed, unit="partitions")
        for failure in standing.fresh:
            progress.say(f"{failure.component} on {failure.host}:{failure.port}: {failure.summary}")

    try:
        done = wait_until_up(client, composed, deployment, definitions, before, timeout=timeout, on_look=look)
    except KeyboardInterrupt:
        progress.say(f"{composed.name} stays submitted: `penstock storm stats {composed.name}` shows how it is")
        raise
    workers = {(one.host, one.port) for one in done.details.executors}
    progress.say(
        f"{composed.name} is up: {done.tasks} tasks in {len(workers)} worker{'s' if len(workers) > 1 else ''}, {done.shards} partitions"
    )


def shown(composed: Composed, nimbus: str) -> None:
    """Print what would be submitted."""
    table(
        ["component", "", "tasks", "runs"],
        [[one.name, one.kind, one.tasks, one.runs] for one in composed.components],
        title=f"{composed.name}, to Nimbus at {nimbus}",
        right=(2,),
    )
    click.echo()
    heading("settings (docs/storm.md says why)")
    pairs([(key, value if isinstance(value, str) else json.dumps(value)) for key, value in sorted(composed.settings.items())])
    for note in composed.notes:
        say(note)
