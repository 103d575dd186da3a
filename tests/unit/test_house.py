"""The house: which way imports point, what a worker never loads, one name a module, what a wheel holds."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREES = {
    "penstock": ROOT / "src" / "penstock",
    "penstock.bolts": ROOT / "bolts",
    "penstock.spouts": ROOT / "spouts",
    "penstock.topologies": ROOT / "topologies",
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package by its name."""
    for package, folder in TREES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts))), path


def imports(path: Path, *, typing_too: bool = True) -> Iterator[str]:
    """What a module imports, anywhere in it."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING" and not typing_too:
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative imports are not this project's way"
                yield from (f"{child.module}.{alias.name}" for alias in child.names)
            else:
                yield from walk(child)

    yield from walk(ast.parse(path.read_text(), str(path)))


ALL = {name: (path, set(imports(path))) for name, path in modules()}


def offenders(part: str, never: tuple[str, ...]) -> list[str]:
    """The modules below `part` that import something below one of `never`."""
    return [
        f"{name} imports {one}"
        for name, (_, found) in ALL.items()
        if f"{name}.".startswith(f"penstock.{part}.")
        for one in sorted(found)
        if any(f"{one}.".startswith(f"penstock.{other}.") for other in never)
    ]


HIGHER = ("topologies", "topology", "runner", "cli", "storm", "serve", "stack", "scaffold", "demo")


def test_the_model_imports_nothing_of_penstock_but_its_errors() -> None:
    found = {
        one for name, (_, names) in ALL.items() if f"{name}.".startswith("penstock.model.") for one in names if one.startswith("penstock.")
    }
    assert found and all(one.startswith(("penstock.model.", "penstock.errors.")) for one in found)
    outside = {one.partition(".")[0] for name, (_, names) in ALL.items() if f"{name}.".startswith("penstock.model.") for one in names}
    assert outside <= set(sys.stdlib_module_names) | {"penstock"}


@pytest.mark.parametrize(
    "part, never",
    [
        (
            "errors",
            ("model", "kernels", "rollup", "log", "table", "archive", "warehouse", "query", "bolts", "spouts", "deployment", *HIGHER),
        ),
        ("kernels", ("rollup", "log", "table", "archive", "warehouse", "query", "bolts", "spouts", "deployment", *HIGHER)),
        ("log", ("rollup", "table", "archive", "warehouse", "query", "bolts", "spouts", "deployment", *HIGHER)),
        ("table", ("rollup", "log", "archive", "warehouse", "query", "bolts", "spouts", "deployment", *HIGHER)),
        ("rollup", ("query", "warehouse", "bolts", "spouts", "deployment", *HIGHER)),
        ("bolts", ("query", *HIGHER)),
        ("spouts", ("query", "bolts", *HIGHER)),
        ("query", ("bolts", "spouts", *HIGHER)),
        ("warehouse", ("bolts", "spouts", "query", *HIGHER)),
        ("topologies", ("cli", "runner", "storm", "serve", "stack", "scaffold")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_imports_point_one_way(part: str, never: tuple[str, ...]) -> None:
    assert [name for name in ALL if f"{name}.".startswith(f"penstock.{part}.")]
    assert offenders(part, never) == []


STREAMPARSE = {"penstock.topology", "penstock.spouts.base", "penstock.bolts.base"}


def test_streamparse_is_imported_in_three_places_and_by_storm() -> None:
    found = {name for name, (_, names) in ALL.items() if any(one.partition(".")[0] in ("streamparse", "pystorm") for one in names)}
    assert {name for name in found if not name.startswith("penstock.storm.")} == STREAMPARSE


def python(script: str, *arguments: str) -> str:
    """What a script in a process of its own prints."""
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, cwd=os.path.expanduser("~")
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


RUN = """
import json, sys, tempfile
import penstock
from penstock import *
from penstock.deployment import Deployment
from penstock.log.producer import Producer
from penstock.runner.local import LocalRunner, prepare
from penstock.topology import load_topology
events = Schema("events", time="ts", fields={"ts": Timestamp("ms"), "k": Int()})
class Runs(Topology):
    live = KafkaSpout.spec(events)
    rollups = RollupBolt.spec(live, [Rollup("r", of=events, entity="k", measures={"n": Count()}, by=[By(keep={"1h": "9d"})])])
    detail = KafkaSpout.spec(events)
    archive = ArchiveBolt.spec(detail)
with tempfile.TemporaryDirectory() as folder, Deployment.named("local:" + folder) as deployment:
    deployment.log.create("events", 1)
    with Producer(deployment.log, "events") as producer:
        producer.send(b'{"ts": 1700000000000, "k": 1}')
    LocalRunner(Runs, deployment, prepare(Runs, deployment)).run(until_caught_up=True)
load_topology("page_analytics"); load_topology("advertiser_analytics")
files = {}
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if file and any(part in file for part in ("penstock", "/spouts/", "/bolts/", "/topologies/")):
        files.setdefault(file, []).append(name)
print(json.dumps({"modules": sorted(sys.modules), "files": files}))
"""
HEAVY = (
    "fabric",
    "paramiko",
    "pkg_resources",
    "invoke",
    "setuptools",
    "streamparse.util",
    "streamparse.cli",
    "streamparse.ext",
    "kafka",
    "happybase",
    "boto3",
    "redshift_connector",
    "pytest",
    "hypothesis",
    "Cython",
)


def test_a_run_loads_nothing_that_a_worker_does_not_need_and_no_module_under_two_names() -> None:
    found = json.loads(python(RUN))
    loaded = [name for name in found["modules"] if any(f"{name}.".startswith(f"{heavy}.") for heavy in HEAVY)]
    assert loaded in ([], ["streamparse.cli"])  # an empty package; what is in it would be beside it here
    twice = {file: names for file, names in found["files"].items() if len(names) > 1}
    assert twice == {}
    for name in ("penstock.spouts.kafka", "penstock.bolts.rollup", "penstock.bolts.archive", "penstock.topologies.page_analytics"):
        assert name in found["modules"]
    for name in ("spouts", "bolts", "topologies", "spouts.kafka", "bolts.rollup", "model", "kernels"):
        assert name not in found["modules"]


def test_every_module_is_short() -> None:
    long = {name: lines for name, (path, _) in ALL.items() if (lines := len(path.read_text().splitlines())) > 560}
    assert long == {}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel, built from what git would check out; the extensions are left to the compiler's own tests."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(out), str(source)],
        capture_output=True,
        text=True,
        env={**os.environ, "PENSTOCK_PURE": "1", "PIP_NO_INDEX": "1"},
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    [path] = out.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


def test_a_wheel_holds_every_module_under_its_name(wheel: list[str]) -> None:
    expected = {(name.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py")) for name, (path, _) in ALL.items()}
    assert expected - set(wheel) == set()
    assert [name for name in wheel if name.startswith(("spouts/", "bolts/", "topologies/", "tests/"))] == []
    assert any(name.endswith("entry_points.txt") for name in wheel)


def test_the_compiled_kernels_run_here() -> None:
    """Without them, nothing else that was measured or tested says much."""
    from penstock import kernels

    if os.environ.get("PENSTOCK_KERNELS") == "reference":
        pytest.skip("the reference was asked for")
    assert kernels.backend == "compiled"
    units = {path.stem for path in (TREES["penstock"] / "kernels").glob("*.pyx")}
    compiled = {path.name.partition(".")[0] for path in (TREES["penstock"] / "kernels").glob("*.so")}
    assert units == compiled
    for unit in units:
        assert any((TREES["penstock"] / "kernels" / f"{unit}.{kind}").is_file() for kind in ("pyi", "pxd"))
