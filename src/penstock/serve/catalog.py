"""What is published: roll-ups and datasets by name, as the registry has them, believed for a moment."""

from __future__ import annotations

import threading
from typing import Callable

from penstock.errors import NotFoundError
from penstock.model import Rollup, Schema
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.table import Table

BELIEVED = 2_000_000  # microseconds


class Catalog:
    """Safe for use by several threads; its calls may ask the table. now: the wall clock, microseconds since 1970."""

    def __init__(self, table: Callable[[], Table], now: Callable[[], int]) -> None:
        self._table, self._now = table, now
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[int, BoltDefinition, Rollup | Schema]] = {}

    def believed(self, name: str) -> Rollup | None:
        """A roll-up that was looked up a moment ago, without asking the table; None for any other."""
        found = self._believed(("rollup", name))
        return None if found is None else found[1]  # type: ignore[return-value]

    def rollup(self, name: str) -> Rollup:
        """A roll-up that is published. Raises NotFoundError, without naming others: not everybody may know them."""
        found = self._find("rollup", name)[1]
        assert isinstance(found, Rollup)
        return found

    def definition(self, what: str, name: str) -> BoltDefinition:
        """The published definition of the bolt that makes a roll-up or a dataset. Raises NotFoundError, without naming others."""
        return self._find(what, name)[0]

    def schema(self, dataset: str) -> Schema:
        """The schema of a dataset that is archived. Raises NotFoundError, without naming others."""
        found = self._find("dataset", dataset)[1]
        assert isinstance(found, Schema)
        return found

    def names(self, what: str) -> list[str]:
        """All that are published. what: "rollup" or "dataset"."""
        return Registry(self._table()).names(what)

    def _believed(self, key: tuple[str, str]) -> tuple[BoltDefinition, Rollup | Schema] | None:
        with self._lock:
            found = self._known.get(key)
        return found[1:] if found is not None and 0 <= self._now() - found[0] < BELIEVED else None

    def _find(self, what: str, name: str) -> tuple[BoltDefinition, Rollup | Schema]:
        key, now = (what, name), self._now()
        if (believed := self._believed(key)) is not None:
            return believed
        with self._lock:
            found = self._known.get(key)
        try:
            definition = Registry(self._table()).provider(what, name)
        except NotFoundError:
            kind = "roll-up" if what == "rollup" else what
            raise NotFoundError(f"there is no {kind} {name[:60]!r} here", hint=f"/v1/{what}s lists those that there are") from None
        if found is not None and found[1] == definition:
            made = found[2]
        else:
            made = definition.rollup(name) if what == "rollup" else Schema.from_json(definition.schema)
        with self._lock:
            self._known[key] = now, definition, made
        return definition, made
