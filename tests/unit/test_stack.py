"""The stack's own machinery, with servers that need neither Java nor a network: `python -m http.server`, and ones that fail."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli import stack as commands
from penstock.configuration import find_stack
from penstock.errors import CorruptionError, NotFoundError, PenstockError, UnavailableError, UsageError
from penstock.stack import DEFAULT, SERVERS, Stack, artifacts, find, probe, tools
from penstock.stack.ports import choose, is_free
from penstock.stack.process import Process, identify, marked, spawn
from penstock.stack.server import Program, Server, Site
from penstock.stack.state import State, toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Web(Server):
    """Files over HTTP: a real process with a port."""

    name = "web"
    ports = ("web",)
    processes = ("web",)

    def require(self) -> None:
        """Python is here."""

    def prepare(self, told: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def programs(self) -> list[Program]:
        port = self.site.ports["web"]
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        return [Program("web", lambda: command, lambda timeout: probe.web(port, "/", timeout), ("web",), self.folder, grace=5.0)]

    def settings(self) -> dict[str, Any]:
        return {"port": self.site.ports["web"]}

    def exports(self) -> dict[str, str]:
        return {"WEB": self.site.address("web")}


class Two(Server):
    """Two processes, the second of which ends at once."""

    name = "two"
    ports = ("two",)
    processes = ("sound", "broken")

    def require(self) -> None:
        """Python is here."""

    def prepare(self, told: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def programs(self) -> list[Program]:
        broken = [sys.executable, "-c", "print('the disk is full of eels'); raise SystemExit(7)"]
        return [
            Program("sound", lambda: ["sleep", "1000"], lambda timeout: None, (), self.folder),
            Program("broken", lambda: broken, lambda timeout: probe.listening(self.site.ports["two"], timeout), ("two",), self.folder),
        ]


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack that knows the two servers above, and leaves nothing running."""
    monkeypatch.setitem(SERVERS, "web", Web)  # type: ignore[arg-type]
    monkeypatch.setitem(SERVERS, "two", Two)  # type: ignore[arg-type]
    made = Stack(tmp_path / "state")
    yield made
    made.down()
    assert [process for server in ("web", "two") for process in marked(f"{made.state.folder}:{server}")] == []


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A PATH with nothing in it but what a test puts there, and no Java, PostgreSQL or cache."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv(artifacts.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(tools, "_POSTGRES", tmp_path / "postgresql")
    tools.java.cache_clear()
    yield programs
    tools.java.cache_clear()


def program(folder: Path, name: str, script: str) -> None:
    """A program of the system, as a shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    return identify(pid) is None


# Processes


def test_a_process_is_known_by_when_it_began(tmp_path: Path) -> None:
    started = spawn(["sleep", "1000"], log=tmp_path / "log", folder=tmp_path, environment={}, mark="m")
    try:
        assert started.alive and identify(started.pid) == started and Process.from_json(started.to_json()) == started
        earlier = Process(started.pid, started.began - 1, started.boot)
        rebooted = Process(started.pid, started.began, "another boot")
        for stranger in (earlier, rebooted):
            assert not stranger.alive
            stranger.send(signal.SIGKILL)
            assert stranger.stop(grace=0.1)
        assert started.alive, "a process with the id of one that has ended was killed"
    finally:
        started.send(signal.SIGKILL)
    assert started.wait(5)


def test_one_that_was_killed_is_dead_though_nobody_collected_it() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    known = identify(child.pid)
    assert known is not None
    os.kill(child.pid, signal.SIGKILL)
    assert known.wait(5), "its entry in the process table was taken for a process"
    child.wait()


@pytest.mark.parametrize("stopped", [False, True])
def test_one_that_ends_orderly_is_not_killed(tmp_path: Path, stopped: bool) -> None:
    script = "trap 'echo orderly; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    started = spawn(["sh", "-c", script], log=tmp_path / "log", folder=tmp_path, environment={}, mark="m")
    while "up" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    if stopped:
        os.kill(started.pid, signal.SIGSTOP)
    assert started.stop(grace=10)
    assert "orderly" in (tmp_path / "log").read_text() and not started.alive


def test_one_that_does_not_end_is_killed_last(tmp_path: Path) -> None:
    started = spawn(
        ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"], log=tmp_path / "log", folder=tmp_path, environment={}, mark="m"
    )
    while "up" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    assert not started.stop(grace=0.3)
    assert not started.alive


def test_what_a_process_started_carries_its_mark(tmp_path: Path) -> None:
    mark = f"{tmp_path}:web"
    spawn(["sh", "-c", "sleep 1000 & sleep 1000"], log=tmp_path / "log", folder=tmp_path, environment={}, mark=mark)
    until = time.monotonic() + 10
    while len(marked(mark)) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    found = marked(mark)
    for process in found:
        process.send(signal.SIGKILL)
    assert len(found) == 3
    assert marked(f"{tmp_path}:we") == [], "a mark that begins alike is another one"


def test_memory_and_uptime_of_this_very_process() -> None:
    here = identify(os.getpid())
    assert here is not None and here.memory > 10 << 20 and 0 < here.uptime < 3600 * 24


# Ports


def test_ports_told_win_over_ports_remembered_over_free_ones() -> None:
    chosen = choose(["a", "b", "c"], {"a": 1000, "b": 1001}, {"a": 2000}, avoid=[1001])
    assert chosen["a"] == 2000 and chosen["b"] == 1001
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 20_000 <= chosen["c"] < min(32_000, ephemeral) and is_free(chosen["c"])


def test_many_ports_are_all_different() -> None:
    chosen = choose([str(number) for number in range(200)], {}, {})
    assert len(set(chosen.values())) == 200


@pytest.mark.parametrize(
    "told, remembered, avoid, said",
    [
        ({"a": 0}, {}, (), "no port has that number"),
        ({"a": 70_000}, {}, (), "no port has that number"),
        ({"a": 5000, "b": 5000}, {}, (), "has that port"),
        ({"a": 5000}, {"b": 5000}, (), "b has that port"),
        ({"a": 5000}, {}, (5000,), "another server of the stack has that port"),
    ],
)
def test_a_port_that_cannot_be_is_refused(told: dict[str, int], remembered: dict[str, int], avoid: tuple[int, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        choose(["a", "b"], remembered, told, avoid=avoid)
    assert "--port a=" in raised.value.message


def test_a_port_is_not_free_while_somebody_listens() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


# Jars


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ships a server of two jars; the folder that a Maven would copy from."""
    package, repository = tmp_path / "package", tmp_path / "repository"
    package.mkdir()
    repository.mkdir()
    for name, content in (("one-1.0.jar", b"one"), ("two-2.0.jar", b"two")):
        (repository / name).write_bytes(content)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(repository.iterdir())]
    (package / "fake.sha256").write_text("".join(lines))
    (package / "fake.pom.xml").write_text("<project><version>4.2</version>\n<packaging>pom</packaging></project>")
    monkeypatch.setattr(artifacts, "HERE", package)
    monkeypatch.setattr(artifacts, "LIBRARIES", {"fake": {"lib": "fake"}})
    return repository


def fake_maven(programs: Path, repository: Path) -> Path:
    """An mvn that copies a folder, and a file with a line for each time that it ran."""
    ran = programs.parent / "ran"
    script = 'for word; do case "$word" in -DoutputDirectory=*) into="${word#*=}";; esac; done'
    program(programs, "mvn", f'PATH=/usr/bin:/bin\necho "$@" >> {ran}\n{script}\nmkdir -p "$into" && cp {repository}/* "$into"')
    return ran


def test_jars_are_resolved_once_and_verified_each_time(bare: Path, shipped: Path) -> None:
    ran, said = fake_maven(bare, shipped), list[str]()
    folder = artifacts.resolve("fake", said.append)
    assert folder.name == "fake-4.2" and sorted(path.name for path in (folder / "lib").iterdir()) == ["one-1.0.jar", "two-2.0.jar"]
    assert said == ["Maven resolves 2 jars"]
    assert artifacts.resolve("fake", said.append) == folder
    assert len(ran.read_text().splitlines()) == 1
    (folder / "lib" / "one-1.0.jar").write_bytes(b"ONE")
    with pytest.raises(CorruptionError, match="one-1.0.jar: SHA-256"):
        artifacts.resolve("fake", said.append)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda lib: (lib / "two-2.0.jar").write_bytes(b"tw0"), "two-2.0.jar: SHA-256 is not the expected one"),
        (lambda lib: (lib / "two-2.0.jar").unlink(), "two-2.0.jar: missing"),
        (lambda lib: (lib / "evil.jar").write_bytes(b"x"), "evil.jar: not one of its jars"),
    ],
)
def test_a_repository_that_serves_something_else_is_refused(bare: Path, shipped: Path, change: Any, said: str) -> None:
    change(shipped)
    fake_maven(bare, shipped)
    with pytest.raises(CorruptionError, match=said):
        artifacts.resolve("fake", lambda _: None)
    assert not (artifacts.home("fake") / "lib").exists(), "what was refused is in the cache"


def test_what_maven_says_is_said(bare: Path, shipped: Path) -> None:
    program(bare, "mvn", "echo '[INFO] hello'; echo '[ERROR] no route to host'; exit 1")
    with pytest.raises(UnavailableError, match="fake .exit code 1.") as raised:
        artifacts.resolve("fake", lambda _: None)
    assert raised.value.hint == "[ERROR] no route to host"


def test_checksums_are_written_from_what_maven_resolves(bare: Path, shipped: Path) -> None:
    before = artifacts.checksums("fake")
    (shipped / "three-3.0.jar").write_bytes(b"three")
    fake_maven(bare, shipped)
    assert artifacts.write_checksums("fake") == 3
    assert artifacts.checksums("fake") == {**before, "three-3.0.jar": hashlib.sha256(b"three").hexdigest()}


def test_every_pom_ships_with_its_checksums() -> None:
    for server, libraries in artifacts.LIBRARIES.items():
        assert SERVERS[server].name == server
        for artifact in libraries.values():
            listed = artifacts.checksums(artifact)
            assert len(listed) > 20 and all(len(value) == 64 and int(value, 16) >= 0 for value in listed.values())
            assert any(artifacts.version(artifact) in name for name in listed), f"{artifact} {artifacts.version(artifact)}"
    assert artifacts.version("storm") == artifacts.version("storm-worker")
    daemons, workers = artifacts.checksums("storm"), artifacts.checksums("storm-worker")
    assert workers.items() <= daemons.items(), "daemons and workers of different jars"


# Programs of the system


@pytest.mark.parametrize(
    "said, version",
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ('Picked up JAVA_TOOL_OPTIONS: -Dx=1\nopenjdk version "11.0.2"', 11),
        ("Segmentation fault", None),
    ],
)
def test_the_version_of_java(said: str, version: int | None) -> None:
    assert tools.java_version(said) == version


def test_what_is_missing_is_named_with_the_command_that_installs_it(bare: Path, tmp_path: Path) -> None:
    install = "apt-get install openjdk-17-jdk-headless maven postgresql"
    for missing, name in ((tools.java, "Java 17"), (tools.maven, "Maven"), (tools.postgres, "PostgreSQL")):
        with pytest.raises(UsageError, match=name) as raised:
            missing()
        assert install in str(raised.value.hint)
    made = Stack(tmp_path / "state")
    with pytest.raises(UsageError, match="Java 17"):
        made.up(["kafka"])
    assert made.processes() == {}


def test_an_old_java_is_refused_and_java_home_comes_first(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare, "java", "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(UsageError, match="is Java 11; the servers need 17"):
        tools.java()
    (tmp_path / "jdk" / "bin").mkdir(parents=True)
    program(tmp_path / "jdk" / "bin", "java", "echo 'openjdk version \"21.0.1\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert tools.java() == tmp_path / "jdk" / "bin" / "java"
    with pytest.raises(UsageError, match="Maven"):
        Stack(tmp_path / "state").up(["kafka"])


def test_the_newest_postgresql_of_the_system_is_taken(bare: Path, tmp_path: Path) -> None:
    for version in ("9.6", "15", "13"):
        folder = tmp_path / "postgresql" / version / "bin"
        folder.mkdir(parents=True)
        for name in ("initdb", "postgres"):
            program(folder, name, "")
    assert tools.postgres() == tmp_path / "postgresql" / "15" / "bin"


# State

texts = st.text(st.characters(exclude_categories=("Cs",)))
tables = st.dictionaries(
    texts,
    st.one_of(texts, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.lists(texts)),
)


@given(tables, tables)
def test_a_table_written_as_toml_reads_the_same(outer: dict[str, Any], inner: dict[str, Any]) -> None:
    table = {**outer, "further": inner}
    assert tomllib.loads(toml("stack", table)) == {"stack": table}


def test_the_state_is_the_one_told_else_the_nearest_else_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_STACK", raising=False)
    below = tmp_path / "project" / "src"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find() == below / ".penstock-stack" and find_stack() is None
    state = State(tmp_path / "project" / ".penstock-stack")
    state.folder.mkdir()
    state.write_config({})
    assert find() == tmp_path / "project" / ".penstock-stack"
    assert find(tmp_path / "told") == tmp_path / "told"
    monkeypatch.setenv("PENSTOCK_STACK", str(tmp_path / "named"))
    assert find() == tmp_path / "named"


def test_a_state_that_is_damaged_or_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(CorruptionError, match="stack.json cannot be read"):
        Stack(tmp_path).processes()
    (tmp_path / "stack.json").write_text('{"version": 99}')
    with pytest.raises(UsageError, match="another version"):
        Stack(tmp_path).status()


# The life of a stack


def test_up_is_repeatable_and_what_died_comes_back_at_its_port_with_its_data(stack: Stack) -> None:
    assert stack.up(["web"]) == {"web": True}
    assert stack.up(["web"]) == {"web": False}
    (one,), port = stack.status(), stack.settings()["web"]["port"]
    assert one.ports == {"web": port}
    assert (one.health, one.pid, one.well) == ("ok", stack.processes()["web"], True) and one.memory > 1 << 20
    (stack.state.folder / "web" / "kept").write_text("data")
    os.kill(stack.processes()["web"], signal.SIGKILL)
    while stack.processes():
        time.sleep(0.01)
    assert [(each.health, each.well) for each in stack.status()] == [("dead", False)]
    assert stack.up(["web"]) == {"web": True}
    assert stack.settings()["web"] == {"port": port}
    probe.web(port, "/kept")


def test_one_process_is_stopped_started_and_restarted(stack: Stack) -> None:
    stack.up(["web"])
    first = stack.processes()["web"]
    assert stack.restart("web") == {"web": True} and stack.processes()["web"] != first and gone(first)
    assert stack.stop("web") == ["web"] and stack.stop("web") == []
    assert [each.health for each in stack.status()] == ["stopped"]
    assert stack.start("web") == {"web": True} and stack.start("web") == {"web": False}
    with pytest.raises(NotFoundError, match="has no kafka") as raised:
        stack.start("kafka")
    assert raised.value.hint == "it has web"


def test_down_keeps_the_data_and_wipe_leaves_nothing(stack: Stack) -> None:
    assert stack.down() == []
    stack.up(["web"])
    pid, port = stack.processes()["web"], stack.settings()["web"]["port"]
    assert stack.down() == ["web"] and gone(pid) and stack.down() == []
    assert stack.state.ports == {"web": port} and stack.config.is_file()
    (stack.state.folder / "mine").write_text("the user's own")
    assert stack.down(wipe=True) == []
    assert [path.name for path in stack.state.folder.iterdir()] == ["mine"]
    (stack.state.folder / "mine").unlink()
    stack.up(["web"])
    stack.down(wipe=True)
    assert not stack.state.folder.exists()


def test_what_a_server_started_itself_ends_with_it(stack: Stack) -> None:
    stack.up(["web"])
    child = spawn(
        ["sleep", "1000"], log=stack.state.folder / "x", folder=stack.state.folder, environment={}, mark=f"{stack.state.folder}:web"
    )
    stack.down()
    assert not child.alive


def test_the_deployment_stack_is_written_and_found(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.up(["web"])
    monkeypatch.setenv("PENSTOCK_STACK", str(stack.state.folder))
    config = find_stack()
    assert config is not None and tomllib.loads(config.read_text()) == {"stack": stack.settings()}
    assert set(stack.settings()) == {"local", "partitions", "web"}
    assert stack.exports() == {"PENSTOCK_STACK": str(stack.state.folder), "WEB": f"127.0.0.1:{stack.settings()['web']['port']}"}


def test_a_start_that_fails_shows_the_log_and_leaves_nothing_half_up(stack: Stack) -> None:
    with pytest.raises(PenstockError, match="broken ended while it started") as raised:
        stack.up(["web", "two"])
    assert "the disk is full of eels" in str(raised.value.hint) and "logs/broken.log" in str(raised.value.hint)
    assert set(stack.processes()) == {"web"}, "what came up stays; of what did not, nothing does"


def test_a_port_that_a_stranger_has_is_named(stack: Stack) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} \(web\) is taken") as raised:
            stack.up(["web"], ports={"web": port})
        assert "--port web=NUMBER" in str(raised.value.hint)


def test_a_port_is_not_moved_under_a_running_server(stack: Stack) -> None:
    stack.up(["web"])
    with pytest.raises(UsageError, match="web runs, on"):
        stack.up(["web"], ports={"web": 20_001})
    with pytest.raises(UsageError, match="none of web has such a port"):
        stack.up(["web"], ports={"kafka": 20_001})
    stack.down()
    (port,) = choose(["x"], {}, {}).values()
    stack.up(["web"], ports={"web": port})
    assert stack.settings()["web"]["port"] == port


def test_two_ups_at_once_start_one_server(stack: Stack) -> None:
    outcomes: list[dict[str, bool]] = []
    threads = [threading.Thread(target=lambda: outcomes.append(Stack(stack.state.folder).up(["web"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome["web"] for outcome in outcomes) == [False, False, False, True]
    assert len(marked(f"{stack.state.folder}:web")) == 1


def test_a_lock_of_a_folder_that_was_wiped_keeps_nobody_out_and_lets_only_one_in(tmp_path: Path) -> None:
    state, inside, most, done = State(tmp_path / "s"), [0], [0], [0]

    def work() -> None:
        for _ in range(50):
            with state.locked():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1
                done[0] += 1
                state.remove()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, done) == ([1], [200])


def test_an_unknown_server_is_refused(stack: Stack) -> None:
    with pytest.raises(UsageError, match="no server 'kafak'") as raised:
        stack.up(["kafak"])
    assert "kafka, hbase, storm, postgres, s3, redshift" in str(raised.value.hint)


# Servers that answer oddly


@contextlib.contextmanager
def answering(data: bytes) -> Iterator[int]:
    """A server that answers anything with this, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(1024)
                        connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


PROBES = {
    "kafka": probe.kafka,
    "zookeeper": probe.zookeeper,
    "hbase_thrift": probe.hbase_thrift,
    "hbase_thrift2": probe.hbase_thrift2,
    "nimbus": probe.nimbus,
    "supervisors": probe.supervisors,
    "postgres": lambda port: probe.postgres(port, "u", "d"),
    "web": lambda port: probe.web(port, "/"),
    "bucket": lambda port: probe.bucket(port, "penstock"),
}


@pytest.mark.parametrize("data", [b"", b"\0\0\0\x04abcd", b"\xff" * 64, b"\0" * 64, b"HTTP/1.1 500 No\r\n\r\n"], ids=repr)
@pytest.mark.parametrize("name", PROBES)
def test_a_stranger_at_the_port_is_not_taken_for_the_server(name: str, data: bytes) -> None:
    with answering(data) as port, pytest.raises(probe.UNREADY):
        PROBES[name](port)


# The command line


def test_the_help_names_all_servers() -> None:
    assert DEFAULT == tuple(SERVERS)[:3]
    assert f"({' '.join(SERVERS)}; the first three if none is named)" in str(commands.up.help)


@pytest.mark.parametrize("text", ["kafka", "=9092", "kafka=", "kafka=x", "kafka=-1", "kafka=९"])
def test_a_port_option_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not NAME=NUMBER"):
        commands.told((text,))


@pytest.mark.parametrize("command", list(commands.stack.commands.values()), ids=lambda one: str(one.name))
def test_every_example_parses(command: Any) -> None:
    import click

    assert command.help and command.short_help and command.examples
    for _, line in command.examples:
        words = shlex.split(line.removeprefix('eval "$(').removesuffix(')"'))
        assert words[:3] == ["penstock", "stack", command.name]
        command.make_context(command.name, words[3:], parent=click.Context(commands.stack))


def test_status_says_what_is_wrong_with_its_exit_code(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("PENSTOCK_STACK", str(stack.state.folder))
    run = lambda *words: commands.stack.main(list(words), standalone_mode=False)  # noqa: E731
    assert run("status") == 0 and "there is no stack" in capsys.readouterr().err
    assert run("up", "web") == 0
    shown = capsys.readouterr()
    assert "web: ready" in shown.err and f"WEB={stack.exports()['WEB']}" in shown.out
    assert run("status") == 0 and "ok" in capsys.readouterr().out
    os.kill(stack.processes()["web"], signal.SIGKILL)
    while stack.processes():
        time.sleep(0.01)
    assert run("status") == 1 and "dead" in capsys.readouterr().out
    assert run("env") == 0 and f"export WEB={stack.exports()['WEB']}\n" in capsys.readouterr().out
    assert run("logs", "web", "-n", "1") == 0 and len(capsys.readouterr().out.splitlines()) <= 1
    assert run("down", "--wipe") == 0 and not stack.state.folder.exists()


def test_a_log_is_followed_over_its_being_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("1\n2\n3\n")
    tail = commands.Tail("x", log)
    assert tail.last(2) == "2\n3\n" and tail.fresh() == ""
    with log.open("a") as file:
        file.write("4\n")
    assert tail.fresh() == "4\n"
    log.rename(tmp_path / "x.log.1")
    assert tail.fresh() == ""
    log.write_text("5\n")
    assert tail.fresh() == "5\n"


def test_progress_without_a_terminal_does_not_repeat_itself(capsys: Any) -> None:
    lines = commands.Lines()
    for what in ("starting", "starting, 1 s", "starting, 2 s", "ready"):
        lines("kafka", what)
    assert capsys.readouterr().err.splitlines() == ["kafka: starting", "kafka: ready"]


def test_storm_listens_where_the_settings_say_and_nothing_else_leaves_loopback(tmp_path: Path) -> None:
    names = [port for server in SERVERS.values() for port in server.ports]
    site = Site(tmp_path, {name: 20_000 + index for index, name in enumerate(names)})
    assert len(names) == len(set(names)), "two servers call a port alike"
    storm = SERVERS["storm"](site)
    configuration = storm._configuration()  # type: ignore[attr-defined]
    assert (
        configuration["nimbus.seeds"] == ["127.0.0.1"] and storm.settings()["nimbus"] == f"127.0.0.1:{configuration['nimbus.thrift.port']}"
    )
    assert len(configuration["supervisor.slots.ports"]) == 4
    assert all(str(tmp_path) in value for name, value in configuration.items() if name.endswith(".dir"))
    kafka = SERVERS["kafka"](site)._configuration()  # type: ignore[attr-defined]
    assert all("//127.0.0.1:" in one for one in kafka["listeners"].split(","))
