"""The routes of saved queries."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import JSONResponse, Response

from penstock.serve.access import Access, Reader
from penstock.serve.engine import rendered
from penstock.serve.negotiate import MEDIA_TYPES, form_of
from penstock.serve.parameters import Format, Name, Parameters
from penstock.serve.problems import Problem, documented
from penstock.serve.routes_query import PRIVATE, Accept, Known, about, entity_of
from penstock.serve.saved import Desk, Saved
from penstock.serve.schemas import ANSWERS, SAVED, SAVED_LIST, answer_of
from penstock.serve.service import Service

SavedName = Annotated[str, Path(pattern="^[a-z0-9_-]{1,60}$", description="The query's name, the key's own.")]


class SavedBody(Parameters):
    """A query to keep answered."""

    rollup: Name = Field(description="The roll-up's name.")


def saved_router(service: Service) -> APIRouter:
    """A key's saved queries."""
    router = APIRouter(prefix="/v1/saved", tags=["saved queries"])
    desk = Desk(service)
    service.lifespans.append(desk.running)

    @router.get("", summary="The key's saved queries.", responses={**answer_of(SAVED_LIST, "By name."), **documented(401, 403, 429, 503)})
    async def saved_queries(access: Reader) -> Response:
        found = await service.engine.run(desk.store.list, access.key.id)
        return JSONResponse({"saved": [_described(one) for one in found if await _reached(service, access, one)]}, headers=PRIVATE)

    @router.put(
        "/{name}",
        summary="Save a query: every server keeps it answered.",
        responses={**answer_of(SAVED, "It is saved."), **documented(400, 401, 403, 404, 413, 422, 429, 503)},
    )
    async def save(name: SavedName, asked: SavedBody, access: Reader) -> Response:
        with service.audited("save", access, rollup=asked.rollup, entity=asked.entity, name=name) as said:
            _may_change(access)
            entity = said["entity"] = await entity_of(service, access, asked.rollup, asked.entity)
            arguments = asked.arguments(floor=access.minimum_audience, max_rows=service.settings.max_rows)
            arguments.pop("rollup")
            saved = Saved(access.key.id, name, asked.rollup, {**arguments, "entity": entity})
            await service.engine.run(desk.answer, saved)
            await service.engine.run(desk.store.put, saved)
        return JSONResponse(_described(saved), headers=PRIVATE)

    @router.get(
        "/{name}", summary="What was saved.", responses={**answer_of(SAVED, "The query."), **documented(401, 403, 404, 422, 429, 503)}
    )
    async def saved_query(name: SavedName, access: Reader) -> Response:
        saved = await service.engine.run(desk.store.get, access.key.id, name)
        await entity_of(service, access, saved.rollup, saved.asked["entity"])
        return JSONResponse(_described(saved), headers=PRIVATE)

    @router.delete("/{name}", status_code=204, summary="Forget a saved query.", responses=documented(401, 403, 404, 422, 429, 503))
    async def forget(name: SavedName, access: Reader) -> Response:
        with service.audited("forget", access, name=name):
            _may_change(access)
            saved = await service.engine.run(desk.store.get, access.key.id, name)
            await entity_of(service, access, saved.rollup, saved.asked["entity"])
            await service.engine.run(desk.store.remove, access.key.id, name)
        return Response(status_code=204, headers=PRIVATE)

    @router.get(
        "/{name}/answer", summary="Its newest answer, at once.", responses={**ANSWERS, **documented(401, 403, 404, 406, 422, 429, 503)}
    )
    async def newest(
        name: SavedName,
        access: Reader,
        format: Annotated[Format | None, Query(description="The form of the answer; else what `Accept` prefers, else JSON.")] = None,
        accept: Accept = None,
        known: Known = None,
    ) -> Response:
        form = form_of(accept, format)
        with service.audited("saved", access, name=name) as said:
            saved = await service.engine.run(desk.store.get, access.key.id, name)
            said["rollup"], said["entity"] = saved.rollup, await entity_of(service, access, saved.rollup, saved.asked["entity"])
            floor = max(saved.asked["minimum_audience"] or 0, access.minimum_audience) or None
            if floor == saved.asked["minimum_audience"]:
                answer = await service.engine.run(desk.answer, saved)
            else:  # a token that shows less than its key does
                asked: dict[str, Any] = {**saved.asked, "minimum_audience": floor}
                answer = await service.engine.run(service.engine.analytics.query, saved.rollup, **asked)
            tag = f'W/"{answer.version}-{form}"'
            if known is not None and tag in known:
                return Response(status_code=304, headers={**PRIVATE, "ETag": tag})
            body = await service.engine.run(rendered, answer, form)
        return Response(body, headers={**PRIVATE, "ETag": tag, **about(answer, form)}, media_type=MEDIA_TYPES[form])

    return router


def _may_change(access: Access) -> None:
    if access.via == "token":
        raise Problem(403, "A token saves and forgets nothing.", hint="use the key itself")


async def _reached(service: Service, access: Access, saved: Saved) -> bool:
    try:
        await entity_of(service, access, saved.rollup, saved.asked["entity"])
    except Problem:
        return False
    return True


def _described(saved: Saved) -> dict[str, Any]:
    asked = {name: value for name, value in saved.asked.items() if name != "max_rows" and value not in (None, False, [], 0)}
    return {"name": saved.name, "rollup": saved.rollup, "query": asked}
