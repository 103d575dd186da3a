"""The prompt of `penstock sql`, at a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.deployment import Deployment
from penstock.log.generate import generate_into
from penstock.model import Schema
from penstock.runner.local import LocalRunner, prepare
from penstock.topology import load_topology

ANSI = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\x1b\][^\x07]*\x07")
PATIENCE = 60.0  # seconds that a terminal may take to show something


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment with some ads, archived and rolled up."""
    folder = tmp_path_factory.mktemp("prompt") / "data"
    topology = load_topology("advertiser_analytics")
    with Deployment("prompt", {"local": str(folder), "partitions": 1}) as deployment:
        deployment.log.create("ads", 1)
        schema = Schema.from_json(next(iter(topology.definitions.values())).schema)
        generate_into(deployment.log, schema, 2000, 1, advertisers=3, users=50, too_late=0.0)
        LocalRunner(topology, deployment, prepare(topology, deployment)).run(until_caught_up=True)
    return folder


def _take_terminal() -> None:
    """Make standard input the process's controlling terminal, so that Ctrl-C is a signal; and one that is not ignored, as whoever runs the tests may."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A command at a terminal of its own."""

    def __init__(self, *arguments: str, home: Path) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        environment = {
            **os.environ,
            "XDG_STATE_HOME": str(home),
            "TERM": "xterm",
            "COLUMNS": "120",
            "LINES": "40",
            "PROMPT_TOOLKIT_NO_CPR": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str) -> str:
        """All that is shown up to a text, which must come."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.seen[-2000:]!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen = ANSI.sub(b"", self.seen + os.read(self.master, 65536))
                except OSError:  # the other end is closed
                    assert text.encode() in self.seen, self.seen[-2000:]
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode()

    def close(self) -> int:
        code = self.process.wait(PATIENCE)
        os.close(self.master)
        return code


@pytest.fixture
def terminal(data: Path, tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal("sql", "--on", f"local:{data}", home=tmp_path)
    made.expect("penstock>")
    yield made
    if made.process.poll() is None:
        made.process.send_signal(signal.SIGKILL)
        made.process.wait()


def test_statements_mistakes_and_a_way_out(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("SELECT count(*) AS n,\r")  # no semicolon yet: a new line
    terminal.expect("...")
    terminal.type("40 + 2 AS m FROM archive.ads;\r")
    assert terminal.expect("2000")
    assert "42" in terminal.expect("penstock>")
    terminal.type("SELECT * FROM rollup.by_advertisr_1d;\r")
    terminal.expect("did you mean rollup.by_advertiser_1d")
    terminal.expect("penstock>")
    terminal.type("\\d\r")
    terminal.expect("advertiser by country, 1h windows, live")
    terminal.expect("penstock>")
    terminal.type("\\quit\r")
    assert terminal.close() == 0
    history = tmp_path / "penstock" / "sql_history"
    assert "FROM archive.ads;" in history.read_text() and history.stat().st_mode & 0o077 == 0


def test_ctrl_c_cancels_the_statement_and_keeps_the_prompt(terminal: Terminal) -> None:
    terminal.type("SELECT 'beg' || 'un' AS x;\r")
    terminal.expect("begun")
    terminal.expect("penstock>")
    terminal.type("SELECT sum(sin(a.range) * cos(b.range)) FROM range(1000000) a, range(1000000) b;\r")
    terminal.expect("b;")
    time.sleep(1.0)  # it runs for days
    terminal.type("\x03")
    terminal.expect("cancelled")
    terminal.expect("penstock>")
    terminal.type("SELECT 'still' || ' here' AS x;\r")
    terminal.expect("still here")
    terminal.expect("penstock>")
    terminal.type("\x04")
    assert terminal.close() == 0


def test_names_are_completed(terminal: Terminal) -> None:
    terminal.type("SELECT sum(clicks) AS c FROM rollup.by_advertiser_cou")
    terminal.expect("rollup.by_advertiser_country_1d")
    terminal.type("\x03\\quit\r")
    assert terminal.close() == 0
