"""Limits: how often a key may ask, and how large a request may be."""

from __future__ import annotations

import math
import threading
import time
from typing import Any, Awaitable, Callable, MutableMapping

from penstock.serve.problems import Problem

ASGIApp = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
_SWEEP = 10_000  # buckets in memory before the full ones are dropped


class RateLimits:
    """A token bucket for each key: so many requests a minute, and a tenth of a minute's worth at once. In memory, for this process alone.

    clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # by key: what is left, and when it was counted
        self._lock = threading.Lock()

    def spend(self, key: str, rate: int, cost: float = 1.0) -> None:
        """Take `cost` requests from a key's bucket. rate: requests a minute. Raises Problem 429, with Retry-After, when there is not enough in it."""
        now, burst = self._clock(), max(1.0, rate / 10, cost)
        with self._lock:
            left, then = self._buckets.get(key, (burst, now))
            left = min(burst, left + (now - then) * rate / 60)
            if left >= cost:
                self._buckets[key] = left - cost, now
                if len(self._buckets) > _SWEEP:
                    self._buckets = {one: (had, at) for one, (had, at) in self._buckets.items() if now - at < 60}
                return
            self._buckets[key] = left, now
        wait = math.ceil((cost - left) * 60 / rate)
        raise Problem(
            429,
            f"This key may ask {rate} times a minute.",
            hint=f"wait {wait} s, or ask for several measures at once",
            headers={"Retry-After": str(wait)},
        )


class SizeLimits:
    """Refuses addresses and bodies that are too large, the latter while they arrive.

    bodies: by the beginning of a path, the bytes that a body may have; `default` elsewhere.
    """

    def __init__(self, app: ASGIApp, *, max_url: int, default: int, bodies: MutableMapping[str, int]) -> None:
        self.app, self.max_url, self.default, self.bodies = app, max_url, default, bodies

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        problem = self._address(scope)
        limit = next((limit for prefix, limit in self.bodies.items() if scope["path"].startswith(prefix)), self.default)
        length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        if problem is None and length is not None and length.isdigit() and int(length) > limit:
            problem = _too_large(limit)
        if problem is not None:
            await problem.response()(scope, receive, send)
            return
        arrived, answered = 0, False

        async def counted() -> Any:
            nonlocal arrived
            message = await receive()
            if message["type"] == "http.request":
                arrived += len(message.get("body", b""))
                if arrived > limit:
                    raise _too_large(limit)
            return message

        async def watched(message: Any) -> None:
            nonlocal answered
            answered = answered or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except Problem as late:  # raised outside of a route
            if answered:
                raise
            await late.response()(scope, receive, send)

    def _address(self, scope: MutableMapping[str, Any]) -> Problem | None:
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > self.max_url:
            return Problem(414, f"The address is longer than {self.max_url:,} bytes.", hint="POST the query as JSON")
        return None


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The body is larger than {limit:,} bytes.", parameter="body", hint="send less at once")
