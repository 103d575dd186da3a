"""Questions and answers as they travel: from arguments to a request, from a response to an `Answer` or an error."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import random
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from penstock.errors import AccessError, ConfigurationError, NotFoundError, PenstockError, QueryError, UnavailableError
from penstock.query.answer import Answer, Column, Previous, Ranking, Suppressed
from penstock.query.analytics import RollupInfo
from penstock.query.trends import Trend

if TYPE_CHECKING:
    import httpx

RETRIES = 4  # of what can be asked again: all of it is
_LONGEST = 30.0  # seconds between two tries
_AGAIN = (429, 502, 503, 504)


def module() -> Any:
    """httpx. Raises ConfigurationError where it is not installed."""
    try:
        import httpx
    except ImportError as problem:
        raise ConfigurationError(f"httpx cannot be imported: {problem}", hint="pip install 'penstock[client]'") from None
    return httpx


def headers(key: str | None) -> dict[str, str]:
    """What every request says. Raises ConfigurationError without a key."""
    if not key:
        raise ConfigurationError(
            "no key is given to ask with", hint='say key="pk_…", or set PENSTOCK_KEY; `penstock serve keys create` makes one'
        )
    return {"Authorization": f"Bearer {key}", "Accept": "application/json, text/event-stream;q=0.5"}


def body(question: Mapping[str, Any]) -> dict[str, Any]:
    """A question's arguments as JSON can hold them; what is None is left out."""
    return {name: _plain(value) for name, value in question.items() if value is not None}


def address(question: Mapping[str, Any]) -> dict[str, Any]:
    """A question's arguments as an address holds them."""
    return {name: _text(value) for name, value in body(question).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dt.datetime):
        return value.isoformat() if value.tzinfo else value.replace(tzinfo=dt.timezone.utc).isoformat()
    return str(value) if isinstance(value, (decimal.Decimal, dt.date)) else value


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, (dict, bool)) else str(value)


def wait(response: httpx.Response | None, tries: int) -> float | None:
    """Seconds after which to ask again; None for not at all. response: None where none came. tries: how many there were."""
    if tries > RETRIES or (response is not None and response.status_code not in _AGAIN):
        return None
    after = None if response is None else response.headers.get("Retry-After")
    least = float(after) if after is not None and after.isdigit() else 0.0
    if least > _LONGEST:
        return None
    return least + random.uniform(0, min(_LONGEST, 0.2 * 2**tries))  # full jitter, so that many clients do not come back at once


def content(response: httpx.Response) -> Any:
    """The JSON of a response, its numbers exact. Raises the error that a problem stands for."""
    if response.status_code >= 400:
        raise error_of(response.status_code, response.text)
    try:
        return json.loads(response.text, parse_float=decimal.Decimal)
    except ValueError:
        raise PenstockError(f"{response.url} did not answer as Penstock does", hint="is this the address of `penstock serve`?") from None


def error_of(status: int, text: str) -> PenstockError:
    """The error that a problem stands for."""
    try:
        problem = json.loads(text)
        detail, hint = str(problem["detail"]), problem.get("hint")
    except (ValueError, KeyError, TypeError, AttributeError):
        detail, hint = f"the server answered {status}", "is this the address of `penstock serve`?"
    if status in (401, 403):
        return AccessError(detail, hint=hint)
    if status == 404:
        return NotFoundError(detail, hint=hint)
    if status in _AGAIN:
        return UnavailableError(detail, hint=hint)
    return QueryError(detail, hint=hint) if status < 500 else PenstockError(detail, hint=hint)


def answer_of(data: dict[str, Any]) -> Answer:
    """The answer that its JSON stands for, equal to what the server's `Analytics` returned."""
    columns = tuple(Column(**one) for one in data["columns"])
    floats = {one.name for one in columns if one.type == "float"}
    decimals = {one.name for one in columns if one.type == "decimal"}

    def row(found: dict[str, Any]) -> dict[str, Any]:
        for name in floats & found.keys():
            found[name] = None if found[name] is None else float(found[name])
        for name in decimals & found.keys():
            found[name] = None if found[name] is None else decimal.Decimal(found[name])
        return found

    ranking = data["ranking"]
    if ranking is not None:
        ranking = Ranking(ranking["measure"], float(ranking["error"]), tuple(map(row, ranking["unsure"])), ranking["contenders"])
    plain = {
        name: data[name]
        for name in (
            "rollup",
            "entity",
            "start",
            "end",
            "interval",
            "as_of",
            "generation",
            "timezone",
            "row_count",
            "minimum_audience",
            "version",
        )
    }
    return Answer(
        **plain,
        columns=columns,
        rows=[row(one) for one in data["rows"]],
        incomplete=tuple(data["incomplete"]),
        errors={name: float(value) for name, value in data["errors"].items()},
        saturated=tuple(data["saturated"]),
        served_from=tuple(data["served_from"]),
        breakdown=tuple(data["breakdown"]),
        totals=None if data["totals"] is None else row(data["totals"]),
        other=None if data["other"] is None else [row(one) for one in data["other"]],
        previous=None if data["previous"] is None else Previous(**data["previous"]),
        ranking=ranking,
        suppressed=tuple(Suppressed(one["where"], one["row"], tuple(one["measures"])) for one in data["suppressed"]),
    )


def rollups_of(data: dict[str, Any]) -> list[RollupInfo]:
    """What can be asked."""
    return [
        RollupInfo(
            one["name"],
            (one["entity"]["field"], one["entity"]["type"]),
            {measure["name"]: measure["kind"] for measure in one["measures"]},
            tuple((tuple(part["by"]), part["keep"]) for part in one["breakdowns"]),
            one["generation"],
        )
        for one in data["rollups"]
    ]


def trends_of(data: dict[str, Any]) -> list[Trend]:
    """What is trending."""
    return [
        Trend(one["group"], one["now"], one["before"], None if one["percent"] is None else float(one["percent"]), float(one["score"]))
        for one in data["trends"]
    ]


def event_of(lines: Sequence[str]) -> tuple[str, str]:
    """The name and the data of a server-sent event."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    return fields.get("event", ["message"])[-1], "\n".join(fields.get("data", []))


def live_of(event: str, data: str) -> Answer | None:
    """The answer in a live stream's event; None for those that hold none. Raises the error that a problem stands for, unless it may pass."""
    if event == "answer":
        return answer_of(json.loads(data, parse_float=decimal.Decimal))
    if event == "problem":
        error = error_of(int(json.loads(data)["status"]), data)
        if not error.retriable:
            raise error
    return None
