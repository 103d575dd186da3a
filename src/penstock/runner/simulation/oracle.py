"""What the simulator's log holds, and what a batch computation over it gives: plain dictionaries, nothing of the stream's code."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from typing import Any

from penstock.kernels.reference_group import Hll, xxh64
from penstock.model import By, Count, Int, Min, Rollup, Schema, String, Sum, Timestamp, Uniques
from penstock.model.units import HOUR, MINUTE, SECOND
from penstock.rollup.control import NO_WATERMARK

LATENESS = 4 * MINUTE
START = 1_431_856_800 * SECOND  # 2015-05-17T10:00Z
PRECISION = 4

schema = Schema(
    "events",
    time="ts",
    lateness="4m",
    ahead="1h",
    fields={"ts": Timestamp("ms"), "key": String(), "kind": String(nullable=True), "user": Int(), "amount": Int()},
)
rollup = Rollup(
    "totals",
    of=schema,
    entity="key",
    measures={"events": Count(), "amount": Sum("amount"), "least": Min("amount"), "users": Uniques("user", precision=PRECISION)},
    by=[By(keep={"1m": "1d", "5m": "1d", "15m": "1d"}), By("kind", keep={"1m": "1d", "15m": "1d"})],
)


@dataclasses.dataclass(frozen=True)
class Item:
    """An offset of the log. what: "record", "malformed", "future" (both rejects), "skip" (holds no record)."""

    what: str
    time: int
    key: str
    kind: str | None
    user: int
    amount: int

    def value(self) -> bytes:
        """The record's bytes."""
        if self.what == "malformed":
            return b'{"ts": 12, "key'
        time = self.time + 2 * HOUR if self.what == "future" else self.time
        return json.dumps({"ts": time // 1000, "key": self.key, "kind": self.kind, "user": self.user, "amount": self.amount}).encode()


def items(rng: random.Random, count: int) -> tuple[Item, ...]:
    """A partition's worth of items, roughly in order of time, some late; control and aborted ranges anywhere, also at both ends."""
    time, made, pace = START, [], rng.choice(((0, 20, 60, 120), (0, 0, 20, 60)))  # slow ones come back to the same cells more often
    skips = {0} if rng.random() < 0.15 else set()  # where a range without records begins
    skips |= {count - 1} if rng.random() < 0.3 else set()
    left = 0
    for offset in range(count):
        time += rng.choice(pace) * SECOND
        what = rng.choices(("record", "malformed", "future"), (85, 5, 4))[0]
        back = rng.randint(0, 9) * MINUTE if rng.random() < 0.3 else 0
        if not left and (offset in skips or rng.random() < 0.05):
            left = rng.choice((1, 1, 1, 2, 5, 8))  # the marker of a transaction, or a whole aborted one, longer than a flush
        made.append(
            Item(
                "skip" if left else what,
                max(START, time - back),
                rng.choice("ab"),
                rng.choice(("x", "y", None)),
                rng.randint(1, 50),
                rng.randint(-9, 9),
            )
        )
        left = max(0, left - 1)
    return tuple(made)


@dataclasses.dataclass(frozen=True)
class Batch:
    """The result over the items before an offset. cells: (width, breakdown, window, key, dimensions) to events, amount, least, registers."""

    offset: int
    watermark: int
    accepted: int
    rejected: int
    late: int
    skipped: int
    verdicts: tuple[str, ...]
    cells: dict[tuple[Any, ...], tuple[int, int, int, bytes]]


@functools.lru_cache(maxsize=2000)
def batch(log: tuple[Item, ...], end: int, lost: frozenset[int] = frozenset()) -> Batch:
    """Progress and cells of log[:end] without the lost offsets."""
    watermark, verdicts = NO_WATERMARK, []
    groups: dict[tuple[Any, ...], list[Item]] = {}
    for offset, item in enumerate(log[:end]):
        if offset in lost:
            verdicts.append("lost")
        elif item.what != "record":
            verdicts.append("skipped" if item.what == "skip" else "rejected")
        else:
            verdicts.append("late" if item.time < watermark - LATENESS else "accepted")
            watermark = max(watermark, item.time)
            if verdicts[-1] == "accepted":
                for breakdown, by in enumerate(rollup.by):
                    for width in by.widths:
                        groups.setdefault(
                            (width, breakdown, item.time // width, item.key, (item.kind,) if by.dimensions else ()), []
                        ).append(item)
    cells = {
        cell: (len(group), sum(i.amount for i in group), min(i.amount for i in group), registers(frozenset(i.user for i in group)))
        for cell, group in groups.items()
    }
    return Batch(
        end,
        watermark,
        verdicts.count("accepted"),
        verdicts.count("rejected"),
        verdicts.count("late"),
        verdicts.count("skipped"),
        tuple(verdicts),
        cells,
    )


@functools.lru_cache(maxsize=20_000)
def registers(users: frozenset[int]) -> bytes:
    """HyperLogLog registers of some users."""
    sketch = Hll(PRECISION)
    for user in users:
        sketch.add(xxh64(user.to_bytes(8, "little", signed=True)))
    return sketch.registers()
