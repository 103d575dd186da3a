"""What all tables of a statement share while it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from penstock.errors import QueryError

MAX_READ = 2_000_000


class CancelledError(QueryError):
    """A statement that was cancelled."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """constants: whole numbers and texts that the statement compares with. most: cells of a roll-up, or rows of a warehouse that is a server, that one
    scan may read. noticed: is told, in sentences, what a reader should know of the rows. stopped: whether nobody waits for them any more."""

    constants: tuple[int | str, ...] = ()
    most: int = MAX_READ
    noticed: Callable[[str], None] = lambda text: None
    stopped: Callable[[], bool] = lambda: False

    def candidates(self, kind: str) -> list[Any]:
        """The constants that a key column of a field's kind could be compared with; none for kinds that SQL writes in several ways."""
        if kind == "int":
            return [one for one in self.constants if isinstance(one, int) and -(2**63) <= one < 2**63]
        return [one for one in self.constants if isinstance(one, str)] if kind in ("string", "enum") else []
