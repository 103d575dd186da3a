"""The parameters of a query, as they come in a body and in an address. Names and meanings are `Analytics.query`'s."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from penstock.serve.problems import Problem

Format = Literal["json", "csv", "arrow"]
Text = Annotated[StrictStr, Field(max_length=2000)]
Name = Annotated[StrictStr, Field(min_length=1, max_length=200)]
Moment = Annotated[Text | StrictInt, Field(description="ISO 8601, microseconds since 1970, or relative.")]

_ENTITY = "Whose numbers: a value of the roll-up's entity. May be left out where the key reaches one alone."
_RANGE = 'Instead of start and end: "today", "yesterday", "last_7d", "last_60m", "previous_1mo", "this_month" and the like.'
_START = 'The first instant: ISO 8601, in `timezone` unless it has a zone, or relative: "now", "today", "-24h".'
_END = "The instant to stop before; now unless given."
_ZONE = 'An IANA name such as "Europe/Berlin". Windows are counted in it, and instants are written in it.'
_INTERVAL = 'A row for each window of "1m", "1h", "1d", "1w", "1mo", "1y" or a multiple; one for all without it.'
_MEASURES = 'Names of measures, and quotients of two: "ctr=clicks/impressions". All unless given.'
_BY = "A row for each combination of these dimensions."
_WHERE = 'Only records of which this holds: {"country": ["DE", "AT"], "status": {"ge": 500}}.'
_ORDER = 'Columns to sort by, commas between, "-" before one for largest first.'
_TOP = "Only the rows of this many groups of `by`, the largest in the first measure of `order`."
_OTHER = "With `top`: the groups left out, merged, as `other`."
_TOTALS = "The measures of all groups and windows together, as `totals`."
_AUDIENCE = "Measures that fewer people than this stand behind are null. The server's own floor holds as well."
_COMPARE = "With which time before: three more columns for each measure."
_NOW = "What relative times count from; the server's clock unless given."
_ROWS = "More rows than this, before limit and top, are refused. The server's own limit holds as well."
Compare = Literal["previous_period", "previous_day", "previous_week", "previous_month", "previous_year"]


class Parameters(BaseModel):
    """A query's parameters, as a JSON body."""

    model_config = ConfigDict(extra="forbid", title="Query")

    entity: Text | StrictInt | StrictBool | None = Field(None, description=_ENTITY)
    range: Name | None = Field(None, description=_RANGE)
    start: Moment | None = Field(None, description=_START)
    end: Moment | None = Field(None, description=_END)
    timezone: Name = Field("UTC", description=_ZONE)
    interval: Name | None = Field(None, description=_INTERVAL)
    measures: Annotated[list[Name], Field(max_length=100)] | None = Field(None, description=_MEASURES)
    by: Annotated[list[Name], Field(max_length=20)] = Field([], description=_BY)
    where: dict[str, Any] | None = Field(None, description=_WHERE)
    order: Text | None = Field(None, description=_ORDER)
    limit: StrictInt | None = Field(None, ge=1, le=10_000_000, description="At most so many rows.")
    offset: StrictInt = Field(0, ge=0, le=10_000_000, description="Pass over so many rows first.")
    top: StrictInt | None = Field(None, ge=1, le=100_000, description=_TOP)
    other: StrictBool = Field(False, description=_OTHER)
    totals: StrictBool = Field(False, description=_TOTALS)
    compare: Compare | None = Field(None, description=_COMPARE)
    minimum_audience: StrictInt | None = Field(None, ge=1, le=1_000_000_000, description=_AUDIENCE)
    max_rows: StrictInt | None = Field(None, ge=1, le=1_000_000_000, description=_ROWS)
    now: Moment | None = Field(None, description=_NOW)

    def arguments(self, *, floor: int, max_rows: int) -> dict[str, Any]:
        """The keyword arguments of `Analytics.query`, but for the entity. floor: the least minimum_audience. max_rows: the most rows."""
        asked = self.model_dump(exclude={"entity"})
        most = min(asked["max_rows"] or max_rows, max_rows)
        return {**asked, "minimum_audience": max(asked["minimum_audience"] or 0, floor) or None, "max_rows": most}


class AddressParameters(BaseModel):
    """The same, as an address holds them: lists with commas or repeated, the filter as JSON or field=value."""

    model_config = ConfigDict(extra="forbid")

    entity: Annotated[str, Field(max_length=2000)] | None = Field(None, description=_ENTITY)
    range: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(None, description=_RANGE)
    start: Annotated[str, Field(max_length=200)] | None = Field(None, description=_START)
    end: Annotated[str, Field(max_length=200)] | None = Field(None, description=_END)
    timezone: Annotated[str, Field(min_length=1, max_length=200)] = Field("UTC", description=_ZONE)
    interval: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(None, description=_INTERVAL)
    measures: list[str] | None = Field(None, description=_MEASURES + " Commas between, or repeated.")
    by: list[str] = Field([], description=_BY + " Commas between, or repeated.")
    where: list[str] = Field([], description=_WHERE + " As JSON, or country=DE; repeated ones must all hold.")
    order: Annotated[str, Field(max_length=2000)] | None = Field(None, description=_ORDER)
    limit: int | None = Field(None, ge=1, le=10_000_000, description="At most so many rows.")
    offset: int = Field(0, ge=0, le=10_000_000, description="Pass over so many rows first.")
    top: int | None = Field(None, ge=1, le=100_000, description=_TOP)
    other: bool = Field(False, description=_OTHER)
    totals: bool = Field(False, description=_TOTALS)
    compare: Compare | None = Field(None, description=_COMPARE)
    minimum_audience: int | None = Field(None, ge=1, le=1_000_000_000, description=_AUDIENCE)
    max_rows: int | None = Field(None, ge=1, le=1_000_000_000, description=_ROWS)
    now: Annotated[str, Field(max_length=200)] | None = Field(None, description=_NOW)

    def parameters(self) -> Parameters:
        """As a body would hold them. Raises Problem 422 for a filter that cannot be read."""
        asked = self.model_dump(include=set(Parameters.model_fields))
        asked.update({name: moment(asked[name]) for name in ("start", "end", "now")})
        measures = None if self.measures is None else names(self.measures)
        return Parameters.model_construct(**{**asked, "measures": measures, "by": names(self.by), "where": condition(self.where)})


class QueryAddress(AddressParameters):
    """A query's parameters in an address, and the form of the answer."""

    format: Format | None = Field(None, description="The form of the answer; else what `Accept` prefers, else JSON.")


class TrendAddress(BaseModel):
    """The parameters of what is trending."""

    model_config = ConfigDict(extra="forbid")

    measure: Annotated[str, Field(min_length=1, max_length=200, description="A count or an estimate of uniques of the roll-up.")]
    by: list[str] = Field(min_length=1, description="The dimensions whose values are looked at. Commas between, or repeated.")
    entity: Annotated[str, Field(max_length=2000)] | None = Field(None, description=_ENTITY)
    range: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(None, description=_RANGE)
    start: Annotated[str, Field(max_length=200)] | None = Field(None, description=_START)
    end: Annotated[str, Field(max_length=200)] | None = Field(None, description=_END)
    timezone: Annotated[str, Field(min_length=1, max_length=200)] = Field("UTC", description=_ZONE)
    where: list[str] = Field([], description=_WHERE + " As JSON, or country=DE; repeated ones must all hold.")
    compare: Compare = Field("previous_period", description="With which time before.")
    falling: bool = Field(False, description="What shrank most, instead.")
    limit: int = Field(10, ge=1, le=1000, description="At most so many.")
    least: float = Field(2.0, ge=0, le=1000, description="The score below which a change may well be chance.")
    minimum_audience: int | None = Field(None, ge=1, le=1_000_000_000, description=_AUDIENCE)
    now: Annotated[str, Field(max_length=200)] | None = Field(None, description=_NOW)

    def arguments(self, *, floor: int, max_rows: int) -> dict[str, Any]:
        """The keyword arguments of `Analytics.trending`, but for measure and entity. Raises Problem 422."""
        asked = self.model_dump(exclude={"measure", "entity"})
        asked.update({name: moment(asked[name]) for name in ("start", "end", "now")})
        audience = max(self.minimum_audience or 0, floor) or None
        return {**asked, "by": names(self.by), "where": condition(self.where), "minimum_audience": audience, "max_rows": max_rows}


class LiveAddress(BaseModel):
    """The parameters of a live stream."""

    model_config = ConfigDict(extra="forbid")

    entity: Annotated[str, Field(max_length=2000)] | None = Field(None, description=_ENTITY)
    measures: list[str] | None = Field(None, description=_MEASURES + " Commas between, or repeated.")
    minutes: int = Field(60, ge=1, le=1440, description="So many minutes up to now, the running one included.")
    interval: Annotated[str, Field(min_length=1, max_length=200)] = Field("1m", description=_INTERVAL)
    timezone: Annotated[str, Field(min_length=1, max_length=200)] = Field("UTC", description=_ZONE)
    by: list[str] = Field([], description=_BY + " Commas between, or repeated.")
    where: list[str] = Field([], description=_WHERE + " As JSON, or country=DE; repeated ones must all hold.")
    clock: Literal["wall", "events"] = Field(
        "wall", description="What \"now\" is: the server's clock, or the newest event's time (of traffic that is replayed)."
    )
    minimum_audience: int | None = Field(None, ge=1, le=1_000_000_000, description=_AUDIENCE)

    def arguments(self, *, floor: int, max_rows: int) -> dict[str, Any]:
        """The keyword arguments of `Analytics.query`, but for entity and now. Raises Problem 422."""
        return {
            "range": f"last_{self.minutes}m",
            "interval": self.interval,
            "timezone": self.timezone,
            "measures": None if self.measures is None else names(self.measures),
            "by": names(self.by),
            "where": condition(self.where),
            "minimum_audience": max(self.minimum_audience or 0, floor) or None,
            "max_rows": max_rows,
        }


def moment(text: str | None) -> str | int | None:
    """Microseconds as a number, everything else as it is."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) > 8 else text


def names(texts: list[str]) -> list[str]:
    """Names with commas between, from one text or several."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def condition(texts: list[str]) -> dict[str, Any] | None:
    """The filter of some texts, JSON objects or field=value, all of which must hold. Raises Problem 422."""
    merged: dict[str, Any] = {}
    for text in texts:
        for name, value in _condition(text).items():
            if name in merged and merged[name] != value:
                raise Problem(
                    422,
                    f"where: {name[:60]!r} is given twice",
                    parameter="where",
                    hint='for one of several values: where={"country": ["DE", "AT"]}',
                )
            merged[name] = value
    return merged or None


def _condition(text: str) -> dict[str, Any]:
    if not text.lstrip().startswith("{"):
        name, equals, value = text.partition("=")
        if equals and name.strip():
            return {name.strip(): value}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Problem(
            422, f"where: {text[:60]!r} is neither field=value nor a JSON object", parameter="where", hint='write where={"country": "DE"}'
        )
    return found
