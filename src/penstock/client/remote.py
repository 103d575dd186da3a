"""`Analytics` over HTTP: the same arguments, the same answers, asked of `penstock serve`."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, AsyncIterator, Callable, Iterator, Sequence
from urllib.parse import quote

from penstock.client import wire
from penstock.errors import ConfigurationError, UnavailableError
from penstock.query.analytics import Analytics, RollupInfo
from penstock.query.answer import Answer
from penstock.query.answering import Prepared
from penstock.query.trends import Trend


def _path(rollup: str, what: str) -> str:
    return f"/v1/rollups/{quote(rollup, safe='')}/{what}"


def _unreachable(url: str, problem: Exception) -> UnavailableError:
    return UnavailableError(f"{url} does not answer: {problem or type(problem).__name__}", hint="is `penstock serve` running there?")


class RemoteAnalytics(Analytics):
    """Asks a server. What cannot be answered now is asked again a few times, with growing pauses.

        with Analytics.on("https://stats.example.com", key="pk_…") as analytics:
            answer = analytics.query("by_advertiser", range="last_7d", interval="1d")

    key: a key or a token; $PENSTOCK_KEY unless given. `entity` may be left out where it reaches one alone. timeout: seconds for one try. options: of httpx.Client, such as
    `verify`. Calls raise AccessError for what the key does not reach, UnavailableError, and what `Analytics.query` raises. Safe for use by several threads.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = 60.0, **options: Any) -> None:
        httpx = wire.module()
        self.url = url.rstrip("/")
        self._errors: Any = httpx.TransportError
        self._http = httpx.Client(
            base_url=self.url, headers=wire.headers(key or os.environ.get("PENSTOCK_KEY")), timeout=timeout, **options
        )

    def query(self, rollup: str, **question: Any) -> Answer:  # type: ignore[override]
        """As `Analytics.query`."""
        return wire.answer_of(self._ask("POST", _path(rollup, "query"), json=wire.body(question)))

    def version(self, rollup: str, **question: Any) -> str:
        """As `Analytics.version`; the server answers the question to say it."""
        return self.query(rollup, **question).version

    def rollups(self) -> list[RollupInfo]:
        """As `Analytics.rollups`: those that the key may read."""
        return wire.rollups_of(self._ask("GET", "/v1/rollups"))

    def trending(self, rollup: str, measure: str, *, by: Sequence[str], **question: Any) -> list[Trend]:
        """As `Analytics.trending`."""
        asked = wire.address({"measure": measure, "by": list(by), **question})
        return wire.trends_of(self._ask("GET", _path(rollup, "trending"), params=asked))

    def live(self, rollup: str, **question: Any) -> Iterator[Answer]:
        """The last minutes, and again whenever something was committed, until one stops asking for more or the server stops. question: entity, measures, minutes,
        interval, timezone, by, where, clock, minimum_audience: as of /v1/rollups/{rollup}/live."""
        with self._http.stream("GET", _path(rollup, "live"), params=wire.address(question)) as response:
            if response.status_code >= 400:
                response.read()
                wire.content(response)
            lines: list[str] = []
            for line in response.iter_lines():
                if line:
                    lines.append(line)
                    continue
                found = wire.live_of(*wire.event_of(lines))
                lines = []
                if found is not None:
                    yield found

    def prepare(self, rollup: str, **question: Any) -> Prepared:
        """What only an `Analytics` beside its table can do. Raises ConfigurationError."""
        raise ConfigurationError(
            "a remote Analytics cannot prepare a question", hint="use query: the server keeps answers by their version"
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        tries = 0
        while True:
            tries += 1
            response, problem = None, None
            try:
                response = self._http.request(method, path, **request)
            except self._errors as caught:
                problem = caught
            pause = wire.wait(response, tries)
            if pause is None:
                if response is None:
                    raise _unreachable(self.url, problem or OSError()) from problem
                return wire.content(response)
            time.sleep(pause)


class AsyncRemoteAnalytics:
    """`RemoteAnalytics` for a program that runs an event loop, without threads.

    async with AsyncRemoteAnalytics("https://stats.example.com", key="pk_…") as analytics:
        answer = await analytics.query("by_advertiser", range="today")
    """

    def __init__(
        self, url: str, key: str | None = None, *, timeout: float = 60.0, sleep: Callable[[float], Any] = asyncio.sleep, **options: Any
    ) -> None:
        httpx = wire.module()
        self.url, self._sleep = url.rstrip("/"), sleep
        self._errors: Any = httpx.TransportError
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=wire.headers(key or os.environ.get("PENSTOCK_KEY")), timeout=timeout, **options
        )

    async def query(self, rollup: str, **question: Any) -> Answer:
        """As `Analytics.query`."""
        return wire.answer_of(await self._ask("POST", _path(rollup, "query"), json=wire.body(question)))

    async def version(self, rollup: str, **question: Any) -> str:
        """As `RemoteAnalytics.version`."""
        return (await self.query(rollup, **question)).version

    async def rollups(self) -> list[RollupInfo]:
        """As `RemoteAnalytics.rollups`."""
        return wire.rollups_of(await self._ask("GET", "/v1/rollups"))

    async def trending(self, rollup: str, measure: str, *, by: Sequence[str], **question: Any) -> list[Trend]:
        """As `Analytics.trending`."""
        asked = wire.address({"measure": measure, "by": list(by), **question})
        return wire.trends_of(await self._ask("GET", _path(rollup, "trending"), params=asked))

    async def live(self, rollup: str, **question: Any) -> AsyncIterator[Answer]:
        """As `RemoteAnalytics.live`."""
        async with self._http.stream("GET", _path(rollup, "live"), params=wire.address(question)) as response:
            if response.status_code >= 400:
                await response.aread()
                wire.content(response)
            lines: list[str] = []
            async for line in response.aiter_lines():
                if line:
                    lines.append(line)
                    continue
                found = wire.live_of(*wire.event_of(lines))
                lines = []
                if found is not None:
                    yield found

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncRemoteAnalytics:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, method: str, path: str, **request: Any) -> Any:
        tries = 0
        while True:
            tries += 1
            response, problem = None, None
            try:
                response = await self._http.request(method, path, **request)
            except self._errors as caught:
                problem = caught
            pause = wire.wait(response, tries)
            if pause is None:
                if response is None:
                    raise _unreachable(self.url, problem or OSError()) from problem
                return wire.content(response)
            await self._sleep(pause)
