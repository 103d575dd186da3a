"""`penstock publish`: which generation of a bolt readers are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.base import command, load, on_option, open_deployment, say
from penstock.cli.output import number, table
from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.rollup.registry import Registry


@command(
    "publish",
    [
        ("the generations of a bolt, and which one is served", "penstock publish advertiser_analytics.rollups"),
        ("serve what the file declares now, of every bolt in it", "penstock publish topologies/advertiser_analytics.py"),
        ("go back to an earlier one", "penstock publish advertiser_analytics.rollups 3f0c9a5be2d14c77"),
    ],
    short_help="Choose which generation is served.",
)
@click.argument("what", metavar="TOPOLOGY|BOLT")
@click.argument("generation", required=False)
@on_option
def publish(what: str, generation: str | None, on: str) -> int:
    """Serve another generation from now on. BOLT is written topology.component, as `penstock status` prints it.

    A changed definition is a new generation: `penstock run --from TIME` starts it beside the one that is served, which goes on counting. When the new
    one has caught up, publish it. With a BOLT alone this only lists what there is.
    """
    from penstock.rollup.registry import Registry

    with open_deployment(on) as deployment:
        registry = Registry(deployment.table)
        if what in registry.bolts():
            if generation is None:
                listed(what, registry, deployment)
            else:
                switch(what, whole(what, generation, registry), registry, deployment)
            return 0
        if generation is not None:
            raise UsageError(
                f"{what} is not a bolt that was started here",
                hint=f"a GENERATION belongs to one of the bolts {', '.join(registry.bolts()) or '(none was started)'}",
            )
        for definition in load(what).definitions.values():
            switch(definition.bolt, definition.generation, registry, deployment)
    return 0


def whole(bolt: str, start: str, registry: Registry) -> str:
    """The generation that begins so; itself where that is none or several, for the registry to refuse."""
    found = [known for known in registry.generations(bolt) if known.startswith(start)]
    return found[0] if len(found) == 1 else start


def lag_of(bolt: str, generation: str, registry: Registry, deployment: Deployment) -> int:
    """How many offsets a generation has still to read, over the partitions that are there now."""
    lag = 0
    for shard, control in registry.shards(bolt, generation):
        if shard.topic in deployment.log.topics() and shard.incarnation == deployment.log.incarnation(shard.topic):
            lag += max(0, deployment.log.end(shard.topic, shard.partition) - control.done.offset)
    return lag


def switch(bolt: str, generation: str, registry: Registry, deployment: Deployment) -> None:
    """Publish one, and say how far it is behind."""
    before = registry.published(bolt) if bolt in registry.bolts() else None
    if before == generation:
        click.echo(f"{bolt}: {generation} is served already")
        return
    registry.publish(bolt, generation)
    click.echo(f"{bolt}: {generation} is served from now on (before: {before})")
    lag = lag_of(bolt, generation, registry, deployment)
    if lag:
        say(f"it lags {number(lag)} offsets behind the log: answers are that much older until it has caught up")


def listed(bolt: str, registry: Registry, deployment: Deployment) -> None:
    """Print a bolt's generations."""
    served = registry.published(bolt)
    rows = []
    for generation in registry.generations(bolt):
        shards = registry.shards(bolt, generation)
        rows.append(
            [
                generation,
                "served" if generation == served else "",
                len(shards),
                number(sum(control.done.counted for _, control in shards)),
                number(lag_of(bolt, generation, registry, deployment)),
            ]
        )
    table(["generation", "", "partitions", "offsets", "lag"], rows, title=bolt, right=(2, 3, 4))
