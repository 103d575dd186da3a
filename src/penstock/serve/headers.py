"""Headers that every answer carries, so that a browser does nothing with it that nobody meant."""

from __future__ import annotations

from typing import Any, MutableMapping, Sequence

from penstock.serve.limits import ASGIApp


class SafeHeaders:
    """Adds them, unless the route set the same. embedders: hosts whose pages may show ours in a frame."""

    def __init__(self, app: ASGIApp, *, embedders: Sequence[str] = ()) -> None:
        self.app = app
        frames = " ".join(embedders) or "'none'"
        page = f"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors {frames}"
        self._page = page.encode()
        self._other = f"default-src 'none'; frame-ancestors {frames}".encode()
        self._always = [
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
        ]
        if not embedders:
            self._always += [(b"x-frame-options", b"DENY"), (b"cross-origin-resource-policy", b"same-origin")]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                found = list(message["headers"])
                there = {name.lower() for name, _ in found}
                html = any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in found)
                policy = (b"content-security-policy", self._page if html else self._other)
                message = {**message, "headers": [*found, *(pair for pair in [policy, *self._always] if pair[0] not in there)]}
            await send(message)

        await self.app(scope, receive, with_headers)
