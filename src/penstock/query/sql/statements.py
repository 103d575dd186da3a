"""What a text of SQL holds, as far as a session needs to know before it runs it. DuckDB's tokenizer and parser do the reading."""

from __future__ import annotations

import json
from typing import Any, Iterator

import duckdb

from penstock.errors import QueryError

READING = {"SELECT", "EXPLAIN"}  # DESCRIBE, SHOW, SUMMARIZE, FROM and VALUES are SELECTs


def split(text: str) -> list[str]:
    """The statements of a text, without the semicolons that end them; comments alone are none."""
    data, start, found, empty = text.encode(), 0, [], True
    for offset, kind in duckdb.tokenize(text):  # offsets are of UTF-8
        if data[offset : offset + 1] == b";" and kind.name == "operator":
            if not empty:
                found.append(data[start:offset])
            start, empty = offset + 1, True
        elif kind.name != "comment":
            empty = False
    return [one.decode().strip() for one in (*found, *([] if empty else [data[start:]]))]


def constants(statement: str) -> Iterator[int | str]:
    """The whole numbers, of either sign, and the texts that a statement names."""
    data, tokens = statement.encode(), duckdb.tokenize(statement)
    ends = [offset for offset, _ in tokens[1:]] + [len(data)]
    for (offset, kind), end in zip(tokens, ends):
        text = data[offset:end].decode().strip()
        if kind.name == "numeric_const" and text.isdecimal():
            yield from (int(text), -int(text))
        elif kind.name == "string_const" and text[:1] == text[-1:] == "'" and len(text) > 1:
            plain = text[1:-1].replace("''", "'")
            yield plain
            if plain.strip().lstrip("+-").isdecimal():
                yield int(plain)


def tables(connection: Any, statement: str) -> list[list[str]] | None:
    """The tables that a statement names, each as its parts ([schema, table], [table]); None where that cannot be told."""
    try:
        tree = json.loads(connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()[0][0])
    except duckdb.Error:
        return None
    if tree.get("error"):
        return None
    return [
        [part for part in (node.get("catalog_name"), node.get("schema_name"), node["table_name"]) if part] for node in _base_tables(tree)
    ]


def _base_tables(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE" and "table_name" in node:
            yield node
        elif node.get("type") in ("SHOW_REF", "TABLE_FUNCTION"):  # SHOW TABLES, DESCRIBE t; query_table('t'): any table at all
            yield {"table_name": ""}
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from _base_tables(one)


def check_reads(connection: Any, statement: str) -> None:
    """Raise QueryError for what is not one statement that reads."""
    kinds = [one.type.name for one in connection.extract_statements(statement)]
    if len(kinds) != 1:
        raise QueryError(f"the SQL holds {len(kinds)} statements, not one", hint="end each with a semicolon, or run them one by one")
    if kinds[0] not in READING and not (kinds[0] == "MULTI" and statement.lstrip()[:5].lower() == "pivot"):
        raise QueryError(
            f"{kinds[0]} is not a statement that reads",
            hint="here are SELECT, WITH, FROM, VALUES, PIVOT, DESCRIBE, SUMMARIZE, SHOW TABLES and EXPLAIN; nothing is ever written",
        )
