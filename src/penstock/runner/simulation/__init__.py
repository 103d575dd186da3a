"""The deterministic simulation: `run_schedule(seed)` for a random schedule, `run_with_fault` for one fault at one call."""

from __future__ import annotations

import collections

from penstock.runner.simulation.checks import Difference
from penstock.runner.simulation.world import World

# Of one call: a crash before or after it; its answer lost; an error without effect; half of its rows written; its effect delayed until after so many
# other calls: past the look whether it took place, past the second try.
FAULTS = ("before", "after", "lost", "refused", "partial", "delayed 1", "delayed 2")


def run_schedule(seed: str) -> World:
    """One random schedule. Raises Difference, naming the seed that repeats it."""
    return World(seed).run()


def run_with_fault(at: int, fault: str, *, count: int = 18) -> World:
    """A short run without chance, with one fault at outside call number `at`. Raises Difference."""
    return World("exhaustive/5", random_faults=False, at=at, fault=fault, count=count).run()


def run_schedules(seeds: list[str]) -> collections.Counter[str]:
    """Many schedules; the faults that took effect, counted."""
    faults: collections.Counter[str] = collections.Counter()
    for seed in seeds:
        faults += run_schedule(seed).faults
    return faults


__all__ = ["Difference", "FAULTS", "World", "run_schedule", "run_schedules", "run_with_fault"]
