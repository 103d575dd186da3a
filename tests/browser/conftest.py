"""What the browser's tests share: Chromium, and a world to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from dashboard_world import DashboardWorld, world


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where Chromium is. Skipped where there is none, unless PENSTOCK_BROWSER says that there must be."""
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if not os.environ.get("PENSTOCK_BROWSER"):
        pytest.importorskip("playwright", reason="needs the package playwright: pip install 'penstock[test]'")
        if found is None:
            pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    assert found, "PENSTOCK_BROWSER is set, and there is no Chromium: apt-get install chromium"
    return found


@pytest.fixture
def chromium(chromium_path: str) -> Iterator[Any]:
    """A real Chromium, without a window: one a test, for playwright keeps an event loop running that other tests must not meet."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shop(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardWorld]:
    """Served numbers of two advertisers, of which our key reaches one."""
    with world(tmp_path_factory.mktemp("shop")) as made:
        yield made
