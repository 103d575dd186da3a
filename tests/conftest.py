"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

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
