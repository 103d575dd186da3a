"""What goes wrong, as RFC 9457 problem details: one form for every answer that is no answer."""

from __future__ import annotations

import json
import logging
import re
from typing import Any, Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException as RouteError
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from penstock.errors import ConfigurationError, NotFoundError, PenstockError, QueryError, UsageError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 1  # seconds, when a store did not answer
KINDS = {  # status: (the last part of the type, the title)
    400: ("malformed", "The request cannot be read"),
    401: ("unauthorized", "No key that is known here"),
    403: ("forbidden", "The key does not reach so far"),
    404: ("not-found", "There is no such thing here"),
    405: ("method-not-allowed", "This cannot be done here"),
    406: ("not-acceptable", "No form of the answer that is accepted"),
    409: ("conflict", "It contradicts what is there"),
    413: ("too-large", "The request is too large"),
    414: ("uri-too-long", "The address is too long"),
    415: ("unsupported-media-type", "A body of this type is not read here"),
    422: ("invalid", "A parameter is wrong"),
    429: ("too-many-requests", "Too many requests for this key"),
    500: ("internal", "A mistake of ours"),
    503: ("unavailable", "A store does not answer"),
}


class Problem(RouteError):
    """An answer other than the one asked for.

    status: one of KINDS. detail: what is wrong, for people. parameter: of the request, which is to be mended; hint: how. members: what else the answer says.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        parameter: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.status = status
        self.members = {**({"parameter": parameter} if parameter else {}), **({"hint": hint} if hint else {}), **members}

    @property
    def kind(self) -> str:
        """The last part of its type."""
        return KINDS.get(self.status, KINDS[500])[0]

    def data(self) -> dict[str, Any]:
        """The members of the answer."""
        title = KINDS.get(self.status, KINDS[500])[1]
        return {"type": f"urn:penstock:problem:{self.kind}", "title": title, "status": self.status, "detail": self.detail, **self.members}

    def response(self) -> Response:
        """The answer."""
        body = json.dumps(self.data(), ensure_ascii=False, default=str).encode("utf-8", "replace")
        return Response(body, self.status, {"Cache-Control": "no-store", **(self.headers or {})}, MEDIA_TYPE)


_PARAMETER = re.compile(r"([a-z_]+)(?:(?:, | and )[a-z_]+)*: ")  # how a QueryError's message begins


def problem_of(error: PenstockError) -> Problem:
    """The problem that an error of ours stands for."""
    if isinstance(error, QueryError):
        return _wrong(error)
    if isinstance(error, NotFoundError):
        return Problem(404, error.message, hint=error.hint)
    if error.retriable:
        log.warning("a store does not answer: %s", error.message)
        return Problem(503, "A store does not answer now.", hint="try again in a moment", headers={"Retry-After": str(RETRY_AFTER)})
    if isinstance(error, UsageError) and not isinstance(error, ConfigurationError):
        return _wrong(error)
    log.error("%s", error, exc_info=error)
    return Problem(500, "The server made a mistake, and its log says which.")


def _wrong(error: UsageError) -> Problem:
    named = _PARAMETER.match(error.message)
    return Problem(422, error.message, parameter=named[1] if named else None, hint=error.hint)


def add_problems(app: FastAPI) -> None:
    """Answer every error that leaves a route with problem details."""

    async def ours(_: Request, problem: Exception) -> Response:
        assert isinstance(problem, Problem)
        return problem.response()

    async def known(_: Request, error: Exception) -> Response:
        assert isinstance(error, PenstockError)
        return problem_of(error).response()

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return Problem(error.status_code, str(error.detail), headers=error.headers).response()

    async def validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _invalid(error).response()

    async def unknown(_: Request, error: Exception) -> Response:
        log.error("%s: %s", type(error).__name__, error, exc_info=error)
        return Problem(500, "The server made a mistake, and its log says which.").response()

    app.add_exception_handler(Problem, ours)
    app.add_exception_handler(PenstockError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(Exception, unknown)


def _invalid(error: RequestValidationError) -> Problem:
    """What FastAPI found wrong: the first of it as the detail, all of it in `errors`."""
    found = []
    for one in error.errors():
        place = [str(part) for part in one["loc"]]
        if one["type"] == "json_invalid":
            return Problem(400, f"The body is not JSON: {one.get('ctx', {}).get('error', 'it cannot be parsed')}.", parameter="body")
        parameter = ".".join(place[1:]) or place[0]
        message = "there is no such parameter" if one["type"] == "extra_forbidden" else one["msg"]
        found.append({"parameter": parameter, "in": place[0], "detail": message})
    first = found[0]
    hint = "leave it out; /docs lists what can be given" if first["detail"] == "there is no such parameter" else "see /docs"
    return Problem(422, f"{first['parameter']}: {first['detail']}", parameter=first["parameter"], hint=hint, errors=found)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, for OpenAPI."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": KINDS[status][1] + ".", "content": {MEDIA_TYPE: {"schema": schema}}, **_headers(status)}
        for status in sorted(statuses)
    }


def _headers(status: int) -> dict[str, Any]:
    if status in (429, 503):
        return {"headers": {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}}
    if status == 401:
        return {"headers": {"WWW-Authenticate": {"description": "How to say who one is.", "schema": {"type": "string"}}}}
    return {}


PROBLEM_SCHEMA = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "urn:penstock:problem: and the kind."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, for people."},
        "parameter": {"type": "string", "description": "The parameter to mend."},
        "hint": {"type": "string", "description": "How to mend it."},
        "errors": {"type": "array", "items": {"type": "object"}, "description": "All that is wrong, where more than one thing is."},
    },
}
