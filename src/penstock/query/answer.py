"""The answer: rows, and all that says how far they can be trusted."""

from __future__ import annotations

import dataclasses
from typing import Any, Iterator


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of an answer.

    role: "time", "dimension" or "measure". type: "timestamp" (ISO 8601 text), "int", "float", "decimal" (decimal.Decimal), "string", "enum" or "bool".
    measure: what kind of measure it is ("count", "sum", "min", "max", "uniques", "ratio"); None for the others.
    """

    name: str
    role: str
    type: str
    measure: str | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a query returns.

    rows: one dict a window and combination of `by`; keys as in `columns`. `time` is where the window starts, an ISO 8601 text in UTC.
    as_of: the event time that every partition with data has reached, None without data. The answer holds all records before it but those still on their
        way late, and some after it.
    complete: whether all records of the range are in it as far as anybody can know; `incomplete` says why not, in sentences.
    errors: by measure the relative standard error of what is an estimate: the true value is within twice that in 95 of 100 cases.
    saturated: measures of which a value did not fit 64 bits, and stands cut to the largest or smallest that does.
    generation: of the definition that is served. served_from: the granularities that were read, coarsest first. breakdown: the dimensions of the one that was.
    """

    rollup: str
    entity: Any
    start: str
    end: str
    interval: str | None
    columns: tuple[Column, ...]
    rows: list[dict[str, Any]]
    as_of: str | None
    incomplete: tuple[str, ...]
    errors: dict[str, float]
    saturated: tuple[str, ...]
    generation: str
    served_from: tuple[str, ...]
    breakdown: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be missing."""
        return not self.incomplete

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_json(self) -> dict[str, Any]:
        """The answer as plain data; decimals stay decimal.Decimal (`render` writes them as exact JSON numbers)."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in ("columns", "rows")}
        columns = [{key: value for key, value in dataclasses.asdict(column).items() if value is not None} for column in self.columns]
        return {**data, "complete": self.complete, "columns": columns, "rows": self.rows}
