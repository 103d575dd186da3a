"""Requests before anything is read: forms, parameters, limits, headers, the access log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from penstock.errors import CorruptionError, NotFoundError, QueryError, UnavailableError
from penstock.serve.limits import RateLimits, SizeLimits
from penstock.serve.negotiate import form_of
from penstock.serve.parameters import AddressParameters, Parameters, condition
from penstock.serve.problems import Problem, problem_of
from penstock.serve.server import Redacted, listen


@pytest.mark.parametrize(
    "accept, asked, form",
    [
        (None, None, "json"),
        ("*/*", None, "json"),
        ("text/csv", None, "csv"),
        ("text/*", None, "csv"),
        ("text/csv;q=0.5, application/json;q=0.4", None, "csv"),
        ("text/csv;q=0.5, application/json", None, "json"),
        ("application/*;q=0, text/csv", None, "csv"),
        ("application/json;q=0, */*", None, "csv"),
        ("application/vnd.apache.arrow.stream, text/html", None, "arrow"),
        ("text/html, application/xhtml+xml, */*;q=0.8", None, "json"),
        ("text/html", "csv", "csv"),
        ("APPLICATION/JSON", None, "json"),
    ],
)
def test_the_form_is_what_the_client_prefers(accept: str | None, asked: str | None, form: str) -> None:
    assert form_of(accept, asked) == form


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/png, text/plain", "application/json;q=nan;q=x", ","])
def test_a_form_that_cannot_be_made_is_406(accept: str) -> None:
    with pytest.raises(Problem) as caught:
        form_of(accept, None)
    assert caught.value.status == 406


def test_an_address_says_what_a_body_says() -> None:
    address = AddressParameters(
        entity="1001",
        start="2024-03-01",
        end="1709337600000000",
        measures=["clicks, ctr=clicks/views", "views"],
        by=["country,status"],
        where=["country=DE", '{"status": {"ge": 500}}'],
    )
    body = Parameters(
        entity="1001",
        start="2024-03-01",
        end=1709337600000000,
        measures=["clicks", "ctr=clicks/views", "views"],
        by=["country", "status"],
        where={"country": "DE", "status": {"ge": 500}},
    )
    assert address.parameters() == body
    assert AddressParameters().parameters() == Parameters()


def test_the_floor_of_the_audience_cannot_be_asked_away() -> None:
    for asked, floor, given in ((None, 0, None), (None, 20, 20), (5, 20, 20), (50, 20, 50)):
        assert Parameters(minimum_audience=asked).arguments(floor=floor, max_rows=9)["minimum_audience"] == given


@pytest.mark.parametrize("texts", [["country"], ["[1]"], ["{"], ["=x"], ["country=DE", "country=AT"], ["{" * 100_000], ["1"]])
def test_a_filter_that_cannot_be_read_is_422(texts: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        condition(texts)
    assert (caught.value.status, caught.value.members["parameter"]) == (422, "where")


@pytest.mark.parametrize(
    "error, status, members",
    [
        (QueryError("end: it is before start", hint="turn them round"), 422, {"parameter": "end", "hint": "turn them round"}),
        (QueryError("by and where: no breakdown"), 422, {"parameter": "by"}),
        (QueryError("Something else: entirely"), 422, {}),
        (NotFoundError("no roll-up", hint="look"), 404, {"hint": "look"}),
        (UnavailableError("host:9090 does not answer"), 503, {"hint": "try again in a moment"}),
        (CorruptionError("cell 17 does not parse"), 500, {}),
    ],
)
def test_our_errors_are_problems(error: Any, status: int, members: dict[str, str]) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.members) == (status, members)
    assert status < 500 or error.message not in problem.data()["detail"]  # what is inside stays inside


# Limits.


def test_a_bucket_lets_through_its_rate_and_says_how_long_to_wait() -> None:
    now = 0.0
    limits = RateLimits(lambda: now)
    for _ in range(6):
        limits.spend("a", 60)
    with pytest.raises(Problem) as caught:
        limits.spend("a", 60)
    assert caught.value.status == 429 and caught.value.headers == {"Retry-After": "1"}
    limits.spend("b", 60)
    passed = 0
    for second in range(1, 61):
        now = float(second)
        for _ in range(5):
            try:
                limits.spend("a", 60)
            except Problem:
                continue
            passed += 1
    assert passed == 60


def test_buckets_of_long_ago_are_forgotten() -> None:
    now = 0.0
    limits = RateLimits(lambda: now)
    for number in range(10_000):
        limits.spend(str(number), 60)
    now = 61.0
    limits.spend("last", 60)
    assert len(limits._buckets) == 1


def call(path: bytes, query: bytes, chunks: list[bytes], length: bytes | None = None) -> tuple[int, int]:
    """The status, and how many bytes of the body the application saw."""
    seen, sent = 0, []
    body = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks] + [
        {"type": "http.request", "body": b"", "more_body": False}
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal seen
        while True:
            message = await receive()
            seen += len(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return body.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if length is None else [(b"content-length", length)]
    scope = {"type": "http", "path": path.decode(), "raw_path": path, "query_string": query, "headers": headers, "method": "POST"}
    asyncio.run(SizeLimits(app, max_url=100, default=1000, bodies={"/big": 5000})(scope, receive, send))
    return sent[0]["status"], seen


def test_bodies_and_addresses_are_limited() -> None:
    assert call(b"/x", b"", [b"a" * 1000]) == (200, 1000)
    assert call(b"/x", b"", [b"a" * 600, b"a" * 600]) == (413, 600)
    assert call(b"/x", b"", [b"a" * 1001], b"1001") == (413, 0)
    assert call(b"/big", b"", [b"a" * 5000], b"5000") == (200, 5000)
    assert call(b"/big", b"", [b"a" * 5001]) == (413, 0)
    assert call(b"/x", b"q=" + b"a" * 100, []) == (414, 0)


# The access log, and the socket.


def test_keys_are_taken_out_of_the_access_log() -> None:
    record = logging.LogRecord(
        "uvicorn.access", 20, "", 0, '%s - "%s %s"', ("1.2.3.4:5", "GET", "/v1/events/x/pixel.gif?data=e30&key=pk_1_secret&x=1"), None
    )
    assert Redacted().filter(record)
    assert "secret" not in record.getMessage() and "data=e30&key=…&x=1" in record.getMessage()


def test_a_port_that_is_taken_is_said_to_be() -> None:
    from penstock.errors import ConfigurationError, UsageError

    with listen("127.0.0.1", 0) as bound:
        bound.listen()
        with pytest.raises(UsageError, match="is taken"):
            listen("127.0.0.1", bound.getsockname()[1])
    with pytest.raises(ConfigurationError):
        listen("no such host.invalid", 0)
    with pytest.raises(ConfigurationError):
        listen("192.0.2.1", 0)
