"""The prompt of `penstock sql`, at a real terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import PATIENCE, Terminal

from penstock.deployment import Deployment
from penstock.log.generate import generate_into
from penstock.model import Schema
from penstock.runner.local import LocalRunner, prepare
from penstock.topology import load_topology


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


@pytest.fixture
def prompt(data: Path, tmp_path: Path) -> Iterator[Terminal]:
    environment = {"XDG_STATE_HOME": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1", "LINES": "40"}
    made = Terminal("sql", "--on", f"local:{data}", columns=160, environment=environment)
    try:
        made.expect("penstock>")
        yield made
    finally:
        made.end()


def test_statements_mistakes_and_a_way_out(prompt: Terminal, tmp_path: Path) -> None:
    prompt.type("SELECT count(*) AS n,\r")  # no semicolon yet: a new line
    prompt.expect("...")
    prompt.type("40 + 2 AS m FROM archive.ads;\r")
    assert prompt.expect("2000")
    assert "42" in prompt.expect("penstock>")
    prompt.type("SELECT * FROM rollup.by_advertisr_1d;\r")
    prompt.expect("did you mean rollup.by_advertiser_1d")
    prompt.expect("penstock>")
    prompt.type("\\d\r")
    prompt.expect("advertiser by country, 1h windows, live")
    prompt.expect("penstock>")
    prompt.type("\\quit\r")
    assert prompt.process.wait(PATIENCE) == 0
    history = tmp_path / "penstock" / "sql_history"
    assert "FROM archive.ads;" in history.read_text() and history.stat().st_mode & 0o077 == 0


def test_ctrl_c_cancels_the_statement_and_keeps_the_prompt(prompt: Terminal) -> None:
    prompt.type("SELECT 'beg' || 'un' AS x;\r")
    prompt.expect("begun")
    prompt.expect("penstock>")
    prompt.type("SELECT sum(sin(a.range) * cos(b.range)) FROM range(1000000) a, range(1000000) b;\r")
    prompt.expect("b;")
    time.sleep(1.0)  # it runs for days
    prompt.type("\x03")
    prompt.expect("cancelled")
    prompt.expect("penstock>")
    prompt.type("SELECT 'still' || ' here' AS x;\r")
    prompt.expect("still here")
    prompt.expect("penstock>")
    prompt.type("\x04")
    assert prompt.process.wait(PATIENCE) == 0


def test_names_are_completed(prompt: Terminal) -> None:
    prompt.type("SELECT sum(clicks) AS c FROM rollup.by_advertiser_cou")
    prompt.expect("rollup.by_advertiser_country_1d")
    prompt.type("\x03\\quit\r")
    assert prompt.process.wait(PATIENCE) == 0
