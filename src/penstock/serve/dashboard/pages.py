"""The routes of the dashboard: one page, its own files, and the chart library's out of the package that ships it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from penstock.errors import ConfigurationError
from penstock.serve.service import Service

STATIC = Path(__file__).parent / "static"


class Revalidated(StaticFiles):
    """Files that a browser asks for again each time, and mostly does not get again: a new version of the page never meets an old one of its parts."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """The file, or 304."""
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


def add_dashboard(app: FastAPI, service: Service) -> None:
    """Add the page. Raises ConfigurationError where the package with the chart library is not installed."""
    headers = {"Content-Security-Policy": policy(service.settings.embedders), "Cache-Control": "no-cache"}

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("dashboard")

    @app.get("/dashboard", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", media_type="text/html", headers=headers)

    app.mount("/dashboard/assets", Revalidated(directory=STATIC), name="dashboard-assets")
    app.mount("/dashboard/chart", Revalidated(directory=charts()), name="dashboard-chart")


def policy(embedders: tuple[str, ...]) -> str:
    """What the page may do: run and fetch what this server sends, and nothing else. embedders: who may show it in a frame."""
    frames = " ".join(embedders) or "'none'"
    own = "; ".join(f"{what}-src 'self'" for what in ("script", "style", "connect"))
    return f"default-src 'none'; {own}; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors {frames}"


def charts() -> Path:
    """The folder with uPlot's files, of which the package's Python is neither needed nor run. Raises ConfigurationError."""
    found = importlib.util.find_spec("uplot")
    folder = Path(found.origin).parent / "static" if found is not None and found.origin else None
    if folder is None or not (folder / "uPlot.iife.js").is_file():
        raise ConfigurationError("the dashboard's charts need uplot-python, which is not installed", hint="pip install 'penstock[serve]'")
    return folder
