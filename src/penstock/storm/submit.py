"""Submitting a topology: everything that it needs before its first tuple, its jar, and its place on the cluster."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from penstock.errors import ConfigurationError, PenstockError
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.storm.cluster import ClusterTable
from penstock.storm.compose import Composed, Launch
from penstock.storm.environment import command, pack
from penstock.storm.jar import build
from penstock.storm.nimbus import AlreadyRunningError, Details, Failure, NimbusClient, Running

if TYPE_CHECKING:
    from penstock.deployment import Deployment

REPLACE_WAIT = 2  # seconds in which the bolts of a topology that is replaced may still commit
GOING = "KILLED"  # the status of a topology that was killed and is not gone yet
GONE_WITHIN = 120.0  # seconds
LOOK_EVERY = 0.5


def launcher(table: ClusterTable) -> Launch:
    """How a deployment's workers start a component."""
    return lambda component: command(table.python, table.packed, f"{component.__module__}.{component.__qualname__}")


def make_jar(out: Path, table: ClusterTable, project: Path, scratch: Path, *, python: str | None = None) -> Path:
    """The jar that a deployment's workers need: the project's code, or all of its Python environment. scratch: a folder for what is packed.

    python: the interpreter whose environment is packed; this one if not given. Raises ConfigurationError.
    """
    environment = pack(project, scratch / "environment", python=python) if table.packed else None
    return build(out, project=project, environment=environment)


def owners(deployment: Deployment, definitions: list[BoltDefinition]) -> dict[bytes, str]:
    """Who owns each shard, by its row; "" for one that was never claimed."""
    registry = Registry(deployment.table)
    return {shard.row: control.owner for one in definitions for shard, control in registry.shards(one.bolt, one.generation)}


def check_may_run(client: NimbusClient, name: str, *, replace: bool) -> Running | None:
    """The topology of that name, if one runs. Raises AlreadyRunningError if it may not be replaced."""
    found = client.find(name)
    if found is not None and not replace and found.status != GOING:
        raise AlreadyRunningError(
            f"topology {name} runs already, since {found.uptime:,} s",
            hint="--replace takes its place: the new one goes on from where it ended, and counts nothing twice; or --name gives it another name",
        )
    return found


def make_way(client: NimbusClient, name: str, *, replace: bool, on_wait: Callable[[float], None] | None = None) -> bool:
    """See that no topology of that name runs; kill it if it may be replaced, and wait until it is gone. Returns whether there was one.

    on_wait: called with the seconds waited. Raises AlreadyRunningError.
    """
    found = check_may_run(client, name, replace=replace)
    if found is None:
        return False
    if found.status != GOING:
        client.kill(name, REPLACE_WAIT)
    wait_until_gone(client, name, on_wait)
    return True


def wait_until_gone(client: NimbusClient, name: str, on_wait: Callable[[float], None] | None = None, within: float = GONE_WITHIN) -> None:
    """Wait until a topology that was killed is gone. Raises PenstockError if it is not after `within` seconds."""
    began = time.monotonic()
    while client.find(name) is not None:
        waited = time.monotonic() - began
        if waited > within:
            raise PenstockError(f"topology {name} was killed, and is still there after {waited:.0f} s", hint="look at Nimbus' log")
        if on_wait:
            on_wait(waited)
        time.sleep(LOOK_EVERY)


@dataclasses.dataclass(frozen=True)
class Standing:
    """How far a topology has started. placed: tasks that have a worker. claimed: shards that a task of it owns, which took a tuple from spout to bolt.

    fresh: errors that were not seen before.
    """

    placed: int
    tasks: int
    claimed: int
    shards: int
    fresh: tuple[Failure, ...]
    details: Details

    @property
    def done(self) -> bool:
        """Whether every task has a worker, and every shard an owner."""
        return 0 < self.tasks == self.placed and self.claimed == self.shards


def wait_until_up(
    client: NimbusClient,
    composed: Composed,
    deployment: Deployment,
    definitions: list[BoltDefinition],
    before: dict[bytes, str],
    *,
    timeout: float,
    on_look: Callable[[Standing], None],
) -> Standing:
    """Wait until every task of a submitted topology has a worker, and its bolts own their shards. before: the owners when it was submitted.

    on_look: called about twice a second. Raises PenstockError after `timeout` seconds; the topology stays submitted.
    """
    began, seen = time.monotonic(), set[tuple[str, str, int, int]]()
    expected = sum(one.tasks for one in composed.components)
    standing: Standing | None = None
    while standing is None or not standing.done:
        details = client.details(composed.name)
        ours = {one.name for one in composed.components}
        failures = tuple(one for one in details.failures if (one.component, one.text, one.at, one.port) not in seen)
        seen.update((one.component, one.text, one.at, one.port) for one in failures)
        now = owners(deployment, definitions)
        standing = Standing(
            sum(one.last_task - one.first_task + 1 for one in details.executors if one.component in ours),
            expected,
            sum(owner not in ("", before.get(row)) for row, owner in now.items()),
            len(now),
            failures,
            details,
        )
        on_look(standing)
        if not standing.done:
            if time.monotonic() - began > timeout:
                raise _late(client, composed, standing, timeout)
            time.sleep(LOOK_EVERY)
    return standing


def _late(client: NimbusClient, composed: Composed, standing: Standing, timeout: float) -> PenstockError:
    """What kept a topology from starting, as far as can be told."""
    supervisors = client.cluster().supervisors
    free = sum(one.slots - one.used for one in supervisors)
    if not standing.details.executors and free < composed.plan.workers:
        hint = f"the cluster has {free} free slots on {len(supervisors)} machines, and the topology wants {composed.plan.workers} workers"
    elif standing.details.failures:
        latest = standing.details.failures[0]
        hint = f"{latest.component} says: {latest.summary}"
    else:
        hint = f"it stays submitted: see `penstock storm stats {composed.name}` and `penstock storm logs {composed.name}`"
    return PenstockError(
        f"topology {composed.name} is not up after {timeout:.0f} s: {standing.placed} of {standing.tasks} tasks have a worker, "
        f"{standing.claimed} of {standing.shards} partitions are taken up",
        hint=hint,
    )


def check_slots(client: NimbusClient, composed: Composed, replaces: int) -> None:
    """Raise ConfigurationError if the cluster has fewer free slots than the topology wants workers: each would hold more than its heap was checked for.

    replaces: slots that become free.
    """
    supervisors = client.cluster().supervisors
    free, wanted = sum(one.slots - one.used for one in supervisors) + replaces, composed.plan.workers
    if free < wanted:
        raise ConfigurationError(
            f"the cluster has {free} free slots, and topology {composed.name} wants {wanted} workers, each of which is to hold its share",
            hint=f"write workers = {free} into the [storm] table, for larger ones; `penstock storm list` shows what has the others"
            if free
            else "`penstock storm list` shows what has them; supervisor.slots.ports says how many a machine has"
            if supervisors
            else "no supervisor runs: start one",
        )
