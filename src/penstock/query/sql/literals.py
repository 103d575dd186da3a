"""Values as SQL writes them, alike in DuckDB, PostgreSQL and Redshift."""

from __future__ import annotations

import datetime as dt
import decimal

from penstock.errors import QueryError


def literal(value: int | str | decimal.Decimal | dt.date | dt.datetime) -> str:
    """A value as a literal. A datetime with a zone is written in UTC.

    Raises QueryError for a text with a backslash or a control character: Redshift takes a backslash for an escape, and the others do not.
    """
    if isinstance(value, dt.datetime):
        plain = value.astimezone(dt.timezone.utc).replace(tzinfo=None) if value.tzinfo else value
        return f"TIMESTAMP '{plain.isoformat(sep=' ')}'"
    if isinstance(value, dt.date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, str):
        if "\\" in value or not value.isprintable():
            raise QueryError(
                f"{value!r} holds a backslash or a character that does not print", hint="leave it out: not every warehouse reads it alike"
            )
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            raise QueryError(f"{value} is not a number", hint="write one such as 12.50")
        return format(value, "f")
    return str(int(value))
