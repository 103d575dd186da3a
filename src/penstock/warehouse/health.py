"""How the exporters of a topology fare: which hours failed and when they are tried again, what they wait for, what they loaded last.

One cell of the control table, `exporter/<name>/health`, so that any machine can see it; changed by compare-and-set of the whole value by whichever
exporter has something to say. What is loaded is in the ledger; nothing that is exact depends on this.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Set
from typing import Any

from penstock.errors import PenstockError
from penstock.model.units import HOUR, SECOND, hour_text, instant
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE
from penstock.table import Table

log = logging.getLogger(__name__)

_MOST = 500  # failing hours that are kept: an archive whose every hour fails must not fill the cell
_TRIES = 10
_FIRST_PAUSE = 30 * SECOND


@dataclasses.dataclass(frozen=True)
class Failure:
    """An hour that could not be loaded. since, at: when it first and last failed; again: when `--follow` tries it next; microseconds."""

    error: str
    hint: str | None
    since: int
    at: int
    tries: int
    again: int


@dataclasses.dataclass(frozen=True)
class Health:
    """What is known. failed: by dataset and hour. trouble: what keeps the exporter as a whole from going on, and since when; None if nothing does.
    last: the dataset, hour, rows and moment of the last load. grace, reload_interval: what the exporter that leads goes by. at: when this was said."""

    failed: dict[tuple[str, int], Failure] = dataclasses.field(default_factory=dict)
    trouble: tuple[str, int] | None = None
    last: tuple[str, int, int, int] | None = None
    grace: int | None = None
    reload_interval: int | None = None
    at: int = 0

    def encode(self) -> bytes:
        """Canonical bytes."""
        kept = sorted(self.failed.items(), key=lambda item: item[1].since)[-_MOST:]
        failed: dict[str, dict[str, Any]] = {}
        for (dataset, hour), failure in kept:
            failed.setdefault(dataset, {})[hour_text(hour)] = dataclasses.asdict(failure)
        return json.dumps({**dataclasses.asdict(dataclasses.replace(self, failed={})), "failed": failed}, sort_keys=True).encode()

    @classmethod
    def decode(cls, data: bytes) -> Health:
        """The health in a cell; an empty one for bytes that are none."""
        try:
            value = json.loads(data)
            failed = {
                (dataset, instant(hour)): Failure(**failure)
                for dataset, hours in value.pop("failed").items()
                for hour, failure in hours.items()
            }
            trouble, last = value.pop("trouble"), value.pop("last")
            return cls(failed, None if trouble is None else tuple(trouble), None if last is None else tuple(last), **value)
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def failure(self, dataset: str, hour: int, problem: PenstockError, now: int) -> Health:
        """With one more failure of an hour: it is tried again after half a minute, twice as long each time, and an hour at most."""
        known = self.failed.get((dataset, hour))
        tries = 1 if known is None else known.tries + 1
        again = now + min(HOUR, _FIRST_PAUSE << min(tries - 1, 20))
        made = Failure(problem.message, problem.hint, now if known is None else known.since, now, tries, again)
        return dataclasses.replace(self, failed={**self.failed, (dataset, hour): made}, at=now)

    def loaded(self, dataset: str, hour: int, rows: int, now: int) -> Health:
        """With an hour that is loaded now."""
        failed = {key: failure for key, failure in self.failed.items() if key != (dataset, hour)}
        return dataclasses.replace(self, failed=failed, last=(dataset, hour, rows, now), at=now)

    def leading(self, grace: int, reload_interval: int, settled: Set[tuple[str, int]]) -> Health:
        """As an exporter sees it whose stores answer. settled: hours that need nothing any more, whoever loaded them."""
        failed = {key: failure for key, failure in self.failed.items() if key not in settled}
        return dataclasses.replace(self, failed=failed, trouble=None, grace=grace, reload_interval=reload_interval)

    def stuck(self, trouble: str, now: int) -> Health:
        """With what keeps the exporter from going on."""
        return dataclasses.replace(self, trouble=(trouble, now if self.trouble is None else self.trouble[1]), at=now)

    def paused(self, dataset: str, hour: int, now: int) -> bool:
        """Whether an hour failed, and is not to be tried again yet."""
        known = self.failed.get((dataset, hour))
        return known is not None and now < known.again


def health_of(table: Table, name: str) -> Health:
    """What is known of the exporters called `name`. Raises UnavailableError."""
    found = table.get(CONTROL_TABLE, [(_row(name), CONTROL_COLUMN)])[0] if CONTROL_TABLE in table.tables() else None
    return Health() if found is None else Health.decode(found)


def note(table: Table, name: str, change: Callable[[Health], Health]) -> Health | None:
    """Change what is known, whoever else does so at the same moment. What is known then.

    None, and no error, where the store does not answer: loading goes on without.
    """
    try:
        for _ in range(_TRIES):
            found = table.get(CONTROL_TABLE, [(_row(name), CONTROL_COLUMN)])[0]
            known = Health() if found is None else Health.decode(found)
            wanted = change(known)
            data = wanted.encode()
            if wanted == known or data == found or table.compare_and_set(CONTROL_TABLE, _row(name), CONTROL_COLUMN, found, data):
                return wanted
        log.warning("the exporter's health could not be noted: others change it all the time")
    except PenstockError as problem:
        if not problem.retriable:
            raise
        log.warning("the exporter's health could not be noted: %s", problem.message)
    return None


def _row(name: str) -> bytes:
    return f"exporter/{name}/health".encode()
