"""Seeded schedules of faults against the real components, and deliberate bugs that the schedules must find.

PENSTOCK_SCHEDULES=N runs more of them. A failure names its seed; `python -m penstock.runner.simulation --only SEED` repeats it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any, Callable

import mutants
import pytest
from penstock.log.memory import MemoryLog

from penstock.kernels.encode import encode_list
from penstock.runner.simulation import FAULTS, Difference, run_schedule, run_schedules, run_with_fault
from penstock.runner.simulation.world import World

SCHEDULES = int(os.environ.get("PENSTOCK_SCHEDULES", "160"))
SHARE = 2  # the schedules are split, so that they run on all cores
MOST = 400  # seeds to look for a deliberate bug
KINDS = (
    # Calls to stores, as HBase behaves.
    "answer lost",
    "call in limbo",
    "call took effect late",
    "late put hidden by a newer one",
    "call refused",
    "store out of reach",
    "put in part",
    "slow call",
    "compare-and-set sent again by the store's client",
    "crash after a call",
    "crash before a call",
    # Workers, tuples and clocks, as Storm behaves.
    "two owners alive",
    "stopped worker comes back after a takeover",
    "worker stopped for a while",
    "spout and bolt gone with their worker",
    "worker of bolts gone",
    "worker of spouts gone",
    "bolt restarted alone",
    "spout restarted alone",
    "cluster crashed",
    "redeployed with another parallelism",
    "tuple lost",
    "tuple overtaken",
    "tuple duplicated",
    "tuple sent to a replaced bolt",
    "tuples go to the replaced workers for a while",
    "tuple sent to a dead worker",
    "tuple timed out",
    "reply lost",
    "ticks missing",
    "clock set",
    # The log, as Kafka behaves.
    "retention took records",
    "partition added",
    "topic deleted",
    "topic created anew",
    "log truncated",
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The outages are meant: thousands of warnings say nothing."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("share", range(SHARE))
def test_schedules_of_faults_change_nothing(share: int) -> None:
    faults = run_schedules([f"suite/{number}" for number in range(share, SCHEDULES, SHARE)])
    assert not [kind for kind in KINDS if not faults[kind]], f"faults that never took effect: {dict(faults)}"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_outside_call_may_fail(fault: str) -> None:
    names = run_with_fault(-1, "").outside.names
    assert len(names) > 40
    seen = set()
    for at, name in enumerate(names):
        if tells_nothing_new(fault, name):
            continue
        world = run_with_fault(at, fault)
        took_effect = {name for name in world.faults if name.startswith(f"{fault.partition(' ')[0]}: ")}
        assert len(took_effect) == 1, f"call {at} of {len(names)} was not reached"
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
        assert f"{fault.partition(' ')[0]}: {call}" in seen or tells_nothing_new(fault, call)


def tells_nothing_new(fault: str, call: str) -> bool:
    """A read has no effect that could be late, partial or kept from its caller; only puts consist of parts."""
    writes = call.startswith(("table.put", "table.compare_and_set", "archive."))
    return not call.startswith("table.put") if fault == "partial" else not writes and fault not in ("before", "refused")


@pytest.mark.parametrize("mutant", mutants.ALL, ids=lambda mutant: mutant.__name__)
def test_each_deliberate_bug_is_found(mutant: Callable[[], Any]) -> None:
    first = mutants.FOUND_BY.get(mutant.__name__, 0)
    for number in (*range(first, MOST), *range(first)):
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


def test_the_end_of_a_log_in_memory_moves_back_by_whole_batches() -> None:
    log = MemoryLog()
    log.create("t", 1)
    log.append("t", 0, [encode_list([b"x"] * 3, [0] * 3, codec="none") for _ in range(3)])
    assert log.truncate_after("t", 0, 9) == 9
    assert log.truncate_after("t", 0, 7) == 6 == log.end("t", 0)
    chunk = log.read("t", 0, 2, 1 << 20, 100)
    assert chunk is not None and chunk.next == 6
    assert log.read("t", 0, 6, 1 << 20, 100) is None
    assert log.truncate_after("t", 0, 0) == 0
