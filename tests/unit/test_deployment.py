"""Deployments: by folder, by name, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock import Schema, Timestamp
from penstock.configuration import find_config
from penstock.deployment import Deployment
from penstock.errors import ConfigurationError
from penstock.secrets import find_literals, resolve

EVENTS = Schema("events", time="ts", fields={"ts": Timestamp()})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PENSTOCK_CONFIG", raising=False)
    monkeypatch.delenv("PENSTOCK_STACK", raising=False)
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
        ('[laptop]\nlocal = "x"\nkafak = "y"\n', "laptop", "did you mean kafka?"),
        ('[laptop]\nlocal = "x"\nkafka = "y"\n', "laptop", "kafka is not a table"),
        ('[laptop]\nlocal = "x"\n[laptop.kafka]\nreplication = 3\n', "laptop", "kafka says no bootstrap"),
        ('[laptop]\nlocal = "x"\n[laptop.hbase]\nhost = "h"\n', "laptop", "hbase says no port"),
        (
            '[laptop]\nlocal = "x"\n[laptop.kafka]\nbootstrap = "h:1"\nsasl_plain_password = "hunter2"\n',
            "laptop",
            "kafka.sasl_plain_password",
        ),
        ('[laptop]\n[laptop.kafka]\nbootstrap = "h:1"\n', "laptop", "no local folder"),
        (None, "stack", "no stack runs here"),
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


STACK = '[stack]\n[stack.kafka]\nbootstrap = "h:1"\n[stack.hbase]\nhost = "h"\nport = 2\n'


def test_a_stack_is_found_where_it_wrote_itself_down(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".penstock-stack").mkdir()
    (project / ".penstock-stack" / "penstock.toml").write_text(STACK)
    assert Deployment.named("stack").settings["kafka"] == {"bootstrap": "h:1"}
    configured(project, '[stack]\nlocal = "own"\n')
    assert "kafka" not in Deployment.named("stack").settings, "a table of one's own comes first"
    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "penstock.toml").write_text(STACK.replace("h:1", "h:9"))
    (project / "penstock.toml").unlink()
    monkeypatch.setenv("PENSTOCK_STACK", str(project / "elsewhere"))
    assert Deployment.named("stack").settings["kafka"] == {"bootstrap": "h:9"}


def test_a_deployment_of_servers_alone_has_no_archive_and_says_so(project: Path) -> None:
    configured(project, STACK.replace("stack", "prod"))
    made = Deployment.named("prod")
    assert made.directory is None and made.exists()
    with pytest.raises(ConfigurationError, match="prod has no archive"):
        _ = made.archive


def test_a_secret_is_a_reference(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "key").write_text("from a file\n")
    monkeypatch.setenv("OURS", "from the environment")
    assert resolve({"env": "OURS"}) == "from the environment" and resolve({"file": str(project / "key")}) == "from a file"
    assert resolve("plain") == "plain"
    monkeypatch.delenv("OURS")
    for reference, named in (({"env": "OURS"}, "OURS"), ({"file": str(project / "none")}, "none")):
        with pytest.raises(ConfigurationError, match=named):
            resolve(reference)


@pytest.mark.parametrize(
    "settings, found",
    [
        ({"kafka": {"sasl_plain_password": {"env": "X"}, "ssl_keyfile": "/etc/key.pem"}}, []),
        ({"kafka": {"sasl_plain_password": "x"}}, ["kafka.sasl_plain_password"]),
        ({"s3": {"secret_access_key": "x", "password_file": "/etc/p"}}, ["s3.secret_access_key"]),
        ({"a": ["https://user:word@host/"], "b": "https://host/"}, ["a[0]"]),
        ({"a": "-----BEGIN RSA PRIVATE KEY-----"}, ["a"]),
        ({"storm": {"options": {"storm.zookeeper.auth.token": "x"}}}, ["storm.options.storm.zookeeper.auth.token"]),
    ],
)
def test_what_looks_like_a_secret_is_found(settings: dict[str, Any], found: list[str]) -> None:
    assert find_literals(settings) == found
