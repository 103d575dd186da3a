"""Who asks, and how far they reach: from a request to verified rights."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from penstock.errors import ConfigurationError
from penstock.model import Field
from penstock.query.request import parse_value
from penstock.serve.audit import Audit
from penstock.serve.keys import Key, KeyStore, id_of, matches
from penstock.serve.limits import RateLimits
from penstock.serve.problems import Problem
from penstock.serve.scope import READ, WRITE, Scope
from penstock.serve.tokens import SESSION, Tokens

COOKIE = "penstock_session"
BEARER = HTTPBearer(auto_error=False, description="A key (`pk_…`), or a token made of one.")
SESSION_COOKIE = APIKeyCookie(name=COOKIE, auto_error=False, description="What `POST /v1/session` sets.")


@dataclasses.dataclass(frozen=True)
class Access:
    """Verified rights. via: "key", "token" or "session". expires: microseconds since 1970, None for never."""

    key: Key
    scope: Scope
    via: str
    expires: int | None
    minimum_audience: int

    def require(self, action: str) -> None:
        """Raise Problem 403 unless the key may do this at all."""
        if action not in self.scope.actions:
            raise Problem(403, f"This key may not {action}.", hint=f"make one with `penstock serve keys create --{action}`")

    def require_rollup(self, name: str) -> None:
        """Raise Problem 403 for a roll-up outside of the scope, be there one of that name or not."""
        self.require(READ)
        if self.scope.rollups is not None and name not in self.scope.rollups:
            raise Problem(403, "This key may not read that roll-up.", parameter="rollup", hint="/v1/rollups lists those that it may")

    def require_dataset(self, name: str, action: str = WRITE) -> None:
        """Raise Problem 403 for a dataset outside of the scope, be there one of that name or not."""
        self.require(action)
        if self.scope.datasets is not None and name not in self.scope.datasets:
            raise Problem(403, f"This key may not {action} that dataset.", parameter="dataset", hint="/v1/me says which it may")

    def reaches(self, entity: str) -> bool:
        """Whether some entity of a roll-up or dataset whose entity is this field may be open."""
        return self.scope.entities is None or bool(self.scope.entities.get(entity))

    def entity(self, name: str, field: Field, asked: Any) -> Any:
        """The entity that is answered for. With a narrowed scope it is the scope's own value: what was asked only chooses among them.

        name, field: of the entity. asked: None for the one there is. Raises Problem 403 for an entity outside of the scope, and 422 if it must be named.
        """
        open_values = self.scope.values(name, field)
        if open_values is None:
            if asked is None:
                raise Problem(422, "entity: it is missing.", parameter="entity", hint=f"say whose numbers: a value of {name}")
            return asked
        if asked is None:
            if len(open_values) == 1:
                return next(iter(open_values.values()))
            if not open_values:
                raise Problem(403, f"This key reaches no {name}.", parameter="entity", hint="/v1/me says what it reaches")
            raise Problem(
                422, "entity: this key reaches several, and none is named.", parameter="entity", hint=f"say which {name}; /v1/me lists them"
            )
        value = open_values.get(parse_value(field, asked, "entity"))
        if value is None:
            raise Problem(403, f"This key does not reach that {name}.", parameter="entity", hint="/v1/me says what it reaches")
        return value


class Gate:
    """Verifies credentials, and lets requests in."""

    def __init__(
        self, keys: KeyStore, tokens: Tokens, rates: RateLimits, audit: Audit, now: Any, *, rate: int, minimum_audience: int
    ) -> None:
        self.keys, self.tokens, self.rates, self.audit, self.now = keys, tokens, rates, audit, now
        self.rate, self.minimum_audience = rate, minimum_audience
        self._asking = anyio.CapacityLimiter(8)  # keys that the table is asked for at once: strangers must not take all threads

    async def verify(self, credential: str) -> Access:
        """The rights of a key's or token's text. Raises Problem 401, and UnavailableError when the table does not answer."""
        claims = None
        id = id_of(credential)
        if id is None:
            claims = self.tokens.read(credential, self.now())
            if claims is None:
                raise _unauthorized("That is no key, and no token that is valid here.")
            id = claims.key
        key = await self._key(id)
        if key is None or (claims is None and not matches(key, credential)):
            raise _unauthorized("There is no such key.")
        state = key.state(self.now())
        if state != "active":
            raise _unauthorized(f"The key {'was revoked' if state == 'revoked' else 'has expired'}.")
        floor = max(self.minimum_audience, key.minimum_audience)
        if claims is None:
            return Access(key, key.scope, "key", key.expires, floor)
        try:
            scope = key.scope.narrowed(claims.scope)
        except ConfigurationError:
            raise _unauthorized("The token reaches nothing any more.") from None
        via = "session" if claims.use == SESSION else "token"
        return Access(key, scope, via, claims.expires, max(floor, claims.minimum_audience))

    async def still(self, access: Access) -> None:
        """Raise Problem 401 if rights that were verified have ended since. A key's scope never changes."""
        key = await self._key(access.key.id)
        now = self.now()
        if key is None or key.state(now) != "active" or (access.expires is not None and access.expires <= now):
            raise _unauthorized("The key has ended.")

    async def _key(self, id: str) -> Key | None:
        known, key = self.keys.peek(id)
        return key if known else await anyio.to_thread.run_sync(self.keys.find, id, limiter=self._asking)

    async def admit(self, request: Request, bearer: HTTPAuthorizationCredentials | None, cookie: str | None) -> Access:
        """The rights that a request comes with. Raises Problem 401 and 429."""
        key = None
        try:
            if bearer is not None:
                key = id_of(bearer.credentials)
                access = await self.verify(bearer.credentials)
            elif cookie is not None and not request.headers.get("authorization") and _same_origin(request):
                access = await self.verify(cookie)
            else:
                raise _unauthorized("There is no key in the request.")
            key = access.key.id
            self.rates.spend(key, access.key.rate or self.rate)
        except Problem as problem:
            self.audit.record("enter", problem.kind, key=key, path=request.url.path, client=request.client and request.client.host)
            raise
        return access


async def anyone(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
    cookie: Annotated[str | None, Security(SESSION_COOKIE)],
) -> Access:
    """A dependency: whoever has a key that is known. Raises Problem 401 and 429."""
    gate: Gate = request.app.state.service.gate
    return await gate.admit(request, bearer, cookie)


async def reader(access: Annotated[Access, Depends(anyone)]) -> Access:
    """A dependency: whoever may read something. Raises Problem 403 as well."""
    access.require(READ)
    return access


async def writer(access: Annotated[Access, Depends(anyone)]) -> Access:
    """A dependency: whoever may write something. Raises Problem 403 as well."""
    access.require(WRITE)
    return access


# What a route's parameter is annotated with, to be handed the caller's rights.
Anyone = Annotated[Access, Depends(anyone)]
Reader = Annotated[Access, Depends(reader)]
Writer = Annotated[Access, Depends(writer)]


def _same_origin(request: Request) -> bool:
    """Whether a browser's own page sends this: a cookie travels with requests that other pages cause, a key does not.

    A request that changes nothing may come from anywhere: without CORS no other page reads the answer.
    """
    if request.method in ("GET", "HEAD"):
        return True
    origin = request.headers.get("origin", "")
    return origin.partition("://")[2] == request.headers.get("host")


def _unauthorized(detail: str) -> Problem:
    return Problem(
        401, detail, hint="send a key in the header: Authorization: Bearer pk_…", headers={"WWW-Authenticate": 'Bearer realm="penstock"'}
    )
