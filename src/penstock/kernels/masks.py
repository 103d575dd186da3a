"""Filters over a decoded batch: `penstock.model.filters.matches`, for all records at once."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.kernels.columns import Column, Columns

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_COMPARE_TEXT: dict[str, Callable[[Any, Any], Any]] = {
    "eq": pc.equal,
    "ne": pc.not_equal,
    "lt": pc.less,
    "le": pc.less_equal,
    "gt": pc.greater,
    "ge": pc.greater_equal,
}

_FEW = 16  # values of an enum for which as many comparisons are quicker than a look-up


def mask(checked: Mapping[str, Any], columns: Columns) -> npt.NDArray[np.uint8]:
    """Which records pass a filter that `check_filter` returned: uint8 0/1, one a record.

    A comparison with null is false, whichever it is; only eq and ne against null itself ask for nulls.
    """
    parts: list[npt.NDArray[np.bool_]] = []
    for name, condition in checked.items():
        if name == "any":
            parts.append(np.logical_or.reduce([mask(one, columns).view(np.bool_) for one in condition]))
        elif name == "not":
            parts.append(~mask(condition, columns).view(np.bool_))
        else:
            parts += [_holds(op, wanted, columns.columns[name], len(columns)) for op, wanted in condition.items()]
    return functools.reduce(operator.and_, parts).view(np.uint8) if parts else np.ones(len(columns), np.uint8)


def _holds(op: str, wanted: Any, column: Column, count: int) -> npt.NDArray[np.bool_]:
    valid = None if column.valid is None else column.valid.view(np.bool_)
    if wanted is None:
        present = np.ones(count, np.bool_) if valid is None else valid
        return ~present if op == "eq" else present
    kind = column.field.kind
    compare = _text if kind == "string" else _enum if kind == "enum" else _number
    passed = compare(op, wanted, column)
    return passed if valid is None else passed & valid


def _number(op: str, wanted: Any, column: Column) -> npt.NDArray[np.bool_]:
    """Of an int, timestamp, decimal or bool column; all are whole numbers."""
    if op != "in":
        return np.asarray(_COMPARE[op](column.data, column.data.dtype.type(wanted)))
    return np.isin(column.data, np.array(wanted, column.data.dtype))


def _enum(op: str, wanted: Any, column: Column) -> npt.NDArray[np.bool_]:
    """Of an enum column: the texts asked for become codes, which are compared (many records an instruction) or, if they are many, looked up."""
    values: tuple[str, ...] = column.field.values  # type: ignore[attr-defined]
    if op != "in":
        return np.asarray(_COMPARE[op](column.data, np.int16(values.index(wanted))))
    if 0 < len(wanted) <= _FEW:
        return np.asarray(functools.reduce(operator.or_, [column.data == np.int16(values.index(one)) for one in wanted]))
    passes = np.isin(np.arange(len(values)), [values.index(one) for one in wanted])
    return np.asarray(passes[column.data])


def _text(op: str, wanted: Any, column: Column) -> npt.NDArray[np.bool_]:
    """Of a string column. UTF-8 bytes have the order of the code points, which is that of Python's str."""
    assert column.offsets is not None
    array = pa.Array.from_buffers(pa.binary(), len(column.offsets) - 1, [None, pa.py_buffer(column.offsets), pa.py_buffer(column.data)])
    if op == "in":
        found = pc.is_in(array, value_set=pa.array([one.encode() for one in wanted], pa.binary()))
    else:
        found = _COMPARE_TEXT[op](array, pa.scalar(wanted.encode(), pa.binary()))
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)
