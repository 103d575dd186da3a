"""Penstock: real-time analytics on event streams. Declare a roll-up once; every event is counted exactly once."""
from penstock.errors import PenstockError, UsageError
from penstock.model import Bool, By, Count, Decimal, Enum, Int, Max, Min, Ratio, Rollup, Schema, String, Sum, Timestamp, Uniques, derived
from penstock.bolts import ArchiveBolt, BatchBolt, BatchContext, RollupBolt  # isort: skip
from penstock.spouts import KafkaSpout
from penstock.topology import Topology

__version__ = "0.1.0"
__all__ = [
    "ArchiveBolt", "BatchBolt", "BatchContext", "Bool", "By", "Count", "Decimal", "Enum", "Int", "KafkaSpout", "Max", "Min", "PenstockError", "Ratio", "Rollup",
    "RollupBolt", "Schema", "String", "Sum", "Timestamp", "Topology", "Uniques", "UsageError", "derived"]
