"""What a statement does, as far as the relay has to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Sequence

from penstock.stack.redshift import copying
from penstock.stack.redshift.copying import Copy
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
    "savepoint",
    "release",
    "deallocate",
    "close",
}


@dataclass(frozen=True)
class Statement:
    """A statement of a client. sql: what PostgreSQL is told. kind: its first word. writes: the table that it writes, as written; empty if none.

    reads: whatever names of tables it may read. temporary: the table that it makes for its session alone.
    """

    original: str
    sql: str
    kind: str
    writes: str = ""
    name: str = ""  # of that table, without schema and quotes
    reads: frozenset[str] = field(default_factory=frozenset)
    temporary: str = ""
    copy: Copy | None = None

    @property
    def ends(self) -> bool:
        """Whether it commits."""
        return self.kind in ("commit", "end")

    @property
    def undoes(self) -> bool:
        """Whether it rolls the transaction back."""
        return self.kind in ("rollback", "abort")

    @property
    def looks(self) -> bool:
        """Whether it takes the transaction's snapshot."""
        return self.kind not in _SILENT

    @property
    def plain(self) -> bool:
        """Whether PostgreSQL can do it without the relay's help."""
        return not self.writes and not self.copy and self.kind not in ("commit", "end", "truncate")


def parse(sql: str) -> Statement:
    """What a text says, which holds one statement. Raises Problem for what Redshift would refuse."""
    words = tokens(sql)
    parts = list(statements(words))
    if len(parts) != 1:  # none, or several: PostgreSQL says what is wrong with that
        return Statement(sql, sql, "")
    if copying.is_copy(parts[0]):
        copy = copying.parse(parts[0])
        return Statement(sql, "", "copy", copy.table, copy.name, copy=copy)
    return _statement(sql, parts[0])


def _statement(sql: str, words: Sequence[Token]) -> Statement:
    plain = solid(words)
    kind = plain[0].word
    at = {"insert": 2, "delete": 2, "merge": 2, "update": 1, "truncate": 1}.get(kind, 0)
    if kind in ("delete", "truncate") and at < len(plain) and plain[at].word == "table":
        at += 1
    if kind == "delete" and len(plain) > 1 and plain[1].word != "from":
        at = 1
    writes, name, after = _table(plain, at) if at else ("", "", 0)
    reads = frozenset(token.name for token in plain[after:] if token.name) if kind != "truncate" else frozenset()
    if kind in ("delete", "update", "merge"):
        reads |= {name}
    return Statement(sql, written(words), kind, writes, name, reads, _temporary(plain))


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
