"""Topologies: what is refused, what Storm is told, and how one is found."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from penstock import ArchiveBolt, By, Count, Int, KafkaSpout, Rollup, RollupBolt, Schema, Timestamp, Topology
from penstock.cli.base import load
from penstock.errors import ConfigurationError, DeclarationError, NotFoundError, UsageError
from penstock.spouts.base import CONFIG
from penstock.topology import load_topology, snake

ROOT = Path(__file__).resolve().parents[2]
ADS = Schema("ads", time="ts", fields={"ts": Timestamp(), "k": Int()})
OTHER = Schema("other", time="ts", fields={"ts": Timestamp(), "k": Int()})


def rollup(name: str = "r", of: Schema = ADS) -> Rollup:
    return Rollup(name, of=of, entity="k", measures={"n": Count()}, by=[By(keep={"1h": "9d"})])


def topology(name: str = "MyTopology", **components: Any) -> Any:
    return type(Topology)(name, (Topology,), components)


def shared() -> Any:
    live = KafkaSpout.spec(ADS)
    return topology(live=live, a=RollupBolt.spec(live, [rollup()]), b=ArchiveBolt.spec(live))


def idle() -> Any:
    live = KafkaSpout.spec(ADS)
    return topology(live=live, unused=KafkaSpout.spec(ADS), a=ArchiveBolt.spec(live))


def same_name() -> Any:
    one, two = KafkaSpout.spec(ADS), KafkaSpout.spec(ADS)
    return topology(one=one, two=two, a=ArchiveBolt.spec(one, name="x"), b=RollupBolt.spec(two, [rollup()], name="x"))


def named(component: str, name: str | None = None) -> Callable[[], Any]:
    def make() -> Any:
        live = KafkaSpout.spec(ADS)
        return topology(live=live, **{component: ArchiveBolt.spec(live, name=name)})

    return make


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a spout that feeds two bolts": (shared, "'a' and 'b' share a spout"),
    "a spout that feeds none": (idle, "'unused' feeds no bolt"),
    "two components of one name": (same_name, "two components are called 'x'"),
    "a component called like what the class says of itself": (named("definitions"), "'definitions'"),
    "a component's name that is no identifier": (named("a", "my/bolt"), "'my/bolt'"),
    "a class's name that gives none": (lambda: topology("Straße", live=(live := KafkaSpout.spec(ADS)), a=ArchiveBolt.spec(live)), "Straße"),
    "a source that is no spout": (lambda: ArchiveBolt.spec(ADS), "not a spout"),
    "a roll-up of another schema": (lambda: RollupBolt.spec(KafkaSpout.spec(ADS), [rollup(of=OTHER)]), "'other'"),
    "no roll-ups": (lambda: RollupBolt.spec(KafkaSpout.spec(ADS), []), "no roll-ups"),
    "two roll-ups of one name": (lambda: RollupBolt.spec(KafkaSpout.spec(ADS), [rollup(), rollup()]), "same name"),
    "a flush interval that is none": (lambda: ArchiveBolt.spec(KafkaSpout.spec(ADS), flush="soon"), "flush: 'soon'"),
}


@pytest.mark.parametrize("declare, message", REFUSED.values(), ids=REFUSED)
def test_is_refused_with_the_name_and_the_fix(declare: Callable[[], Any], message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare()
    assert message in caught.value.message and caught.value.hint


def test_a_bolt_as_a_source_is_refused() -> None:
    with pytest.raises(DeclarationError, match="not a spout"):
        topology(live=(live := KafkaSpout.spec(ADS)), a=(a := ArchiveBolt.spec(live)), b=RollupBolt.spec(a, [rollup()]))


def test_a_flush_interval_of_nothing_is_refused() -> None:
    with pytest.raises(DeclarationError, match="flush"):
        ArchiveBolt.spec(KafkaSpout.spec(ADS), flush="0s")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("AdvertiserAnalytics", "advertiser_analytics"),
        ("A", "a"),
        ("HTTPLog", "http_log"),
        ("PageV2Analytics", "page_v2_analytics"),
        ("already_snake", "already_snake"),
    ],
)
def test_names_are_snake_case(name: str, expected: str) -> None:
    assert snake(name) == expected


class Two(Topology):
    live = KafkaSpout.spec(ADS, par=3)
    rollups = RollupBolt.spec(live, [rollup()], flush="7s", par=2)
    detail = KafkaSpout.spec(ADS)
    archive = ArchiveBolt.spec(detail)


def test_storm_is_told_fields_grouping_on_partition_and_each_components_settings() -> None:
    thrift: Any = Two.thrift_topology
    assert set(thrift.bolts) == {"rollups", "archive"} and set(thrift.spouts) == {"live", "detail"}
    for bolt, spout, flush, par in (("rollups", "live", 7_000_000, (2, 3)), ("archive", "detail", 30_000_000, (1, 1))):
        [(stream, grouping)] = thrift.bolts[bolt].common.inputs.items()
        assert (stream.componentId, stream.streamId, grouping.fields) == (spout, "default", ["partition"])
        settings = [json.loads(json.loads(common.json_conf)[CONFIG]) for common in (thrift.bolts[bolt].common, thrift.spouts[spout].common)]
        for one in settings:
            assert (one["bolt"], one["generation"], one["flush"]) == (f"two.{bolt}", Two.definitions[bolt].generation, flush)
            assert Schema.from_json(one["schema"]).to_json() == ADS.to_json() and one["limits"]["pending"] >= 2
        assert (thrift.bolts[bolt].common.parallelism_hint, thrift.spouts[spout].common.parallelism_hint) == par
    assert thrift.spouts["live"].common.streams["default"].output_fields[2] == "partition"
    assert [one["name"] for one in json.loads(json.loads(thrift.bolts["rollups"].common.json_conf)[CONFIG])["rollups"]] == ["r"]


def test_a_topology_says_what_it_reads_and_makes() -> None:
    assert [definition.schema["name"] for definition in Two.definitions.values()] == ["ads", "ads"]
    assert [one["name"] for definition in Two.definitions.values() for one in definition.rollups] == ["r"]
    assert Two.definitions["archive"].makes == ["dataset/ads"]


def test_parallelism_flush_and_names_of_files_are_no_part_of_a_generation() -> None:
    live = KafkaSpout.spec(ADS)
    again = topology("Two", live=live, rollups=RollupBolt.spec(live, [rollup()], flush="1s", par=9))
    assert again.definitions["rollups"] == Two.definitions["rollups"]


# Finding one.

SOURCE = """
from penstock import ArchiveBolt, Int, KafkaSpout, Schema, Timestamp, Topology
{extra}
ads = Schema("ads", time="ts", fields={{"ts": Timestamp(), "k": Int()}})

class {name}(Topology):
    detail = KafkaSpout.spec(ads)
    archive = ArchiveBolt.spec(detail)
"""


@pytest.fixture
def clean() -> Iterator[None]:
    """sys.path and sys.modules are as they were when the test is over."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean: None) -> Path:
    (tmp_path / "topologies").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def write(path: Path, *names: str, extra: str = "") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(SOURCE.format(name=name, extra=extra) for name in names or ("Mine",)))
    return str(path)


@pytest.mark.parametrize(
    "name",
    [
        "page_analytics",
        "penstock.topologies.page_analytics",
        "topologies.page_analytics",
        "topologies/page_analytics.py",
        "page_analytics:PageAnalytics",
        "topologies/page_analytics.py:PageAnalytics",
    ],
)
def test_penstocks_own_are_imported_under_one_name_however_they_are_called(name: str, monkeypatch: pytest.MonkeyPatch, clean: None) -> None:
    monkeypatch.chdir(ROOT)
    found = load_topology(name)
    assert (found.__module__, found.topology_name) == ("penstock.topologies.page_analytics", "page_analytics")
    assert not [module for module in sys.modules if module == "topologies" or module.startswith("topologies.")]
    files = [
        file
        for module in list(sys.modules.values())
        if (file := getattr(module, "__file__", None)) and file.endswith("topologies/page_analytics.py")
    ]
    assert len(files) == 1


def test_a_projects_file_finds_what_stands_beside_its_folder(project: Path) -> None:
    (project / "helpers").mkdir()
    (project / "helpers" / "__init__.py").write_text("from helpers.inner import VALUE\n")
    (project / "helpers" / "inner.py").write_text("VALUE = 3\n")
    name = write(project / "topologies" / "shop.py", extra="import helpers; assert helpers.VALUE == 3")
    found = load_topology(name)
    assert found.__module__ == "topologies.shop" and load_topology(name) is found
    assert sys.modules["topologies.shop"].Mine is found


def test_a_projects_file_is_found_though_the_working_folder_has_topologies_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name = write(project / "topologies" / "page_analytics.py", "Own")
    assert load_topology(name).__name__ == "Own"
    assert load_topology("page_analytics").__name__ == "PageAnalytics"


def test_in_a_projects_folder_the_bare_name_does(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project / "topologies" / "shop.py")
    monkeypatch.chdir(project)
    assert load_topology("shop") is load_topology("topologies.shop") is load_topology("topologies/shop.py")


def test_a_file_inside_a_package_is_imported_as_part_of_it(project: Path) -> None:
    for folder in ("company", "company/stream"):
        (project / folder).mkdir()
        (project / folder / "__init__.py").write_text("")
    (project / "company" / "values.py").write_text("X = 1\n")
    found = load_topology(write(project / "company" / "stream" / "ads.py", extra="from ..values import X"))
    assert found.__module__ == "company.stream.ads"


def test_a_derived_columns_function_in_a_file_can_be_found_again(project: Path) -> None:
    path = project / "topologies" / "geo.py"
    path.write_text(
        SOURCE.format(
            name="Geo",
            extra="from penstock import String, derived\n@derived(String(default=''), of=['k'])\ndef area(k):\n    return k.cast('string')\n",
        ).replace('"k": Int()}', '"k": Int()}, derive={"area": area}')
    )
    found = load_topology(str(path))
    assert Schema.from_json(found.definitions["archive"].schema).derive["area"].load() is sys.modules["topologies.geo"].area


def test_of_several_one_is_named(project: Path) -> None:
    name = write(project / "several.py", "One", "Other")
    with pytest.raises(NotFoundError, match="holds 2 topologies") as caught:
        load_topology(name)
    assert f"{name}:One" in str(caught.value) and f"{name}:Other" in str(caught.value)
    assert load_topology(f"{name}:Other").topology_name == "other"
    with pytest.raises(NotFoundError, match="no topology 'Third'") as caught:
        load_topology(f"{name}:Third")
    assert "One, Other" in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.at.all", "missing.py", "", ":Mine", ".", "..", "a-b", "topologies.nowhere"])
def test_what_is_not_there_is_said(project: Path, name: str) -> None:
    with pytest.raises(NotFoundError, match="there is no (file|topology)") as caught:
        load_topology(name)
    assert caught.value.hint


def test_a_file_without_a_topology_is_said(project: Path) -> None:
    (project / "empty.py").write_text("from penstock import Topology\n")
    with pytest.raises(NotFoundError, match="holds 0 topologies") as caught:
        load_topology(str(project / "empty.py"))
    assert "penstock.Topology" in str(caught.value)


@pytest.mark.parametrize("place", ["topologies/broken.py", "broken.py"])
def test_a_module_that_is_not_installed_is_named(project: Path, place: str) -> None:
    name = write(project / place, extra="import not_there.inner")
    with pytest.raises(ConfigurationError, match="needs the module 'not_there'") as caught:
        load_topology(name)
    assert "pip install not_there" in str(caught.value)
    Path(name).write_text(SOURCE.format(name="Mine", extra=""))
    assert load_topology(name).__name__ == "Mine"  # the broken one was not kept


def test_a_file_whose_name_is_taken_is_refused(project: Path) -> None:
    name = write(project / "json.py")
    with pytest.raises(ConfigurationError, match="imported as json, which is .*json/__init__.py") as caught:
        load_topology(name)
    assert "call the file something else" in str(caught.value)


@pytest.mark.parametrize("place", ["topologies/wrong.py", "wrong.py"])
@pytest.mark.parametrize(
    "extra, line, said",
    [
        ("def f(:", 3, "SyntaxError"),
        ("1 / 0", 3, "ZeroDivisionError"),
        ("import penstock\npenstock.nothing", 4, "AttributeError"),
        ("f = [\n", 3, "SyntaxError"),
    ],
)
def test_an_error_in_the_users_file_is_said_with_its_line(project: Path, place: str, extra: str, line: int, said: str) -> None:
    name = write(project / place, extra=extra)
    with pytest.raises(UsageError, match=f"cannot be imported: {said}") as caught:
        load(name)
    assert f"{name}:{line}" in (caught.value.hint or "")


def test_a_user_sees_no_traceback(project: Path) -> None:
    name = write(project / "wrong.py", extra="def f(:")
    ended = subprocess.run(
        [sys.executable, "-m", "penstock", "run", name, "--on", "local:data"], capture_output=True, text=True, cwd=project
    )
    assert ended.returncode == 2 and f"{name}:3" in ended.stderr and "Traceback" not in ended.stderr


def test_a_declaration_error_in_the_users_file_is_said_as_it_is(project: Path) -> None:
    name = write(project / "wrong.py", extra='Schema("Bad", time="ts", fields={})')
    with pytest.raises(DeclarationError, match="'Bad' is not a usable name"):
        load(name)
