"""What is trending: the values of dimensions whose counts grew most against the period before, by more than chance explains."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol, Sequence

from penstock.errors import QueryError
from penstock.query.answer import Answer
from penstock.query.answering import Prepared


class Asks(Protocol):
    """What answers questions: `Analytics`, `CachedAnalytics`."""

    def prepare(self, rollup: str, **question: Any) -> Prepared:
        """See `Analytics.prepare`."""

    def answer(self, prepared: Prepared) -> Answer:
        """See `Analytics.answer`."""


@dataclasses.dataclass(frozen=True)
class Trend:
    """group: the dimensions' values. now, before: the measure in the two periods. percent: the change, None where there was nothing before. score: see `score`."""

    group: dict[str, Any]
    now: int
    before: int
    percent: float | None
    score: float


def trending(
    analytics: Asks,
    rollup: str,
    measure: str,
    *,
    by: Sequence[str],
    limit: int = 10,
    least: float = 2.0,
    falling: bool = False,
    compare: str = "previous_period",
    **question: Any,
) -> list[Trend]:
    """The groups that grew most against the period before, highest score first; falling: those that shrank most.

    measure: a Count or a Uniques of the roll-up. least: the score below which a change may well be chance. question: entity, range or start and end, where,
    timezone, minimum_audience: as in `Analytics.query`. Groups that a minimum audience hides in either period are left out. Raises what `Analytics.query` raises.
    """
    for name in ("interval", "measures", "order", "offset", "top", "other", "totals"):
        if name in question:
            raise QueryError(f"{name}: what is trending is one list over the whole range", hint=f"leave {name} out, or use query")
    if not by:
        raise QueryError("by: what is trending are the values of dimensions", hint='say by=["country"], for one')
    answer = analytics.answer(analytics.prepare(rollup, by=by, measures=[measure], compare=compare, **question))
    column = next(one for one in answer.columns if one.role == "measure")
    if column.measure not in ("count", "uniques"):
        raise QueryError(
            f"measures: {measure!r} is a {column.measure}, and what chance does to it is not known",
            hint="use a Count or a Uniques of the roll-up",
        )
    found = []
    for row in answer.rows:
        now, before = row[column.name], row[f"{column.name}_previous"]
        if now is None or before is None:
            continue
        points = score(now, before, answer.errors.get(column.name, 0.0))
        if (-points if falling else points) >= least:
            found.append(Trend({name: row[name] for name in by}, now, before, row[f"{column.name}_percent"], points))
    found.sort(key=lambda one: one.score if falling else -one.score)
    return found[:limit]


def score(now: int, before: int, error: float = 0.0) -> float:
    """By how many standard deviations a count is larger than that of a period as long, if both came from one Poisson process.

    After the square root that makes the variance of a Poisson count 1/4 whatever its size (Anscombe, "The transformation of Poisson, binomial and negative-binomial
    data", Biometrika 35, 1948): from 0 to 3 is 1.7, from 1000 to 1100 is 2.2, so that neither a few clicks nor sheer size leads the list. error: the relative standard
    error of estimates, whose variance is added to that of the counts.
    """
    points = math.sqrt(2) * (math.sqrt(now + 0.375) - math.sqrt(before + 0.375))
    return points / math.sqrt(1 + error**2 * (now**2 + before**2) / max(now + before, 1))
