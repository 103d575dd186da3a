"""The API's own documentation: OpenAPI 3.1 at /openapi.json, to be read and tried at /docs. Its viewer (Swagger UI) comes from a package, and from no other host."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from penstock.serve.problems import PROBLEM_SCHEMA
from penstock.serve.schemas import SCHEMAS
from penstock.serve.service import Service

ASSETS = "/docs/assets"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Penstock API</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="viewer"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#viewer", deepLinking: true, displayRequestDuration: true, validatorUrl: null});\n'


def add_docs(app: FastAPI, service: Service) -> None:
    """Add the document and its page."""
    document: dict[str, Any] = {}

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        if not document:
            document.update(openapi_document(app))
        return JSONResponse(document, headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(_PAGE)

    @app.get("/docs/start.js", include_in_schema=False)
    async def start() -> Response:
        return Response(_START, media_type="text/javascript")

    app.mount(ASSETS, StaticFiles(directory=_assets()), name="docs-assets")


def _assets() -> Path:
    """The folder with the viewer's files. fastapi-offline is used for these alone."""
    return Path(str(importlib.resources.files("fastapi_offline") / "static"))


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of an application: FastAPI's, with our problems in the place of its own errors."""
    document = get_openapi(title=app.title, version=app.version, openapi_version="3.1.0", description=app.description, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(SCHEMAS, Problem=PROBLEM_SCHEMA)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            invalid = operation["responses"].get("422", {}).get("content", {})
            if "application/json" in invalid:  # FastAPI's own, where the route names none
                del operation["responses"]["422"]
    return document
