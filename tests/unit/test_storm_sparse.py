"""streamparse's pre-submit hook: what `sparse submit` is left to submit."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from penstock.deployment import Deployment
from penstock.rollup.registry import Registry
from penstock.storm.compose import compose, definitions_of
from penstock.storm.cluster import ClusterTable
from penstock.storm.sparse import pre_submit
from penstock.storm.submit import launcher
from penstock.topology import load_topology

SHOP = """
from penstock import *

class Bell(BatchBolt):
    columns = ("k",)
    def process(self, batch, context):
        print(batch.num_rows)

events = Schema("events", time="ts", fields={"ts": Timestamp("ms"), "k": Int()})

class Shop(Topology):
    live = KafkaSpout.spec(events)
    rollups = RollupBolt.spec(live, [Rollup("r", of=events, entity="k", measures={"n": Count()}, by=[By(keep={"1h": "9d"})])])
    seen = KafkaSpout.spec(events)
    bell = Bell.spec(seen)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A project, with its topology imported as streamparse imports it: by the file's name, from the end of the path."""
    (tmp_path / "topologies").mkdir()
    (tmp_path / "topologies" / "sparse_shop.py").write_text(SHOP)
    (tmp_path / "penstock.toml").write_text(
        '[prod]\nlocal = "data"\npartitions = 2\n[prod.storm]\nnimbus = "storm-1:6627"\nworkers = 2\nparallelism = 2\npython = "/opt/python"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_ON", raising=False)
    monkeypatch.delenv("STREAMPARSE_NIMBUS", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "topologies")])
    before = set(sys.modules)
    yield importlib.import_module("sparse_shop")
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("sparse_shop", "topologies"):
            del sys.modules[name]


def given() -> tuple[dict[str, Any], dict[str, Any]]:
    """What streamparse calls the hook with: the environment of config.json, and its own settings."""
    env = {"nimbus": "storm-1:6627", "use_ssh_for_nimbus": False, "workers": ["storm-1"], "serializer": "msgpack"}
    options = {
        "storm.workers.list": ["storm-1"],
        "topology.workers": 1,
        "topology.acker.executors": 1,
        "sudo_user": None,
        "use_virtualenv": False,
        "pystorm.log.level": "info",
    }
    return env, options


def test_sparse_submits_what_penstock_submit_would(project: Any) -> None:
    env, options = given()
    pre_submit("sparse_shop", "prod", env, options)
    with Deployment.named("prod") as deployment:
        topology = load_topology("topologies/sparse_shop.py")
        expected = compose(
            topology, deployment, definitions_of(topology, deployment), launcher(ClusterTable.of(deployment)), name="sparse_shop"
        )
    left = project.Shop.thrift_topology
    assert {name: (one.bolt_object, one.common) for name, one in left.bolts.items()} == {
        name: (one.bolt_object, one.common) for name, one in expected.topology.bolts.items()
    }
    assert set(left.spouts) == {"live", "seen"} and left.bolts["rollups"].common.parallelism_hint == 2
    for key, value in expected.settings.items():
        assert options[key] == value, key
    json.dumps(options)


def test_workers_import_a_bolt_by_the_projects_name_for_it(project: Any) -> None:
    env, options = given()
    pre_submit("sparse_shop", "prod", env, options)
    shell = project.Shop.thrift_topology.bolts["bell"].bolt_object.shell
    assert shell.execution_command == "/opt/python" and "topologies.sparse_shop.Bell" in shell.script
    assert env["serializer"] is None  # streamparse would put "-s msgpack" before the script, which is another launcher's


def test_everything_is_prepared(project: Any) -> None:
    env, options = given()
    pre_submit("sparse_shop", "prod", env, {**options, "penstock.from": "latest"})
    with Deployment.named("prod") as deployment:
        assert deployment.log.partitions("events") == 2
        registry = Registry(deployment.table)
        assert registry.bolts() == ["shop.bell", "shop.rollups"]
        for bolt in registry.bolts():
            assert len(registry.shards(bolt, registry.published(bolt))) == 2


def test_what_the_user_gave_counts_and_what_streamparse_made_up_does_not(project: Any) -> None:
    env, options = given()
    pre_submit("sparse_shop", "prod", env, options)
    assert (options["topology.workers"], options["topology.acker.executors"]) == (2, 2)
    env, options = given()
    options.update({"topology.workers": 3, "topology.acker.executors": 5, "topology.priority": 7})
    pre_submit("sparse_shop", "prod", env, options)
    assert (options["topology.workers"], options["topology.acker.executors"], options["topology.priority"]) == (3, 5, 7)


def test_another_name_and_another_deployment(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env, options = given()
    pre_submit("shop-blue", "blue", env, {**options, "penstock.on": "prod"})
    monkeypatch.setenv("PENSTOCK_ON", "prod")
    env, options = given()
    pre_submit("shop-blue", "blue", env, options)
    assert options["topology.name"] == "shop-blue"


@pytest.mark.parametrize(
    "env_name, change, message",
    [
        ("staging", {}, "no deployment 'staging'"),
        ("prod", {"topology.acker.executors": 0}, "all it sent is durable"),
        ("prod", {"topology.debug": True}, "logs every tuple"),
        ("prod", {"penstock.from": "sometime"}, "--from"),
    ],
)
def test_what_cannot_be_submitted_ends_sparse_with_the_reason(project: Any, env_name: str, change: dict[str, Any], message: str) -> None:
    env, options = given()
    with pytest.raises(SystemExit) as ended:
        pre_submit("sparse_shop", env_name, env, {**options, **change})
    assert str(ended.value).startswith("error: ") and message in str(ended.value)


def test_another_cluster_than_the_deployments_is_refused(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env, options = given()
    with pytest.raises(SystemExit, match="STREAMPARSE_NIMBUS=storm-1:6627"):
        pre_submit("sparse_shop", "prod", {**env, "nimbus": "elsewhere"}, dict(options))
    monkeypatch.setenv("STREAMPARSE_NIMBUS", "storm-1:6627")
    pre_submit("sparse_shop", "prod", {**env, "nimbus": "elsewhere"}, dict(options))
