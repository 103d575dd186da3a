"""Saved queries: kept in the table by the key that saved them, and answered in the background by every server, so that they are there at once."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable

from penstock.errors import NotFoundError, PenstockError, UsageError
from penstock.query import Answer, SavedQueries
from penstock.table import Table, prefix_end

if TYPE_CHECKING:
    from penstock.serve.service import Service

log = logging.getLogger(__name__)

SAVED_TABLE, SAVED_COLUMN = "saved", b"s"
MOST = 50  # of a key
EVERYBODYS = 1000  # that a server keeps answered
_GONE = b"{}"  # a table forgets nothing at once: this stands for a query that was removed
_EVERY = 30.0  # seconds between two looks at what other servers saved


@dataclasses.dataclass(frozen=True)
class Saved:
    """A saved query. key: the id of who saved it. asked: the arguments of `Analytics.query`, its entity among them."""

    key: str
    name: str
    rollup: str
    asked: dict[str, Any]

    def encode(self) -> bytes:
        """Canonical bytes."""
        return json.dumps({"rollup": self.rollup, "asked": self.asked}, sort_keys=True).encode()

    @property
    def handle(self) -> str:
        """A name of its own among all keys', another one after every change."""
        return f"{self.key}/{self.name}/{hashlib.sha256(self.encode()).hexdigest()[:16]}"


class SavedStore:
    """The definitions, in the table."""

    def __init__(self, table: Callable[[], Table]) -> None:
        self._table = table

    def put(self, saved: Saved) -> None:
        """Keep a query, in place of the key's other of that name. Raises UsageError for too many."""
        table = self._table()
        table.create(SAVED_TABLE)
        if len({one.name for one in self.list(saved.key)} | {saved.name}) > MOST:
            raise UsageError(f"name: this key has {MOST} saved queries already", hint="remove some")
        self._set(saved.key, saved.name, saved.encode())

    def get(self, key: str, name: str) -> Saved:
        """A key's query. Raises NotFoundError."""
        table = self._table()
        try:
            found = table.get(SAVED_TABLE, [(_row(key, name), SAVED_COLUMN)])[0]
        except NotFoundError:
            found = None
        if found is None or found == _GONE:
            raise NotFoundError(f"there is no saved query {name!r}", hint="/v1/saved lists them")
        return _decode(key, name, found)

    def list(self, key: str | None = None) -> list[Saved]:
        """A key's queries, or everybody's."""
        table = self._table()
        if SAVED_TABLE not in table.tables():
            return []
        prefix = b"saved/" if key is None else f"saved/{key}/".encode()
        found = []
        for row, cells in table.scan(SAVED_TABLE, prefix, prefix_end(prefix)):
            if cells[SAVED_COLUMN] != _GONE:
                _, owner, name = row.decode().split("/")
                found.append(_decode(owner, name, cells[SAVED_COLUMN]))
        return found

    def remove(self, key: str, name: str) -> None:
        """Forget a key's query. Raises NotFoundError."""
        self.get(key, name)
        self._set(key, name, _GONE)

    def _set(self, key: str, name: str, value: bytes) -> None:
        table, row = self._table(), _row(key, name)
        while not table.compare_and_set(SAVED_TABLE, row, SAVED_COLUMN, table.get(SAVED_TABLE, [(row, SAVED_COLUMN)])[0], value):
            pass


def _row(key: str, name: str) -> bytes:
    return f"saved/{key}/{name}".encode()


def _decode(key: str, name: str, value: bytes) -> Saved:
    data = json.loads(value)
    return Saved(key, name, data["rollup"], data["asked"])


class Desk:
    """Keeps everybody's saved queries answered in this process. Its calls block."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.store = SavedStore(lambda: service.deployment.table)
        self._answers = SavedQueries(service.engine.analytics, every=service.settings.refresh / 1_000_000, most=EVERYBODYS)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer in the background, while the block lasts."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.to_thread(self._answers.close)

    def answer(self, saved: Saved) -> Answer:
        """The newest answer; asked for only if this process does not have it yet."""
        try:
            return self._answers.get(saved.handle)
        except NotFoundError:
            return self._keep(saved)

    def _keep(self, saved: Saved) -> Answer:
        try:
            return self._answers.save(saved.handle, saved.rollup, **saved.asked)
        except UsageError as problem:
            if isinstance(problem, (NotFoundError, ValueError)):
                raise
            return self.service.engine.analytics.query(saved.rollup, **saved.asked)  # as many as are kept are kept already

    def refresh(self) -> None:
        """Take up what other servers saved, and drop what they removed and what belongs to keys that ended."""
        active = {key.id for key in self.service.keys.list() if key.state(self.service.now()) == "active"}
        wanted = {one.handle: one for one in self.store.list() if one.key in active}
        known = {one.name for one in self._answers.list()}
        for handle in known - set(wanted):
            self._answers.remove(handle)
        for handle in list(set(wanted) - known)[: EVERYBODYS - len(known)]:
            try:
                self._keep(wanted[handle])
            except UsageError as problem:  # it could be answered once, and cannot now
                log.info("saved query %s: %s", wanted[handle].name, problem.message)

    async def _watch(self) -> None:
        while True:
            try:
                await self.service.engine.run(self.refresh)
            except PenstockError as problem:
                log.warning("saved queries: %s", problem.message)
            await asyncio.sleep(_EVERY)
