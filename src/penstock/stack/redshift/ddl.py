"""CREATE TABLE and ALTER TABLE of Redshift as PostgreSQL takes them.

Keys are declared and not enforced: they are left out. A VARCHAR counts bytes: it becomes a domain that does. How rows are distributed and sorted is kept
in the table's comment, from where the system tables take it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Sequence

from penstock.stack.redshift.problems import SYNTAX, UNSUPPORTED, Problem, syntax
from penstock.stack.redshift.rewriting import SCHEMA, rewrite
from penstock.stack.redshift.tokens import Token, closing, listed, solid, written

_MAX_LENGTH = 65_535
_TEXTS = {"varchar", "nvarchar", "text", "string"}
_UNSUPPORTED = {
    "json", "jsonb", "uuid", "bytea", "serial", "bigserial", "smallserial", "money", "inet", "cidr", "macaddr", "xml", "tsvector", "tsquery", "bit",
    "varbit", "point", "line", "box", "path", "polygon", "circle", "int4range", "int8range", "numrange", "tsrange", "daterange", "hstore", "citext",
}  # fmt: skip
_TABLE_WORDS = ("primary", "unique", "foreign", "constraint", "check", "like", "exclude")


@dataclass
class Definition:
    """A statement for PostgreSQL. after: what to run after it, in its transaction. lengths: the VARCHARs for which there has to be a domain.

    alone: whether it may not run within a transaction.
    """

    sql: str
    after: str = ""
    lengths: set[int] = field(default_factory=set)
    alone: bool = False


def create_table(words: Sequence[Token]) -> Definition:
    """CREATE [TEMP] TABLE. words: with blanks. Raises Problem."""
    plain = solid(words)
    at = next(index for index, token in enumerate(plain) if token.word == "table") + 1
    if at < len(plain) and plain[at].word == "if":
        at += 3
    start = at
    while at + 2 < len(plain) and plain[at + 1].text == ".":
        at += 2
    name = "".join(token.text for token in plain[start : at + 1])
    head = " ".join(token.text for token in plain[:start]) + f" {name}"
    at += 1
    made = Definition("")
    keys = _Keys()
    columns: list[str] = []
    if at < len(plain) and plain[at].text == "(":
        end = closing(plain, at)
        columns = _columns(plain[at + 1 : end], name, made, keys)
        at = end + 1
    query = ""
    while at < len(plain):
        if plain[at].word == "as":
            query = _query(words, plain[at])
            break
        at = _attribute(plain, at, keys)
    keys.check(columns, made, query)
    inside = f" ({', '.join(columns)})" if columns else ""
    made.sql = f"{head}{inside}{f' AS {query}' if query else ''}"
    if keys.told:
        made.after = f"COMMENT ON TABLE {name} IS '{keys.comment()}'"
    return made


def alter_table(words: Sequence[Token]) -> Definition:
    """ALTER TABLE. words: with blanks. Raises Problem."""
    plain = solid(words)
    at = 2
    while at + 2 < len(plain) and plain[at + 1].text == ".":
        at += 2
    name = "".join(token.text for token in plain[2 : at + 1])
    rest = plain[at + 1 :]
    said = [token.word for token in rest] + ["", "", "", ""]
    made = Definition(written(words))
    if said[0] == "add" and said[1] in ("constraint", "primary", "unique", "foreign"):
        made.sql = _nothing(name)
    elif said[0] == "add":
        column = rest[2:] if said[1] == "column" else rest[1:]
        if column and column[0].word == "if":
            raise syntax("NOT")
        if any(token.text == "," for token in _outside(column)):
            raise syntax(",")
        [text] = _columns(column, name, made, _Keys())
        if " NOT NULL" in text and " DEFAULT " not in text:
            raise Problem("ALTER TABLE ADD COLUMN defined as NOT NULL must have a non-null default expression", code=SYNTAX)
        made.sql = f"ALTER TABLE {name} ADD COLUMN {text}"
    elif said[0] == "alter" and (said[1] in ("diststyle", "distkey", "sortkey", "compound", "encode") or "encode" in said):
        made.sql = _nothing(name)
    elif said[0] == "alter" and "type" in said:
        at = said.index("type")
        if rest[at + 1].word not in _TEXTS | {"character"}:
            raise Problem(f'cannot alter column "{rest[at - 1].name}" of relation "{name}": only the size of a VARCHAR', code=UNSUPPORTED)
        kind, _ = _type(rest, at + 1, rest[at - 1].name, name, made)
        made.sql = f"ALTER TABLE {name} ALTER COLUMN {rest[at - 1].text} TYPE {kind}"
        made.alone = True
    return made


class _Keys:
    """How a table is distributed and sorted."""

    def __init__(self) -> None:
        self.style = ""
        self.distribution = ""
        self.sort: list[str] = []
        self.told = False

    def check(self, columns: Sequence[str], made: Definition, query: str) -> None:
        """Raise Problem for a key that is no column."""
        names = {column.split(" ", 1)[0].strip('"').lower() for column in columns}
        if query or not columns or any(column.startswith("LIKE ") for column in columns):
            return
        if self.distribution and self.distribution.lower() not in names:
            raise Problem(f'distkey column "{self.distribution}" does not exist', code="42703")
        for name in self.sort:
            if name.lower() not in names:
                raise Problem(f'sortkey column "{name}" does not exist', code="42703")

    def comment(self) -> str:
        """As the table's comment has it."""
        style = f"KEY({self.distribution})" if self.distribution else self.style.upper() or "AUTO(ALL)"
        data = {"diststyle": style, "distkey": self.distribution or None, "sortkey": self.sort}
        return json.dumps(data).replace("'", "''")


def _attribute(plain: Sequence[Token], at: int, keys: _Keys) -> int:
    """One attribute of a table, behind its columns; the index after it."""
    word, after = plain[at].word, plain[at + 1] if at + 1 < len(plain) else Token("mark", "")
    keys.told = True
    if word == "backup" and after.word in ("yes", "no"):
        return at + 2
    if word == "diststyle" and after.word in ("even", "key", "all", "auto"):
        keys.style = after.word
        return at + 2
    if word == "encode" and after.word == "auto":
        return at + 2
    if word in ("compound", "interleaved") and after.word == "sortkey":
        return _attribute(plain, at + 1, keys)
    if word == "sortkey" and after.word == "auto":
        return at + 2
    if word in ("distkey", "sortkey") and after.text == "(":
        end = closing(plain, at + 1)
        names = [token.name for token in plain[at + 2 : end] if token.text != ","]
        if word == "distkey":
            keys.distribution = names[0] if names else ""
        else:
            keys.sort = names
        return end + 1
    raise syntax(plain[at].text)


def _columns(words: Sequence[Token], table: str, made: Definition, keys: _Keys) -> list[str]:
    """The columns of a table, and what else stands between the brackets, as PostgreSQL has them."""
    columns: list[str] = []
    needed: set[str] = set()
    for part in _parts(words):
        first = part[0].word
        if first == "like":
            columns.append(
                f"LIKE {''.join(token.text for token in part[1 : _like(part)])} " + " ".join(token.text for token in part[_like(part) :])
            )
        elif first == "constraint":
            part = part[2:]
            first = part[0].word if part else ""
            needed |= _primary(part) if first == "primary" else set()
        elif first == "primary":
            needed |= _primary(part)
        elif first in ("unique", "foreign"):
            pass
        elif first in _TABLE_WORDS:
            raise syntax(part[0].text)
        else:
            columns.append(_column(part, table, made, keys))
    return [f"{one} NOT NULL" if _name(one) in needed and " NOT NULL" not in one else one for one in columns]


def _like(part: Sequence[Token]) -> int:
    """The index after the table that LIKE names."""
    at = 1
    while at + 2 < len(part) and part[at + 1].text == ".":
        at += 2
    return at + 1


def _name(column: str) -> str:
    return column.split(" ", 1)[0].strip('"')


def _primary(part: Sequence[Token]) -> set[str]:
    """The columns of PRIMARY KEY (...), which may not be null, though they may be there twice."""
    return {token.name for token in part[2:] if token.name}


def _column(part: Sequence[Token], table: str, made: Definition, keys: _Keys) -> str:
    name = part[0]
    if not name.name or len(part) < 2:
        raise syntax(name.text)
    kind, at = _type(part, 1, name.name, table, made)
    said = [name.text, kind]
    while at < len(part):
        word, after = part[at].word, part[at + 1].word if at + 1 < len(part) else ""
        if word == "encode":
            at += 2
        elif word in ("distkey", "sortkey"):
            keys.told = True
            if word == "distkey":
                keys.distribution = name.name
            else:
                keys.sort = [name.name]
            at += 1
        elif word == "primary" and after == "key":
            said.append("NOT NULL")
            at += 2
        elif word == "unique" or word == "null":
            at += 1
        elif word == "not" and after == "null":
            said.append("NOT NULL")
            at += 2
        elif word == "references":
            at += 2
            if at < len(part) and part[at].text == "(":
                at = closing(part, at) + 1
        elif word == "identity":
            end = closing(part, at + 1)
            seed, step = [token.text for token in part[at + 2 : end] if token.text != ","]
            said.append(f"GENERATED BY DEFAULT AS IDENTITY (START WITH {seed} INCREMENT BY {step})")
            at = end + 1
        elif word == "collate":
            at += 2
        elif word == "default":
            end = at + 1
            while end < len(part) and not (part[end].word in _ENDS_DEFAULT and part[end - 1].text not in ("(", ",")):
                end = closing(part, end) + 1 if part[end].text == "(" else end + 1
            said.append("DEFAULT " + " ".join(token.text for token in rewrite(part[at + 1 : end])))
            at = end
        else:
            raise syntax(part[at].text)
    return " ".join(said)


_ENDS_DEFAULT = {"encode", "distkey", "sortkey", "primary", "unique", "not", "references", "identity", "collate"}


def _type(part: Sequence[Token], at: int, column: str, table: str, made: Definition) -> tuple[str, int]:
    """The type that begins at an index, and the index after it."""
    word = part[at].word
    after = at + 1
    if word in ("character", "national") and after < len(part) and part[after].word in ("varying", "character"):
        if part[after].word == "varying":
            word = "varchar"
        after += 1
    elif word == "double":
        return "double precision", at + 2
    elif word in ("timestamp", "time") and after < len(part) and part[after].word in ("with", "without"):
        return " ".join(token.text for token in part[at : at + 4]), at + 4
    measure = ""
    if after < len(part) and part[after].text == "(":
        end = closing(part, after)
        measure = "".join(token.text for token in part[after + 1 : end])
        after = end + 1
    if word in _UNSUPPORTED or after < len(part) and part[after].text == "[":
        array = "[]" if word not in _UNSUPPORTED else ""
        raise Problem(f'Column "{table}.{column}" has unsupported type "{part[at].word}{array}".', code=UNSUPPORTED)
    if word in _TEXTS:
        length = _MAX_LENGTH if measure.lower() == "max" else int(measure) if measure.isdigit() else 256
        if not 0 < length <= _MAX_LENGTH:
            raise Problem(f"length for type varchar cannot exceed {_MAX_LENGTH}", code="22023")
        made.lengths.add(length)
        return f"{SCHEMA}.varchar_{length}", after
    if word == "super":
        return f"{SCHEMA}.super", after
    if word == "bpchar":
        return "char(256)", after
    if word in ("decimal", "numeric") and not measure:
        return "numeric(18,0)", after
    if word in ("decimal", "numeric") and int(measure.split(",")[0]) > 38:
        raise Problem(f"DECIMAL precision {measure.split(',')[0]} must be between 1 and 38", code="22023")
    return part[at].text + (f"({measure})" if measure else ""), after


def _parts(words: Sequence[Token]) -> list[list[Token]]:
    """What stands between the commas."""
    parts = listed(words)
    if not all(parts):
        raise syntax(")")
    return parts


def _outside(words: Sequence[Token]) -> list[Token]:
    """The tokens outside of brackets."""
    found, depth = [], 0
    for token in words:
        depth += {"(": 1, ")": -1}.get(token.text, 0) if token.kind == "mark" else 0
        if depth == 0:
            found.append(token)
    return found


def _query(words: Sequence[Token], begun: Token) -> str:
    """The query behind AS."""
    at = next(index for index, token in enumerate(words) if token is begun)
    return written(rewrite(words[at + 1 :])).strip()


def _nothing(table: str) -> str:
    """An ALTER TABLE that changes nothing."""
    return f"ALTER TABLE {table} RESET (toast_tuple_target)"
