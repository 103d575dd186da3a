"""What the API's answers look like, for its OpenAPI document."""

from __future__ import annotations

from typing import Any

from penstock.serve.negotiate import ARROW, CSV, JSON, MEDIA_TYPES

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_MAYBE = {"type": ["string", "null"]}
_ROW = {
    "type": "object",
    "description": "A value for each column: instants as ISO 8601, money as numbers with all their places, null for none.",
}


def _object(description: str, properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "description": description, "required": required, "properties": properties}


ANSWER = _object(
    "Rows, and all that says how far they can be trusted.",
    {
        "rollup": _TEXT,
        "entity": {"description": "Whose numbers."},
        "start": _TEXT,
        "end": _TEXT,
        "interval": _MAYBE,
        "timezone": _TEXT,
        "columns": {
            "type": "array",
            "items": _object(
                "A column.",
                {
                    "name": _TEXT,
                    "role": {"enum": ["time", "dimension", "measure", "comparison"]},
                    "type": {"enum": ["timestamp", "int", "float", "decimal", "string", "enum", "bool"]},
                    "measure": {
                        **_TEXT,
                        "description": "Of which kind: count, sum, min, max, uniques, ratio; of a comparison previous, change, percent.",
                    },
                    "of": {**_TEXT, "description": "The measure that a comparison is about."},
                    "scale": {"type": "integer", "description": "Decimal places."},
                },
                optional=("measure", "of", "scale"),
            ),
        },
        "rows": {"type": "array", "items": _ROW},
        "row_count": {"type": ["integer", "null"], "description": "Rows without limit and offset."},
        "totals": {"type": ["object", "null"]},
        "other": {"type": ["array", "null"], "items": _ROW, "description": "What `top` left out, merged."},
        "as_of": {**_MAYBE, "description": "The event time that every partition with data has reached."},
        "complete": {"type": "boolean", "description": "Whether nothing is known to be missing."},
        "incomplete": {**_TEXTS, "description": "Why it may not be, in sentences."},
        "errors": {
            "type": "object",
            "additionalProperties": {"type": "number"},
            "description": "By measure the relative standard error of what is an estimate: the true value is within twice that in 95 of 100 cases.",
        },
        "saturated": {**_TEXTS, "description": "Measures of which a value did not fit 64 bits."},
        "previous": {"type": ["object", "null"], "description": "What it is compared with."},
        "ranking": {"type": ["object", "null"], "description": "How sure the order by an estimate is."},
        "minimum_audience": {"type": ["integer", "null"]},
        "suppressed": {
            "type": "array",
            "items": {"type": "object"},
            "description": "Values that are null because too few people stand behind them.",
        },
        "generation": {**_TEXT, "description": "Of the definition that is served."},
        "served_from": {**_TEXTS, "description": "The granularities that were read, coarsest first."},
        "breakdown": {**_TEXTS, "description": "The dimensions of the breakdown that was read."},
        "version": {**_TEXT, "description": "Stays the same while nothing was committed that could change the answer."},
    },
)

ROLLUP = _object(
    "What can be asked of a roll-up.",
    {
        "name": _TEXT,
        "entity": _object("Whose numbers.", {"field": _TEXT, "type": _TEXT}),
        "measures": {"type": "array", "items": _object("A measure.", {"name": _TEXT, "kind": _TEXT})},
        "breakdowns": {
            "type": "array",
            "items": _object(
                "What it can be split by.",
                {
                    "by": _TEXTS,
                    "keep": {"type": "object", "additionalProperties": _TEXT, "description": "Granularity to how long it is kept."},
                },
            ),
        },
        "generation": _TEXT,
    },
)

TREND = _object(
    "What grew, or shrank.",
    {
        "group": {"type": "object"},
        "now": {"type": "integer"},
        "before": {"type": "integer"},
        "percent": {"type": ["number", "null"]},
        "score": {"type": "number", "description": "By how many standard deviations it is more than chance."},
    },
)

SCOPE = _object(
    "How far a key or a token reaches. What is left out is not narrowed.",
    {
        "actions": {"type": "array", "items": {"enum": ["read", "write"]}},
        "rollups": _TEXTS,
        "datasets": _TEXTS,
        "entities": {"type": "object", "additionalProperties": _TEXTS, "description": "By an entity's field, the values that are open."},
    },
    optional=("rollups", "datasets", "entities"),
)

ME = _object(
    "A key, and how far it reaches.",
    {
        "key": {**_TEXT, "description": "Its id."},
        "name": _TEXT,
        "via": {"enum": ["key", "token", "session"]},
        "scope": {"$ref": "#/components/schemas/Scope"},
        "expires": _MAYBE,
        "rate": {"type": "integer", "description": "Requests a minute."},
        "minimum_audience": {"type": "integer"},
    },
)

TOKEN = _object("A token.", {"token": _TEXT, "expires": _TEXT})
SAVED = _object("A saved query.", {"name": _TEXT, "rollup": _TEXT, "query": {"type": "object", "description": "As the body of a query."}})
SAVED_LIST = _object("Saved queries.", {"saved": {"type": "array", "items": SAVED}})

SCHEMAS = {"Answer": ANSWER, "Rollup": ROLLUP, "Trend": TREND, "Scope": SCOPE, "Me": ME}


def answer_of(schema: dict[str, Any], description: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers with JSON."""
    return {status: {"description": description, "content": {"application/json": {"schema": schema}}}}


def ref(name: str) -> dict[str, str]:
    """A reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


_HEADERS = {
    "ETag": {"description": "Changes when the numbers may have.", "schema": _TEXT},
    "Penstock-As-Of": {"description": "See `as_of`.", "schema": _TEXT},
    "Penstock-Complete": {"description": "See `complete`.", "schema": {"enum": ["true", "false"]}},
    "Penstock-Served-From": {"description": "See `served_from`.", "schema": _TEXT},
    "Penstock-Errors": {"description": "See `errors`.", "schema": _TEXT},
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer.",
        "content": {
            MEDIA_TYPES[JSON]: {"schema": ref("Answer")},
            MEDIA_TYPES[CSV]: {"schema": _TEXT},
            MEDIA_TYPES[ARROW]: {"schema": {"type": "string", "format": "binary"}},
        },
        "headers": _HEADERS,
    },
    304: {"description": "The answer that the client has is the same still."},
}
ROLLUPS = answer_of(
    _object("What can be asked.", {"rollups": {"type": "array", "items": ref("Rollup")}}), "The roll-ups that this key may read."
)
TRENDS = answer_of(_object("What changed most.", {"rollup": _TEXT, "trends": {"type": "array", "items": ref("Trend")}}), "Most first.")
