"""SQL as tokens: enough to tell words from what stands in quotes and comments. What is not touched is given back as it was written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterator, Sequence

_TOKEN = re.compile(
    r"""
    (?P<blank>\s+|--[^\n]*|/\*.*?\*/)
  | (?P<string>(?:\b[eE])?'(?:[^']|'')*')
  | (?P<dollar>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
  | (?P<quoted>"(?:[^"]|"")*")
  | (?P<word>[^\W\d][\w$]*)
  | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)
  | (?P<mark>::|<=|>=|<>|!=|\|\||\$\d+|.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """kind: blank, string, dollar, quoted, word, number or mark. text: as written. word: in lower case, of a word; else empty."""

    kind: str
    text: str
    word: str = ""

    @property
    def name(self) -> str:
        """The identifier that it is: a word in lower case, or what stands in double quotes; empty for anything else."""
        return self.text[1:-1].replace('""', '"') if self.kind == "quoted" else self.word


def tokens(sql: str) -> list[Token]:
    """All tokens of a text, blanks and comments too: their texts joined are the text."""
    return [_token(found) for found in _TOKEN.finditer(sql)]


def _token(found: re.Match[str]) -> Token:
    kind = str(found.lastgroup if found.lastgroup != "tag" else "dollar")
    text = found[0]
    return Token(kind, text, text.lower() if kind == "word" else "")


def solid(sql: Sequence[Token]) -> list[Token]:
    """Those that are no blanks."""
    return [token for token in sql if token.kind != "blank"]


def written(sql: Sequence[Token]) -> str:
    """The text of tokens."""
    return "".join(token.text for token in sql)


def statements(sql: Sequence[Token]) -> Iterator[list[Token]]:
    """The statements of a text, without the semicolons between them; those that are empty left out."""
    begun: list[Token] = []
    for token in [*sql, Token("mark", ";")]:
        if token.text != ";":
            begun.append(token)
        elif solid(begun):
            yield begun
            begun = []
        else:
            begun = []


def closing(sql: Sequence[Token], opening: int) -> int:
    """The index of the bracket that closes the one at `opening`; the last index if none does."""
    depth = 0
    for index in range(opening, len(sql)):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(sql[index].text, 0) if sql[index].kind == "mark" else 0
        if depth == 0:
            return index
    return len(sql) - 1


def unquoted(text: str) -> str:
    """The value of a string literal."""
    return text[text.index("'") + 1 : -1].replace("''", "'")


def listed(words: Sequence[Token]) -> list[list[Token]]:
    """What stands between the commas that no bracket encloses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in words:
        if token.kind == "mark":
            depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts
