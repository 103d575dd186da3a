"""The generator of ad events: the same bytes from the same seed, and the shape that it promises."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter, defaultdict
from typing import Any

import msgpack
import numpy as np
import pytest

from penstock.errors import ConfigurationError
from penstock.kernels import DECODERS, read_batches
from penstock.log.generate import BLOCK, HOURS, AdBlock, AdEvents, generate_into
from penstock.log.memory import MemoryLog
from penstock.log.produce import ProduceReport
from penstock.model.units import instant
from penstock.topologies.advertiser_analytics import ads

COUNT = 200_000
START_MS, DAY_MS = instant("2026-03-02") // 1000, 86_400_000


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return [event for event in AdEvents(3).dicts(COUNT) if event is not None]


@pytest.fixture(scope="module")
def arrivals() -> np.ndarray:
    return np.concatenate([block.timestamps for block in AdEvents(3).blocks(COUNT)]) // 1000


def digest(blocks: Any) -> str:
    hashed = hashlib.sha256()
    for block in blocks:
        for slices in (block.values, block.keys):
            for row in range(0, len(slices), 17):
                hashed.update(slices.get(row) or b"-")
        hashed.update(block.timestamps.tobytes())
    return hashed.hexdigest()


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_text_is_byte_for_byte_that_of_the_dicts(format: str) -> None:
    write = msgpack.packb if format == "msgpack" else lambda event: json.dumps(event, separators=(",", ":")).encode()
    count = BLOCK + 3000
    source = AdEvents(11, format=format)
    rows = ((block, row) for block in source.blocks(count) for row in range(len(block.values)))
    for event, (block, row) in itertools.zip_longest(source.dicts(count), rows):
        assert block.values.get(row) == write(event)
        assert block.keys.get(row) == b"%d" % event["advertiser_id"]


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others() -> None:
    one, again, other = (digest(AdEvents(seed).blocks(70_000)) for seed in (1, 1, 2))
    assert one == again != other


def test_the_bytes_of_a_seed_are_fixed() -> None:
    """If this fails on purpose, every published number that names a seed is void: say so in the changelog."""
    assert digest(AdEvents(1, malformed=0.001).blocks(70_000)) == "aeb4bb444a459cce8acb050f855bd085fe6e4a1a746e35721d727e345ba58697"


def test_an_event_is_what_the_shipped_schema_declares(events: list[dict[str, Any]]) -> None:
    log = MemoryLog()
    log.create("ads", 3)
    seen: list[tuple[int, int]] = []
    report = generate_into(log, ads, COUNT, 3, on_progress=lambda done, count: seen.append((done, count)))
    assert report == ProduceReport(COUNT, 0, report.bytes, {p: log.end("ads", p) for p in range(3)}) and sum(report.ends.values()) == COUNT
    assert 180 < report.bytes / COUNT < 200 and seen[-1] == (COUNT, COUNT) and len(seen) == -(-COUNT // BLOCK)
    decoder, counted, advertisers = DECODERS["json"](ads.fields), 0, []
    for partition in range(3):
        at, mine = 0, set()
        while (chunk := log.read("ads", partition, at, 1 << 20, 1 << 40)) is not None:
            decoded = decoder.decode(read_batches(chunk.data))
            assert not decoded.reject.any()
            mine |= set(decoded.columns["advertiser"].data.tolist())
            counted, at = counted + len(decoded), chunk.next
        advertisers.append(mine)
    assert counted == COUNT
    assert sum(map(len, advertisers)) == len(set().union(*advertisers)) == len({event["advertiser_id"] for event in events}), (
        "keyed by advertiser"
    )


def test_event_ids_are_unique_and_campaigns_belong_to_one_advertiser(events: list[dict[str, Any]]) -> None:
    assert len({event["event_id"] for event in events}) == COUNT and all(len(event["event_id"]) == 24 for event in events[:100])
    owners = defaultdict(set)
    for event in events:
        owners[event["campaign_id"]].add(event["advertiser_id"])
    assert all(len(owner) == 1 for owner in owners.values()) and 2 <= len(owners) / 100 <= 8


def test_types_are_a_funnel_and_costs_fit_them(events: list[dict[str, Any]]) -> None:
    share = {kind: count / COUNT for kind, count in Counter(event["type"] for event in events).items()}
    assert (
        0.90 < share["impression"] < 0.96
        and 0.03 < share["click"] < 0.09
        and 0.005 < share["save"] < 0.02
        and 0.001 < share["conversion"] < 0.01
    )
    costs = {kind: [event["cost"] for event in events if event["type"] == kind] for kind in share}
    for kind, low, high in (("impression", 0.0002, 0.012), ("click", 0.025, 3.0)):
        paid = [cost for cost in costs[kind] if cost is not None]
        assert 0.99 < len(paid) / len(costs[kind]) < 1 and low <= min(paid) and max(paid) <= high
        assert all(round(cost, 6) == cost for cost in paid)
    assert set(costs["save"]) == set(costs["conversion"]) == {None}


def test_a_few_advertisers_have_most_of_the_traffic(events: list[dict[str, Any]]) -> None:
    counts = [count for _, count in Counter(event["advertiser_id"] for event in events).most_common()]
    weights = np.array([1 / (rank + 6) for rank in range(100)])
    expected = weights / weights.sum() * COUNT
    assert len(counts) == 100
    assert np.all(np.abs(np.array(counts) - np.sort(expected)[::-1]) < 6 * np.sqrt(expected) + expected * 0.02), "Zipf-Mandelbrot"


def test_bots_do_little_but_click_at_absurd_rates(events: list[dict[str, Any]]) -> None:
    bots = set(AdEvents(3).bot_users)
    per_user = Counter(event["user_id"] for event in events)
    assert min(per_user[bot] for bot in bots) > 4 * max(count for user, count in per_user.items() if user not in bots)
    assert 0.008 < sum(per_user[bot] for bot in bots) / COUNT < 0.012
    clicks = [event["type"] == "click" for event in events if event["user_id"] in bots]
    assert 0.6 < sum(clicks) / len(clicks) < 0.8


def test_a_user_keeps_to_a_country(events: list[dict[str, Any]]) -> None:
    bots, homes = set(AdEvents(3).bot_users), defaultdict(set)
    for event in events:
        if event["user_id"] not in bots:
            homes[event["user_id"]].add(event["country"])
    assert len(homes) > 50_000 and all(len(home) == 1 for home in homes.values())
    assert Counter(event["country"] for event in events).most_common(1)[0][0] == "US"


def test_arrivals_are_in_order_and_follow_the_hours_of_the_day(arrivals: np.ndarray) -> None:
    assert np.all(np.diff(arrivals) >= 0) and START_MS <= arrivals[0] and arrivals[-1] < START_MS + DAY_MS
    per_hour = np.bincount((arrivals - START_MS) // 3_600_000, minlength=24)
    assert np.all(np.abs(per_hour - np.array(HOURS) / sum(HOURS) * COUNT) <= 2)


def test_events_happen_before_they_arrive_a_few_hours_before_and_very_few_days_before(
    events: list[dict[str, Any]], arrivals: np.ndarray
) -> None:
    delay = arrivals - np.array([event["ts"] for event in events])
    assert delay.min() >= 0
    assert 0.94 < np.mean(delay < 20_000) and 1000 < np.median(delay) < 1100, "the median of an exponential of mean 1.5 s is 1.04 s"
    late, too_late = np.mean((delay >= 60_000) & (delay <= 20 * 3_600_000)), np.mean(delay > DAY_MS)
    assert 0.02 < late < 0.035 and 0 < too_late < 0.0005
    assert not np.any((delay > 20 * 3_600_000) & (delay < 25 * 3_600_000)), (
        "what is late and what is too late are told apart with certainty"
    )
    happened = arrivals - delay
    assert np.all((happened >= START_MS) | (delay > DAY_MS)), "only what is too late happened before the start"
    assert np.any(np.diff(happened) < 0), "out of order"


def test_shares_span_start_and_users_are_the_callers() -> None:
    made = [
        event
        for event in AdEvents(5, late=0, too_late=0, bots=0, users=50, advertisers=3, start="2020-02-29", hours=30).dicts(70_000)
        if event
    ]
    assert len({event["user_id"] for event in made}) == 50 and {event["advertiser_id"] for event in made} == {1001, 1002, 1003}
    times = [event["ts"] for event in made]
    begin = instant("2020-02-29") // 1000
    assert begin <= min(times) and begin + 29 * 3_600_000 < max(times) < begin + 30 * 3_600_000
    assert max(np.maximum.accumulate(times) - np.array(times)) < 20_000


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_malformed_records_are_rejects_and_the_others_stay_as_they_were(format: str) -> None:
    clean, dirty = AdEvents(4, format=format), AdEvents(4, format=format, malformed=0.02)
    count, kinds = 70_000, set()
    decoder = DECODERS[format](ads.fields)
    rejected = 0
    for (before, after), columns in zip(zip(clean.blocks(count), dirty.blocks(count)), dirty.columns(count)):
        broken = set(columns.malformed.tolist())
        assert [row for row in range(len(before.values)) if before.values.get(row) != after.values.get(row)] == sorted(broken)
        codes = decoder.decode(_as_records(after)).reject
        ahead = np.array(
            [columns.how[i] == 5 for i in range(len(columns.malformed))]
        )  # from the future: well-formed, and not the decoder's to see
        assert set(np.flatnonzero(codes).tolist()) == set(columns.malformed[~ahead].tolist())
        kinds |= set(codes.tolist())
        rejected += len(broken)
    assert 0.018 < rejected / count < 0.022 and len(kinds) >= 5
    assert sum(event is None for event in dirty.dicts(count)) == rejected


def _as_records(block: AdBlock) -> Any:
    from penstock.kernels.encode import encode_batch

    return read_batches(encode_batch(block.values, block.timestamps, keys=block.keys))


@pytest.mark.parametrize(
    "settings",
    [
        {"advertisers": 0},
        {"advertisers": 10_001},
        {"users": 0},
        {"hours": 0},
        {"late": -0.1},
        {"late": 0.9, "too_late": 0.2},
        {"malformed": 2},
        {"format": "xml"},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AdEvents(1, **settings)


def test_no_events_are_no_blocks() -> None:
    assert list(AdEvents(1).blocks(0)) == []
