"""What the tests of the aggregation kernels share: batches made of plain records, and the implementations under test."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from penstock.kernels import reference_group
from penstock.kernels.columns import Column, Columns
from penstock.model import Bool, By, Count, Decimal, Enum, Field, Int, Max, Min, Rollup, Schema, String, Sum, Timestamp, Uniques
from penstock.model.units import MINUTE


def implementations() -> list[SimpleNamespace]:
    """The reference, and the compiled kernels unless they were not built (a test of `penstock.kernels.backend` fails the build then)."""
    found = [
        SimpleNamespace(name="reference", **{name: value for name, value in vars(reference_group).items() if not name.startswith("_")})
    ]
    try:
        units = [importlib.import_module(f"penstock.kernels.{unit}") for unit in ("_cell", "_group", "_hash", "_hll", "_judge")]
    except ImportError:
        return found
    merged: dict[str, Any] = {}
    for unit in units:
        merged.update({name: value for name, value in vars(unit).items() if not name.startswith("_")})
    return [*found, SimpleNamespace(**{**merged, "name": "compiled"})]


IMPLEMENTATIONS = implementations()
REFERENCE, FASTEST = IMPLEMENTATIONS[0], IMPLEMENTATIONS[-1]


def column_of(field: Field, values: Sequence[Any]) -> Column:
    """A column of canonical values, None for null."""
    valid = np.array([value is not None for value in values], np.uint8) if None in values else None
    if field.kind == "string":
        texts = [(value or "").encode() for value in values]
        offsets = np.cumsum([0] + [len(text) for text in texts]).astype(np.int32)
        return Column(field, np.frombuffer(b"".join(texts), np.uint8), offsets, valid)
    if field.kind == "enum":
        codes = {None: 0, **{value: code for code, value in enumerate(field.values)}}  # type: ignore[attr-defined]
        return Column(field, np.array([codes[value] for value in values], np.int16), None, valid)
    return Column(field, np.array([value or 0 for value in values], np.uint8 if field.kind == "bool" else np.int64), None, valid)


def columns_of(fields: Mapping[str, Field], records: Sequence[Mapping[str, Any]]) -> Columns:
    """A batch of records, each a dict of canonical values."""
    return Columns(
        {name: column_of(field, [record[name] for record in records]) for name, field in fields.items()}, np.zeros(len(records), np.int32)
    )


SCHEMA = Schema(
    "events",
    time="ts",
    fields={
        "ts": Timestamp("us"),
        "account": Int(),
        "page": String(),
        "flag": Bool(nullable=True),
        "type": Enum("view", "click", "buy"),
        "device": Enum("phone", "desk\0top\1", nullable=True),
        "user": Int(nullable=True),
        "agent": String(nullable=True),
        "cost": Decimal(2, nullable=True),
        "seen": Timestamp("us", nullable=True),
    },
)

_MEASURES = {
    "events": Count(),
    "buys": Count(where={"type": "buy"}),
    "spend": Sum("cost", where={"type": ["buy", "click"]}),
    "ids": Sum("user"),
    "least": Min("cost", where={"agent": {"ne": "bot"}}),
    "last": Max("seen"),
    "first": Min("seen", where={"not": {"type": "view"}}),
    "users": Uniques("user", precision=4),
    "agents": Uniques("agent", precision=6, where={"type": "view"}),
    "devices": Uniques("device", precision=5),
}

ROLLUPS = [
    Rollup(
        "everything",
        of=SCHEMA,
        entity="account",
        measures=_MEASURES,
        by=[
            By(keep={"1m": "3d", "1h": "90d"}),
            By("page", "device", keep={"1h": "90d"}),
            By("flag", "user", "agent", "seen", "cost", "type", keep={"1d": "1y"}),
        ],
    ),
    Rollup(
        "some",
        of=SCHEMA,
        entity="page",
        where={"any": [{"type": "click"}, {"cost": {"ge": 0}}]},
        measures={"clicks": Count(where={"type": "click"}), "views": Sum("cost", where={"type": "view", "flag": True})},
        by=[By("account", keep={"5m": "3d"}), By("type", keep={"6h": "3d"})],
    ),
    Rollup(
        "types",
        of=SCHEMA,
        entity="type",
        measures={"users": Uniques("user"), "pages": Uniques("page", precision=16)},
        by=[By(keep={"1h": "90d"})],
    ),
]

INTS = [0, 1, -1, 255, 256, -255, -256, -257, 2**31, 2**63 - 1, -(2**63), 2**56, -(2**56)]
TEXTS = ["", "a", "ab", "b", "bot", "\0", "\1", "\0\1", "\1\0a", "é", "漢字" * 20, "\U0001f600", "x" * 31, "x" * 32, "x" * 100]
TIMES = [0, MINUTE - 1, MINUTE, 3600 * 10**6 - 1, 3600 * 10**6, 1_700_000_000_000_000, 1_700_000_000_000_001, Timestamp.LIMIT - 1]
