"""The routes that answer questions."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import JSONResponse, Response

from penstock.query import Answer, RollupInfo
from penstock.query.trends import trending
from penstock.serve.access import Access, Reader
from penstock.serve.address import described, in_address
from penstock.serve.negotiate import CSV, MEDIA_TYPES, form_of
from penstock.serve.parameters import Format, Parameters, QueryAddress, TrendAddress
from penstock.serve.problems import documented
from penstock.serve.schemas import ANSWERS, ROLLUPS, TRENDS
from penstock.serve.service import Service

RollupName = Annotated[str, Path(description="The roll-up's name.", max_length=200)]
Accept = Annotated[str | None, Header(description="The forms that are wanted; `format` goes before it.")]
Known = Annotated[str | None, Header(alias="If-None-Match", description="The ETag of an answer that one has: 304 if it is the same still.")]
PRIVATE = {"Cache-Control": "private, no-cache", "Vary": "Accept, Authorization, Cookie"}


def query_router(service: Service) -> APIRouter:
    """What can be asked, and the answers."""
    router = APIRouter(prefix="/v1/rollups", tags=["query"])

    @router.get("", summary="What can be asked with this key.", responses={**ROLLUPS, **documented(401, 403, 429, 503)})
    async def rollups(access: Reader) -> Response:
        with service.audited("rollups", access):
            found = [one for one in await service.engine.rollups() if _open(access, one)]
        return JSONResponse({"rollups": [_described(one) for one in found]}, headers=PRIVATE)

    @router.get(
        "/{rollup}/query",
        summary="An entity's measures.",
        responses={**ANSWERS, **documented(401, 403, 404, 406, 414, 422, 429, 503)},
        openapi_extra=described(QueryAddress),
    )
    async def get_query(
        rollup: RollupName,
        asked: Annotated[QueryAddress, in_address(QueryAddress)],
        access: Reader,
        accept: Accept = None,
        known: Known = None,
    ) -> Response:
        return await answered(service, access, rollup, asked.parameters(), form_of(accept, asked.format), known)

    @router.post(
        "/{rollup}/query",
        summary="An entity's measures; the question as JSON.",
        responses={**ANSWERS, **documented(400, 401, 403, 404, 406, 413, 422, 429, 503)},
    )
    async def post_query(
        rollup: RollupName,
        asked: Parameters,
        access: Reader,
        format: Annotated[Format | None, Query(description="The form of the answer; else what `Accept` prefers, else JSON.")] = None,
        accept: Accept = None,
        known: Known = None,
    ) -> Response:
        return await answered(service, access, rollup, asked, form_of(accept, format), known)

    @router.get(
        "/{rollup}/trending",
        summary="The values of dimensions that grew most against the period before.",
        responses={**TRENDS, **documented(401, 403, 404, 414, 422, 429, 503)},
        openapi_extra=described(TrendAddress),
    )
    async def get_trending(rollup: RollupName, asked: Annotated[TrendAddress, in_address(TrendAddress)], access: Reader) -> Response:
        with service.audited("trending", access, rollup=rollup, entity=asked.entity) as said:
            entity = said["entity"] = await entity_of(service, access, rollup, asked.entity)
            question = asked.arguments(floor=access.minimum_audience, max_rows=service.settings.max_rows)
            found = await service.engine.run(trending, service.engine.analytics, rollup, asked.measure, entity=entity, **question)
        return JSONResponse({"rollup": rollup, "trends": [dataclasses.asdict(one) for one in found]}, headers=PRIVATE)

    return router


async def answered(service: Service, access: Access, rollup: str, asked: Parameters, form: str, known: str | None) -> Response:
    """The answer to a question, as far as the key reaches. known: If-None-Match."""
    with service.audited("query", access, rollup=rollup, entity=asked.entity) as said:
        entity = said["entity"] = await entity_of(service, access, rollup, asked.entity)
        arguments = asked.arguments(floor=access.minimum_audience, max_rows=service.settings.max_rows)
        found = await service.engine.ask(rollup, form, known, {**arguments, "entity": entity})
    headers = {**PRIVATE, "ETag": found.tag}
    if found.answer is None:
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers={**headers, **about(found.answer, form)}, media_type=MEDIA_TYPES[form])


async def entity_of(service: Service, access: Access, rollup: str, asked: Any) -> Any:
    """The entity to read: with a narrowed scope, the scope's own value. Raises Problem 403, 404 and 422."""
    access.require_rollup(rollup)
    declared = service.catalog.believed(rollup)
    if declared is None:
        declared = await service.engine.run(service.catalog.rollup, rollup)
    return access.entity(declared.entity, declared.schema.columns[declared.entity], asked)


def about(answer: Answer, form: str) -> dict[str, str]:
    """What an answer says of itself beside its rows, for the forms that hold rows alone."""
    headers = {"Penstock-Complete": "true" if answer.complete else "false", "Penstock-Served-From": ", ".join(answer.served_from)}
    if answer.as_of is not None:
        headers["Penstock-As-Of"] = answer.as_of
    if answer.errors:
        headers["Penstock-Errors"] = ", ".join(f"{name}={error:.6f}" for name, error in answer.errors.items())
    if form == CSV:
        headers["Content-Disposition"] = f'attachment; filename="{answer.rollup}.csv"'
    return headers


def _open(access: Access, rollup: RollupInfo) -> bool:
    return (access.scope.rollups is None or rollup.name in access.scope.rollups) and access.reaches(rollup.entity[0])


def _described(rollup: RollupInfo) -> dict[str, Any]:
    return {
        "name": rollup.name,
        "entity": {"field": rollup.entity[0], "type": rollup.entity[1]},
        "measures": [{"name": name, "kind": kind} for name, kind in rollup.measures.items()],
        "breakdowns": [{"by": list(dimensions), "keep": keep} for dimensions, keep in rollup.breakdowns],
        "generation": rollup.generation,
    }
