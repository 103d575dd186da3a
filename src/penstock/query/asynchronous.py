"""The reading side for asyncio: the same questions, asked by a few threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from typing import Any, Callable, TypeVar

from penstock.errors import UnavailableError
from penstock.query.analytics import Analytics, RollupInfo
from penstock.query.answer import Answer
from penstock.query.cached import CachedAnalytics
from penstock.query.trends import Trend, trending

_T = TypeVar("_T")


class AsyncAnalytics:
    """`Analytics` for a program that runs an event loop.

        async with AsyncAnalytics(Analytics.on("local:data")) as analytics:
            answer = await analytics.query("by_advertiser", entity=42, range="today")

    threads: how many questions are read at once. waiting: how many more may wait; beyond that a question raises UnavailableError at once, instead of coming too late.
    A question whose task is cancelled while it waits is not asked; one that is being read is read to its end.
    """

    def __init__(self, analytics: Analytics | CachedAnalytics, *, threads: int = 8, waiting: int = 256) -> None:
        self.analytics, self.most = analytics, threads + waiting
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="penstock-query")
        self._lock = threading.Lock()
        self._under_way = 0

    async def query(self, rollup: str, **question: Any) -> Answer:
        """As `Analytics.query`."""
        return await self._run(self.analytics.query, rollup, **question)

    async def version(self, rollup: str, **question: Any) -> str:
        """As `Analytics.version`."""
        return await self._run(self.analytics.version, rollup, **question)

    async def rollups(self) -> list[RollupInfo]:
        """As `Analytics.rollups`."""
        return await self._run(self.analytics.rollups)

    async def trending(self, rollup: str, measure: str, **question: Any) -> list[Trend]:
        """As `Analytics.trending`."""
        return await self._run(trending, self.analytics, rollup, measure, **question)

    async def close(self) -> None:
        """Wait for what is being read, and close the analytics."""
        await asyncio.get_running_loop().run_in_executor(None, functools.partial(self._pool.shutdown, cancel_futures=True))
        self.analytics.close()

    async def __aenter__(self) -> AsyncAnalytics:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        with self._lock:
            if self._under_way >= self.most:
                raise UnavailableError(
                    f"{self._under_way} questions are being answered or wait", hint="ask again later, or construct it with more threads"
                )
            self._under_way += 1
        try:
            future = self._pool.submit(functools.partial(call, *arguments, **named))
        except BaseException:
            self._done(None)
            raise
        future.add_done_callback(self._done)
        return await asyncio.wrap_future(future)

    def _done(self, _: object) -> None:
        with self._lock:
            self._under_way -= 1
