"""The topology jar, what it takes of a project, and how its components start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pystorm.serializers.msgpack_serializer import MsgpackSerializer

from penstock.errors import ConfigurationError, CorruptionError
from penstock.storm import environment, jar, launch, serializer

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = """
import os, sys
from streamparse import Bolt
import penstock.storm.launch

print("printed at import")


class Echo(Bolt):
    def initialize(self, conf, context):
        print("printed")
        os.system("echo printed by a child")

    def process(self, tup):
        self.emit([tup.values[0], penstock.storm.launch.__file__, sorted(sys.modules)])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as users have them, with much that no worker needs."""
    files = {
        "topologies/shop.py": "import shop_lib",
        "shop_lib/__init__.py": "",
        "shop_lib/echo.py": COMPONENT,
        "shop_lib/countries.csv": "DE,Germany\n",
        "shop_lib/__pycache__/echo.cpython-311.pyc": "x",
        "shop_lib/.secret": "x",
        "helpers.py": "",
        "src/words/count.py": "",
        "src/words.txt": "words\n",
        "penstock.toml": "[prod]",
        "requirements.txt": "",
        "tests/test_shop.py": "",
        "data/log/0.log": "x",
        "venv/pyvenv.cfg": "",
        "venv/run.py": "",
        ".git/hooks.py": "",
        "_build/old.jar": "x",
    }
    for name, text in files.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "shop"


CODE = {
    "topologies/shop.py",
    "shop_lib/__init__.py",
    "shop_lib/echo.py",
    "shop_lib/countries.csv",
    "helpers.py",
    "words/count.py",
    "words.txt",
}


def test_the_jar_holds_the_projects_code_and_the_serializer_with_its_library(project: Path, tmp_path: Path) -> None:
    made = jar.build(tmp_path / "deep" / "shop.jar", project=project)
    with zipfile.ZipFile(made) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        assert packed.read("resources/shop_lib/countries.csv") == b"DE,Germany\n"
    assert {name.removeprefix("resources/") for name in names if name.startswith("resources/")} == CODE | {".penstock"}
    assert jar.SERIALIZER.replace(".", "/") + ".class" in names
    assert "org/msgpack/core/MessagePack.class" in names and "META-INF/LICENSE" in names and names[0] == "META-INF/MANIFEST.MF"
    assert {name.split("/")[0] for name in names} == {"META-INF", "org", "penstock", "resources"}
    assert len(names) == len(set(names))


def test_the_same_project_gives_the_same_bytes(project: Path, tmp_path: Path) -> None:
    first = jar.build(tmp_path / "first.jar", project=project).read_bytes()
    for path in project.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
        if path.is_file():
            path.chmod(0o755)
    moved = shutil.copytree(project, tmp_path / "another")
    assert jar.build(tmp_path / "second.jar", project=moved).read_bytes() == first
    (moved / "helpers.py").write_text("changed = True\n")
    assert jar.build(tmp_path / "third.jar", project=moved).read_bytes() != first


def test_of_penstock_itself_nothing_is_packed_for_workers_have_it_installed(tmp_path: Path) -> None:
    with zipfile.ZipFile(jar.build(tmp_path / "own.jar", project=ROOT)) as packed:
        assert [name for name in packed.namelist() if name.startswith("resources/")] == ["resources/.penstock"]


def test_what_cannot_be_packed_or_written_is_named(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no folder .*nowhere"):
        jar.build(tmp_path / "a.jar", project=tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="no environment was packed in"):
        jar.build(tmp_path / "a.jar", project=project, environment=tmp_path)
    (tmp_path / "folder.jar").mkdir()
    with pytest.raises(ConfigurationError, match="folder.jar cannot be written"):
        jar.build(tmp_path / "folder.jar", project=project)
    with pytest.raises(ConfigurationError, match="no environment was packed in it"):
        environment.pack(project, project)
    with pytest.raises(ConfigurationError, match="there is no Python /nowhere/python3"):
        environment.pack(project, tmp_path / "out", python="/nowhere/python3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.jar", "shop"]


def extract(made: Path, into: Path) -> Path:
    """Do as Storm's supervisor does: the files below resources/, without their modes."""
    with zipfile.ZipFile(made) as packed:
        packed.extractall(into, [name for name in packed.namelist() if name.startswith("resources/")])
    return into / "resources"


class Started:
    """A component as Storm starts one: two arguments, in the extracted folder, with nothing of this process's environment."""

    def __init__(self, command: tuple[str, str], folder: Path, pids: Path) -> None:
        pids.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            list(command), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": os.defpath}
        )
        self.pipe = MsgpackSerializer(self.process.stdout, self.process.stdin, threading.RLock(), threading.RLock())
        context = {"taskid": 3, "componentid": "echo", "task->component": {"3": "echo"}}
        self.pipe.send_message({"pidDir": str(pids), "conf": {"topology.name": "shop"}, "context": context})

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said.decode()


def echoed(started: Started) -> list[Any]:
    """What the component of `COMPONENT` emits, after the handshake and pystorm's own log message."""
    assert started.pipe.read_message() == {"pid": started.process.pid}
    assert started.pipe.read_message()["command"] == "log"
    started.pipe.send_message({"id": "1", "comp": "live", "stream": "default", "task": 1, "tuple": [b"\xff\0"]})
    emitted = started.pipe.read_message()
    assert (emitted["command"], emitted["anchors"]) == ("emit", ["1"])
    assert started.pipe.read_message() == {"command": "ack", "id": "1"}
    return list(emitted["tuple"])


def test_a_component_of_the_project_starts_in_the_extracted_folder_and_may_print(project: Path, tmp_path: Path) -> None:
    folder = extract(jar.build(tmp_path / "shop.jar", project=project), tmp_path)
    command = environment.command(sys.executable, False, "shop_lib.echo.Echo")
    assert len(command) == 2 and all(isinstance(part, str) for part in command)
    started = Started(command, folder, tmp_path / "pids")
    data, _, loaded = echoed(started)
    code, said = started.end()
    assert data == b"\xff\0"
    assert not {"fabric", "paramiko", "pkg_resources", "streamparse.util", "penstock.cli", "duckdb", "kafka"} & set(loaded)
    assert all(line in said.splitlines() for line in ("printed at import", "printed", "printed by a child"))
    assert code == 2 and os.listdir(tmp_path / "pids") == [str(started.process.pid)]


def test_a_second_copy_of_penstock_in_the_jar_hides_nothing(project: Path, tmp_path: Path) -> None:
    folder = extract(jar.build(tmp_path / "shop.jar", project=project), tmp_path)
    (folder / "penstock").mkdir()
    (folder / "penstock" / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    started = Started(environment.command(sys.executable, False, "shop_lib.echo.Echo"), folder, tmp_path / "pids")
    assert echoed(started)[1] == launch.__file__
    started.end()


@pytest.fixture
def packed(project: Path, tmp_path: Path) -> Path:
    """An environment as `pack` makes them, with a package of one module; pip's part is tested where there is a network."""
    out = tmp_path / "packed"
    environment.copy_project(project, out)
    shutil.copyfile(launch.__file__, out / f"{environment.LAUNCHER}.py")
    (out / launch.SITE / "only").mkdir(parents=True)
    (out / launch.SITE / "only" / "packed.py").write_text(
        "import sys\nclass Component:\n    def __init__(self, **options): self.options = options\n"
        "    def run(self):\n        import helpers\n        self.options['output_stream'].write(repr([sorted(self.options), sys.path[:2]]).encode())\n"
    )
    (out / launch.MANIFEST).write_text(json.dumps({"for": launch.described(), "packages": {}}))
    return out


def test_a_packed_component_finds_the_project_and_then_its_packages(packed: Path, project: Path, tmp_path: Path) -> None:
    folder = extract(jar.build(tmp_path / "shop.jar", project=project, environment=packed), tmp_path)
    ended = subprocess.run(environment.command(sys.executable, True, "only.packed.Component"), cwd=folder, capture_output=True, text=True)
    assert ended.stdout == repr([["output_stream", "serializer"], [str(folder), str(folder / launch.SITE)]]), ended.stderr


@pytest.mark.parametrize("key, value", [("python", "3.6"), ("machine", "s390x")])
def test_an_environment_for_another_python_says_so(packed: Path, key: str, value: str) -> None:
    described = {**launch.described(), key: value}
    (packed / launch.MANIFEST).write_text(json.dumps({"for": described, "packages": {}}))
    ended = subprocess.run(environment.command(sys.executable, True, "only.packed.Component"), cwd=packed, capture_output=True, text=True)
    assert ended.returncode == 1 and value in ended.stderr and "penstock storm jar" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["Alerts", "a.b; import os", "a..B", "", "a.B')"])
def test_a_component_that_is_no_class_of_a_module_has_no_command(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the dotted name of a class"):
        environment.command("python3", True, name)


def test_without_a_compiler_or_maven_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="apt-get install openjdk-17-jdk-headless"):
        serializer.javac()
    with pytest.raises(ConfigurationError, match="apt-get install maven"):
        serializer.resolve(tmp_path / "jars")


def test_a_jar_that_is_not_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Maven that brings other bytes under the right names."""
    script = tmp_path / "bin" / "mvn"
    script.parent.mkdir()
    names = " ".join(line.split()[1] for line in serializer.CHECKSUMS.read_text().splitlines())
    script.write_text(f"#!/bin/sh\nfor name in {names}; do echo other > {tmp_path}/jars/$name; done\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    with pytest.raises(CorruptionError, match="msgpack-core-.*has the SHA-256"):
        serializer.resolve(tmp_path / "jars")
