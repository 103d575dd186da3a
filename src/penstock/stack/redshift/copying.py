"""COPY table FROM 's3://...': what the statement says, and what Redshift refuses of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Sequence

from penstock.stack.redshift.problems import UNSUPPORTED, Problem, syntax
from penstock.stack.redshift.tokens import Token, closing, solid, unquoted

_ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_COLUMNAR = {"statupdate", "manifest", "explicit_ids", "acceptinvchars", "fillrecord", "iam_role", "credentials"}
_FORMATS = {"csv", "json", "parquet", "delimiter"}
# Options by what follows them: nothing, a string, a number, ON/OFF or nothing, a string or nothing.
_BARE = {
    "gzip", "manifest", "emptyasnull", "blanksasnull", "trimblanks", "truncatecolumns", "fillrecord", "ignoreblanklines",
}  # fmt: skip
_TEXT = {"region", "null", "dateformat", "timeformat", "encoding", "delimiter", "quote"}
_NUMBER = {"maxerror", "ignoreheader", "comprows"}
_SWITCH = {"compupdate", "statupdate"}
_REFUSED = {
    "acceptanydate",
    "noload",
    "roundec",
    "explicit_ids",
    "lzop",
    "bzip2",
    "zstd",
    "encrypted",
    "escape",
    "removequotes",
    "fixedwidth",
    "avro",
    "orc",
    "shapefile",
    "ssh",
    "readratio",
}
_MAX_ERRORS = 100_000


@dataclass(frozen=True)
class Copy:
    """One COPY. table: as written. columns: empty for all. options: what else was said, in lower case, without what follows it."""

    table: str
    name: str  # of the table, without schema and quotes
    columns: tuple[str, ...]
    bucket: str
    key: str
    format: str = "delimiter"
    delimiter: str = "|"
    quote: str = '"'
    null: str | None = None
    json: str = "auto"
    skip: int = 0
    max_errors: int = 0
    time_format: str = ""
    options: frozenset[str] = field(default_factory=frozenset)

    @property
    def columnar(self) -> bool:
        """Whether the files are Parquet."""
        return self.format == "parquet"

    @property
    def url(self) -> str:
        """Where it reads."""
        return f"s3://{self.bucket}/{self.key}"


def is_copy(sql: Sequence[Token]) -> bool:
    """Whether a statement is a COPY from anywhere but the connection itself."""
    words = solid(sql)
    return bool(words) and words[0].word == "copy" and any(token.kind == "string" for token in words)


def parse(sql: Sequence[Token]) -> Copy:
    """What a COPY says. Raises Problem."""
    words = solid(sql)
    at = 1
    table = [words[at].text]
    name = words[at].name
    if not name:
        raise syntax(words[at].text)
    while at + 2 < len(words) and words[at + 1].text == ".":
        table += [".", words[at + 2].text]
        name = words[at + 2].name
        at += 2
    at += 1
    columns: list[str] = []
    if words[at].text == "(":
        end = closing(words, at)
        columns = [token.name for token in words[at + 1 : end] if token.text != ","]
        if not all(columns):
            raise syntax("(")
        at = end + 1
    if words[at].word != "from" or at + 1 >= len(words) or words[at + 1].kind != "string":
        raise syntax(words[at].text)
    found = re.fullmatch(r"s3://([^/]+)/?(.*)", unquoted(words[at + 1].text), re.DOTALL)
    if not found:
        raise Problem(
            f"the stand-in copies from S3 alone, not from {words[at + 1].text}", code=UNSUPPORTED, hint="Redshift itself may be able to"
        )
    said = _Options(words[at + 2 :])
    copy = Copy(".".join(table[::2]), name, tuple(columns), found[1], found[2], **said.values, options=frozenset(said.seen))
    if not said.authorised:
        raise Problem(
            "CREDENTIALS argument is required but not found", hint="IAM_ROLE 'arn:aws:iam::<account>:role/<name>' or IAM_ROLE default"
        )
    if copy.columnar:
        for option in said.seen:
            if option not in _COLUMNAR and option not in ("format", "parquet"):
                raise Problem(f"{option.upper()} argument is not supported for PARQUET based COPY", code=UNSUPPORTED)
    return copy


class _Options:
    """The options of a COPY, read one after the other."""

    def __init__(self, words: Sequence[Token]) -> None:
        self.words, self.at = words, 0
        self.seen: list[str] = []
        self.values: dict[str, Any] = {}
        self.authorised = False
        while self.at < len(self.words):
            self._option(self._next())

    def _option(self, token: Token) -> None:
        option = token.word
        if option == "as" and self.at == 1:  # `FORMAT` and `AS` may be left out in any order
            option = self._next().word
        if option in self.seen:
            raise Problem("conflicting or redundant options", code="42601", hint=f"{option.upper()} is there twice")
        self.seen.append(option)
        if option == "format":
            self._skip("as")
            self._option(self._next())
        elif option in ("iam_role", "credentials", "access_key_id", "secret_access_key", "session_token"):
            self._authorise(option)
        elif option in _REFUSED:
            raise Problem(f"the stand-in does not know {option.upper()} of COPY", code=UNSUPPORTED, hint="Redshift itself does")
        elif option == "csv":
            self._format("csv")
            self.values.setdefault("delimiter", ",")
        elif option == "parquet":
            self._format("parquet")
        elif option == "json":
            self._format("json")
            self._skip("as")
            self.values["json"] = self._text(optional=True) or "auto"
            if self.values["json"] not in ("auto", "auto ignorecase"):
                raise Problem(f"the stand-in does not know JSON {self.values['json']!r} of COPY", code=UNSUPPORTED, hint="it knows 'auto'")
        elif option in _BARE:
            pass
        elif option == "acceptinvchars":
            self._skip("as")
            self._text(optional=True)
        elif option in _TEXT:
            self._skip("as")
            value = self._text()
            if option == "null":
                self.values["null"] = value.replace("\\\\", "\\")
            elif option in ("delimiter", "quote"):
                self.values[option] = {"\\t": "\t"}.get(value, value)
            elif option in ("timeformat", "dateformat"):
                if value.lower() not in ("auto", "epochsecs", "epochmillisecs"):
                    raise Problem(
                        f"the stand-in does not know {option.upper()} {value!r} of COPY", code=UNSUPPORTED, hint="it knows 'auto'"
                    )
                if option == "timeformat":
                    self.values["time_format"] = value.lower()
            elif option == "encoding" and value.lower() not in ("utf8", "utf-8"):
                raise Problem(f"the stand-in does not know ENCODING {value!r} of COPY", code=UNSUPPORTED, hint="it knows UTF8")
        elif option in _NUMBER:
            self._skip("as")
            number = self._number(option)
            if option == "maxerror":
                if number > _MAX_ERRORS:
                    raise Problem(f"MAXERROR must be between 0 and {_MAX_ERRORS}", code="22023")
                self.values["max_errors"] = number
            elif option == "ignoreheader":
                self.values["skip"] = number
        elif option in _SWITCH:
            if self._peek() in ("on", "off", "true", "false", "preset"):
                self._next()
        else:
            raise syntax(token.text)

    def _format(self, name: str) -> None:
        if "format" in self.values:
            raise Problem(f"{name.upper()} is not compatible with {str(self.values['format']).upper()}", code="42601")
        self.values["format"] = name

    def _authorise(self, option: str) -> None:
        if option == "iam_role" and self._peek() == "default":
            self._next()
            self.authorised = True
            return
        self._skip("as")
        value = self._text()
        roles = value if option == "iam_role" else value.partition("aws_iam_role=")[2]
        if option in ("iam_role", "credentials") and roles:
            for role in roles.split(","):
                if not _ROLE.fullmatch(role):
                    raise Problem(
                        "Invalid credentials. Must be of the format: credentials 'aws_iam_role=...' or 'aws_access_key_id=...;"
                        "aws_secret_access_key=...[;token=...]'",
                        hint=f"{role!r} is not the name of a role: arn:aws:iam::<account>:role/<name>",
                    )
        elif option == "credentials" and "aws_access_key_id=" not in value:
            raise Problem("Invalid credentials. Must be of the format: credentials 'aws_iam_role=...'")
        self.authorised = True

    def _next(self) -> Token:
        if self.at >= len(self.words):
            raise Problem("syntax error at end of input", code="42601")
        self.at += 1
        return self.words[self.at - 1]

    def _peek(self) -> str:
        return self.words[self.at].word if self.at < len(self.words) else ""

    def _skip(self, word: str) -> None:
        if self._peek() == word:
            self.at += 1

    def _text(self, *, optional: bool = False) -> str:
        if self.at < len(self.words) and self.words[self.at].kind == "string":
            return unquoted(self._next().text)
        if optional:
            return ""
        raise syntax(self._next().text)

    def _number(self, option: str) -> int:
        token = self._next()
        if token.kind != "number" or not token.text.isdigit():
            raise syntax(token.text)
        return int(token.text)
