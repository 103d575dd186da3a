"""The route of live answers."""

from __future__ import annotations

from typing import Annotated, Any, AsyncIterator

from fastapi import APIRouter, Header
from starlette.responses import Response, StreamingResponse

from penstock.serve.access import Reader
from penstock.serve.address import described, in_address
from penstock.serve.live import SECOND, Stream, Watcher
from penstock.serve.parameters import LiveAddress
from penstock.serve.problems import Problem, documented
from penstock.serve.routes_query import RollupName, entity_of
from penstock.serve.service import Service

EVENTS = "text/event-stream"
LIVE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `answer` (data: as of a query, id: its version), `problem` (problem details), `bye` when the server stops.",
        "content": {EVENTS: {"schema": {"type": "string"}}},
    }
}


def live_router(service: Service) -> APIRouter:
    """The last minutes of an entity, pushed."""
    router = APIRouter(prefix="/v1/rollups", tags=["query"])
    watcher = Watcher(service, service.settings.live / SECOND)
    open_streams: set[object] = set()
    service.get_only.add(r"/v1/rollups/[^/]+/live")  # it would be opened, and held for as long as nobody hangs up

    @router.get(
        "/{rollup}/live",
        summary="The last minutes of an entity, again whenever something was committed.",
        response_class=StreamingResponse,
        responses={**LIVE, **documented(401, 403, 404, 414, 422, 429, 503)},
        openapi_extra=described(LiveAddress),
    )
    async def live(
        rollup: RollupName,
        asked: Annotated[LiveAddress, in_address(LiveAddress)],
        access: Reader,
        last: Annotated[str | None, Header(alias="Last-Event-ID", description="The version that one has.")] = None,
    ) -> Response:
        with service.audited("live", access, rollup=rollup, entity=asked.entity) as said:
            entity = said["entity"] = await entity_of(service, access, rollup, asked.entity)
            arguments = {**asked.arguments(floor=access.minimum_audience, max_rows=service.settings.max_rows), "entity": entity}
            if len(open_streams) >= service.settings.max_streams:
                raise Problem(
                    503, "There are as many live streams as this server takes.", hint="try again later", headers={"Retry-After": "30"}
                )
            stream = Stream(service, watcher, access, rollup, arguments, asked.clock == "events")
            await service.engine.run(
                service.engine.analytics.prepare, rollup, **arguments
            )  # what is wrong with it is an answer, not an event

        async def counted() -> AsyncIterator[bytes]:
            open_streams.add(stream)
            try:
                async for event in stream.events(last):
                    yield event
            finally:
                open_streams.discard(stream)

        return StreamingResponse(counted(), media_type=EVENTS, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    return router
