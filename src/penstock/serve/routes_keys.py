"""The routes of who one is: what the key reaches, tokens for embedding, and the browser's session."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr
from starlette.responses import JSONResponse, Response

from penstock.model.units import duration, iso
from penstock.serve.access import COOKIE, Access, Anyone
from penstock.serve.issue import issue
from penstock.serve.problems import Problem, documented
from penstock.serve.schemas import TOKEN, answer_of, ref
from penstock.serve.scope import READ, Scope
from penstock.serve.service import Service
from penstock.serve.tokens import SESSION

Values = Annotated[list[Annotated[StrictStr, Field(max_length=2000)]], Field(max_length=1000)]
NO_STORE = {"Cache-Control": "no-store"}


class ScopeBody(BaseModel):
    """How far a token reaches. What is left out is as far as the key does."""

    model_config = ConfigDict(extra="forbid", title="TokenScope")

    rollups: Values | None = None
    datasets: Values | None = None
    entities: dict[str, Values] | None = None


class TokenBody(BaseModel):
    """What a token is to be."""

    model_config = ConfigDict(extra="forbid", title="TokenRequest")

    scope: ScopeBody = ScopeBody()
    lifetime: Annotated[StrictStr, Field(pattern="^[0-9]{1,6}[smh]$")] = Field("15m", description='How long it lives: "15m".')
    minimum_audience: StrictInt = Field(0, ge=0, le=1_000_000_000, description="Never show what fewer people stand behind.")


def keys_router(service: Service) -> APIRouter:
    """Who one is."""
    router = APIRouter(prefix="/v1", tags=["keys"])

    @router.get(
        "/me",
        summary="What the key is, and how far it reaches.",
        responses={**answer_of(ref("Me"), "The key."), **documented(401, 429, 503)},
    )
    async def me(access: Anyone) -> Response:
        return JSONResponse(who(access, service), headers=NO_STORE)

    @router.post(
        "/tokens",
        summary="A signed token that reads what the key may, or less, for a short while.",
        responses={**answer_of(TOKEN, "The token."), **documented(400, 401, 403, 409, 413, 422, 429, 503)},
    )
    async def tokens(wanted: TokenBody, access: Anyone) -> Response:
        with service.audited("token", access, entity=wanted.scope.entities):
            access.require(READ)
            _must_be_key(access)
            _must_sign(service)
            scope = Scope.from_json({"actions": [READ], **wanted.scope.model_dump(exclude_none=True)})
            text, expires = issue(
                service, access.key, access.scope, scope, duration(wanted.lifetime), minimum_audience=wanted.minimum_audience
            )
        return JSONResponse({"token": text, "expires": iso(expires)}, headers=NO_STORE)

    @router.post(
        "/session",
        summary="Sign a browser in: the key's or token's reading rights, in a cookie that scripts cannot see.",
        responses={**answer_of(ref("Me"), "Signed in."), **documented(401, 403, 409, 429, 503)},
    )
    async def sign_in(request: Request, access: Anyone) -> Response:
        with service.audited("sign in", access):
            access.require(READ)
            _must_sign(service)
            now = service.now()
            lifetime = service.settings.session if access.expires is None else min(service.settings.session, access.expires - now)
            text, expires = issue(
                service, access.key, access.scope, Scope((READ,)), lifetime, use=SESSION, minimum_audience=access.minimum_audience
            )
        response = JSONResponse(who(access, service), headers=NO_STORE)
        secure = request.url.scheme == "https"
        framed = secure and bool(service.settings.embedders)
        response.set_cookie(
            COOKIE, text, max_age=(expires - now) // 1_000_000, httponly=True, secure=secure, samesite="none" if framed else "strict"
        )
        return response

    @router.delete("/session", status_code=204, summary="Sign the browser out.")
    async def sign_out() -> Response:
        response = Response(status_code=204, headers=NO_STORE)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router


def _must_be_key(access: Access) -> None:
    if access.via != "key":
        raise Problem(403, "Tokens are made with a key, not with a token.", hint="send the key itself, from your own server")


def _must_sign(service: Service) -> None:
    if not service.tokens.possible:
        raise Problem(409, "This deployment names no secret to sign tokens with.", hint="add signing_key to [NAME.serve] in penstock.toml")


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
