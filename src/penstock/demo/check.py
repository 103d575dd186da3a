"""A comparison of Penstock's numbers with others."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison. ours, theirs: as text; numbers: how many were compared; differences: the first few that differ, in words."""

    what: str
    ours: str
    theirs: str
    numbers: int
    differences: tuple[str, ...] = ()
