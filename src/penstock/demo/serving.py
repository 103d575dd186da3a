"""The demo goes on: its topology runs, traffic flows in, and the dashboard is open, until Ctrl-C."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Iterator, NoReturn

import click

from penstock.cli.base import OK, say
from penstock.cli.output import heading
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.deployment import Deployment

RATE = 300  # events a second
EVERY = 0.25  # seconds between two batches
STARTS = 120  # seconds that the server has to say where it listens
STOPS = 60  # seconds that each process has to end once it is told to
BLOCK = 10_000  # made-up events at a time


class Stopped(Exception):
    """Somebody pressed Ctrl-C, told the process to end, or closed its terminal."""


def serve_demo(deployment: Deployment, topology: str, entity: tuple[str, int], day: str) -> int:
    """Run the topology and the server, feed the log, and say where to look; the exit code. entity: a field and a value, whose page it is. day: of the
    demo's own events."""
    from penstock.serve.keys import KeyStore
    from penstock.serve.scope import Scope

    field, value = entity
    key = KeyStore(lambda: deployment.table, deployment.now).create("demo", Scope(("read",), entities={field: (str(value),)}))[0]
    processes: list[subprocess.Popen[str]] = []
    try:
        with _signals():
            processes.append(_start("serve", "--port", "0", "--on", deployment.name, out=subprocess.PIPE))
            address = _address(processes[0])
            processes.append(_start("run", topology, "--on", deployment.name))
            page = f"{address}/dashboard"
            click.echo()
            heading("Live: open the dashboard")
            click.echo(f"  {page}?entity={value}&range=last_60m#key={key}")
            # By days: the hours are kept for 90 days before the newest event, and that is one of today as soon as traffic flows.
            click.echo(f"  the demo's day, after that: {page}?entity={value}&range=custom&start={day}&end={day}&interval=1d&tz=UTC")
            click.echo(f"  {RATE} events a second flow in; the API is documented at {address}/docs. Ctrl-C stops everything.")
            sys.stdout.flush()
            _feed(deployment, processes)
    except Stopped:
        with contextlib.suppress(OSError):  # the terminal may be gone
            say("stopping: making durable what was taken")
        return OK
    finally:
        _stop(processes)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Stopped

    # SIGHUP as well: the two are in sessions of their own, and would outlive the terminal.
    wanted = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else [])]
    before = {which: signal.signal(which, stop) for which in wanted}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def _start(*arguments: str, out: Any = subprocess.DEVNULL) -> subprocess.Popen[str]:
    # In a session of its own: Ctrl-C is for the demo alone, which stops the two in turn.
    return subprocess.Popen(
        [sys.executable, "-m", "penstock", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def _address(server: subprocess.Popen[str]) -> str:
    """Where the server says that it listens. Raises PenstockError."""
    assert server.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: lines.put(server.stdout.readline() if server.stdout else ""), daemon=True).start()
    try:
        words = lines.get(timeout=STARTS).split()
    except queue.Empty:
        words = []
    found = next((word for word in words if word.startswith("http")), None)
    if found is None:
        raise PenstockError("the server did not start", hint="`penstock serve` says why")
    return found


def _feed(deployment: Deployment, processes: list[subprocess.Popen[str]]) -> NoReturn:
    """Made-up ad events that happen now, RATE a second, for ever. Raises PenstockError when a process has ended by itself."""
    from penstock.log.generate import AdEvents
    from penstock.log.producer import Producer

    seed = int(time.time())
    events = (one for block in itertools.count() for one in AdEvents(seed + block).dicts(BLOCK) if one is not None)
    with Producer(deployment.log, deployment.topic("ads")) as producer:
        due = time.monotonic()
        while True:
            now = int(time.time() * 1000)
            for one in itertools.islice(events, int(RATE * EVERY)):
                producer.send(json.dumps({**one, "ts": now}).encode(), str(one["advertiser_id"]).encode())
            producer.flush()
            for process in processes:
                if process.poll() is not None:
                    assert isinstance(process.args, list)
                    words = " ".join(process.args[3:])
                    raise PenstockError(f"`penstock {process.args[3]}` ended by itself", hint=f"run it alone to see why: penstock {words}")
            due = max(due + EVERY, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))


def _stop(processes: list[subprocess.Popen[str]]) -> None:
    """End them, kindly at first."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(timeout=STOPS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
