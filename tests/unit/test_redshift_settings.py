"""The table `redshift` of a deployment: what is taken, what is refused and why, what the driver is given."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from penstock.configuration import mistake
from penstock.deployment import Deployment
from penstock.errors import ConfigurationError
from penstock.warehouse.redshift import RedshiftWarehouse, Settings

ROLE = "arn:aws:iam::123456789012:role/copy"
PASSWORD = {"host": "h", "database": "d", "user": "u", "password": {"env": "PENSTOCK_TEST_PASSWORD"}, "iam_role": ROLE}
CLUSTER = {"database": "d", "iam_role": ROLE, "iam": True, "cluster_identifier": "c", "db_user": "u", "region": "eu-west-1"}
SERVERLESS = {"database": "d", "iam_role": "default", "iam": True, "workgroup": "w", "region": "eu-west-1"}


def test_a_password_is_resolved_for_the_driver_and_stays_a_reference_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.of(PASSWORD)
    monkeypatch.delenv("PENSTOCK_TEST_PASSWORD", raising=False)
    with pytest.raises(ConfigurationError, match="PENSTOCK_TEST_PASSWORD is not set"):
        settings.resolved()
    monkeypatch.setenv("PENSTOCK_TEST_PASSWORD", "hunter2")
    given = settings.resolved()
    assert given == {
        "host": "h",
        "port": 5439,
        "database": "d",
        "user": "u",
        "password": "hunter2",
        "ssl": True,
        "sslmode": "verify-full",
        "iam": False,
    }
    assert "hunter2" not in repr(settings)


def test_temporary_credentials_of_a_cluster_and_of_a_workgroup() -> None:
    cluster = Settings.of({**CLUSTER, "db_groups": ["loaders"], "auto_create": True, "profile": "p"}).resolved()
    assert {**cluster, "password": None} == {
        "database": "d",
        "port": 5439,
        "password": None,
        "ssl": True,
        "sslmode": "verify-full",
        "iam": True,
        "cluster_identifier": "c",
        "db_user": "u",
        "db_groups": ["loaders"],
        "auto_create": True,
        "profile": "p",
        "region": "eu-west-1",
    }
    serverless = Settings.of(SERVERLESS).resolved()
    assert serverless["serverless_work_group"] == "w" and serverless["is_serverless"] is True and "cluster_identifier" not in serverless


def test_every_name_that_the_driver_is_given_is_one_of_its_own() -> None:
    import inspect

    import redshift_connector

    known = set(inspect.signature(redshift_connector.connect).parameters)
    for table in (PASSWORD | {"password": {"env": "PATH"}}, CLUSTER | {"group_federation": True, "account": "1"}, SERVERLESS):
        assert set(Settings.of(table).resolved()) <= known


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({**PASSWORD, "hots": "h"}, "redshift.hots is not a setting\n  did you mean host"),
        ({k: v for k, v in PASSWORD.items() if k != "database"}, "redshift.database is missing"),
        ({k: v for k, v in PASSWORD.items() if k != "iam_role"}, "redshift.iam_role is missing"),
        ({k: v for k, v in PASSWORD.items() if k != "host"}, "redshift.host is missing"),
        ({k: v for k, v in PASSWORD.items() if k != "user"}, "redshift.user is missing"),
        ({**PASSWORD, "password": "hunter2"}, "redshift.password is written out"),
        ({**PASSWORD, "iam_role": "arn:aws:iam::1:user/x"}, "is not a role"),
        ({**PASSWORD, "iam_role": f"{ROLE}' FORMAT"}, "is not a role"),
        ({**PASSWORD, "schema": 'x"; DROP'}, "redshift.schema = .* is not a usable name"),
        ({**PASSWORD, "port": "5439"}, "redshift.port = '5439' is not a number from 1"),
        ({**PASSWORD, "port": True}, "redshift.port = True is not a number"),
        ({**PASSWORD, "ssl": "no"}, "redshift.ssl = 'no' is not true or false"),
        ({**PASSWORD, "sslmode": "prefer"}, "use one of verify-full, verify-ca"),
        ({**PASSWORD, "statement_timeout": 0}, "redshift.statement_timeout = 0 is not a time"),
        ({**PASSWORD, "attempts": 0}, "redshift.attempts = 0"),
        ({**PASSWORD, "verify": "no"}, "redshift.verify = 'no' is not known"),
        ({**PASSWORD, "database": ""}, "redshift.database = '' is not a text"),
        ({**PASSWORD, "region": "eu-west-1"}, "redshift.region is of temporary credentials"),
        ({**CLUSTER, "ssl": False}, "redshift.ssl = false with iam = true"),
        ({**CLUSTER, "user": "u"}, "redshift.user with iam = true"),
        ({**CLUSTER, "workgroup": "w"}, "needs cluster_identifier or workgroup, and not both"),
        ({k: v for k, v in CLUSTER.items() if k != "cluster_identifier"}, "needs cluster_identifier or workgroup"),
        ({k: v for k, v in CLUSTER.items() if k != "db_user"}, "redshift.db_user is missing"),
        ({**CLUSTER, "db_groups": "loaders"}, "is not a list of groups"),
        ({**CLUSTER, "access_key_id": "AKIA"}, "redshift.access_key_id is written out"),
        ({**CLUSTER, "access_key_id": {"env": "X"}}, "redshift.secret_access_key is missing"),
    ],
)
def test_what_cannot_work_is_refused_naming_the_setting(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings.of(table)


def test_a_deployment_with_redshift_needs_s3(tmp_path: Any) -> None:
    wrong = mistake({"local": "x", "redshift": PASSWORD})
    assert wrong is not None and "no s3 table" in wrong
    assert mistake({"local": "x", "redshift": PASSWORD, "s3": {"bucket": "b"}}) is None
    wrong = mistake({"local": "x", "redshift": {"database": "d"}, "s3": {"bucket": "b"}})
    assert wrong is not None and "redshift says no iam_role" in wrong
    with Deployment("d", {"local": str(tmp_path), "redshift": PASSWORD, "s3": {"bucket": "bucket"}}) as deployment:
        assert isinstance(deployment.warehouse, RedshiftWarehouse) and deployment.warehouse.archive is deployment.archive


def test_the_driver_is_imported_with_the_first_connection_and_an_error_names_the_extra() -> None:
    script = """
import sys
sys.modules["redshift_connector"] = None
from penstock.archive.memory import MemoryArchive
from penstock.warehouse.redshift import RedshiftWarehouse
store = RedshiftWarehouse({"host": "h", "database": "d", "user": "u", "iam_role": "default"}, MemoryArchive())
try:
    store.query("SELECT 1")
except Exception as problem:
    print(type(problem).__name__, problem)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.stdout.startswith("ConfigurationError Redshift needs redshift-connector"), ended.stderr
    assert "pip install 'penstock[redshift]'" in ended.stdout
