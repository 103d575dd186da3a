"""What a statement is that somebody wrote: one, and one that reads."""

from __future__ import annotations

import re

from penstock.errors import QueryError

READING = ("SELECT", "WITH", "SHOW", "EXPLAIN", "VALUES")
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)|(?P<end>;)|(?P<word>\w+)|(?P<other>\S)""",
    re.DOTALL,
)


def check_reading(sql: str) -> str:
    """The statement without what follows it. Raises QueryError for none, several, or one that does not read."""
    first, statements, inside, end = "", 0, False, len(sql)
    for token in _TOKEN.finditer(sql):
        kind = token.lastgroup
        if kind == "comment":
            continue
        if token["end"]:
            if inside and statements == 1:
                end = token.start()
            inside = False
            continue
        if not inside:
            statements, inside = statements + 1, True
        if not first and token["other"] != "(":
            first = token[0].upper()
    if statements != 1:
        raise QueryError(f"the SQL holds {statements} statements, not one", hint="run them one by one")
    if first not in READING:
        raise QueryError(
            f"queries are read-only, and this one begins with {first}",
            hint=f"begin with one of {', '.join(READING)}; write with another client",
        )
    return sql[:end].strip()
