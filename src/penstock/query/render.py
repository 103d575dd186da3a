"""An answer as text: an aligned table for people, JSON and CSV for programs.

Decimals are written with all places of their scale, in JSON as numbers with those very digits: no binary fraction ever stands for money.
"""

from __future__ import annotations

import csv
import decimal
import io
import json
from json.encoder import encode_basestring
from typing import Any, Callable, Sequence

from rich.cells import cell_len, set_cell_size

from penstock.errors import QueryError
from penstock.query.answer import Answer, Column, Rows

FORMATS = ("table", "json", "csv")
_WIDEST = 60  # terminal cells of a text in a table
_BAR = 16  # terminal cells of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def render(answer: Answer, format: str = "table") -> str:
    """The answer as text that ends with a line feed. Raises QueryError for a format that is none of `FORMATS`."""
    if format not in FORMATS:
        raise QueryError(f"format: {format!r} is unknown", hint=f"use {', '.join(FORMATS)}")
    return {"table": _table, "json": _json, "csv": _csv}[format](answer)


def _json(answer: Answer) -> str:
    return dumps(answer.to_json()) + "\n"


def dumps(value: Any) -> str:
    """JSON of plain data, a decimal.Decimal as a number with its very digits (which json.dumps cannot)."""
    kind = type(value)
    if kind in _SIMPLE:
        return _SIMPLE[kind](value)
    if isinstance(value, Rows):
        return _dumps_rows(value)
    if isinstance(value, dict):
        return "{" + ", ".join([f"{encode_basestring(key)}: {dumps(one)}" for key, one in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return _encode(value)


def _exact(value: decimal.Decimal) -> str:
    return format(value, "f")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_SIMPLE: dict[Any, Callable[[Any], str]] = {str: encode_basestring, int: int.__repr__, decimal.Decimal: _exact, type(None): _encode}


def _dumps_rows(rows: Rows) -> str:
    """The same as of a list of dicts, a column at a time."""
    texts = [list(map(_SIMPLE.get(_kind(values), dumps), values)) for values in rows.columns.values()]
    row = "{" + ", ".join(f"{encode_basestring(name)}: ".replace("%", "%%") + "%s" for name in rows.columns) + "}"
    return "[" + ", ".join([row % values for values in zip(*texts)]) + "]"


def _kind(values: Sequence[Any]) -> Any:
    """The type of all values; None where they are of several."""
    kinds = set(map(type, values))
    return kinds.pop() if len(kinds) == 1 else None


def _csv(answer: Answer) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(column.name for column in answer.columns)
    writer.writerows(zip(*([_csv_value(value) for value in answer.column(column.name)] for column in answer.columns)))
    return out.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else format(value, "f") if isinstance(value, decimal.Decimal) else value


def _table(answer: Answer) -> str:
    if not answer.rows:
        return "\n".join(["no records", *_footer(answer)]) + "\n"
    shown = [*answer.rows, *_more(answer)]
    parts = [_cells(column, [row[column.name] for row in shown]) for column in answer.columns]
    headers = [column.name for column in answer.columns]
    right = [column.role in ("measure", "comparison") or column.type in ("int", "decimal") for column in answer.columns]
    bars = _bars(answer)
    lines = []
    widths = [max(cell_len(header), *map(cell_len, cells)) for header, cells in zip(headers, parts)]
    for texts, bar in zip([headers, *zip(*parts)], ["", *bars, *[""] * (len(shown) - len(answer.rows))]):
        padded = [_pad(text, width, to_right) for text, width, to_right in zip(texts, widths, right)]
        lines.append("  ".join([*padded, bar]).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join([*lines, *_footer(answer)]) + "\n"


def _more(answer: Answer) -> list[dict[str, Any]]:
    """What `top` left out, and the totals, as rows below the others: the name of what they are stands in the first dimension, or where the time would."""
    leads = [column for column in answer.columns if column.role == "dimension"] or [one for one in answer.columns if one.role == "time"]
    empty = {column.name: "" for column in answer.columns if column.role in ("time", "dimension")}
    extra = [("(other)", row) for row in answer.other or ()] + ([("(total)", answer.totals)] if answer.totals is not None else [])
    return [{**empty, **row, **({leads[0].name: name} if leads else {})} for name, row in extra]


def _pad(text: str, width: int, to_right: bool) -> str:
    room = " " * (width - cell_len(text))
    return room + text if to_right else text + room


def _cells(column: Column, values: Sequence[Any]) -> list[str]:
    """A column's values as text. Decimals show as many places as any of them needs, two at least where there are so many."""
    if column.type == "decimal":
        places = max((_places(value) for value in values if value is not None), default=0)
        return ["-" if value is None else f"{value:,.{places}f}" for value in values]
    return [_text(value, column.role in ("measure", "comparison")) for value in values]


def _places(value: decimal.Decimal) -> int:
    exponent = int(value.as_tuple().exponent)
    return max(min(-exponent, 2), -int(value.normalize(decimal.Context(prec=40)).as_tuple().exponent))


def _text(value: Any, measure: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:,.4f}" if 0.001 <= abs(value) < 1e9 or value == 0 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if measure else str(value)
    return _clean(str(value))


def _clean(text: str) -> str:
    """Text that cannot steer a terminal: what is not printable is escaped; what is too long is cut."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if cell_len(shown) <= _WIDEST else set_cell_size(shown, _WIDEST - 1) + "…"


def _bars(answer: Answer) -> list[str]:
    """A bar for the first measure of each row, the longest for the largest value."""
    name = next((column.name for column in answer.columns if column.role == "measure" and column.type != "timestamp"), None)
    values = [float(row[name] or 0) if name is not None else 0.0 for row in answer.rows]
    most = max(values)
    if most <= 0 or len(values) < 2:
        return [""] * len(values)
    eighths = [round(max(value, 0) / most * _BAR * 8) for value in values]
    return ["█" * (one // 8) + _EIGHTHS[one % 8].strip() for one in eighths]


def _footer(answer: Answer) -> list[str]:
    """As of when, from what, how exact; and why it is not complete."""
    parts = [f"as of {answer.as_of}" if answer.as_of else "no data yet", "complete" if answer.complete else "incomplete"]
    parts += [f"{name} ± {100 * error:.1f} %" for name, error in answer.errors.items()]
    if answer.suppressed:
        parts.append(f"{len(answer.suppressed)} rows hide what fewer than {answer.minimum_audience} people stand behind")
    if answer.ranking is not None and (answer.ranking.unsure or answer.ranking.contenders):
        parts.append(f"the order by {answer.ranking.measure} is not sure: {len(answer.ranking.unsure)} rows may be out of place")
    if answer.previous is not None:
        parts.append(f"compared with {answer.previous.start} to {answer.previous.end}")
    parts += [f"{name} does not fit 64 bits and is cut" for name in answer.saturated]
    return ["", " · ".join(parts), *(f"  incomplete: {_clean_line(reason)}" for reason in answer.incomplete)]


def _clean_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
