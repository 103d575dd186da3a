"""What is submitted, made from a topology's class and a deployment: components, groupings, parallelism, generations; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from streamparse import thrift as storm
from streamparse.dsl.topology import TopologyType
from thriftpy2.protocol import TBinaryProtocolFactory
from thriftpy2.utils import deserialize, serialize

from penstock import ArchiveBolt, By, Count, Int, KafkaSpout, Rollup, RollupBolt, Schema, String, Timestamp, Topology
from penstock.deployment import Deployment
from penstock.errors import ConfigurationError, UsageError
from penstock.rollup.registry import Registry
from penstock.runner.local import prepare
from penstock.storm.cluster import ClusterTable
from penstock.storm.compose import Composed, compose, definitions_of
from penstock.storm.submit import launcher

events = Schema("events", time="ts", fields={"ts": Timestamp("ms"), "k": Int(), "country": String(default="??")})


def topology_of(*dimensions: str, **config: Any) -> type[Topology]:
    """The same topology; another one if a dimension is added."""
    rollup = Rollup("r", of=events, entity="k", measures={"n": Count()}, by=[By(*dimensions, keep={"1h": "9d"})])

    class Counts(Topology):
        live = KafkaSpout.spec(events)
        rollups = RollupBolt.spec(live, [rollup], flush="2s", par=3, config=config or None)
        detail = KafkaSpout.spec(events)
        archive = ArchiveBolt.spec(detail)

    return Counts


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {"local": str(tmp_path), "partitions": 4, "storm": {"nimbus": "127.0.0.1:6627", "python": "/opt/python"}}


def composed(topology: type[Topology], settings: dict[str, Any], **more: Any) -> Composed:
    with Deployment("test", settings) as deployment:
        table = ClusterTable.of(deployment)
        return compose(topology, deployment, definitions_of(topology, deployment), launcher(table), **more)


def test_each_component_is_started_as_it_is_declared(settings: dict[str, Any]) -> None:
    made = composed(topology_of(), settings)
    assert [(one.name, one.kind, one.tasks) for one in made.components] == [
        ("live", "spout", 1),
        ("rollups", "bolt", 3),
        ("detail", "spout", 1),
        ("archive", "bolt", 1),
    ]
    shell = made.topology.bolts["archive"].bolt_object.shell
    assert shell.execution_command == "/opt/python" and "penstock.bolts.archive.ArchiveBolt" in shell.script
    assert made.name == made.settings["topology.name"] == "counts"


def test_a_bolt_gets_its_own_spouts_partitions_and_ticks(settings: dict[str, Any]) -> None:
    made = composed(topology_of(), settings).topology
    [(stream, grouping)] = made.bolts["rollups"].common.inputs.items()
    assert (stream.componentId, stream.streamId, grouping.fields) == ("live", "default", ["partition"])
    own = json.loads(made.bolts["rollups"].common.json_conf)
    assert own["topology.tick.tuple.freq.secs"] == 1
    assert json.loads(own["penstock.component"])["flush"] == 2_000_000
    assert "topology.tick.tuple.freq.secs" not in json.loads(made.spouts["live"].common.json_conf)


def test_it_survives_thrift(settings: dict[str, Any]) -> None:
    made = composed(topology_of(), settings).topology
    again = deserialize(storm.StormTopology(), serialize(made, TBinaryProtocolFactory()), TBinaryProtocolFactory())
    assert again.bolts["rollups"].common.json_conf == made.bolts["rollups"].common.json_conf
    assert set(again.spouts) == {"live", "detail"} and set(again.bolts) == {"rollups", "archive"}


def test_the_class_is_left_as_it_was(settings: dict[str, Any]) -> None:
    topology = topology_of()
    before = repr(topology.thrift_topology)
    composed(topology, {**settings, "storm": {**settings["storm"], "parallelism": 2}})
    assert repr(topology.thrift_topology) == before


@pytest.mark.parametrize(
    "parallelism, tasks",
    [
        (2, {"live": 2, "rollups": 2, "detail": 2, "archive": 2}),
        ({"live": 4}, {"live": 4, "rollups": 3, "detail": 1, "archive": 1}),
        ({"live": 2, "of_another_topology": 9}, {"live": 2, "rollups": 3, "detail": 1, "archive": 1}),
        (9, {"live": 4, "rollups": 4, "detail": 4, "archive": 4}),  # as many as the topic has partitions
    ],
)
def test_the_deployment_says_how_many_tasks(settings: dict[str, Any], parallelism: Any, tasks: dict[str, int]) -> None:
    made = composed(topology_of(), {**settings, "storm": {**settings["storm"], "parallelism": parallelism}})
    assert {one.name: one.tasks for one in made.components} == tasks
    hints = {name: one.common.parallelism_hint for name, one in (*made.topology.bolts.items(), *made.topology.spouts.items())}
    assert hints == tasks
    assert bool(made.notes) == (parallelism == 9)


def test_a_generation_that_is_served_runs_beside_a_new_one(settings: dict[str, Any]) -> None:
    old, new = topology_of(), topology_of("country")
    with Deployment("test", settings) as deployment:
        prepare(old, deployment)
    made = composed(new, settings)
    served, fresh = old.definitions["rollups"].generation, new.definitions["rollups"].generation
    label = f"rollups-{served[:6]}"
    assert set(made.topology.bolts) == {"rollups", "archive", label}
    assert set(made.topology.spouts) == {"live", "detail", f"live-{served[:6]}"}
    [stream] = made.topology.bolts[label].common.inputs
    assert stream.componentId == f"live-{served[:6]}"
    for name, generation in {"rollups": fresh, "live": fresh, label: served, f"live-{served[:6]}": served}.items():
        common = (made.topology.bolts.get(name) or made.topology.spouts.get(name)).common
        component = json.loads(json.loads(common.json_conf)["penstock.component"])
        assert component["generation"] == generation
        if "rollups" in component:
            assert component["rollups"] == list((new if generation == fresh else old).definitions["rollups"].rollups)
    with Deployment("test", settings) as deployment:
        with pytest.raises(UsageError, match="has changed"):
            prepare(new, deployment)
        running = prepare(new, deployment, "earliest")
        assert {(one.bolt, one.generation) for one in running} == {(one.bolt, one.generation) for one in definitions_of(new, deployment)}
        Registry(deployment.table).publish("counts.rollups", fresh)
    assert set(composed(new, settings).topology.bolts) == {"rollups", "archive"}


def test_composing_writes_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["local"] = str(tmp_path / "none")
    composed(topology_of(), settings)
    with Deployment("test", settings) as deployment:
        assert deployment.log.topics() == [] and deployment.table.tables() == []


def test_a_secret_that_is_written_out_is_refused(settings: dict[str, Any]) -> None:
    for options in ({"topology.some.password": "hunter2"}, {"topology.environment": {"API_TOKEN": "abc"}}):
        with pytest.raises(ConfigurationError, match="like a secret"):
            composed(topology_of(), settings, options=options)
    with pytest.raises(ConfigurationError, match="kafka.sasl_plain_password"):
        composed(topology_of(), {**settings, "metrics": {}, "storm": settings["storm"], "kafka.sasl_plain_password": "hunter2"})


def test_options_come_in_order(settings: dict[str, Any]) -> None:
    settings["storm"]["options"] = {"topology.priority": 5, "topology.message.timeout.secs": 300}
    made = composed(topology_of(), settings, options={"topology.priority": 7})
    assert made.settings["topology.priority"] == 7 and made.settings["topology.message.timeout.secs"] == 300


def test_a_components_own_settings_are_checked_too(settings: dict[str, Any]) -> None:
    made = composed(topology_of(**{"topology.tick.tuple.freq.secs": 2}), settings)
    assert json.loads(made.topology.bolts["rollups"].common.json_conf)["topology.tick.tuple.freq.secs"] == 2
    with pytest.raises(ConfigurationError, match="tick"):
        composed(topology_of(**{"topology.tick.tuple.freq.secs": 3600}), settings)


@pytest.mark.parametrize(
    "storm_table, message",
    [
        (None, "has no Storm cluster"),
        ({"nimbus": "h:1", "worker": 2}, "unknown setting worker"),
        ({"nimbus": 6627}, "is not an address"),
        ({"nimbus": "h:1", "workers": 0}, "workers = 0"),
        ({"nimbus": "h:1", "workers": True}, "workers = True"),
        ({"nimbus": "h:1", "parallelism": 0}, "parallelism = 0"),
        ({"nimbus": "h:1", "parallelism": {"live": "2"}}, "parallelism = '2'"),
        ({"nimbus": "h:1", "python": "python3"}, "neither a path"),
        ({"nimbus": "h:1", "python": "packed-in"}, "neither a path"),
        ({"nimbus": "h:1", "worker_heap": "lots"}, "is not a size"),
        ({"nimbus": "h:1", "options": ["topology.x"]}, "options is not a table"),
    ],
)
def test_a_table_that_cannot_work_is_refused(storm_table: Any, message: str, tmp_path: Path) -> None:
    deployment = Deployment("test", {"local": str(tmp_path), **({"storm": storm_table} if storm_table is not None else {})})
    with pytest.raises(ConfigurationError, match=message) as caught:
        ClusterTable.of(deployment)
    assert caught.value.hint


def test_names_of_components_that_no_topology_has_are_refused(settings: dict[str, Any]) -> None:
    settings["storm"]["parallelism"] = {"lives": 2}
    with pytest.raises(ConfigurationError, match="no component 'lives'"):
        composed(topology_of(), settings)


@pytest.mark.parametrize(
    "nimbus, python, expected",
    [
        ("storm-1:6627", None, ("python3", True)),
        ("storm-1:6627", "packed", ("python3", True)),
        ("storm-1:6627", "packed:/usr/bin/python3.11", ("/usr/bin/python3.11", True)),
        ("storm-1:6627", "/opt/bin/python", ("/opt/bin/python", False)),
        ("127.0.0.1:6627", "packed", ("python3", True)),
    ],
)
def test_the_environment_travels_where_there_is_none(nimbus: str, python: str | None, expected: tuple[str, bool], tmp_path: Path) -> None:
    table = ClusterTable.of(
        Deployment("t", {"local": str(tmp_path), "storm": {"nimbus": nimbus, **({"python": python} if python else {})}})
    )
    assert (table.python, table.packed) == expected


def test_streamparse_takes_the_users_topology_and_not_our_base_class() -> None:
    """`sparse` looks for the first topology class of a module that does not equal its own base; ours is imported before the user's is made."""
    import streamparse

    made = topology_of()
    names = {"Topology": Topology, "Counts": made}
    assert [one for one in names.values() if isinstance(one, TopologyType) and one != streamparse.Topology] == [made]
    assert made == made and made != topology_of() and len({made, Topology, made}) == 2
