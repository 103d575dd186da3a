"""`penstock run`: a topology's spouts and bolts, here."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Iterator, Protocol

import click

from penstock.cli.base import (
    INTERRUPTED,
    command,
    load,
    notice_kernels,
    number_of,
    on_option,
    open_deployment,
    place_of,
    say,
    topology_argument,
)
from penstock.cli.output import Meter, meter, number, table
from penstock.errors import InternalError, PenstockError

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.rollup.registry import BoltDefinition
    from penstock.runner.local import Position
    from penstock.topology import Topology


class Runner(Protocol):
    """A LocalRunner, or Workers."""

    def run(self, *, until_caught_up: bool = False, on_progress: Any = None) -> None:
        """Run until stopped or caught up."""

    def stop(self) -> None:
        """Drain and return from `run`."""


@command(
    "run",
    [
        ("roll up what is in the log, then stop", "penstock run topologies/page_analytics.py --until-caught-up"),
        ("go on until Ctrl-C, in four processes", "penstock run advertiser_analytics --workers 4"),
        (
            "begin a changed definition at the start of the log, beside the one that is served",
            "penstock run advertiser_analytics --from earliest",
        ),
    ],
    short_help="Run a topology.",
)
@topology_argument
@click.option("--until-caught-up", is_flag=True, help="Stop when all that was in the log at the start is counted and durable.")
@click.option(
    "--workers",
    type=number_of(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes; each owns the partitions p with p mod N = its number.",
)
@click.option(
    "--from",
    "start",
    metavar="earliest|latest|TIME",
    help="Where a new generation begins; a known one goes on. [default: earliest, for the first]",
)
@on_option
def run(topology: str, until_caught_up: bool, workers: int, start: str | None, on: str) -> int:
    """Run a topology: read the log, count every event exactly once, make the cells and the archive durable.

    It goes on from where an earlier run ended, however that ended. Ctrl-C makes durable what was taken and stops; a second one stops at once, and the
    next run counts what was not durable again.
    """
    from penstock.model.units import instant

    if start not in (None, "earliest", "latest"):
        instant(start or "", "--from")
    found = load(topology)
    notice_kernels()
    with open_deployment(on, must_exist=False) as deployment, logged():
        definitions, interrupted = run_here(found, topology, deployment, until_caught_up=until_caught_up, workers=workers, start=start)
        summary(deployment, definitions)
    return INTERRUPTED if interrupted else 0


def run_here(
    topology: type[Topology], name: str, deployment: Deployment, *, until_caught_up: bool, workers: int = 1, start: str | None = None
) -> tuple[list[BoltDefinition], bool]:
    """Prepare and run, with progress and signals. The definitions that ran, and whether the run was interrupted."""
    from penstock.runner.local import LocalRunner, prepare

    definitions = prepare(topology, deployment, start)
    runner: Any
    if workers > 1:
        from penstock.runner.workers import Workers

        runner = Workers(name, deployment, definitions, workers)
        if runner.workers < workers:
            say(f"{runner.workers} workers run: there are no more partitions than that")
    else:
        runner = LocalRunner(topology, deployment, definitions)
    with meter() as shown, interruptible(runner, shown) as state:
        try:
            runner.run(until_caught_up=until_caught_up, on_progress=Progress(shown, deployment, until_caught_up).update)
        except PenstockError:
            raise
        except Exception as problem:
            raise PenstockError(
                f"the run ended: a component raised {type(problem).__name__}: {problem}",
                hint=f"raised at {place_of(problem)}; what is durable stays, and the next run goes on from there",
            ) from problem
    return definitions, state["interrupted"]


class Progress:
    """Shows how far each bolt is."""

    def __init__(self, shown: Meter, deployment: Deployment, until_caught_up: bool) -> None:
        self.shown, self.deployment, self.until_caught_up = shown, deployment, until_caught_up
        self.first: dict[Any, int] = {}

    def update(self, positions: list[Position]) -> None:
        """Called by a runner several times a second. Counts what this run has taken, of what was there for it to take."""
        sums: dict[tuple[str, str], list[int]] = {}
        for position in positions:
            shard, committed = position.shard, position.control.done.offset
            first = self.first.setdefault(shard, committed)
            end = position.target if self.until_caught_up else self.deployment.log.end(shard.topic, shard.partition)
            numbers = max(0, position.taken - first), max(0, end - first), committed - first, max(0, end - committed)
            known = sums.setdefault((shard.bolt.partition(".")[2], shard.generation), [0, 0, 0, 0])
            sums[shard.bolt.partition(".")[2], shard.generation] = [before + more for before, more in zip(known, numbers)]
        bolts = [bolt for bolt, _ in sums]
        for (bolt, generation), (taken, total, durable, lag) in sums.items():
            name = bolt if bolts.count(bolt) == 1 else f"{bolt} {generation[:6]}"
            detail = f"{durable:,} durable" if self.until_caught_up else f"{durable:,} durable, lag {lag:,}"
            self.shown.update(name, min(taken, total) if self.until_caught_up else taken, total, detail=detail)


@contextlib.contextmanager
def interruptible(runner: Runner, shown: Meter) -> Iterator[dict[str, bool]]:
    """Ctrl-C and SIGTERM: the first drains the runner, the second ends the process at once."""
    state = {"interrupted": False}

    def handle(number_: int, frame: object) -> None:
        if state["interrupted"]:
            kill = getattr(runner, "kill", None)
            if kill is not None:
                kill()
            os.write(
                2,
                b"\x1b[?25h\nstopped at once: the next run counts what was not durable\n"
                if os.isatty(2)
                else b"stopped at once: the next run counts what was not durable\n",
            )
            os._exit(INTERRUPTED)
        state["interrupted"] = True
        shown.say("stopping: making durable what was taken (once more to stop at once)")
        runner.stop()

    before = {which: signal.signal(which, handle) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield state
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Warnings of the runner and the bolts, on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("penstock")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


COUNTS = ("accepted", "rejected", "late", "skipped", "lost")


def tally(deployment: Deployment, definition: BoltDefinition) -> dict[str, int]:
    """A bolt's offsets since its start, and what became of them, over all its shards."""
    from penstock.rollup.registry import Registry

    found = dict.fromkeys(("offsets", *COUNTS), 0)
    for _, control in Registry(deployment.table).shards(definition.bolt, definition.generation):
        done = control.done
        for name, value in zip(
            found, (done.offset - control.start, done.accepted, done.rejected, done.late, done.skipped, done.lost_count)
        ):
            found[name] += value
    return found


def summary(deployment: Deployment, definitions: list[BoltDefinition]) -> None:
    """What is durable: a line a bolt. Raises InternalError where the counts do not add up."""
    rows = []
    for definition in definitions:
        counts = tally(deployment, definition)
        if counts["offsets"] != sum(counts[name] for name in COUNTS):
            raise InternalError(
                f"{definition.bolt}: {counts['offsets']} offsets are not {' + '.join(f'{counts[name]} {name}' for name in COUNTS)}"
            )
        rows.append([definition.bolt, definition.generation[:6], *(number(value) for value in counts.values())])
    table(["durable", "generation", "offsets =", "accepted +", "rejected +", "late +", "skipped +", "lost"], rows, right=range(2, 8))


def seconds_since(began: float) -> str:
    """How long something took, for people."""
    took = time.monotonic() - began
    return f"{took:.1f} s" if took < 60 else f"{int(took // 60)} min {took % 60:.0f} s"
