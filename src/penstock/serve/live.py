"""Live answers: server-sent events, one whenever something was committed."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any, AsyncIterator

from penstock.errors import PenstockError
from penstock.query.answering import Prepared
from penstock.rollup.registry import Registry
from penstock.serve.access import Access
from penstock.serve.engine import rendered
from penstock.serve.negotiate import JSON
from penstock.serve.problems import Problem, problem_of
from penstock.serve.service import Service

PING = 15.0  # seconds without an event after which a comment shows proxies, and us, that the client is still there
RETRY = 2000  # milliseconds after which a browser connects again
SECOND = 1_000_000


class Watcher:
    """Looks at how far the shards of roll-ups are durable: once for all who watch the same, and not more often than `every` seconds."""

    def __init__(self, service: Service, every: float) -> None:
        self._service, self._every = service, every
        self._seen: dict[str, tuple[float, str]] = {}
        self._looking: dict[str, asyncio.Lock] = {}

    async def token(self, rollup: str) -> str:
        """A text that changes when something of the roll-up was committed or published."""
        async with self._looking.setdefault(rollup, asyncio.Lock()):
            at, token = self._seen.get(rollup, (-1e9, ""))
            if time.monotonic() - at >= self._every * 0.9:
                token = await self._service.engine.run(self._look, rollup)
                self._seen[rollup] = time.monotonic(), token
            return token

    def _look(self, rollup: str) -> str:
        definition = self._service.catalog.definition("rollup", rollup)
        shards = Registry(self._service.deployment.table).shards(definition.bolt, definition.generation)
        parts = [(shard.row, control.done.offset, control.done.watermark, control.folded) for shard, control in shards]
        return hashlib.sha256(repr((definition.generation, parts)).encode()).hexdigest()


class Stream:
    """The events of one client. asked: see `Analytics.query`, but for `now`. by_events: the newest event's time is "now", instead of the clock's."""

    def __init__(self, service: Service, watcher: Watcher, access: Access, rollup: str, asked: dict[str, Any], by_events: bool) -> None:
        self.service, self.watcher, self.access = service, watcher, access
        self.rollup, self.asked, self.by_events = rollup, asked, by_events

    async def events(self, known: str | None) -> AsyncIterator[bytes]:
        """Events until the client goes, the key ends, or the server stops. known: the version that the client saw last."""
        every = self.service.settings.live / SECOND
        yield f"retry: {RETRY}\n\n".encode()
        said, token, version, verified = time.monotonic(), "", known, time.monotonic()
        minute = -1
        while not self.service.stopping:
            event = None
            try:
                if time.monotonic() - verified >= self.service.settings.refresh / SECOND:
                    await self.service.gate.still(self.access)
                    verified = time.monotonic()
                seen, now = await self.watcher.token(self.rollup), self.service.now() // (60 * SECOND)
                if seen != token or now != minute:  # the range moves on by itself
                    answered = await self.service.engine.run(self._answer, version)
                    token, minute = seen, now
                    if answered is not None:
                        version, body = answered
                        event = b"event: answer\nid: " + version.encode() + b"\ndata: " + body.strip() + b"\n\n"
            except Problem as problem:
                yield _problem(problem)
                if problem.status != 503:
                    return
            except PenstockError as error:
                yield _problem(problem_of(error))
                if not error.retriable:
                    return
            if event is not None:
                yield event
                said = time.monotonic()
            elif time.monotonic() - said >= PING:
                yield b": still there\n\n"
                said = time.monotonic()
            await asyncio.sleep(every)
        yield b"event: bye\ndata: {}\n\n"

    def _answer(self, known: str | None) -> tuple[str, bytes] | None:
        """The version and the bytes of the answer as it is now; None if the client has it."""
        prepared = self._prepare()
        if prepared.version == known:
            return None
        return prepared.version, rendered(self.service.engine.analytics.answer(prepared), JSON)

    def _prepare(self) -> Prepared:
        prepared = self.service.engine.analytics.prepare(self.rollup, **self.asked)
        newest = prepared.standing.newest
        if not self.by_events or newest is None:
            return prepared
        return self.service.engine.analytics.prepare(self.rollup, **self.asked, now=newest + 1)


def _problem(problem: Problem) -> bytes:
    return b"event: problem\ndata: " + bytes(problem.response().body) + b"\n\n"
