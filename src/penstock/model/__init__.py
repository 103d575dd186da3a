"""What a user declares: schemas, measures, roll-ups. Pure data; imports nothing of the rest of Penstock but its errors."""

from penstock.model.derive import Derived, derived
from penstock.model.fields import Bool, Decimal, Enum, Field, Int, String, Timestamp
from penstock.model.filters import check_filter, fields_of, matches
from penstock.model.measures import Count, Max, Measure, Min, Ratio, Sum, Uniques
from penstock.model.rollup import By, Granularity, Rollup
from penstock.model.schema import Schema, fingerprint

__all__ = [
    "Bool",
    "By",
    "Count",
    "Decimal",
    "Derived",
    "Enum",
    "Field",
    "Granularity",
    "Int",
    "Max",
    "Measure",
    "Min",
    "Ratio",
    "Rollup",
    "Schema",
    "String",
    "Sum",
    "Timestamp",
    "Uniques",
    "check_filter",
    "derived",
    "fields_of",
    "fingerprint",
    "matches",
]
