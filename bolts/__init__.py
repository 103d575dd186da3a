"""Bolts: what a topology does with its tuples."""

from penstock.bolts.archive import ArchiveBolt
from penstock.bolts.base import BatchBolt, BatchContext
from penstock.bolts.rollup import RollupBolt

__all__ = ["ArchiveBolt", "BatchBolt", "BatchContext", "RollupBolt"]
