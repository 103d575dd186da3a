"""Why a record was rejected, as the small numbers that kernels put in a column.

A code is `reason | (index + 1) << 8`, index being that of the field at fault among the decoder's fields; `reason` alone where the whole
record is. 0: not rejected. Where several apply: the whole record's first, then the first field in declared order.
"""

from __future__ import annotations

from typing import Sequence

MALFORMED, TOO_DEEP, NO_VALUE, MISSING, NULL, WRONG_TYPE, OUT_OF_RANGE, BAD_TEXT, NOT_IN_ENUM, TOO_LONG, FUTURE = range(1, 12)

NAMES = {
    MALFORMED: "malformed",
    TOO_DEEP: "too_deep",
    NO_VALUE: "no_value",
    MISSING: "missing",
    NULL: "null",
    WRONG_TYPE: "wrong_type",
    OUT_OF_RANGE: "out_of_range",
    BAD_TEXT: "bad_text",
    NOT_IN_ENUM: "not_in_enum",
    TOO_LONG: "too_long",
    FUTURE: "future",
}
TEXTS = {
    MALFORMED: "is not a well-formed object",
    TOO_DEEP: "is nested too deeply",
    NO_VALUE: "has no value",
    MISSING: "is missing",
    NULL: "is null",
    WRONG_TYPE: "has the wrong type",
    OUT_OF_RANGE: "is out of range",
    BAD_TEXT: "is not valid UTF-8 text",
    NOT_IN_ENUM: "is not one of the allowed values",
    TOO_LONG: "is too long",
    FUTURE: "claims to come from the future",
}
MAX_DEPTH = 32  # objects and arrays inside each other, the outermost counted


def describe(code: int, fields: Sequence[str]) -> str:
    """A code as a sentence: "field 'cost' has the wrong type"."""
    reason, index = code & 0xFF, code >> 8
    return f"field {fields[index - 1]!r} {TEXTS[reason]}" if index else f"the record {TEXTS[reason]}"
