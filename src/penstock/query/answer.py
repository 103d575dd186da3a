"""The answer: rows, and all that says how far they can be trusted."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any, Iterator, Mapping, Sequence, overload


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of an answer.

    role: "time", "dimension", "measure" or "comparison". type: "timestamp" (ISO 8601 text), "int", "float", "decimal" (decimal.Decimal), "string", "enum" or "bool".
    measure: what kind of measure it is ("count", "sum", "min", "max", "uniques", "ratio"); of a comparison "previous", "change" or "percent"; None for the others.
    of: the measure that a comparison is about. scale: decimal places.
    """

    name: str
    role: str
    type: str
    measure: str | None = None
    of: str | None = None
    scale: int | None = None


@dataclasses.dataclass(frozen=True)
class Suppressed:
    """Measures that are null because too few people stand behind them. where: "rows", "other" or "totals". row: which of them, None for the totals."""

    where: str
    row: int | None
    measures: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Ranking:
    """How sure an order by an estimate is.

    error: the measure's relative standard error. unsure: the rows (groups, of `top`) that are nearer to a neighbour than twice the standard error of their difference,
    so that the two may stand the wrong way round. contenders: how many that were left out are as near to the last one shown.
    """

    measure: str
    error: float
    unsure: tuple[dict[str, Any], ...]
    contenders: int


@dataclasses.dataclass(frozen=True)
class Previous:
    """The period that an answer is compared with."""

    compare: str
    start: str
    end: str


class Rows(Sequence[dict[str, Any]]):
    """The rows of an answer, kept as columns: a day of minutes is four lists and no 1,440 dicts. A row that is asked for is a new dict, the caller's own.

    columns: by name, one value a row, all of the same length; not to be changed.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self.columns = columns
        self._names, self._values = tuple(columns), tuple(columns.values())
        self._count = len(self._values[0]) if self._values else 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = self._names
        return (dict(zip(names, row)) for row in zip(*self._values))

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(self._count))]
        at = operator.index(place)
        return {name: values[at] for name, values in zip(self._names, self._values)}

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) and not isinstance(other, (str, bytes)) else NotImplemented

    def __repr__(self) -> str:
        return repr(list(self))

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a query returns.

    rows: one dict a window and combination of `by`; keys as in `columns`. `time` is where the window starts. Every instant is an ISO 8601 text in `timezone`.
    as_of: the event time that every partition with data has reached, None without data. The answer holds all records before it but those still on their
        way late, and some after it.
    complete: whether all records of the range are in it as far as anybody can know; `incomplete` says why not, in sentences.
    errors: by measure the relative standard error of what is an estimate: the true value is within twice that in 95 of 100 cases.
    saturated: measures of which a value did not fit 64 bits, and stands cut to the largest or smallest that does.
    generation: of the definition that is served. served_from: the granularities that were read, coarsest first. breakdown: the dimensions of the one that was.
    row_count: how many rows there are without limit and offset. totals: of all groups and windows together, if asked for. other: what `top` left out, if asked for,
        a row a window. previous: what it is compared with. ranking: of an order by an estimate.
    minimum_audience: below which measures are hidden; suppressed: which are.
    version: stays the same as long as nothing was committed, published or declared anew: the same question with the same version need not be asked again.
    """

    rollup: str
    entity: Any
    start: str
    end: str
    interval: str | None
    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Any]]
    as_of: str | None
    incomplete: tuple[str, ...]
    errors: dict[str, float]
    saturated: tuple[str, ...]
    generation: str
    served_from: tuple[str, ...]
    breakdown: tuple[str, ...]
    timezone: str = "UTC"
    row_count: int | None = None
    totals: dict[str, Any] | None = None
    other: list[dict[str, Any]] | None = None
    previous: Previous | None = None
    ranking: Ranking | None = None
    minimum_audience: int | None = None
    suppressed: tuple[Suppressed, ...] = ()
    version: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be missing."""
        return not self.incomplete

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> Sequence[Any]:
        """The values of one column, a row each."""
        return self.rows.columns[name] if isinstance(self.rows, Rows) else [row[name] for row in self.rows]

    def to_arrow(self) -> Any:
        """A pyarrow.Table; see `penstock.query.frames`."""
        from penstock.query.frames import to_arrow

        return to_arrow(self)

    def to_pandas(self) -> Any:
        """A pandas.DataFrame of Arrow-backed columns. Raises ConfigurationError where pandas is not installed."""
        from penstock.query.frames import to_pandas

        return to_pandas(self)

    def to_polars(self) -> Any:
        """A polars.DataFrame. Raises ConfigurationError where polars is not installed."""
        from penstock.query.frames import to_polars

        return to_polars(self)

    def to_json(self) -> dict[str, Any]:
        """The answer as plain data; decimals stay decimal.Decimal (`render` writes them as exact JSON numbers)."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in ("columns", "rows")}
        data["suppressed"] = [dataclasses.asdict(one) for one in self.suppressed]
        for name in ("previous", "ranking"):
            data[name] = None if data[name] is None else dataclasses.asdict(data[name])
        columns = [{key: value for key, value in dataclasses.asdict(column).items() if value is not None} for column in self.columns]
        return {**data, "complete": self.complete, "columns": columns, "rows": self.rows}
