"""Deployments: by folder, by name, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock import Schema, Timestamp
from penstock.deployment import Deployment, find_config
from penstock.errors import ConfigurationError

EVENTS = Schema("events", time="ts", fields={"ts": Timestamp()})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PENSTOCK_CONFIG", raising=False)
    (tmp_path / "project" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "deep")
    return tmp_path / "project"


def configured(project: Path, text: str) -> None:
    (project / "penstock.toml").write_text(text)


def test_a_folder_needs_no_configuration(project: Path) -> None:
    made = Deployment.named("local:data")
    assert made.directory == project / "deep" / "data" and made.partitions == 4 and made.topic(EVENTS) == "events"
    assert not made.exists()
    made.log.create("events", 2)
    assert made.exists()
    assert made.log is made.log
    made.close()
    assert made.log.topics() == ["events"]  # opened again
    made.close()


def test_a_name_is_a_table_of_the_nearest_file_above(project: Path) -> None:
    configured(project, '[laptop]\nlocal = "data/x"\npartitions = 7\ntopics = {events = "events-v2"}\n')
    made = Deployment.named("laptop")
    assert made.directory == project / "data" / "x" and made.partitions == 7
    assert (made.topic(EVENTS), made.topic("events"), made.topic("other")) == ("events-v2", "events-v2", "other")
    assert find_config() == project / "penstock.toml"


def test_an_environment_variable_names_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "other.toml").write_text('[laptop]\nlocal = "o"\n')
    monkeypatch.setenv("PENSTOCK_CONFIG", str(project / "other.toml"))
    assert Deployment.named("laptop").directory == project / "o"


def test_it_travels_as_json(project: Path) -> None:
    made = Deployment.named("local:data")
    again = Deployment.from_json(made.to_json())
    assert (again.name, again.settings, again.directory) == (made.name, made.settings, made.directory) and again.directory.is_absolute()


def test_names_are_fresh_and_the_clock_is_micros(project: Path) -> None:
    made = Deployment.named("local:data")
    assert len({made.fresh() for _ in range(100)}) == 100
    assert 1_600_000_000_000_000 < made.now() < 4_000_000_000_000_000


@pytest.mark.parametrize(
    "text, on, named",
    [
        (None, "laptop", "no penstock.toml"),
        ('[server]\nlocal = "x"\n', "laptop", "'laptop'"),
        ("[laptop", "laptop", "cannot be read"),
        ('[laptop]\nlocal = "x"\nkafka = "y"\n', "laptop", "kafka"),
        ("[laptop]\npartitions = 3\n", "laptop", "no local folder"),
        ("[laptop]\nlocal = 3\n", "laptop", "no local folder"),
        ("laptop = 3\n", "laptop", "laptop"),
        ('[laptop]\nlocal = "x"\npartitions = "four"\n', "laptop", "partitions"),
        ('[laptop]\nlocal = "x"\npartitions = 0\n', "laptop", "partitions"),
        ('[laptop]\nlocal = "x"\ntopics = "ads"\n', "laptop", "topics"),
        ('[laptop]\nlocal = "x"\ntopics = {ads = 3}\n', "laptop", "topics"),
        (None, "local:", "no folder"),
        (None, "", "''"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(project: Path, text: str | None, on: str, named: str) -> None:
    if text is not None:
        configured(project, text)
    with pytest.raises(ConfigurationError) as caught:
        Deployment.named(on)
    assert named in caught.value.message and caught.value.hint


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made") as caught:
        _ = Deployment.named(f"local:{tmp_path}/file").log
    assert "write to" in (caught.value.hint or "")
