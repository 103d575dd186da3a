"""The routes of reception: events that are posted, and the pixel."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import itertools
import json
import logging
import math
import re
import secrets
from typing import TYPE_CHECKING, Any, Mapping, Sequence

import anyio.to_thread
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from penstock.errors import PenstockError, UnavailableError
from penstock.kernels.encode import Slices
from penstock.model import Schema
from penstock.serve.access import Access
from penstock.serve.problems import Problem, documented
from penstock.serve.reception.body import FORMS, events_of, form_of, inflated
from penstock.serve.reception.claims import Receipt
from penstock.serve.reception.examine import Part
from penstock.serve.reception.reception import Reception, unavailable
from penstock.serve.reception.settings import Network
from penstock.serve.reception.stamps import Sent

if TYPE_CHECKING:
    from penstock.serve.service import Service

log = logging.getLogger(__name__)
PREFIX = "/v1/events"
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")  # a transparent GIF of 1 by 1
_INLINE = 128 << 10  # bytes of a body that is made events of without a thread
_IDEMPOTENCY = re.compile(r'"([\x21\x23-\x7e ]{1,255})"|([\x21\x23-\x7e]{1,255})')


def add_reception(app: FastAPI, service: Service) -> None:
    """Add reception to a server."""
    reception = Reception(service)
    service.bodies[PREFIX] = reception.settings.max_body
    service.cors.add(PREFIX)
    service.get_only.add(rf"{PREFIX}/[^/]+/pixel\.gif")  # a HEAD must not write
    service.lifespans.append(reception.running)
    app.state.reception = reception
    app.include_router(reception_router(reception))


def reception_router(reception: Reception) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix=PREFIX, tags=["events"])
    desk = Desk(reception)

    async def post(request: Request, dataset: str) -> Response:
        """One event or many: a JSON object or an array of them, JSON Lines, or msgpack (a map, several, or an array), as they are or compressed by gzip or zstd.

        Every event is answered for: it is in the log when the answer says that it was accepted, or it is listed with the field at fault and the reason. A
        request with an `Idempotency-Key` may be sent again for as long as it takes: its events are taken once.
        """
        return await desk.answer(request, desk.post(request, dataset))

    async def pixel(request: Request, dataset: str) -> Response:
        """One event, or an array of them, as base64url of its JSON. For pages and mails where only an image can be asked for; the key shows in the address, so give it no
        other right than to write this dataset."""
        return await desk.answer(request, desk.pixel(request, dataset), {"Cross-Origin-Resource-Policy": "cross-origin"})

    async def preflight(request: Request, dataset: str) -> Response:
        return desk.preflight(request)

    router.add_api_route(
        "/{dataset}",
        post,
        methods=["POST"],
        summary="Put events into the log.",
        responses={200: _RECEIPT, **documented(400, 401, 403, 404, 409, 413, 414, 415, 422, 429, 503)},
        openapi_extra={"requestBody": _BODY, "parameters": [_KEY_PARAMETER, *_HEADERS]},
    )
    router.add_api_route(
        "/{dataset}/pixel.gif",
        pixel,
        methods=["GET"],
        summary="Put an event into the log, by an image.",
        responses={
            200: {"description": "A transparent image: all of it is in the log.", "content": {"image/gif": {"schema": _BINARY}}},
            **documented(400, 401, 403, 404, 413, 414, 422, 429, 503),
        },
        openapi_extra={"parameters": [_KEY_PARAMETER, _DATA_PARAMETER]},
    )
    for path in ("/{dataset}", "/{dataset}/pixel.gif"):
        router.add_api_route(path, preflight, methods=["OPTIONS"], include_in_schema=False)
    return router


class Desk:
    """From a request to its answer."""

    def __init__(self, reception: Reception) -> None:
        self.reception, self.service, self.settings = reception, reception.service, reception.settings
        self._ids, self._numbers = secrets.token_hex(8), itertools.count()  # what ids begin with: this process, and the request

    async def answer(self, request: Request, work: Any, more: Mapping[str, str] | None = None) -> Response:
        """What a coroutine answers, its problems among it, with the headers that a browser's page needs to see it."""
        headers = {**self._cors(request), **(more or {})}
        try:
            response: Response = await work
        except PenstockError as problem:
            if not isinstance(problem, UnavailableError) and not problem.retriable:
                raise
            log.warning("events were not taken: %s", problem.message)
            response = unavailable("The log or the table does not answer now.").response()
        except Problem as problem:
            response = problem.response()
        response.headers.update(headers)
        return response

    async def post(self, request: Request, dataset: str) -> Response:
        """See the route."""
        _check_query(request, {"key"})
        access = await self._access(request, dataset)
        schema, intake = await self.reception.intake(dataset, access.scope.datasets)
        form = form_of(request.headers.get("content-type", ""))
        name = _idempotency_key(request)
        coding = request.headers.get("content-encoding", "")
        raw = await request.body()
        if len(raw) <= _INLINE:
            body, values = self._events(raw, coding, form, schema)
        else:
            body, values = await anyio.to_thread.run_sync(self._events, raw, coding, form, schema)
        self._spend(access, len(values))
        part = Part(values, self._sent(request), reach_of(access, schema))
        receipt = await self.reception.deliver(dataset, intake, part, (access.key.id, name) if name else None, body)
        return _answered(receipt, len(values))

    async def pixel(self, request: Request, dataset: str) -> Response:
        """See the route."""
        _check_query(request, {"key", "data"})
        access = await self._access(request, dataset)
        schema, intake = await self.reception.intake(dataset, access.scope.datasets)
        body = _base64(request.query_params.get("data"))
        values = events_of(body, "json", schema.format, self.settings.max_events)
        self._spend(access, len(values))
        receipt = await self.reception.deliver(dataset, intake, Part(values, self._sent(request), reach_of(access, schema)), None, body)
        if receipt.rejected:
            raise _rejected(receipt)
        return Response(PIXEL, 200, {"Cache-Control": "no-store"}, "image/gif")

    def preflight(self, request: Request) -> Response:
        """What a browser asks before a page posts."""
        headers = self._cors(request)
        if not headers:
            return Problem(
                403, "Pages of that origin may not post here.", hint="[NAME.serve.reception] origins lists those that may"
            ).response()
        asked = {
            "Access-Control-Allow-Methods": "POST, GET",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding, Idempotency-Key",
            "Access-Control-Max-Age": "600",
        }
        return Response(status_code=204, headers={**headers, **asked})

    async def _access(self, request: Request, dataset: str) -> Access:
        """The rights of the key in the header or, for pages, in the address. Raises Problem 401, 403 and 429."""
        kind, _, credential = request.headers.get("authorization", "").partition(" ")
        text = credential.strip() if kind.lower() == "bearer" else request.query_params.get("key", "")
        gate = self.service.gate
        if not text:
            raise Problem(
                401,
                "There is no key in the request.",
                hint="send one in the header: Authorization: Bearer pk_…",
                headers={"WWW-Authenticate": 'Bearer realm="penstock"'},
            )
        access = await gate.verify(text)
        if access.key.rate is not None:
            self.service.rates.spend(access.key.id, access.key.rate)
        try:
            access.require_dataset(dataset)
        except Problem:
            self.service.audit.record("post", "forbidden", key=access.key.id, dataset=dataset)
            raise
        return access

    def _events(self, raw: bytes, coding: str, form: str, schema: Schema) -> tuple[bytes, Slices]:
        body = inflated(raw, coding, self.settings.max_inflated)
        return body, events_of(body, form, schema.format, self.settings.max_events)

    def _spend(self, access: Access, events: int) -> None:
        if not self.settings.rate:
            return
        try:
            self.service.rates.spend(f"events/{access.key.id}", self.settings.rate, events)
        except Problem as problem:
            wait = (problem.headers or {}).get("Retry-After", "1")
            raise Problem(
                429,
                f"This key may send {self.settings.rate:,} events a minute.",
                hint=f"wait {wait} s",
                headers={"Retry-After": str(max(1, math.ceil(float(wait))))},
            ) from None

    def _sent(self, request: Request) -> Sent:
        peer = client_address(
            request.client.host if request.client else None, request.headers.getlist("x-forwarded-for"), self.settings.trusted_proxies
        )
        return Sent(f"{self._ids}{next(self._numbers) & 0xFFFFFFFF:08x}", self.service.now(), peer, request.headers.get("user-agent"))

    def _cors(self, request: Request) -> dict[str, str]:
        origin = request.headers.get("origin")
        if origin is None or not ("*" in self.settings.origins or origin in self.settings.origins):
            return {}
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Retry-After", "Vary": "Origin"}


def reach_of(access: Access, schema: Schema) -> Mapping[str, Sequence[Any]] | None:
    """By field, the values that a key's events may hold; None for all. Raises Problem 403 for a key that reaches nothing of the dataset."""
    entities = access.scope.entities
    if entities is None:
        return None
    reach = {name: list(access.scope.values(name, schema.fields[name]) or ()) for name in entities if name in schema.fields}
    if not reach:
        raise Problem(403, "This key reaches no entity of that dataset.", parameter="dataset", hint="/v1/me says what it reaches")
    return reach


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str | None:
    """The address that a request comes from: what proxies say, as far as they are trusted, from the last one on."""
    chain = [part.strip() for line in forwarded for part in line.split(",")]
    address = peer
    while address is not None and chain and _within(address, trusted):
        address = chain.pop()
    try:
        return None if address is None else str(ipaddress.ip_address(address))
    except ValueError:
        return None


def _within(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _check_query(request: Request, known: set[str]) -> None:
    for name in request.query_params:
        if name not in known:
            raise Problem(
                422, f"{name[:60]}: there is no such parameter", parameter=name[:60], hint="leave it out; /docs lists what can be given"
            )


def _idempotency_key(request: Request) -> str | None:
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    match = _IDEMPOTENCY.fullmatch(given.strip())
    if match is None:
        raise Problem(
            400,
            "The idempotency key is not 1 to 255 visible characters.",
            parameter="Idempotency-Key",
            hint="a random UUID for every new request is a good one",
        )
    return match[1] or match[2]


def _base64(text: str | None) -> bytes:
    if not text:
        raise Problem(422, "data: it is missing.", parameter="data", hint="give the event's JSON as base64url")
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Problem(400, "data is not base64url.", parameter="data", hint="give the event's JSON as base64url") from None


def _answered(receipt: Receipt, events: int) -> Response:
    if not receipt.accepted:
        raise _rejected(receipt)
    body = json.dumps({"events": events, **receipt.to_json()}, ensure_ascii=False).encode()
    headers = {"Cache-Control": "no-store", **({"Idempotency-Replayed": "true"} if receipt.replayed else {})}
    return Response(body, 200, headers, "application/json")


def _rejected(receipt: Receipt) -> Problem:
    first = receipt.rejected[0]
    which = "The event" if len(receipt.rejected) == 1 else f"Event {first.index}"
    return Problem(
        422,
        f"{which} was rejected: {first.detail}."
        if not receipt.accepted
        else f"{which} was rejected, others were accepted: {first.detail}.",
        parameter="body",
        hint="mend the events that are listed, and send them again",
        **receipt.to_json(),
    )


_BINARY = {"type": "string", "format": "binary"}
_EVENT = {"type": "object", "description": "An event: what the dataset's schema says.", "additionalProperties": True}
_BODY = {
    "required": True,
    "content": {
        media: {
            "schema": {"oneOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1}]}
            if form == "json" and media != "text/plain"
            else {"type": "string", "description": "An object a line."}
            if form == "jsonl"
            else {"type": "string", "description": "JSON, as navigator.sendBeacon sends it."}
            if form == "json"
            else _BINARY
        }
        for media, form in FORMS.items()
    },
}
_REJECT = {
    "type": "object",
    "required": ["index", "field", "reason", "detail"],
    "properties": {
        "index": {"type": "integer", "description": "Of the event in the request, from 0."},
        "field": {"type": ["string", "null"], "description": "The field at fault; null where it is the whole event."},
        "reason": {"type": "string"},
        "detail": {"type": "string"},
    },
}
_RECEIPT = {
    "description": "What became of the events. All that were accepted are in the log, durably.",
    "headers": {"Idempotency-Replayed": {"description": "true: this was answered before.", "schema": {"type": "string"}}},
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["events", "accepted", "rejected"],
                "properties": {
                    "events": {"type": "integer", "description": "How many came."},
                    "accepted": {"type": "integer"},
                    "rejected": {"type": "array", "items": _REJECT},
                },
            }
        }
    },
}
_KEY_PARAMETER = {
    "name": "key",
    "in": "query",
    "required": False,
    "description": "A key that may only write, where no header can be sent.",
    "schema": {"type": "string"},
}
_DATA_PARAMETER = {"name": "data", "in": "query", "required": True, "description": "base64url of JSON.", "schema": {"type": "string"}}
_HEADERS = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Any text that is new for every new request, such as a random UUID.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~]+$"},
    },
    {
        "name": "Content-Encoding",
        "in": "header",
        "required": False,
        "description": "gzip or zstd.",
        "schema": {"type": "string", "enum": ["identity", "gzip", "zstd"]},
    },
]
