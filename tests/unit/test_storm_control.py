"""Asking Nimbus where there is none, reading logs, and the command line of both."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from penstock.cli import execute
from penstock.cli.storm import ago
from penstock.cli.submit import parsed
from penstock.errors import ConfigurationError, UnavailableError, UsageError
from penstock.storm.control import WorkerLog, follow, is_here, last_lines
from penstock.storm.nimbus import Failure, NimbusClient, seeds_of


@pytest.mark.parametrize(
    "text, seeds",
    [
        ("h:1", [("h", 1)]),
        ("h", [("h", 6627)]),
        ("h:1, other:2", [("h", 1), ("other", 2)]),
        ("127.0.0.1:6627,", [("127.0.0.1", 6627)]),
    ],
)
def test_seeds(text: str, seeds: list[tuple[str, int]]) -> None:
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", ",", ":6627", "h:", "h:x", "h:0", "h:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="nimbus"):
        seeds_of(text)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_nimbus_that_is_not_there_is_an_outage_that_names_all_addresses() -> None:
    first, second = free_port(), free_port()
    with NimbusClient(f"127.0.0.1:{first},127.0.0.1:{second}", timeout=1) as client:
        with pytest.raises(UnavailableError, match=rf"127.0.0.1:{first}.*127.0.0.1:{second}") as caught:
            client.cluster()
    assert caught.value.retriable


def test_a_server_that_says_nothing_is_an_outage_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, NimbusClient(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.3) as client:
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer"):
            client.cluster()
        assert 0.2 < time.monotonic() - began < 5


def test_a_server_that_speaks_something_else_is_an_outage() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(64)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with NimbusClient(f"127.0.0.1:{other.getsockname()[1]}", timeout=2) as client, pytest.raises(UnavailableError):
            client.cluster()


def log_of(path: Path, host: str = "127.0.0.1", url: str = "http://127.0.0.1:1/") -> WorkerLog:
    return WorkerLog(host, 6700, ("rollups",), str(path), url)


@pytest.mark.parametrize("count", [0, 1, 3, 5000, 10_000_000])
def test_the_last_lines_of_a_log(tmp_path: Path, count: int) -> None:
    seed = 7
    draw = random.Random(seed)
    lines = [f"{number} " + "x" * draw.randrange(900) for number in range(4000)]
    path = tmp_path / "worker.log"
    path.write_text("\n".join(lines) + "\n")
    assert path.stat().st_size > 1 << 20
    assert last_lines(log_of(path), count) == (lines[-count:] if count else []), f"seed {seed}"


def test_a_log_that_is_nowhere_to_be_read_says_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="on 127.0.0.1, in .*worker.log"):
        last_lines(log_of(tmp_path / "worker.log"), 3)


def test_a_log_is_followed_over_a_roll_over(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_text("before\n")
    ended = threading.Event()
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(line for _, line in follow([path], ended.is_set)))
    reader.start()
    time.sleep(0.2)
    with open(path, "a") as file:
        for part in ("one\ntw", "o\nthree\n"):
            file.write(part)
            file.flush()
            time.sleep(0.5)
    path.write_text("four\n")
    time.sleep(0.8)
    ended.set()
    reader.join(5)
    assert seen == ["one", "two", "three", "four"]


def test_which_hosts_are_this_machine() -> None:
    assert is_here("127.0.0.1") and is_here("localhost") and is_here(socket.gethostname())
    assert not is_here("192.0.2.1") and not is_here("no-such-host.invalid")


@pytest.mark.parametrize("seconds, text", [(5, "5 s"), (65, "1 min 5 s"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")])
def test_lengths_of_time(seconds: int, text: str) -> None:
    assert ago(seconds) == text


TRACEBACK = """java.lang.RuntimeException: org.apache.storm.multilang.NoOutputException: Pipe to subprocess seems to be broken!
Serializer Exception:
Traceback (most recent call last):
  File "x.py", line 3, in process
    raise ValueError("no")
ValueError: no

\tat org.apache.storm.task.ShellBolt$BoltReaderRunnable.run(ShellBolt.java:333)
\tat java.base/java.lang.Thread.run(Thread.java:840)
"""


@pytest.mark.parametrize(
    "text, summary",
    [
        (TRACEBACK, "ValueError: no"),
        (
            "java.lang.OutOfMemoryError: Java heap space\n\tat a.b.C.d(C.java:1)\nCaused by: x\n\t... 3 more\n",
            "java.lang.OutOfMemoryError: Java heap space",
        ),
        ("", ""),
    ],
)
def test_an_error_is_summed_up_by_the_line_that_says_what_it_is(text: str, summary: str) -> None:
    assert Failure("rollups", text, 0, "h", 1).summary == summary


def test_options_are_json_or_text() -> None:
    assert parsed(("a=1", "b=true", "c=x y", "d={}", "e=f=g", "h=")) == {"a": 1, "b": True, "c": "x y", "d": {}, "e": "f=g", "h": ""}
    for wrong in ("a", "=1", " =1"):
        with pytest.raises(UsageError, match="is not a setting"):
            parsed((wrong,))


def test_a_deployment_without_storm_is_told_what_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["submit", "page_analytics"], ["storm", "list"], ["storm", "kill", "x", "--yes"], ["storm", "logs"]):
        assert execute([*words, "--on", f"local:{tmp_path}"]) == 2
        said = capsys.readouterr().err
        assert "has no Storm cluster" in said and "[NAME.storm]" in said and "Traceback" not in said


def test_an_outage_is_said_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "penstock.toml").write_text(f'[s]\nlocal = "data"\n[s.storm]\nnimbus = "127.0.0.1:{free_port()}"\n')
    monkeypatch.setenv("PENSTOCK_CONFIG", str(tmp_path / "penstock.toml"))
    for words in (["storm", "list"], ["storm", "stats"], ["submit", "page_analytics"]):
        assert execute([*words, "--on", "s"]) == 1
        assert "Nimbus does not answer" in capsys.readouterr().err


def test_a_dry_run_asks_no_cluster_and_prints_what_would_be_submitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "penstock.toml").write_text(f'[s]\nlocal = "data"\n[s.storm]\nnimbus = "127.0.0.1:{free_port()}"\n')
    monkeypatch.setenv("PENSTOCK_CONFIG", str(tmp_path / "penstock.toml"))
    assert execute(["submit", "page_analytics", "--on", "s", "--dry-run", "-o", "topology.priority=7"]) == 0
    said = capsys.readouterr().out
    assert "penstock.bolts.archive.ArchiveBolt" in said and "topology.message.timeout.secs" in said
    assert ["topology.priority", "7"] in [line.split() for line in said.splitlines()]
    assert execute(["submit", "page_analytics", "--on", "s", "--dry-run", "-o", "topology.acker.executors=0"]) == 2
    assert "all it sent is durable" in capsys.readouterr().err


def test_a_time_is_checked_before_anything_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["submit", "page_analytics", "--on", f"local:{tmp_path}", "--from", "yesterday-ish"]) == 2
    assert "--from" in capsys.readouterr().err


def test_an_interpreter_to_pack_is_of_no_use_where_nothing_is_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["storm", "jar", str(tmp_path / "x.jar"), "--python", "/usr/bin/python3"]) == 2
    assert "--packed" in capsys.readouterr().err


def test_submitting_loads_nothing_of_streamparses_own_command_line(tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text('[s]\nlocal = "data"\n[s.storm]\nnimbus = "127.0.0.1:1"\n')
    code = (
        "import sys\nfrom penstock.cli import execute\n"
        "assert execute(['submit', 'page_analytics', '--on', 's', '--dry-run']) == 0 and execute(['storm', 'list', '--on', 's']) == 1\n"
        "print([name for name in ('fabric', 'paramiko', 'pkg_resources', 'streamparse.util', 'kafka', 'happybase') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.splitlines()[-1] == "[]"
