"""A seeded generator of realistic ad events.

What makes them realistic: few advertisers have most of the traffic (Zipf-Mandelbrot) and some users see far more ads than others; the day has its
hours; a user keeps to a country; impressions lead to clicks, saves and conversions at the rates of display advertising, which differ by advertiser; a
few users are bots that do little but click; events arrive after they happened, mostly by a second or so, some by hours, a few by days.

The same seed, count and settings give the same bytes on any machine: every choice is whole-number arithmetic, or single IEEE operations, on the raw
words of a PCG64 stream, one stream a block, so that a block does not depend on those before it; tables of logarithms are rounded to whole numbers.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import msgpack
import numpy as np
import numpy.typing as npt

from penstock.errors import ConfigurationError
from penstock.kernels import backend
from penstock.kernels.encode import Slices
from penstock.log import Log
from penstock.log.produce import ProduceReport
from penstock.log.producer import Producer
from penstock.model import Schema
from penstock.model.units import instant

BLOCK = 1 << 16  # events made at a time

TYPES = ("impression", "click", "save", "conversion")
COUNTRIES = {
    "US": 62,
    "IN": 30,
    "BR": 22,
    "DE": 18,
    "GB": 17,
    "FR": 14,
    "JP": 13,
    "MX": 10,
    "CA": 9,
    "IT": 8,
    "ES": 7,
    "ID": 7,
    "TR": 5,
    "NL": 5,
    "PL": 4,
    "AU": 4,
    "KR": 4,
    "AR": 4,
    "SE": 3,
    "CH": 3,
    "AT": 2,
    "BE": 2,
    "PT": 2,
    "NO": 1,
}
DEVICES = {"mobile": 158, "desktop": 72, "tablet": 18, "tv": 8}
HOURS = (
    34,
    24,
    18,
    15,
    14,
    17,
    26,
    40,
    54,
    62,
    66,
    70,
    74,
    72,
    70,
    70,
    73,
    79,
    88,
    98,
    100,
    92,
    74,
    52,
)  # the rate of each hour of the day, UTC

_FUNNELS = ((3880, 165, 39, 12), (3800, 230, 48, 18), (3680, 330, 60, 26), (3930, 130, 28, 8))  # of 4096, by class of advertiser
_BOT_FUNNEL = (1200, 2880, 12, 4)
_BOTS = 8
_FIRST_ADVERTISER, _FIRST_BOT = 1001, 1 << 31
_OFFSET = 5  # Zipf-Mandelbrot: the traffic of rank r (from 1) is in proportion to 1 / (r + 5)
_HOUR_MS = 3_600_000
_MALFORMED = ("cut", "not_an_object", "wrong_type", "unknown_type", "no_advertiser", "future")


class AdBlock(NamedTuple):
    """Some events, in the order of their arrival. values, keys: one a record; timestamps: when each arrived, int64 microseconds since 1970."""

    values: Slices
    keys: Slices
    timestamps: npt.NDArray[np.int64]


@dataclasses.dataclass
class Columns:
    """A block of events before it becomes text: ts in ms, cost in millionths (-1: null), codes for type, country and device; arrival in ms.

    An event's id is 24 hex digits: the 64 bits of id_high, the lower 32 of id_low.
    """

    arrival: npt.NDArray[np.int64]
    ts: npt.NDArray[np.int64]
    id_high: npt.NDArray[np.uint64]
    id_low: npt.NDArray[np.uint64]
    advertiser: npt.NDArray[np.int64]
    user: npt.NDArray[np.int64]
    type: npt.NDArray[np.uint8]
    campaign: npt.NDArray[np.int64]
    country: npt.NDArray[np.uint8]
    device: npt.NDArray[np.uint8]
    cost: npt.NDArray[np.int64]
    malformed: npt.NDArray[np.int64]  # the rows that are
    how: npt.NDArray[np.int64]  # and in which way each

    def record(self, row: int) -> dict[str, Any]:
        """One event as a dict, as a decoder of its text would give it."""
        cost = int(self.cost[row])
        event_id = f"{int(self.id_high[row]):016x}{int(self.id_low[row]) & 0xFFFFFFFF:08x}"
        return {
            "ts": int(self.ts[row]),
            "event_id": event_id,
            "advertiser_id": int(self.advertiser[row]),
            "user_id": int(self.user[row]),
            "type": TYPES[self.type[row]],
            "campaign_id": int(self.campaign[row]),
            "country": _COUNTRY_NAMES[self.country[row]],
            "device": _DEVICE_NAMES[self.device[row]],
            "cost": None if cost < 0 else cost / 1e6,
        }


_COUNTRY_NAMES, _DEVICE_NAMES = tuple(COUNTRIES), tuple(DEVICES)


def _spread(weights: Sequence[float], slots: int) -> npt.NDArray[Any]:
    """A table of `slots` entries in which each index stands in proportion to its weight."""
    total, at = math.fsum(weights), 0.0
    table = np.empty(slots, np.int64)
    begin = 0
    for index, weight in enumerate(weights):
        at += weight
        end = slots if index == len(weights) - 1 else round(at / total * slots)
        table[begin:end] = index
        begin = end
    return table.astype(np.uint8) if len(weights) <= 256 else table


class AdEvents:
    """A stream of ad events for the schema of `penstock.topologies.advertiser_analytics`, as JSON (about 188 bytes each) or msgpack (about 147).

    advertisers, users: how many there are. start, hours: the span in which the events arrive. late: the share that arrives a minute to 20 hours after
    it happened; too_late: that by 25 hours to 3 days, beyond a lateness of a day; nothing else happened before `start`. bots: the share of events that
    come from the users in `bot_users`. malformed: the share of records that fit no schema. Shares are of 1. format: "json" or "msgpack".
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        advertisers: int = 100,
        users: int = 200_000,
        start: str | int = "2026-03-02",
        hours: int = 24,
        late: float = 0.03,
        too_late: float = 0.0002,
        bots: float = 0.01,
        malformed: float = 0.0,
        format: str = "json",
    ) -> None:
        if not 1 <= advertisers <= 10_000 or not 1 <= users < 1 << 31 or hours < 1:
            raise ConfigurationError(
                f"cannot generate for {advertisers} advertisers and {users} users over {hours} hours",
                hint="advertisers go from 1 to 10,000, users from 1 to 2^31 - 1, hours from 1",
            )
        if min(late, too_late, bots, malformed) < 0 or late + too_late > 1 or max(bots, malformed) > 1:
            raise ConfigurationError(
                "the shares of late, bot and malformed events must lie between 0 and 1", hint="0.03 is three in a hundred"
            )
        if format not in ("json", "msgpack"):
            raise ConfigurationError(
                f"ad events cannot be generated as {format!r}", hint='use a schema whose format is "json" or "msgpack"'
            )
        self.seed, self.users, self.format = seed, users, format
        self.bot_users = tuple(range(_FIRST_BOT, _FIRST_BOT + _BOTS))
        self._start_ms = instant(start) // 1000
        self._late, self._too_late, self._bots = round(late * 65536), math.ceil(too_late * 65536), round(bots * 65536)
        self._malformed = malformed
        weights = np.array([HOURS[hour % 24] for hour in range(hours)], np.float64)
        self._hour_weight, self._hour_begin = weights, np.concatenate(([0.0], np.cumsum(weights)))
        self._advertiser = _spread([1 / (rank + 1 + _OFFSET) for rank in range(advertisers)], 65536).astype(np.int64)
        scattered = (np.arange(advertisers, dtype=np.uint64) * np.uint64(2654435761)) >> np.uint64(7)
        self._campaigns = 1 + (scattered % np.uint64(8)).astype(np.int64)
        self._class = (scattered >> np.uint64(9) & np.uint64(3)).astype(np.int64)
        cpm, cpc = 400 + (scattered % np.uint64(7600)).astype(np.int64), 50_000 + (scattered % np.uint64(1_950_000)).astype(np.int64)
        self._price = np.stack([cpm, cpc, np.full_like(cpm, -1), np.full_like(cpm, -1)], axis=1).ravel()
        self._funnel = np.concatenate([_spread(funnel, 4096) for funnel in (*_FUNNELS, _BOT_FUNNEL)])
        self._country, self._device = _spread(tuple(COUNTRIES.values()), 256), _spread(tuple(DEVICES.values()), 256)
        self._soon = np.array([round(-1500 * math.log((slot + 0.5) / 4096)) for slot in range(4096)], np.int64)
        self._hours_later = np.array([round(60_000 * 1200 ** ((slot + 0.5) / 4096)) for slot in range(4096)], np.int64)

    def blocks(self, count: int) -> Iterator[AdBlock]:
        """`count` events, in blocks of 65,536. Memory does not grow with the count."""
        for columns in self.columns(count):
            yield AdBlock(*self.texts(columns), columns.arrival * 1000)

    def dicts(self, count: int) -> Iterator[dict[str, Any] | None]:
        """The same events as dicts, one a record, in the same order; None for a malformed one. Slow: for oracles."""
        for columns in self.columns(count):
            broken = set(columns.malformed.tolist())
            for row in range(len(columns.ts)):
                yield None if row in broken else columns.record(row)

    def columns(self, count: int) -> Iterator[Columns]:
        """The same events as columns."""
        for index, first in enumerate(range(0, count, BLOCK)):
            yield self._columns(index, first, min(BLOCK, count - first), count)

    def _columns(self, index: int, first: int, size: int, count: int) -> Columns:
        words = np.random.PCG64(np.random.SeedSequence([self.seed, index])).random_raw(5 * size).reshape(5, size)
        choice, who, when = words[2], words[3], words[4]
        arrival = self._arrival(first + np.arange(size, dtype=np.float64) + _bits(when, 32, 16) / 65536.0, count)
        rank = self._advertiser[_bits(choice, 0, 16)]
        drawn = who & np.uint64(0xFFFFFFFF)
        skewed = (np.uint64(15) * (drawn * drawn >> np.uint64(32)) + drawn) >> np.uint64(4)  # the most active users see 16 times the mean
        user_rank = skewed * np.uint64(self.users) >> np.uint64(32)
        user = (user_rank * np.uint64(0x9E3779B1) + np.uint64(97) & np.uint64(0x7FFFFFFF)).view(np.int64)
        country = self._country[_bits(user_rank * np.uint64(0x85EBCA6B), 16, 8)]
        bot = _bits(who, 32, 16) < self._bots
        user[bot] = _FIRST_BOT + _bits(who[bot], 0, 3)
        kind = self._funnel[np.where(bot, 4, self._class[rank]) << 12 | _bits(choice, 16, 12)]
        price = self._price[rank << 2 | kind]
        cost = price * (512 + _bits(choice, 44, 10)) >> 10
        cost[_bits(choice, 56, 8) == 0] = -1
        cost[price < 0] = -1
        campaign = (_FIRST_ADVERTISER + rank) * 10 + _bits(choice, 28, 8) % self._campaigns[rank]
        malformed, how = self._choose_malformed(index, size)
        return Columns(
            arrival,
            self._happened(arrival, who, when),
            words[0],
            words[1],
            _FIRST_ADVERTISER + rank,
            user,
            kind,
            campaign,
            country,
            self._device[_bits(choice, 36, 8)],
            cost,
            malformed,
            how,
        )

    def _arrival(self, place: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
        """When the event at a place in the order arrives: the inverse of the sum of the hours' rates."""
        reached = place * (self._hour_begin[-1] / count)
        hour = np.minimum(np.searchsorted(self._hour_begin, reached, "right") - 1, len(self._hour_weight) - 1)
        within = (reached - self._hour_begin[hour]) / self._hour_weight[hour]
        arrival: npt.NDArray[np.int64] = self._start_ms + hour * _HOUR_MS + np.minimum((within * _HOUR_MS).astype(np.int64), _HOUR_MS - 1)
        return arrival

    def _happened(self, arrival: npt.NDArray[np.int64], who: npt.NDArray[np.uint64], when: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        kind, slot = _bits(who, 48, 16), _bits(when, 0, 12)
        ts: npt.NDArray[np.int64] = arrival - self._soon[slot]
        late = np.flatnonzero(kind < self._late + self._too_late)
        ts[late] = arrival[late] - self._hours_later[slot[late]]
        ts = np.maximum(ts, self._start_ms)
        very = late[kind[late] >= self._late]
        ts[very] = arrival[very] - 25 * _HOUR_MS - _bits(when[very], 0, 32) * (47 * _HOUR_MS) // (1 << 32)
        return ts

    def _choose_malformed(self, index: int, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        if not self._malformed:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        words = np.random.PCG64(np.random.SeedSequence([self.seed, index, 1])).random_raw(size)
        rows = np.flatnonzero(_bits(words, 0, 32) < round(self._malformed * (1 << 32)))
        return rows, _bits(words[rows], 32, 16) % len(_MALFORMED)

    def texts(self, columns: Columns) -> tuple[Slices, Slices]:
        """The values and the keys of a block of columns."""
        if backend == "compiled":
            from penstock.kernels._adtext import write_ads

            values, keys = write_ads(columns, TYPES, _COUNTRY_NAMES, _DEVICE_NAMES, self.format == "json")
        else:
            values = Slices.of([self._write(columns.record(row)) for row in range(len(columns.ts))])
            keys = Slices.of([str(advertiser).encode() for advertiser in columns.advertiser.tolist()])
        if len(columns.malformed):
            broken = Slices.of(
                [self._break(columns.record(row), _MALFORMED[how]) for row, how in zip(columns.malformed.tolist(), columns.how.tolist())]
            )
            start, length = values.start.copy(), values.length.copy()
            start[columns.malformed], length[columns.malformed] = broken.start + len(values.buffer), broken.length
            values = Slices(bytes(values.buffer) + bytes(broken.buffer), start, length)
        return values, keys

    def _write(self, record: Any) -> bytes:
        return json.dumps(record, separators=(",", ":")).encode() if self.format == "json" else bytes(msgpack.packb(record))

    def _break(self, record: dict[str, Any], how: str) -> bytes:
        if how == "cut":
            whole = self._write(record)
            return whole[: len(whole) * 2 // 3]
        if how == "not_an_object":
            return self._write([record["event_id"]])
        if how == "no_advertiser":
            return self._write({name: value for name, value in record.items() if name != "advertiser_id"})
        change = {
            "wrong_type": {"user_id": "anonymous"},
            "unknown_type": {"type": "hover"},
            "future": {"ts": record["ts"] + 30 * 24 * _HOUR_MS},
        }
        return self._write({**record, **change[how]})


def _bits(words: npt.NDArray[np.uint64], shift: int, width: int) -> npt.NDArray[np.int64]:
    """Bits of each word, from `shift` on, as a whole number."""
    return (words >> np.uint64(shift) & np.uint64((1 << width) - 1)).view(np.int64)


def generate_into(
    log: Log,
    schema: Schema,
    count: int,
    seed: int = 1,
    *,
    topic: str | None = None,
    codec: str = "lz4",
    on_progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> ProduceReport:
    """Produce `count` ad events to the schema's topic, which must be there, keyed by advertiser; their log timestamps say when they arrived.

    on_progress(records so far, count): after every block. settings: those of AdEvents.
    """
    events, unparsed = AdEvents(seed, format=schema.format, **settings), 0
    with Producer(log, topic or schema.name, codec=codec) as producer:
        for columns in events.columns(count):
            producer.send_many(*events.texts(columns), columns.arrival * 1000)
            unparsed += len(columns.malformed)
            if on_progress is not None:
                on_progress(producer.sent, count)
    ends = {partition: log.end(producer.topic, partition) for partition in range(producer.partitions)}
    return ProduceReport(producer.sent, unparsed, producer.sent_bytes, ends)
