"""The audit log: who asked for what, and whether it was given. A line of JSON each; never a key, never a token.

The file is opened anew when it was moved away, so that logrotate or any such tool may rotate it without a signal.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from pathlib import Path
from typing import Any, Callable

from penstock.errors import ConfigurationError
from penstock.model.units import iso

_TEXT = 200  # characters of a value that came from outside


class Audit:
    """Writes the log. Safe for use by several threads; several processes may share a file, for each line is one write.

    place: a path, "-" for standard error, "" for nowhere. now: the wall clock, microseconds since 1970.
    """

    def __init__(self, place: str, now: Callable[[], int]) -> None:
        self._now = now
        self._handler: logging.Handler | None = None
        if place == "-":
            self._handler = logging.StreamHandler(sys.stderr)
        elif place:
            try:
                Path(place).parent.mkdir(parents=True, exist_ok=True)
                self._handler = logging.handlers.WatchedFileHandler(place, encoding="utf-8")
            except OSError as problem:
                raise ConfigurationError(
                    f"the audit log {place} cannot be written: {problem.strerror}", hint='name another file: [NAME.serve] audit = "PATH"'
                ) from None

    def record(self, action: str, outcome: str, *, key: str | None = None, **what: Any) -> None:
        """A line. outcome: "ok", or the kind of the problem. what: roll-up, entity and the like; None is left out."""
        if self._handler is None:
            return
        said = {"time": iso(self._now()), "key": key, "action": action, **what, "outcome": outcome}
        line = json.dumps({name: _short(value) for name, value in said.items() if value is not None}, ensure_ascii=True)
        self._handler.handle(logging.LogRecord("penstock.audit", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Let go of the file."""
        if self._handler is not None:
            self._handler.close()


def _short(value: Any) -> Any:
    return value if isinstance(value, (int, float, dict)) else str(value)[:_TEXT]
