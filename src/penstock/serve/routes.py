"""The routes of the query API."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from penstock.model.units import iso
from penstock.serve.access import Access, Anyone
from penstock.serve.problems import documented
from penstock.serve.routes_query import query_router
from penstock.serve.schemas import answer_of, ref
from penstock.serve.service import Service


def add_api(app: FastAPI, service: Service) -> None:
    """Add the API's routes."""
    app.include_router(health_router(service))
    app.include_router(account_router(service))
    app.include_router(query_router(service))


def health_router(service: Service) -> APIRouter:
    """Whether the server runs, and whether it can answer: for load balancers and supervisors, without a key."""
    router = APIRouter(tags=["health"])

    @router.get("/health", summary="Whether the process runs.")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready", summary="Whether the table store answers.", responses=documented(503))
    async def ready() -> dict[str, str]:
        await run_in_threadpool(service.deployment.table.tables)
        return {"status": "ok"}

    return router


def account_router(service: Service) -> APIRouter:
    """Who one is."""
    router = APIRouter(prefix="/v1", tags=["keys"])

    @router.get(
        "/me",
        summary="What the key is, and how far it reaches.",
        responses={**answer_of(ref("Me"), "The key."), **documented(401, 429, 503)},
    )
    async def me(access: Anyone) -> Response:
        return JSONResponse(who(access, service), headers={"Cache-Control": "no-store"})

    return router


def who(access: Access, service: Service) -> dict[str, Any]:
    """Rights as plain data."""
    return {
        "key": access.key.id,
        "name": access.key.name,
        "via": access.via,
        "scope": access.scope.to_json(),
        "expires": None if access.expires is None else iso(access.expires),
        "rate": access.key.rate or service.settings.rate,
        "minimum_audience": access.minimum_audience,
    }
