"""Outside calls as data.

A job (a claim, a flush, a fold) is a generator that yields each call it makes to a store and is sent the answer. Whoever steps the job makes
the call: a thread in production, so that a put of a minute blocks no heartbeat; the simulator in tests, so that any call can fail, get
lost or take effect later. Between two yields a job runs under its bolt's lock, as one atomic step.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Generator

from penstock.errors import PenstockError

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds


@dataclasses.dataclass(frozen=True)
class Call:
    """A call to a store. name: for messages and for the simulator's list of faults, such as "table.put by_advertiser_1m"."""

    name: str
    make: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Pause:
    """Wait before going on."""

    seconds: float


Job = Generator[Call | Pause, Any, Any]


def until_answered(call: Call) -> Job:
    """Make an idempotent call until it is answered, with back-off. Errors that another try cannot help are raised."""
    pause = FIRST_PAUSE
    while True:
        try:
            return (yield call)
        except PenstockError as problem:
            if not problem.retriable:
                raise
        yield Pause(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
