"""HEAD for every route that has GET, and an `Allow` that lists all that an address answers."""

from __future__ import annotations

import re
from typing import Any, Collection, MutableMapping, Sequence

from starlette.routing import BaseRoute, Match, Mount

from penstock.serve.limits import ASGIApp

_ASKED = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Methods:
    """Answers HEAD with the headers that GET would have, and no body.

    get_only: patterns of the paths whose GET is more than an answer, so that HEAD is 405: it never ends, or it writes. routes: all that there are.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute], get_only: Collection[str]) -> None:
        self.app, self._routes = app, routes
        self._get_only = re.compile("|".join(get_only) or r"(?!)")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        asked, before = scope, {**scope}  # a route changes what it is given
        if head and not self._get_only.fullmatch(scope["path"]):
            # A range is GET's alone. The server below is left its own scope: it must go on to see HEAD.
            asked = {**scope, "method": "GET", "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}

        async def answered(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                others = [pair for pair in message["headers"] if pair[0].lower() != b"allow"]
                message = {**message, "headers": [*others, (b"allow", ", ".join(self._allowed(before)).encode())]}
            elif head and message["type"] == "http.response.body":
                if message.get("more_body"):
                    return
                message = {**message, "body": b""}
            await send(message)

        await self.app(asked, receive, answered)

    def _allowed(self, scope: MutableMapping[str, Any]) -> list[str]:
        found = [method for method in _ASKED if self._takes({**scope, "method": method})]
        if "GET" in found and not self._get_only.fullmatch(scope["path"]):
            found.insert(1, "HEAD")
        return found

    def _takes(self, scope: MutableMapping[str, Any]) -> bool:
        for route in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                return not isinstance(route, Mount) or scope["method"] == "GET"  # files, that is
        return False
