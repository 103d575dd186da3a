"""Durations, instants and their texts."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import DeclarationError, UsageError
from penstock.model.units import duration, duration_text, from_datetime, hour_text, instant, iso, to_datetime

SECOND = 1_000_000


@pytest.mark.parametrize(
    "text, micros",
    [
        ("5us", 5),
        ("250ms", 250_000),
        ("5s", 5 * SECOND),
        ("3m", 180 * SECOND),
        ("1h", 3600 * SECOND),
        ("2d", 172_800 * SECOND),
        ("2w", 14 * 86_400 * SECOND),
        ("5y", 1825 * 86_400 * SECOND),
        ("0s", 0),
        (17, 17),
        (0, 0),
    ],
)
def test_a_duration(text: str | int, micros: int) -> None:
    assert duration(text) == micros


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "5sec", "-5s", "1.5h", "5S", "1h30m", None, 1.5, True, -1, b"5s", "5s\n"])
def test_what_is_no_duration_is_refused_by_name(text: object) -> None:
    with pytest.raises(DeclarationError, match="flush: .* is not a duration") as caught:
        duration(text, "flush")  # type: ignore[arg-type]
    assert '"5m"' in (caught.value.hint or "")


@given(st.integers(0, 10**18))
def test_a_durations_text_is_read_back(micros: int) -> None:
    assert duration(duration_text(micros)) == micros


@pytest.mark.parametrize("text", ["1m", "90d", "5y", "7d", "1h", "3d", "30s", "1d", "0s", "250ms", "1500us"])
def test_a_durations_text_is_the_one_that_people_write(text: str) -> None:
    assert duration_text(duration(text)) == text


@pytest.mark.parametrize(
    "text, parts",
    [
        ("2015-05-17", (2015, 5, 17)),
        ("2015-05-17T10", (2015, 5, 17, 10)),
        ("2015-05-17 10", (2015, 5, 17, 10)),
        ("2015-05-17T10Z", (2015, 5, 17, 10)),
        ("2015-05-17T10:05", (2015, 5, 17, 10, 5)),
        ("2015-05-17T10:05:03", (2015, 5, 17, 10, 5, 3)),
        ("2015-05-17T10:05:03.5Z", (2015, 5, 17, 10, 5, 3, 500_000)),
        ("2015-05-17T10:05:03.000001", (2015, 5, 17, 10, 5, 3, 1)),
        ("2015-05-17T12:05+02:00", (2015, 5, 17, 10, 5)),
        ("2015-05-17T08-02:00", (2015, 5, 17, 10)),
        (" 2015-05-17T10:05:03.25+00:00 ", (2015, 5, 17, 10, 5, 3, 250_000)),
    ],
)
def test_an_instant_is_utc_unless_it_has_a_zone(text: str, parts: tuple[int, ...]) -> None:
    expected = int(
        (dt.datetime(*parts, tzinfo=dt.timezone.utc) - dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)) / dt.timedelta(microseconds=1)
    )  # type: ignore[misc, arg-type]
    assert instant(text) == expected
    assert instant(to_datetime(expected)) == instant(to_datetime(expected).replace(tzinfo=None)) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "17.05.2015", "2015-13-01", "2015-05-17T25", None, True])
def test_what_is_no_instant_is_refused_by_name(text: object) -> None:
    with pytest.raises(UsageError, match="--from: .* is not a time"):
        instant(text, "--from")  # type: ignore[arg-type]


@given(st.datetimes(min_value=dt.datetime(1970, 1, 1), max_value=dt.datetime(9999, 12, 31), timezones=st.just(dt.timezone.utc)))
def test_an_instants_text_is_read_back(moment: dt.datetime) -> None:
    micros = from_datetime(moment)
    assert to_datetime(micros) == moment
    assert instant(iso(micros)) == micros
    assert iso(micros).endswith("Z") and hour_text(micros) == moment.strftime("%Y-%m-%dT%H")
