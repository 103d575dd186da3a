"""Questions to the query engine, from the event loop: in threads of their own, so many at once."""

from __future__ import annotations

import dataclasses
import functools
import io
from typing import TYPE_CHECKING, Any, Callable, TypeVar

import anyio
import anyio.to_thread
import pyarrow as pa

from penstock.model.units import DAY
from penstock.query import Analytics, Answer, CachedAnalytics, RollupInfo, render
from penstock.query.answering import Prepared
from penstock.query.request import Question
from penstock.serve.negotiate import ARROW
from penstock.serve.problems import Problem

if TYPE_CHECKING:
    from penstock.deployment import Deployment

Value = TypeVar("Value")
_SMALL, _SHORT = 1500, 32 * DAY  # windows, a day of minutes and some; and what lies between start and end: a few milliseconds at most
_WAITING = 256  # questions that may wait for a thread; more are turned away at once, instead of being answered too late


@dataclasses.dataclass(frozen=True)
class Rendered:
    """An answer's bytes in some form. tag: of its version and form. body: None where the client has it already. answer: what was rendered."""

    tag: str
    body: bytes | None = None
    answer: Answer | None = None


class Engine:
    """Asks a deployment's roll-ups; answers are kept while nothing is committed. threads: questions at once. cache: bytes of answers kept. lag, rows: see `Analytics`, `lag` and `kept`."""

    def __init__(self, deployment: Deployment, threads: int, cache: int, lag: float, rows: int) -> None:
        self.analytics = CachedAnalytics(Analytics(deployment, lag=lag, kept=rows), max_bytes=cache)
        self._limiter = anyio.CapacityLimiter(threads)

    async def run(self, call: Callable[..., Value], *arguments: Any, **named: Any) -> Value:
        """What a blocking call returns. Raises Problem 503 while too many wait."""
        if self._limiter.statistics().tasks_waiting >= _WAITING:
            raise Problem(503, "Too many questions wait to be answered.", hint="try again in a moment", headers={"Retry-After": "1"})
        return await anyio.to_thread.run_sync(functools.partial(call, *arguments, **named), limiter=self._limiter)

    async def ask(self, rollup: str, form: str, known: str | None, asked: dict[str, Any]) -> Rendered:
        """An answer. form: "json", "csv" or "arrow". known: If-None-Match. asked: see `Analytics.query`; its errors.

        A small one that needs nothing from the table is made at once: to hand it to a thread takes longer.
        """
        prepared = self.analytics.prepare_at_hand(rollup, **asked)
        if prepared is not None and _small(prepared.question):
            found = self._rendered(prepared, form, known, self.analytics.answer_at_hand)
            if found is not None:
                return found
        return await self.run(self._ask, rollup, form, known, asked, prepared)

    async def rollups(self) -> list[RollupInfo]:
        """See `Analytics.rollups`."""
        return await self.run(self.analytics.rollups)

    def _ask(self, rollup: str, form: str, known: str | None, asked: dict[str, Any], prepared: Prepared | None) -> Rendered:
        found = self._rendered(prepared or self.analytics.prepare(rollup, **asked), form, known, self.analytics.answer)
        assert found is not None  # an answer that may be read is there
        return found

    @staticmethod
    def _rendered(prepared: Prepared, form: str, known: str | None, answer: Callable[[Prepared], Answer | None]) -> Rendered | None:
        tag = f'W/"{prepared.version}-{form}"'
        if known is not None and (known.strip() == "*" or tag in (one.strip() for one in known.split(","))):
            return Rendered(tag)
        found = answer(prepared)
        return None if found is None else Rendered(tag, rendered(found, form), found)


def _small(question: Question) -> bool:
    """Whether it takes no longer than others may wait for, whatever there is to merge."""
    return not question.dimensions and len(question.windows) <= _SMALL and question.end - question.start <= _SHORT


def rendered(answer: Answer, form: str) -> bytes:
    """An answer's bytes."""
    if form != ARROW:
        return render(answer, form).encode()
    out = io.BytesIO()
    table = answer.to_arrow()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()
