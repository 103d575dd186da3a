"""`penstock stack`: real servers for development and tests."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

import click

from penstock.cli.base import HELP, FAILED, OK, command, json_option, number_of, say
from penstock.cli.output import bad, good, size, table
from penstock.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from penstock.stack import Progress, Stack

_PLAIN_EVERY = 10.0  # seconds between two lines that say the same of a process, where there is no terminal
_FOLLOW = 0.2  # seconds between two looks at a log


@click.group("stack", context_settings=HELP, short_help="Run real servers here: Kafka, HBase, Storm, PostgreSQL, S3.")
def stack() -> None:
    """Run real servers on this machine, for development and tests: Kafka, HBase, Storm, PostgreSQL, S3 (moto).

    Their data, logs and ports are kept in one folder; they listen on the loopback interface (Nimbus, the supervisor and Storm's workers on
    all: Storm has no setting for it). --on stack names the deployment that they make.
    """


def state_option(function: Any) -> Any:
    """--state."""
    return click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="PENSTOCK_STACK",
        show_envvar=True,
        metavar="DIR",
        help="The stack's folder. [default: the nearest .penstock-stack from here upwards, else a new one here]",
    )(function)


def servers_argument(function: Any) -> Any:
    """SERVER..."""
    return click.argument("servers", nargs=-1, metavar="[SERVER]...")(function)


@command(
    "up",
    [
        ("Kafka, HBase and Storm", "penstock stack up"),
        ("the stand-ins for Redshift and S3 too", "penstock stack up kafka hbase storm postgres s3 redshift"),
        ("at a port of one's own choice", "penstock stack up kafka --port kafka=9092"),
    ],
    short_help="Start servers, and wait until they are ready.",
)
@servers_argument
@click.option("--port", "ports", multiple=True, metavar="NAME=NUMBER", help="A port that is not to be chosen freely; repeatable.")
@state_option
def up(servers: tuple[str, ...], ports: tuple[str, ...], state: Path | None) -> int:
    """Start servers (kafka hbase storm postgres s3 redshift; the first three if none is named), and wait until each answers in its own protocol.

    Repeatable: what runs stays as it is, what died is started again with its ports and data. The first time Maven gets the jars, 360 MB in
    all, which are held to the checksums that Penstock ships. Needs Java 17 or later, Maven for the first time, and PostgreSQL for postgres,
    before which redshift stands: a stand-in for Redshift.
    """
    from penstock.stack import DEFAULT

    made = open_stack(state)
    began = time.monotonic()
    with shown() as progress:
        started = made.up(servers or DEFAULT, ports=told(ports), progress=progress)
    if not any(started.values()):
        say(f"all of it runs already: {', '.join(started)}")
    else:
        say(f"ready after {time.monotonic() - began:.0f} s. Use it with --on stack; `penstock stack down` stops it")
    for name, value in made.exports().items():
        click.echo(f"{name}={value}")
    return OK


@command(
    "down",
    [
        ("stop everything; the data stay", "penstock stack down"),
        ("stop Storm alone", "penstock stack down storm"),
        ("stop everything and remove all data, logs and ports", "penstock stack down --wipe"),
    ],
    short_help="Stop servers.",
)
@servers_argument
@click.option("--wipe", is_flag=True, help="Remove their data, logs and ports too.")
@state_option
def down(servers: tuple[str, ...], wipe: bool, state: Path | None) -> int:
    """Stop servers, all if none is named, each by its own orderly way; what does not end is killed. The data stay for the next `up`."""
    made = open_stack(state)
    with shown() as progress:
        stopped = made.down(servers or None, wipe=wipe, progress=progress)
    said = f"stopped {', '.join(stopped)}" if stopped else "nothing ran"
    say(f"{said}; removed all data" if wipe else said)
    return OK


@command(
    "status",
    [("how each process is", "penstock stack status"), ("for a program", "penstock stack status --json")],
    short_help="Show which servers run, and whether they answer.",
)
@json_option
@state_option
def status(as_json: bool, state: Path | None) -> int:
    """Show each process: whether it answers in its own protocol, its id, ports, memory and time.

    Exit code 1 if one died or does not answer.
    """
    made = open_stack(state)
    found = made.status()
    if as_json:
        fields = ("server", "name", "health", "pid", "ports", "memory", "uptime")
        click.echo(json.dumps([{name: getattr(one, name) for name in fields} for one in found], indent=1, default=dict))
    elif not found:
        say(f"there is no stack in {made.state.folder}; `penstock stack up` brings one up")
    else:
        rows = [
            [
                one.name,
                good(one.health) if one.health == "ok" else one.health if one.well else bad(one.health),
                one.pid,
                " ".join(f"{name}={port}" for name, port in (one.ports or {}).items()),
                size(one.memory) if one.memory else None,
                _ago(one.uptime) if one.uptime else None,
            ]
            for one in found
        ]
        table(["process", "health", "pid", "ports", "memory", "up"], rows, title=str(made.state.folder), right=(2, 4, 5))
    return OK if all(one.well for one in found) else FAILED


@command(
    "logs",
    [
        ("the end of the broker's log", "penstock stack logs kafka"),
        ("go on with it", "penstock stack logs nimbus -n 5 -f"),
        ("those of Storm's workers", "penstock stack logs workers"),
    ],
    short_help="Show the end of a server's log.",
)
@click.argument("server")
@click.option("-n", "lines", type=number_of(0), default=50, show_default=True, metavar="N", help="How many lines of each log.")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@state_option
def logs(server: str, lines: int, following: bool, state: Path | None) -> int:
    """Show the end of the logs of a server, of one of its processes, or of Storm's `workers`."""
    made = open_stack(state)
    paths = made.logs(server)
    if not paths:
        raise NotFoundError(f"{server} has no log yet", hint=f"the logs are in {made.state.folder / 'logs'}")
    tails = [Tail(name, path) for name, path in paths.items()]
    last = None
    for tail in tails:
        last = _printed(tail, tail.last(lines), last if len(tails) > 1 else tail.name)
    while following:
        time.sleep(_FOLLOW)
        for tail in tails:
            last = _printed(tail, tail.fresh(), last)
        sys.stdout.flush()
    return OK


@command(
    "env",
    [("let other programs of this shell find the servers", 'eval "$(penstock stack env)"'), ("for a program", "penstock stack env --json")],
    short_help="Print environment variables that name the servers.",
)
@json_option
@state_option
def env(as_json: bool, state: Path | None) -> int:
    """Print the addresses of the servers as environment variables for a shell, under the names that psql and the AWS tools read."""
    found = open_stack(state).exports()
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            click.echo(f"export {name}={shlex.quote(value)}")
    return OK


for _command in (up, down, status, logs, env):
    stack.add_command(_command)


class Tail:
    """The end of a log that is still written to, and may be set aside for a new one."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self._inode, self._at = 0, 0

    def last(self, count: int) -> str:
        """The last `count` lines; `fresh` goes on after them."""
        found = self.fresh().splitlines(keepends=True)
        return "".join(found[-count:] if count else [])

    def fresh(self) -> str:
        """What was written since the last call."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            there = self.path.stat()
            if there.st_ino != self._inode or there.st_size < self._at:
                self._inode, self._at = there.st_ino, 0
            file.seek(self._at)
            text = file.read()
            self._at += len(text)
            return text.decode(errors="replace")
        return ""


def _printed(tail: Tail, text: str, last: str | None) -> str | None:
    """Print what a log has, below its name if the log before was another one. Whose lines were printed last."""
    if not text:
        return last
    if tail.name != last:
        click.echo(click.style(f"==> {tail.name} <==", bold=True))
    click.echo(text, nl=not text.endswith("\n"))
    return tail.name


def open_stack(state: Path | None) -> Stack:
    """The stack of --state, or the one that is here."""
    from penstock.stack import Stack, find

    return Stack(find(state))


def told(ports: tuple[str, ...]) -> dict[str, int]:
    """The --port options: NAME=NUMBER. Raises UsageError."""
    found = {}
    for text in ports:
        name, _, number = text.partition("=")
        if not name or not number.isascii() or not number.isdigit():
            raise UsageError(f"--port {text}: not NAME=NUMBER", hint="such as --port kafka=9092")
        found[name] = int(number)
    return found


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """Progress on standard error: a line a process at a terminal, a line a change elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.progress import Progress as Display
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    from penstock.cli.output import console

    columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}", style="bold"), TimeElapsedColumn())
    tasks: dict[str, Any] = {}
    with Display(*columns, TextColumn("{task.fields[what]}", markup=False), console=console(err=True)) as display:

        def show(name: str, what: str) -> None:
            if name not in tasks:
                tasks[name] = display.add_task(name, total=1, what=what)
            ended = what.startswith(("ready", "runs already", "stopped", "killed"))
            display.update(tasks[name], what=what, completed=int(ended))

        yield show


class Lines:
    """Progress as lines: each change of what a process does, and now and then that it still does it."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float]] = {}

    def __call__(self, name: str, what: str) -> None:
        now, kind = time.monotonic(), what.partition(",")[0]
        before, at = self._said.get(name, ("", 0.0))
        if kind != before or now - at >= _PLAIN_EVERY:
            self._said[name] = kind, now
            say(f"{name}: {what}")


def _ago(seconds: float) -> str:
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return (
        f"{hours // 24} d {hours % 24} h"
        if hours >= 24
        else f"{hours} h {minutes % 60} min"
        if hours
        else f"{minutes} min {int(seconds % 60)} s"
    )
