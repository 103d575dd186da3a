"""Seeded schedules of faults against the real components, and deliberate bugs that the schedules must find.

PENSTOCK_SCHEDULES=N runs more of them. A failure names its seed; `python -m penstock.runner.simulation --only SEED` repeats it.
"""

from __future__ import annotations

import os
from typing import Any, Callable

import mutants
import pytest

from penstock.runner.simulation import FAULTS, Difference, run_schedule, run_schedules, run_with_fault
from penstock.runner.simulation.world import World

SCHEDULES = int(os.environ.get("PENSTOCK_SCHEDULES", "500"))
SHARE = 20  # the schedules are split, so that they run on all cores
MOST = 200  # seeds to look for a deliberate bug


@pytest.mark.parametrize("share", range(SHARE))
def test_schedules_of_faults_change_nothing(share: int) -> None:
    faults = run_schedules([f"suite/{number}" for number in range(share, SCHEDULES, SHARE)])
    kinds = (
        "answer lost",
        "call in limbo",
        "call took effect late",
        "call refused",
        "crash after a call",
        "crash before a call",
        "two owners alive",
        "bolt gone",
        "spout restarted alone",
        "worker crashed",
        "tuple lost",
        "tuple overtaken",
        "tuple duplicated",
        "tuple sent to a replaced bolt",
        "tuple timed out",
        "reply lost",
    )
    assert not [kind for kind in kinds if not faults[kind]], f"faults that never took effect: {dict(faults)}"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_outside_call_may_fail(fault: str) -> None:
    calls = run_with_fault(-1, "").calls
    assert calls > 40
    seen = set()
    for at in range(calls):
        world = run_with_fault(at, fault)
        took_effect = {name for name in world.faults if name.startswith(f"{fault}: ")}
        assert len(took_effect) == 1, f"call {at} of {calls} was not reached"
        seen |= took_effect
    for call in (
        "table.compare_and_set control",
        "table.put totals_1m",
        "table.put totals_5m",
        "table.put totals_index",
        "table.scan totals_index",
        "archive.write",
        "archive.add",
        "spout log.read",
    ):
        assert f"{fault}: {call}" in seen


@pytest.mark.parametrize("mutant", [*mutants.REQUIRED, *mutants.FURTHER], ids=lambda mutant: mutant.__name__)
def test_each_deliberate_bug_is_found(mutant: Callable[[], Any]) -> None:
    for number in range(MOST):
        seed = f"mutants/{number}"
        try:
            with mutants.applied(mutant):
                run_schedule(seed)
        except Difference:
            run_schedule(seed)  # the same seed passes without the bug
            return
    pytest.fail(f"{mutant.__name__}: {mutant.__doc__} was not found by {MOST} seeds")


def test_a_seed_repeats_its_schedule_exactly() -> None:
    first, second = World("repeat/1").run(), World("repeat/1").run()
    assert first.faults == second.faults and first.calls == second.calls and first.steps == second.steps
    assert dict(first.table.scan("control")) == dict(second.table.scan("control"))
    assert World("repeat/2").run().calls != first.calls
