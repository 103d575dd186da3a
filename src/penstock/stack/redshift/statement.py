"""What a statement does, as far as the relay has to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Sequence

from penstock.stack.redshift import copying, ddl, rewriting
from penstock.stack.redshift.copying import Copy
from penstock.stack.redshift.problems import UNSUPPORTED, Problem
from penstock.stack.redshift.tokens import Token, solid, statements, tokens, written

# What neither reads nor writes a table, and so takes no snapshot.
_SILENT = {
    "begin",
    "start",
    "commit",
    "end",
    "rollback",
    "abort",
    "lock",
    "set",
    "reset",
    "show",
    "deallocate",
    "close",
}


@dataclass(frozen=True)
class Statement:
    """A statement of a client. sql: what PostgreSQL is told. kind: its first word. writes: the table that it writes, as written; empty if none.

    reads: whatever names of tables it may read. temporary: the table that it makes for its session alone. after: what to run after it, in its
    transaction. lengths: the VARCHARs that it needs domains for. alone: what it is called, if it may not run within a transaction. history: whether
    it asks for the statements that ran.
    """

    original: str
    sql: str
    kind: str
    writes: str = ""
    name: str = ""  # of that table, without schema and quotes
    reads: frozenset[str] = field(default_factory=frozenset)
    temporary: str = ""
    copy: Copy | None = None
    after: str = ""
    lengths: frozenset[int] = field(default_factory=frozenset)
    alone: str = ""
    history: bool = False

    @property
    def ends(self) -> bool:
        """Whether it commits."""
        return self.kind in ("commit", "end")

    @property
    def looks(self) -> bool:
        """Whether it takes the transaction's snapshot."""
        return self.kind not in _SILENT


def parse(sql: str) -> Statement:
    """What a text says, which holds one statement. Raises Problem for what Redshift would refuse."""
    parts = list(statements(tokens(sql)))
    if len(parts) != 1:
        return Statement(sql, _joined(parts), "") if parts else Statement(sql, sql, "")
    if copying.is_copy(parts[0]):
        copy = copying.parse(parts[0])
        return Statement(sql, "", "copy", copy.table, copy.name, copy=copy)
    return _statement(sql, parts[0])


def split(sql: str) -> list[str]:
    """The statements of a simple query."""
    return [written(part).strip() for part in statements(tokens(sql))]


def _joined(parts: Sequence[Sequence[Token]]) -> str:
    return ";".join(written(part) for part in parts)


def _statement(sql: str, words: Sequence[Token]) -> Statement:
    plain = solid(words)
    kind = plain[0].word
    rewriting.refuse(plain)
    history = any(token.word in rewriting.HISTORY for token in plain)
    second = plain[1].word if len(plain) > 1 else ""
    if kind == "create" and any(token.word == "table" for token in plain[1:4]):
        made = ddl.create_table(words)
        return Statement(sql, made.sql, kind, temporary=_temporary(plain), after=made.after, lengths=frozenset(made.lengths))
    if kind == "alter" and second == "table":
        made = ddl.alter_table(words)
        return Statement(sql, made.sql, kind, lengths=frozenset(made.lengths), alone="ALTER TABLE ALTER COLUMN" if made.alone else "")
    if kind == "vacuum":
        return Statement(sql, _vacuum(plain), kind, alone="VACUUM")
    if kind == "analyze":
        return Statement(sql, _analyze(plain), kind)
    if kind == "copy":
        raise Problem("LOAD source is not supported. (Hint: only S3 or DynamoDB or EMR based load is allowed)", code=UNSUPPORTED)
    if kind in ("savepoint", "release", "listen", "notify") or kind == "rollback" and any(token.word == "to" for token in plain):
        raise Problem(f'SQL command "{written(words).strip()[:60]}" not supported.', code=UNSUPPORTED)
    if kind == "unload":
        raise Problem("the stand-in does not know UNLOAD", code=UNSUPPORTED, hint="Redshift itself does")
    if kind in ("set", "reset", "show"):
        return Statement(sql, written(rewriting.setting(list(words))), kind)
    at = {"insert": 2, "delete": 2, "merge": 2, "update": 1, "truncate": 1}.get(kind, 0)
    if kind == "truncate" and second == "table":
        at = 2
    elif kind == "delete" and second != "from":
        at = 1
        words = [*words[: words.index(plain[0]) + 1], Token("word", " FROM", "from"), *words[words.index(plain[0]) + 1 :]]
    writes, name, after = _table(plain, at) if at else ("", "", 0)
    reads = frozenset(token.name for token in plain[after:] if token.name) if kind != "truncate" else frozenset()
    if kind in ("delete", "update", "merge"):
        reads |= {name}
    return Statement(
        sql, written(rewriting.rewrite(words)), kind, writes, name, reads, after="COMMIT" if kind == "truncate" else "", history=history
    )


def _vacuum(words: Sequence[Token]) -> str:
    """VACUUM of one table, or of all; how is Redshift's affair."""
    rest = [token for token in words[1:] if token.word not in ("full", "sort", "delete", "only", "reindex", "recluster", "boost")]
    end = next((at for at, token in enumerate(rest) if token.word == "to"), len(rest))
    return "VACUUM " + "".join(token.text for token in rest[:end])


def _analyze(words: Sequence[Token]) -> str:
    rest = [token for token in words[1:] if token.word not in ("verbose", "predicate", "all", "columns", "compression")]
    return "ANALYZE " + "".join(token.text for token in rest)


def _table(words: Sequence[Token], at: int) -> tuple[str, str, int]:
    """The table named at an index: as written, its name alone, and the index after it."""
    if at >= len(words) or not words[at].name:
        return "", "", at
    parts = [words[at]]
    while at + 2 < len(words) and words[at + 1].text == "." and words[at + 2].name:
        at += 2
        parts.append(words[at])
    return ".".join(part.text for part in parts), parts[-1].name, at + 1


def _temporary(words: Sequence[Token]) -> str:
    if words[0].word != "create" or not any(token.word in ("temp", "temporary") for token in words[1:4]):
        return ""
    for at, token in enumerate(words):
        if token.word == "table":
            at += 1
            if at < len(words) and words[at].word == "if":
                at += 3
            return words[at].name if at < len(words) else ""
    return ""
