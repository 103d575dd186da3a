"""Answers kept in memory for as long as nothing was committed that could change them."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from typing import Any, Sequence

from penstock.query.analytics import Analytics, RollupInfo
from penstock.query.answer import Answer
from penstock.query.answering import Prepared
from penstock.query.bounded import Bounded

_OVERHEAD = 2000  # bytes of an answer beside its rows


@dataclasses.dataclass
class CacheStats:
    """hits and misses since the start; answers and bytes kept now."""

    hits: int = 0
    misses: int = 0
    answers: int = 0
    bytes: int = 0


class CachedAnalytics:
    """An `Analytics` whose answers are kept under their version, the token of committed offsets. A hit costs one read of the control cells.

        analytics = CachedAnalytics(Analytics.on("local:data"))

    An answer that was read while records came in may hold some beyond what was committed, and a kept one is as it was: as of what `as_of` says, no older than the last
    commit. max_bytes: of the rows kept, about; the answers used longest ago go first. max_age: seconds after which one is read anew in any case, because what
    retention has dropped depends on the clock.

    Safe for use by several threads; the same question asked by several at once is read once. Answers are copies: what a caller does to one stays with it.
    """

    def __init__(self, analytics: Analytics, *, max_bytes: int = 64 << 20, max_age: float = 300.0) -> None:
        self.analytics = analytics
        self._lock = threading.Lock()
        self._kept: Bounded[str, Answer] = Bounded(max_bytes, max_age)
        self._asking: dict[str, threading.Lock] = {}
        self._stats = CacheStats()

    def query(self, rollup: str, **question: Any) -> Answer:
        """As `Analytics.query`, from memory where nothing changed."""
        return self.answer(self.prepare(rollup, **question))

    def prepare(self, rollup: str, **question: Any) -> Prepared:
        """As `Analytics.prepare`."""
        return self.analytics.prepare(rollup, **question)

    def version(self, rollup: str, **question: Any) -> str:
        """As `Analytics.version`."""
        return self.analytics.version(rollup, **question)

    def rollups(self) -> list[RollupInfo]:
        """As `Analytics.rollups`."""
        return self.analytics.rollups()

    def prepare_at_hand(self, rollup: str, **question: Any) -> Prepared | None:
        """As `Analytics.prepare_at_hand`."""
        return self.analytics.prepare_at_hand(rollup, **question)

    def answer_at_hand(self, prepared: Prepared) -> Answer | None:
        """As `Analytics.answer_at_hand`, and an answer that is kept."""
        found = self._find(prepared.version)
        if found is None:
            found = self.analytics.answer_at_hand(prepared)
            if found is not None:
                self._keep(prepared.version, found)
        return None if found is None else _copy(found)

    def answer(self, prepared: Prepared) -> Answer:
        """As `Analytics.answer`, from memory where nothing changed."""
        version = prepared.version
        found = self._find(version)
        if found is None:
            with self._lock:
                one_at_a_time = self._asking.setdefault(version, threading.Lock())
            with one_at_a_time:
                found = self._find(version)
                if found is None:
                    try:
                        found = self.analytics.answer(prepared)
                        self._keep(version, found)
                    finally:
                        with self._lock:
                            self._asking.pop(version, None)
        return _copy(found)

    def stats(self) -> CacheStats:
        """What the cache holds, and how often it helped."""
        with self._lock:
            return dataclasses.replace(self._stats, answers=len(self._kept.entries), bytes=self._kept.bytes)

    def clear(self) -> None:
        """Forget all answers."""
        with self._lock:
            self._kept.clear()

    def close(self) -> None:
        """Close the analytics below."""
        self.clear()
        self.analytics.close()

    def __enter__(self) -> CachedAnalytics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find(self, version: str) -> Answer | None:
        with self._lock:
            found = self._kept.get(version, time.monotonic())
            self._stats.hits += found is not None
            return found

    def _keep(self, version: str, answer: Answer) -> None:
        size = _size(answer)
        with self._lock:
            self._stats.misses += 1
            self._kept.put(version, answer, size, time.monotonic())


def _copy(answer: Answer) -> Answer:
    """What a caller may change of an answer is its own; rows copy themselves."""
    other = None if answer.other is None else [dict(row) for row in answer.other]
    return dataclasses.replace(answer, other=other, totals=None if answer.totals is None else dict(answer.totals))


def _size(answer: Answer) -> int:
    """About how many bytes an answer takes."""
    columns = [answer.column(one.name) for one in answer.columns] if answer.rows else []
    other = sum(sys.getsizeof(row) + sum(map(sys.getsizeof, row.values())) for row in answer.other or ())
    return _OVERHEAD + other + sum(map(_column_size, columns))


def _column_size(column: Sequence[Any]) -> int:
    """Texts by their length, other values as if each were like the first."""
    if not column:
        return 0
    texts = sum(map(len, column)) if isinstance(column[0], str) and None not in column else 0
    return sys.getsizeof(column) + len(column) * sys.getsizeof(column[0]) + texts
