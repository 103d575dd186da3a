"""The Thrift topology and its settings, made from a topology's class and a deployment. Nothing here asks a cluster."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Callable

from streamparse import thrift as storm
from streamparse.dsl.component import ComponentSpec, ShellComponentSpec

from penstock.errors import ConfigurationError
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.rollup.shard import Limits
from penstock.secrets import check_no_literals
from penstock.spouts.base import CONFIG
from penstock.storm.cluster import ClusterTable
from penstock.storm.settings import Part, Plan, check_options, derive, derive_bolt

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.topology import Topology

Launch = Callable[[type], tuple[str, str]]  # of a component's class: what Storm starts, and its one argument
SHORT = 6  # characters of a generation in a component's name


@dataclasses.dataclass(frozen=True)
class Component:
    """A component as it will run. settings: its own."""

    name: str
    kind: str  # "spout" or "bolt"
    runs: str
    tasks: int
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Composed:
    """All that is submitted but the jar. notes: what the user may want to know about it."""

    name: str
    settings: dict[str, Any]
    topology: storm.StormTopology
    components: tuple[Component, ...]
    plan: Plan
    notes: tuple[str, ...]


def definitions_of(topology: type[Topology], deployment: Deployment) -> list[BoltDefinition]:
    """What would run: the topology's own definitions, and generations that are still served and differ from them. Writes nothing."""
    running = list(topology.definitions.values())
    if deployment.exists():
        registry = Registry(deployment.table)
        known = registry.bolts()
        for definition in topology.definitions.values():
            served = registry.published(definition.bolt) if definition.bolt in known else definition.generation
            if served != definition.generation:
                running.append(registry.definition(definition.bolt, served))
    return running


def compose(
    topology: type[Topology],
    deployment: Deployment,
    definitions: list[BoltDefinition],
    launch: Launch,
    *,
    name: str | None = None,
    options: dict[str, Any] | None = None,
    workers: int | None = None,
) -> Composed:
    """The topology as Storm takes it. options: Storm settings that go before the deployment's. Raises ConfigurationError for what cannot work.

    A generation that is served beside a new one runs as a bolt and a spout of its own, whose names end in the generation's first letters.
    """
    table = ClusterTable.of(deployment)
    named = name or topology.topology_name
    wanted = {**topology.config, **table.options, **(options or {})}
    pairs = [_Pair(topology, deployment, definition, table) for definition in definitions]
    _check_parallelism(topology, table)
    plan = Plan(tuple(pair.part for pair in pairs), workers or table.workers, table.heap, deployment.to_json())
    settings = {**derive(plan, wanted), "topology.name": named}
    check_no_literals({key: value for key, value in settings.items() if key != "penstock.deployment"}, f"topology {named}")
    check_no_literals(deployment.settings, f"deployment {deployment.name}")
    made = storm.StormTopology(spouts={}, bolts={}, state_spouts={})
    components: list[Component] = []
    for pair in pairs:
        for spec, label, tasks, extra in (
            (pair.bolt.source, pair.part.spout, pair.part.spout_tasks, {}),
            (pair.bolt, pair.part.bolt, pair.part.tasks, derive_bolt(plan, wanted)),
        ):
            own = {key: value for key, value in json.loads(spec.config).items() if key != CONFIG}
            check_options(plan, own)
            own = {**extra, **own, CONFIG: json.dumps(pair.settings_of(spec), sort_keys=True)}
            kind = "spout" if spec is pair.bolt.source else "bolt"
            _add(made, spec, label, tasks, own, launch, inputs=pair.inputs() if kind == "bolt" else {})
            components.append(Component(label, kind, _named(spec.component_cls), tasks, own))
    for spec in _others(topology, pairs):
        kind = "bolt" if spec.inputs else "spout"
        tasks = _tasks(spec, table, deployment)
        own = json.loads(spec.config)
        check_options(plan, own)
        _add(made, spec, spec.name, tasks, own, launch, inputs=spec.inputs)
        components.append(Component(spec.name, kind, _named(spec.component_cls), tasks, own))
    return Composed(named, settings, made, tuple(components), plan, tuple(note for pair in pairs for note in pair.notes))


class _Pair:
    """A bolt of one generation and the spout that feeds it."""

    def __init__(self, topology: type[Topology], deployment: Deployment, definition: BoltDefinition, table: ClusterTable) -> None:
        component = definition.bolt.partition(".")[2]
        self.definition = definition
        self.bolt = next(spec for spec in topology.specs if spec.name == component)
        own = definition.generation == topology.definitions[component].generation
        suffix = "" if own else f"-{definition.generation[:SHORT]}"
        topic = deployment.topic(definition.schema["name"])
        partitions = deployment.log.partitions(topic) if topic in deployment.log.topics() else deployment.partitions
        self.notes = []
        tasks = {}
        for spec in (self.bolt, self.bolt.source):
            tasks[spec.name] = _tasks(spec, table, deployment)
            if tasks[spec.name] > partitions:
                self.notes.append(
                    f"{spec.name}{suffix} runs {partitions} tasks, not {tasks[spec.name]}: topic {topic} has no more partitions than that"
                )
                tasks[spec.name] = partitions
        if suffix:
            self.notes.append(
                f"{component}{suffix} goes on counting generation {definition.generation}, which is served; `penstock publish` serves the new one"
            )
        self.part = Part(
            f"{component}{suffix}",
            f"{self.bolt.source.name}{suffix}",
            tasks[component],
            tasks[self.bolt.source.name],
            partitions,
            self.bolt.flush,
            Limits(**json.loads(json.loads(self.bolt.config)[CONFIG])["limits"]),
        )

    def settings_of(self, spec: ComponentSpec) -> dict[str, Any]:
        """A component's own settings, of this pair's generation."""
        settings: dict[str, Any] = json.loads(json.loads(spec.config)[CONFIG])
        settings.update(generation=self.definition.generation, schema=self.definition.schema)
        if "rollups" in settings:
            settings["rollups"] = list(self.definition.rollups)
        return settings

    def inputs(self) -> dict[storm.GlobalStreamId, storm.Grouping]:
        """The bolt's one input: this pair's spout, by partition."""
        return {
            storm.GlobalStreamId(componentId=self.part.spout, streamId=stream.streamId): grouping
            for stream, grouping in self.bolt.inputs.items()
        }


def _others(topology: type[Topology], pairs: list[_Pair]) -> list[ComponentSpec]:
    """Components that are not Penstock's: a topology is streamparse's, and may hold some."""
    ours = {id(spec) for pair in pairs for spec in (pair.bolt, pair.bolt.source)}
    return [spec for spec in topology.specs if id(spec) not in ours]


def _tasks(spec: ComponentSpec, table: ClusterTable, deployment: Deployment) -> int:
    """How many tasks a component gets: as the deployment says of it, or of all, or else as the topology does."""
    declared = spec.par.get(deployment.name, 1) if isinstance(spec.par, dict) else spec.par
    return int(table.parallelism.get(spec.name, table.every or declared))


def _check_parallelism(topology: type[Topology], table: ClusterTable) -> None:
    names = [spec.name for spec in topology.specs]
    unknown = sorted(set(table.parallelism) - set(names))
    # One deployment serves several topologies: that a name is unknown to this one is a mistake only if none of the names is known.
    if unknown and not set(names) & set(table.parallelism):
        raise ConfigurationError(
            f"[storm] parallelism: topology {topology.topology_name} has no component {unknown[0]!r}", hint=f"it has {', '.join(names)}"
        )


def _add(
    made: storm.StormTopology,
    spec: ComponentSpec,
    name: str,
    tasks: int,
    settings: dict[str, Any],
    launch: Launch,
    *,
    inputs: dict[Any, Any],
) -> None:
    common = storm.ComponentCommon(
        inputs=inputs, streams=spec.outputs, parallelism_hint=tasks, json_conf=json.dumps(settings, sort_keys=True)
    )
    if isinstance(spec, ShellComponentSpec) and "streamparse_run" in spec.component_object.shell.execution_command:
        execution, script = launch(spec.component_cls)
        what = storm.ComponentObject(shell=storm.ShellComponent(execution_command=execution, script=script))
    else:
        what = spec.component_object
    if inputs:
        made.bolts[name] = storm.Bolt(bolt_object=what, common=common)
    else:
        made.spouts[name] = storm.SpoutSpec(spout_object=what, common=common)


def _named(component: type) -> str:
    return f"{component.__module__}.{component.__qualname__}"


__all__ = ["Component", "Composed", "Launch", "compose", "definitions_of"]
