"""`penstock storm`: what runs on a Storm cluster, and how it is steered."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

import click

from penstock.cli.base import HELP, command, json_option, number_of, on_option, say
from penstock.cli.output import bad, heading, meter, number, table
from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.storm.nimbus import Details, NimbusClient


@click.group("storm", context_settings=HELP, short_help="Look at a Storm cluster, and steer what runs there.")
def storm() -> None:
    """Look at the Storm cluster of a deployment, and steer what runs there.

    All of it asks Nimbus. NAME is what a topology is called on the cluster; it may be left out where only one runs.
    """


def name_argument(function: Any) -> Any:
    """NAME: a topology that runs."""
    return click.argument("name", required=False)(function)


@contextlib.contextmanager
def cluster(on: str) -> Iterator[NimbusClient]:
    """A client of the Nimbus of a deployment."""
    from penstock.deployment import Deployment
    from penstock.storm.cluster import ClusterTable
    from penstock.storm.nimbus import NimbusClient

    with Deployment.named(on) as deployment, NimbusClient(ClusterTable.of(deployment).nimbus) as client:
        yield client


def chosen(client: NimbusClient, name: str | None) -> str:
    """The topology that is meant. Raises UsageError if none is named and not exactly one runs; NotRunningError."""
    if name is not None:
        return client.running(name).name
    known = [one.name for one in client.cluster().topologies if one.status != "KILLED"]
    if len(known) != 1:
        raise UsageError("no topology runs" if not known else "say which topology", hint=f"there are {', '.join(known)}" if known else None)
    return known[0]


def ago(seconds: int) -> str:
    """A length of time for people: "3 h 12 min"."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


@command(
    "list",
    [("what runs, and on which machines", "penstock storm list --on prod"), ("for a program", "penstock storm list --on prod --json")],
    short_help="Show the topologies and the machines.",
)
@json_option
@on_option
def list_(as_json: bool, on: str) -> int:
    """Show the topologies of the cluster, and its machines with their free slots."""
    import dataclasses

    with cluster(on) as client:
        found = client.cluster()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return 0
    rows = [[one.name, one.status, ago(one.uptime), one.workers, one.tasks, one.id] for one in found.topologies]
    table(["topology", "status", "up", "workers", "tasks", "id"], rows, title=f"Storm {found.version}, led by {found.leader}", right=(3, 4))
    click.echo()
    table(["machine", "slots", "used", "up"], [[one.host, one.slots, one.used, ago(one.uptime)] for one in found.supervisors], right=(1, 2))
    return 0


@command(
    "stats",
    [
        ("each component's tasks, where they run, and what went wrong", "penstock storm stats advertiser_analytics --on prod"),
        ("the last errors in full", "penstock storm stats advertiser_analytics --on prod --errors"),
        ("Storm's own components too, for a program", "penstock storm stats --on prod --system --json"),
    ],
    short_help="Show the tasks of a topology, and its errors.",
)
@name_argument
@click.option("--errors", is_flag=True, help="Print the errors in full.")
@click.option("--system", is_flag=True, help="Storm's own components too, such as ackers.")
@json_option
@on_option
def stats(name: str | None, errors: bool, system: bool, as_json: bool, on: str) -> int:
    """Show where each task runs, since when, and how many tuples it emitted, acked and failed.

    The counts are Storm's: samples of one tuple in twenty that lag a minute behind, and a tuple holds many events. `penstock status` says exactly how far
    each bolt is.
    """
    from penstock.storm.control import as_json as pure

    with cluster(on) as client:
        found = client.details(chosen(client, name))
    if as_json:
        click.echo(json.dumps(pure(found)))
    else:
        shown(found, errors=errors, system=system)
    return 0


def shown(found: Details, *, errors: bool, system: bool) -> None:
    """Print a topology's tasks and errors."""
    from penstock.storm.control import executors_of

    rows = [
        [
            one.component,
            f"{one.first_task}" if one.first_task == one.last_task else f"{one.first_task}-{one.last_task}",
            f"{one.host}:{one.port}",
            ago(one.uptime),
            number(one.emitted),
            number(one.acked),
            bad(number(one.failed)) if one.failed else number(one.failed),
        ]
        for one in executors_of(found, system=system)
    ]
    title = f"{found.name}: {found.status}, up {ago(found.uptime)} ({found.id})"
    table(["component", "tasks", "worker", "up", "emitted ~", "acked ~", "failed ~"], rows, title=title, right=(4, 5, 6))
    if not found.failures:
        return
    click.echo()
    heading("errors, the latest first")
    for failure in found.failures:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(failure.at))
        click.echo(f"{at}  {failure.component} on {failure.host}:{failure.port}: {failure.text if errors else failure.summary}")


@command(
    "kill",
    [
        ("stop a topology; what is durable stays", "penstock storm kill advertiser_analytics --on prod"),
        ("at once, without being asked", "penstock storm kill advertiser_analytics --on prod --wait 0 --yes"),
    ],
    short_help="Stop a topology.",
)
@click.argument("name")
@click.option(
    "--wait",
    type=number_of(0),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long its bolts may go on while its spouts are silent.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_option
def kill(name: str, wait: int, yes: bool, on: str) -> int:
    """Stop a topology, and wait until it is gone. Cells, positions and the archive stay: submitted again, it goes on from there."""
    from penstock.storm.submit import wait_until_gone

    with cluster(on) as client:
        running = client.running(name)
        if not yes:
            click.confirm(f"stop {name}, which is up {ago(running.uptime)} with {running.tasks} tasks?", abort=True)
        if running.status != "KILLED":
            client.kill(name, wait)
        with meter() as progress:
            wait_until_gone(client, name, lambda seconds: progress.update("ending", seconds, None, unit="seconds"), within=wait + 120)
    click.echo(f"{name} is gone")
    return 0


@command(
    "rebalance",
    [
        ("over three workers", "penstock storm rebalance advertiser_analytics --on prod --workers 3"),
        ("after a machine was added, with the workers there are", "penstock storm rebalance advertiser_analytics --on prod"),
    ],
    short_help="Spread a topology over the machines anew.",
)
@name_argument
@click.option("--workers", type=number_of(1), metavar="N", help="How many workers from now on. [default: as many as now]")
@click.option("--wait", type=number_of(0), default=5, show_default=True, metavar="SECONDS", help="How long its spouts are silent before.")
@on_option
def rebalance(name: str | None, workers: int | None, wait: int, on: str) -> int:
    """Spread a topology's tasks over the machines anew. Their number stays: `penstock submit --replace` changes that.

    Every worker is started again, from what is durable. Fewer workers need a larger heap each, which only `penstock submit` checks and sets; so they are
    refused here.
    """
    with cluster(on) as client:
        named = chosen(client, name)
        asked = client.settings(named).get("topology.workers", 1)
        if workers is not None and workers < asked:
            raise UsageError(
                f"{named} was submitted for {asked} workers: with {workers} each would have to hold more than its heap",
                hint="set workers in the [storm] table, and `penstock submit --replace`",
            )
        client.rebalance(named, wait=wait, workers=workers)
    click.echo(f"{named} is spread anew in {wait} s")
    return 0


def switch(name: str, done: str, text: str, examples: list[tuple[str, str]], short: str) -> click.Command:
    """A command that calls the client's method of its name for a topology."""

    @command(name, examples, short_help=short, help=text)
    @click.argument("name", required=False)
    @on_option
    def switched(name: str | None, on: str, method: str = name) -> int:
        with cluster(on) as client:
            topology = chosen(client, name)
            getattr(client, method)(topology)
        click.echo(f"{topology} {done}")
        return 0

    return switched


activate = switch(
    "activate",
    "is active: its spouts emit",
    "Let the spouts of a topology emit again.",
    [("go on after `penstock storm deactivate`", "penstock storm activate advertiser_analytics --on prod")],
    "Let a topology's spouts emit again.",
)
deactivate = switch(
    "deactivate",
    "is inactive: its spouts emit nothing, and its bolts commit what they have",
    "Let the spouts of a topology emit nothing, such as while a store is being maintained. Its workers stay up; the log keeps what arrives.",
    [("hold a topology", "penstock storm deactivate advertiser_analytics --on prod")],
    "Let a topology's spouts emit nothing.",
)


@command(
    "logs",
    [
        ("the last lines of every worker", "penstock storm logs advertiser_analytics --on prod"),
        (
            "what one component's workers say, as they say it",
            "penstock storm logs advertiser_analytics --on prod --component rollups --follow",
        ),
        ("where the files are", "penstock storm logs advertiser_analytics --on prod --where"),
    ],
    short_help="Show the logs of a topology's workers.",
)
@name_argument
@click.option("--component", metavar="NAME", help="Only workers that run it.")
@click.option("--lines", type=number_of(0), default=50, show_default=True, metavar="N", help="How many of the last lines.")
@click.option("--follow", is_flag=True, help="Go on printing what is added, until Ctrl-C. For workers on this machine.")
@click.option("--where", is_flag=True, help="Print where the logs are, and nothing of them.")
@on_option
def logs(name: str | None, component: str | None, lines: int, follow: bool, where: bool, on: str) -> int:
    """Show what a topology's workers and the components in them logged.

    Files of workers on this machine are read; of others, Storm's logviewer is asked; where none runs, it says where the file is.
    """
    from penstock.storm.control import follow as followed
    from penstock.storm.control import last_lines, worker_logs

    with cluster(on) as client:
        found = worker_logs(client, chosen(client, name), component)
    if where:
        table(["worker", "components", "file"], [[f"{one.host}:{one.port}", ", ".join(one.components), one.path] for one in found])
        return 0
    here = {one.here: one for one in found if one.here is not None}
    if follow and not here:
        raise UsageError("no worker runs on this machine", hint="--follow reads files: leave it out, or run this on the worker's machine")
    for one in found if not follow else here.values():
        heading(f"==> {one.host}:{one.port} ({', '.join(one.components)})")
        for line in last_lines(one, lines):
            click.echo(line)
    if follow:
        for path, line in followed(list(here)):
            click.echo(f"{here[path].port}: {line}" if len(here) > 1 else line)
    return 0


@command(
    "jar",
    [
        ("of the project in this folder", "penstock storm jar shop.jar"),
        ("with its whole Python environment, for workers that have only Python", "penstock storm jar shop.jar --packed"),
        ("then submit it with streamparse", "sparse submit -n shop -j shop.jar"),
    ],
    short_help="Make a topology jar, without lein.",
)
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--project", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".", show_default=True, help="The project's folder."
)
@click.option("--packed", is_flag=True, help="Pack the Python environment too.")
@click.option("--python", metavar="PATH", help="The interpreter whose environment is packed, of the workers' version. [default: this one]")
def jar(out: Path, project: Path, packed: bool, python: str | None) -> int:
    """Make the jar that `penstock submit --jar` and `sparse submit -j` take: the project's code, and the Java half of the msgpack serializer.

    With --packed it holds the Python environment as well, as it is installed here. The deployment then says python = "packed".
    """
    from penstock.storm.environment import pack
    from penstock.storm.jar import build

    if python and not packed:
        raise UsageError("--python says whose environment is packed, and none is", hint="add --packed")
    with tempfile.TemporaryDirectory(prefix="penstock-jar-") as scratch:
        if packed:
            say("packing the environment")
        environment = pack(project, Path(scratch, "environment"), python=python) if packed else None
        made = build(out, project=project, environment=environment)
    click.echo(f"{made}  {made.stat().st_size:,} bytes")
    return 0


COMMANDS = (list_, stats, logs, activate, deactivate, rebalance, kill, jar)
for _command in COMMANDS:
    storm.add_command(_command)
