"""An answer as an Arrow table, a pandas or a polars frame, every value exact. pandas and polars are imported when they are asked for.

Counts are int64, money decimal128 with the field's places, instants microseconds in the answer's time zone; nothing becomes a float that was none.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from penstock.errors import ConfigurationError
from penstock.model.units import instant
from penstock.query.answer import Answer, Column

_DIGITS = 38  # of a decimal128


def to_arrow(answer: Answer) -> pa.Table:
    """A column for each of the answer's. What the answer says of itself is in the schema's metadata, as JSON under "penstock"."""
    about = {name: value for name, value in answer.to_json().items() if name not in ("rows", "totals", "other", "columns", "ranking")}
    schema = pa.schema(
        [pa.field(one.name, _type(one, answer.timezone)) for one in answer.columns], metadata={"penstock": json.dumps(about, default=str)}
    )
    return pa.Table.from_arrays([_array(one, answer) for one in answer.columns], schema=schema)


def to_pandas(answer: Answer) -> Any:
    """A pandas.DataFrame of Arrow-backed columns (pandas' own integers cannot hold a null, its floats no money). Raises ConfigurationError without pandas."""
    pandas = _module("pandas")
    return to_arrow(answer).to_pandas(types_mapper=pandas.ArrowDtype)


def to_polars(answer: Answer) -> Any:
    """A polars.DataFrame. Raises ConfigurationError without polars."""
    return _module("polars").from_arrow(to_arrow(answer))


def _module(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise ConfigurationError(f"{name} cannot be imported: {problem}", hint="pip install 'penstock[frames]'") from None


def _type(column: Column, timezone: str) -> Any:
    if column.type == "timestamp":
        return pa.timestamp("us", timezone)
    if column.type == "decimal":
        return pa.decimal128(_DIGITS, column.scale or 0)
    return {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}.get(column.type, pa.string())


def _array(column: Column, answer: Answer) -> Any:
    values = answer.column(column.name)
    kind = _type(column, answer.timezone)
    if column.type == "timestamp":
        return pa.array([None if value is None else instant(value) for value in values], pa.int64()).cast(kind)
    return pa.array(values, kind)
