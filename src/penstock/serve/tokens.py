"""Signed short-lived tokens: a key's rights, narrowed, for a browser that must never see the key.

They are JSON Web Tokens (HS256). A token is worth no more than its key is now: it ends with it, and reaches only as far as both do.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jwt

from penstock.errors import ConfigurationError, UsageError
from penstock.serve.keys import SECOND, Key
from penstock.serve.scope import Scope

ISSUER = "penstock"
EMBED, SESSION = "embed", "session"
_ALGORITHM = "HS256"


@dataclasses.dataclass(frozen=True)
class Claims:
    """What a token that was verified says. expires: microseconds since 1970. use: "embed" or "session"."""

    key: str
    scope: Scope
    expires: int
    use: str
    minimum_audience: int


class Tokens:
    """Makes and verifies tokens.

    secret: at least 32 bytes; None: none can be made, and none is valid. audience: whom they are for. The clock is given with each call.
    """

    def __init__(self, secret: str | None, audience: str) -> None:
        self._secret, self._audience = secret, audience

    @property
    def possible(self) -> bool:
        """Whether there is a secret to sign with."""
        return self._secret is not None

    def make(self, key: Key, scope: Scope, *, use: str, now: int, expires: int, minimum_audience: int = 0) -> str:
        """A token for a key. now, expires: microseconds since 1970. Raises UsageError for a scope that the key does not cover."""
        if self._secret is None:
            raise ConfigurationError(
                "tokens cannot be signed here: the deployment names no secret",
                hint='add [NAME.serve] signing_key = {env = "PENSTOCK_SIGNING_KEY"} to penstock.toml',
            )
        if not key.scope.covers(scope):
            raise UsageError("scope: it reaches further than the key", hint="narrow it: see /v1/me for what the key may do")
        claims = {
            "iss": ISSUER,
            "aud": self._audience,
            "sub": key.id,
            "iat": now // SECOND,
            "exp": min(expires, key.expires or expires) // SECOND,
            "use": use,
            "scope": scope.to_json(),
            "minimum_audience": minimum_audience,
        }
        return jwt.encode(claims, self._secret, _ALGORITHM)

    def read(self, text: str, now: int) -> Claims | None:
        """What a token says; None if it is not one of ours, not for this audience, or has expired."""
        if self._secret is None:
            return None
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                self._secret,
                [_ALGORITHM],
                audience=self._audience,
                issuer=ISSUER,
                options={"require": ["exp", "iat", "sub", "aud", "iss"], "verify_exp": False, "verify_iat": False},
            )
            if claims["exp"] * SECOND <= now:
                return None
            scope = Scope.from_json(claims["scope"])
            return Claims(str(claims["sub"]), scope, claims["exp"] * SECOND, str(claims["use"]), int(claims["minimum_audience"]))
        except (jwt.PyJWTError, ConfigurationError, KeyError, TypeError, ValueError):
            return None
