"""Saved queries: questions that are asked again in the background whenever something was committed, so that their answers are there at once."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

from penstock.errors import NotFoundError, PenstockError, UsageError
from penstock.query.analytics import Analytics
from penstock.query.answer import Answer
from penstock.query.cached import CachedAnalytics


@dataclasses.dataclass(frozen=True)
class SavedQuery:
    """A question by name. refreshed_at: the wall clock, microseconds, when its answer was last known to be up to date; None before the first. error: why the last try
    failed; None if it did not."""

    name: str
    rollup: str
    question: dict[str, Any]
    refreshed_at: int | None = None
    error: str | None = None


class SavedQueries:
    """Questions that a thread of its own keeps answered.

        with SavedQueries(Analytics.on("local:data")) as saved:
            saved.save("week", "by_advertiser", entity=42, range="last_7d", interval="1d")
            answer = saved.get("week")

    every: how many seconds pass between two looks at what was committed; a question is asked again only if its version changed. After an error the last answer stays,
    and says by `as_of` how old it is. Safe for use by several threads.
    """

    def __init__(self, analytics: Analytics | CachedAnalytics, *, every: float = 5.0, most: int = 1000) -> None:
        self.analytics, self.every, self.most = analytics, every, most
        self._lock = threading.Lock()
        self._saved: dict[str, SavedQuery] = {}
        self._answers: dict[str, Answer] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def save(self, name: str, rollup: str, **question: Any) -> Answer:
        """Keep a question answered from now on, in place of another of that name; its first answer. Raises UsageError for more than `most`, and what `query` raises."""
        with self._lock:
            if name not in self._saved and len(self._saved) >= self.most:
                raise UsageError(f"there are {self.most:,} saved queries already", hint="remove some, or construct SavedQueries(most=...)")
        answer = self.analytics.query(rollup, **question)
        with self._lock:
            self._saved[name] = SavedQuery(name, rollup, dict(question), self._now())
            self._answers[name] = answer
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="penstock-saved-queries", daemon=True)
                self._thread.start()
        return answer

    def get(self, name: str) -> Answer:
        """The newest answer, without asking anything. Raises NotFoundError."""
        with self._lock:
            if name not in self._answers:
                raise NotFoundError(f"there is no saved query {name!r}", hint=f"there are {', '.join(sorted(self._saved)) or 'none'}")
            return self._answers[name]

    def list(self) -> list[SavedQuery]:
        """All of them, by name."""
        with self._lock:
            return [self._saved[name] for name in sorted(self._saved)]

    def remove(self, name: str) -> bool:
        """Forget one. Whether it was there."""
        with self._lock:
            self._answers.pop(name, None)
            return self._saved.pop(name, None) is not None

    def refresh(self) -> int:
        """Ask again what may have changed, now. How many answers are new."""
        return sum(self._refresh(one) for one in self.list() if not self._stopping.is_set())

    def close(self) -> None:
        """Stop refreshing. The analytics stay open."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> SavedQueries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stopping.wait(self.every):
            self.refresh()

    def _refresh(self, one: SavedQuery) -> bool:
        answer, error = None, None
        try:
            prepared = self.analytics.prepare(one.rollup, **one.question)
            if prepared.version != self.get(one.name).version:
                answer = self.analytics.answer(prepared)
        except PenstockError as problem:
            error = str(problem)
        with self._lock:
            if self._saved.get(one.name) != one:  # removed, or replaced, meanwhile
                return False
            self._saved[one.name] = dataclasses.replace(one, error=error, refreshed_at=one.refreshed_at if error else self._now())
            if answer is not None:
                self._answers[one.name] = answer
        return answer is not None

    def _now(self) -> int:
        return time.time_ns() // 1000
