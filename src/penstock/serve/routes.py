"""All routes of the API, and those of its health."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool

from penstock.serve.problems import documented
from penstock.serve.routes_keys import keys_router
from penstock.serve.routes_live import live_router
from penstock.serve.routes_query import query_router
from penstock.serve.routes_saved import saved_router
from penstock.serve.service import Service


def add_api(app: FastAPI, service: Service) -> None:
    """Add the API's routes."""
    app.include_router(health_router(service))
    for router in (query_router, live_router, saved_router, keys_router):
        app.include_router(router(service))


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
