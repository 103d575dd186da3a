"""What each report should give: plain Python over the generated events. Numbers are fractions until they are rounded, half up."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from decimal import Decimal as D
from fractions import Fraction
from typing import Any

Event = dict[str, Any]
Rows = list[tuple[Any, ...]]


def percent(part: Fraction | int, whole: Fraction | int) -> D | None:
    return rounded(Fraction(part * 100) / whole, 2) if whole else None


def rounded(value: Fraction, places: int) -> D:
    whole = (value * 10**places + Fraction(1, 2)).__floor__()
    return D(whole).scaleb(-places)


def moment(event: Event) -> dt.datetime:
    return dt.datetime.fromtimestamp(event["ts"] // 1000, dt.timezone.utc).replace(tzinfo=None, microsecond=event["ts"] % 1000 * 1000)


def spend(events: Iterable[Event]) -> D:
    return sum((D(str(one["cost"])) for one in events if one["cost"] is not None), D(0))


def kinds(events: Iterable[Event], kind: str) -> list[Event]:
    return [one for one in events if one["type"] == kind]


def grouped(events: Iterable[Event], key: Callable[[Event], Any]) -> dict[Any, list[Event]]:
    found: dict[Any, list[Event]] = {}
    for one in events:
        found.setdefault(key(one), []).append(one)
    return found


def between(events: Iterable[Event], start: dt.datetime, end: dt.datetime, advertiser: int | None) -> list[Event]:
    return [one for one in events if start <= moment(one) < end and advertiser in (None, one["advertiser_id"])]


def campaign_performance(events: list[Event], start: dt.datetime, end: dt.datetime, advertiser: int | None) -> Rows:
    groups = grouped(between(events, start, end, advertiser), lambda one: (moment(one).date(), one["advertiser_id"], one["campaign_id"]))
    rows = []
    for key, of in sorted(groups.items()):
        counts = [len(kinds(of, kind)) for kind in ("impression", "click", "save", "conversion")]
        spent = Fraction(spend(of))
        each = [
            rounded(spent / count, 6) if count and any(one["cost"] is not None for one in of) else None for count in (counts[1], counts[3])
        ]
        rows.append((*key, *counts, len({one["user_id"] for one in of}), spend(of), percent(counts[1], counts[0]), *each))
    return rows


def pacing_and_spend(events: list[Event], start: dt.datetime, end: dt.datetime, advertiser: int, budget: D) -> Rows:
    hours = grouped(between(events, start, end, advertiser), lambda one: moment(one).replace(minute=0, second=0, microsecond=0))
    rows, spent = [], D(0)
    for hour, of in sorted(hours.items()):
        spent += spend(of)
        passed = min(hour + dt.timedelta(hours=1), end) - start
        planned = rounded(Fraction(budget) * Fraction(passed // dt.timedelta(seconds=1), (end - start) // dt.timedelta(seconds=1)), 6)
        rows.append(
            (
                hour,
                len(kinds(of, "impression")),
                len(kinds(of, "click")),
                spend(of),
                spent,
                planned,
                percent(Fraction(spent), Fraction(planned)),
            )
        )
    return rows


def audience(events: list[Event], start: dt.datetime, end: dt.datetime, advertiser: int | None) -> Rows:
    groups = grouped(between(events, start, end, advertiser), lambda one: (one["country"], one["device"]))
    rows = []
    for key, of in groups.items():
        seen, clicks = len(kinds(of, "impression")), len(kinds(of, "click"))
        rows.append((*key, len({one["user_id"] for one in of}), seen, clicks, percent(clicks, seen), spend(of)))
    return sorted(rows, key=lambda row: (-row[2], row[0].encode(), row[1].encode()))


def funnel(events: list[Event], start: dt.datetime, end: dt.datetime, advertiser: int | None) -> Rows:
    rows = []
    for key, of in grouped(between(events, start, end, advertiser), lambda one: (one["advertiser_id"], one["campaign_id"])).items():
        steps = [0, 0, 0]
        for mine in grouped(of, lambda one: one["user_id"]).values():
            at: int | None = 0
            for step, kind in enumerate(("impression", "click", "conversion")):
                at = min((one["ts"] for one in mine if one["type"] == kind and one["ts"] >= at), default=None)
                if at is None:
                    break
                steps[step] += 1
        if steps[0]:
            rows.append((*key, *steps, percent(steps[1], steps[0]), percent(steps[2], steps[1])))
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def new_versus_returning(events: list[Event], start: dt.datetime, end: dt.datetime, advertiser: int | None) -> Rows:
    seen: set[int] = set()
    rows: Rows = []
    for day, of in sorted(grouped(between(events, dt.datetime(1970, 1, 1), end, advertiser), lambda one: moment(one).date()).items()):
        users = {one["user_id"] for one in of}
        new = users - seen
        seen |= users
        if day >= start.date():
            rows.append((day, len(users), len(new), len(users) - len(new), len(of), sum(one["user_id"] in new for one in of)))
    return rows


def top_content(views: list[Event], start: dt.datetime, end: dt.datetime, top: int) -> Rows:
    within = [one for one in views if start <= moment(one) < end]
    rows = []
    for path, of in grouped(within, lambda one: one["path"]).items():
        visitors, errors = len({one["ip"] for one in of}), sum(one["status"] >= 400 for one in of)
        rows.append((path, len(of), visitors, sum(one["bytes"] or 0 for one in of), errors, percent(len(of), len(within))))
    return sorted(rows, key=lambda row: (-row[1], row[0].encode()))[:top]
