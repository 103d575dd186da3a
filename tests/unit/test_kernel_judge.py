"""Judging records: accepted, late or rejected, however the rows are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import IMPLEMENTATIONS

from penstock.errors import InternalError
from penstock.kernels import reasons

BOTH = pytest.mark.parametrize("kernels", IMPLEMENTATIONS, ids=lambda kernels: kernels.name)
ROWS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from([0, 0, 0, 0, reasons.MALFORMED, reasons.NULL | 2 << 8])), max_size=30
)


def arrays(rows: list[tuple[int, int, int]]) -> tuple[Any, Any, Any, Any]:
    times, logged, reject = (np.array(column, np.int64) for column in (zip(*rows) if rows else ([], [], [])))
    return times, logged, reject.astype(np.int32), np.full(len(rows), 9, np.uint8)


@BOTH
def test_records_are_judged_by_the_watermark_before_them(kernels: Any) -> None:
    @settings(max_examples=200, deadline=None)
    @given(ROWS, st.integers(0, 10), st.integers(0, 10), st.data())
    def check(rows: list[tuple[int, int, int]], lateness: int, ahead: int, data: st.DataObject) -> None:
        seen: list[int] = []
        verdicts, rejects = [], []
        for time, logged, reject in rows:
            code = reject or (reasons.FUTURE if time - logged > ahead else 0)
            late = any(time + lateness < earlier for earlier in seen)
            verdicts.append("rejected" if code else "late" if late else "accepted")
            rejects.append(code)
            seen += [] if code else [time]
        times, logged, reject, verdict = arrays(rows)
        watermark, counts = kernels.NO_WATERMARK, [0, 0, 0]
        cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
        for start, stop in zip([0, *cuts], [*cuts, len(rows)]):
            watermark, *more = kernels.judge(times, logged, reject, start, stop, watermark, lateness, ahead, verdict)
            counts = [one + other for one, other in zip(counts, more)]
        assert [("accepted", "late", "rejected")[one] for one in verdict] == verdicts
        assert reject.tolist() == rejects
        assert counts == [verdicts.count(one) for one in ("accepted", "late", "rejected")]
        assert watermark == max(seen, default=kernels.NO_WATERMARK)

    check()


@BOTH
def test_rows_outside_the_range_are_not_touched(kernels: Any) -> None:
    times, logged, reject, verdict = arrays([(5, 0, 0)] * 4)
    assert kernels.judge(times, logged, reject, 1, 3, 7, 0, 10, verdict) == (7, 0, 2, 0)
    assert verdict.tolist() == [9, 1, 1, 9] and kernels.judge(times, logged, reject, 2, 2, 7, 0, 10, verdict) == (7, 0, 0, 0)


@BOTH
def test_no_width_of_lateness_or_ahead_overflows(kernels: Any) -> None:
    times, logged, reject, verdict = arrays([(0, 2**63 - 1, 0), (253_402_300_799_999_999, -(2**63), 0), (1, 0, 0)])
    assert kernels.judge(times, logged, reject, 0, 3, kernels.NO_WATERMARK, 2**70, 2**70, verdict)[1:] == (3, 0, 0)
    assert kernels.judge(times, logged, reject, 0, 3, kernels.NO_WATERMARK, 2**70, 10, verdict)[1:] == (2, 0, 1)
    assert reject.tolist() == [0, reasons.FUTURE, 0]


@BOTH
def test_rows_that_are_not_there_are_refused(kernels: Any) -> None:
    for start, stop in ((-1, 1), (2, 1), (0, 3)):
        with pytest.raises(InternalError, match="rows"):
            kernels.judge(*arrays([(1, 1, 0)] * 2)[:3], start, stop, 0, 0, 0, np.zeros(2, np.uint8))
    with pytest.raises(InternalError, match="negative"):
        kernels.judge(*arrays([(1, 1, 0)] * 2)[:3], 0, 2, 0, -1, 0, np.zeros(2, np.uint8))
