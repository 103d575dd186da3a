"""Penstock: real-time analytics on event streams. Declare a roll-up once; every event is counted exactly once.

The names below are imported when they are first used: `penstock --help` and the model alone need neither streamparse nor Arrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError, UsageError

if TYPE_CHECKING:
    from penstock.bolts import ArchiveBolt, BatchBolt, BatchContext, RollupBolt
    from penstock.model import (
        Bool,
        By,
        Count,
        Decimal,
        Enum,
        Int,
        Max,
        Min,
        Ratio,
        Rollup,
        Schema,
        String,
        Sum,
        Timestamp,
        Uniques,
        derived,
    )
    from penstock.spouts import KafkaSpout
    from penstock.topology import Topology

__version__ = "0.1.0"
__all__ = [
    "ArchiveBolt",
    "BatchBolt",
    "BatchContext",
    "Bool",
    "By",
    "Count",
    "Decimal",
    "Enum",
    "Int",
    "KafkaSpout",
    "Max",
    "Min",
    "PenstockError",
    "Ratio",
    "Rollup",
    "RollupBolt",
    "Schema",
    "String",
    "Sum",
    "Timestamp",
    "Topology",
    "Uniques",
    "UsageError",
    "derived",
]

_PLACES = {
    "ArchiveBolt": "bolts",
    "BatchBolt": "bolts",
    "BatchContext": "bolts",
    "RollupBolt": "bolts",
    "KafkaSpout": "spouts",
    "Topology": "topology",
}


def __getattr__(name: str) -> Any:
    """A name of `__all__`, imported now (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"penstock.{_PLACES.get(name, 'model')}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
