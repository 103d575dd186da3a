"""What all tests share."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from standin import StandIn

    from penstock.stack.redshift.faults import Control

sys.path.insert(0, str(Path(__file__).parent / "simulation"))
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of sample data beside the checkout; the test is skipped where there is none, as in a user's clone."""
    folder = Path(os.environ.get("PENSTOCK_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "access.log").is_file():
        pytest.skip(f"uses the sample data in {folder}, which is not there")
    return folder


@pytest.fixture(scope="session")
def stack() -> dict[str, Any]:
    """The settings of the deployment `stack`: real Kafka, Storm and HBase.

    `make test` starts them, and says so in PENSTOCK_SERVERS: without them its tests fail. Where nobody started them, the tests are skipped.
    """
    from penstock.configuration import STACK, find_stack, settings_of

    if find_stack() is None and not os.environ.get("PENSTOCK_SERVERS"):
        pytest.skip("uses real servers: `penstock stack up` starts them, and `make test` does both")
    return settings_of(STACK)


@pytest.fixture(scope="session")
def kafka(stack: dict[str, Any]) -> dict[str, Any]:
    """How to reach the stack's Kafka."""
    return dict(stack["kafka"])


@pytest.fixture(scope="session")
def hbase(stack: dict[str, Any]) -> dict[str, Any]:
    """How to reach the stack's HBase."""
    return dict(stack["hbase"])


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a moto server of the tests' own: an S3 that is empty at first, and takes any access key."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of a fresh bucket: the table `[NAME.s3]`. Its credentials are by reference, in variables that other processes inherit."""
    from boto3.session import Session

    for name in ("PENSTOCK_TEST_S3_KEY", "PENSTOCK_TEST_S3_SECRET"):
        monkeypatch.setenv(name, "testing")
    bucket = f"test-{uuid.uuid4().hex[:16]}"
    client = Session("testing", "testing", region_name="us-east-1").client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=bucket)
    client.close()
    return {
        "bucket": bucket,
        "endpoint": s3_endpoint,
        "region": "us-east-1",
        "access_key": {"env": "PENSTOCK_TEST_S3_KEY"},
        "secret_key": {"env": "PENSTOCK_TEST_S3_SECRET"},
    }


@pytest.fixture(scope="session")
def redshift_server(s3_endpoint: str) -> Iterator[StandIn]:
    """PostgreSQL and the stand-in before it: one for all tests."""
    from standin import StandIn

    with StandIn.started(s3_endpoint) as server:
        yield server


@pytest.fixture
def redshift(redshift_server: StandIn) -> Iterator[dict[str, Any]]:
    """The settings of a fresh database of the stand-in: the table `[NAME.redshift]`. Its COPY reads from `s3_endpoint`."""
    with redshift_server.database() as settings:
        yield settings


@pytest.fixture
def redshift_faults(redshift_server: StandIn, redshift: dict[str, Any]) -> Iterator[Control]:
    """What lets that database fail: see `penstock.stack.redshift.faults.Fault`. Cleared after the test."""
    control = redshift_server.faults(redshift)
    yield control
    control.clear()
