"""Text files as COPY reads them: CSV, delimited, JSON; each row held to the table's columns, each wrong one with its reason."""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import gzip
import io
import json
import re
import zlib
from decimal import Decimal, InvalidOperation
from typing import IO, Any, Callable, Iterable, Iterator, Sequence

from penstock.stack.redshift.columns import Column, LoadProblem
from penstock.stack.redshift.copying import Copy
from penstock.stack.redshift.objects import Object
from penstock.stack.redshift.problems import Problem

Row = list["str | None"]
Raw = tuple[int, str, "Row | LoadProblem"]  # the line on which it begins, as it stands in the file, and what it holds
_LARGEST_ROW = 4 << 20  # bytes: Redshift's own limit
_RANGES = {"smallint": 1 << 15, "integer": 1 << 31, "bigint": 1 << 63}
_NAMES = {"smallint": "Short", "integer": "Integer", "bigint": "Long", "numeric": "Decimal"}
_DATE = r"\d{4}-\d{1,2}-\d{1,2}"
_TIME = re.compile(rf"{_DATE}(?:[T ]\d{{1,2}}:\d{{2}}(?::\d{{2}}(?:\.\d+)?)?(?: ?(?:Z|UTC|[+-]\d{{2}}(?::?\d{{2}})?))?)?")
_EPOCHS = {"epochsecs": 1, "epochmillisecs": 1000}


def rows(copy: Copy, columns: Sequence[Column], source: Object, file: IO[bytes]) -> Iterator[Row | LoadProblem]:
    """What a file holds, in the order of the columns: rows, and in the place of those that cannot be loaded the reason. Raises Problem."""
    try:
        raw = _json(copy, columns, source, file) if copy.format == "json" else _lines(copy, columns, source, file)
        for line, text, found in raw:
            yield found if isinstance(found, LoadProblem) else _checked(copy, columns, source, line, text, found)
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise Problem(f"Invalid or unsupported compression of {source.url}: {problem}") from None
    except UnicodeDecodeError:
        yield LoadProblem(source.url, 1, None, 1220, "String contains invalid or unsupported UTF8 codepoints.")


def _text(copy: Copy, file: IO[bytes]) -> io.TextIOWrapper:
    plain: Any = gzip.GzipFile(fileobj=file) if "gzip" in copy.options else file
    return io.TextIOWrapper(plain, "utf-8", errors="penstock-question" if "acceptinvchars" in copy.options else "strict", newline="")


codecs.register_error("penstock-question", lambda problem: ("?" * (problem.end - problem.start), problem.end))  # type: ignore[attr-defined]


class _Kept:
    """Lines that are remembered until they are asked for: the csv module hides them."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._kept = iter(lines), list[str]()

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._kept.append(line)
            yield line

    def take(self) -> str:
        """Those since the last time."""
        text = "".join(self._kept).rstrip("\r\n")
        self._kept.clear()
        return text


def _lines(copy: Copy, columns: Sequence[Column], source: Object, file: IO[bytes]) -> Iterator[Raw]:
    kept = _Kept(_text(copy, file))
    split: Iterable[list[str]]
    if copy.format == "csv":
        split = csv.reader(kept, delimiter=copy.delimiter, quotechar=copy.quote, strict=True)
    else:
        split = (line.rstrip("\r\n").split(copy.delimiter) for line in kept)
    line, reader = 1, iter(split)
    while True:
        try:
            values = next(reader, None)
        except csv.Error as problem:
            text = kept.take()
            yield line, text, LoadProblem(source.url, line, None, 1214, f"Invalid quote formatting for CSV: {problem}", text[:1024])
            line += text.count("\n") + 1
            continue
        if values is None:
            return
        text = kept.take()
        here, line = line, line + text.count("\n") + 1
        if here <= copy.skip or not text and "ignoreblanklines" in copy.options:
            continue
        if len(values) > len(columns):
            yield here, text, LoadProblem(source.url, here, columns[-1], 1202, "Extra column(s) found", text[:1024])
        elif len(values) < len(columns) and "fillrecord" not in copy.options:
            yield here, text, LoadProblem(source.url, here, columns[len(values) - 1], 1214, "Delimiter not found", text[:1024])
        else:
            yield here, text, [*values, *[None] * (len(columns) - len(values))]


def _json(copy: Copy, columns: Sequence[Column], source: Object, file: IO[bytes]) -> Iterator[Raw]:
    text = _text(copy, file).read()
    reading = json.JSONDecoder(parse_float=_Float)
    fold: Callable[[str], str] = str.lower if copy.json == "auto ignorecase" else str
    at, line = 0, 1
    while True:
        begun = at
        while at < len(text) and text[at].isspace():
            at += 1
        line += text.count("\n", begun, at)
        if at == len(text):
            return
        try:
            value, end = reading.raw_decode(text, at)
            if not isinstance(value, dict):
                raise ValueError("not an object")
        except ValueError:
            end = text.find("\n", at) % (len(text) + 1)
            raw = text[at:end]
            yield line, raw, LoadProblem(source.url, line, None, 1216, "Invalid JSONPath format: Member is not an object.", raw[:1024])
        else:
            values = {fold(key): inner for key, inner in value.items()}
            yield line, text[at:end], [_plain(values.get(column.name)) for column in columns]
        line += text.count("\n", at, end)
        at = end


def _plain(value: Any) -> str | None:
    """A value of JSON as text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.text if isinstance(value, _Float) else json.dumps(value)


class _Float(float):
    """A number as it was written, for a decimal column."""

    def __new__(cls, text: str) -> _Float:
        """From its text."""
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str


def _checked(copy: Copy, columns: Sequence[Column], source: Object, line: int, text: str, values: Row) -> Row | LoadProblem:
    """A row as PostgreSQL takes it; or what is wrong with it."""
    if len(text) > _LARGEST_ROW:
        return LoadProblem(source.url, line, None, 8001, f"Row size exceeds {_LARGEST_ROW} bytes", text[:1024])
    null = "\\N" if copy.null is None else copy.null
    done: Row = []
    for column, value in zip(columns, values):
        if value is not None and copy.format != "json" and value == null:
            value = None
        texts = column.kind.startswith("character")
        if value is not None and ("trimblanks" in copy.options and texts):
            value = value.rstrip(" ")
        if value is not None and (not value or not value.strip()) and (not texts or copy.options & {"emptyasnull", "blanksasnull"}):
            value = None if not value or not texts or "blanksasnull" in copy.options else value
        wrong = None
        if value is None:
            wrong = None if column.nullable else (1213, "Missing data for not-null field")
        else:
            value, wrong = _value(copy, column, value)
        if wrong:
            return LoadProblem(source.url, line, column, wrong[0], wrong[1], text[:1024], str(value or "")[:1024], text.find(value or ""))
        done.append(value)
    return done


def _value(copy: Copy, column: Column, value: str) -> tuple[str, tuple[int, str] | None]:
    """A value as PostgreSQL takes it, and what is wrong with it."""
    kind = column.kind
    if kind.startswith("character"):
        if column.length and len(value.encode()) > column.length:
            if "truncatecolumns" not in copy.options:
                return value, (1204, "String length exceeds DDL length")
            value = value.encode()[: column.length].decode(errors="ignore")
        return value, (1224, "Invalid null byte - field longer than 1 byte") if "\0" in value else None
    value = value.strip()
    if kind in _RANGES:
        if not re.fullmatch(r"[+-]?\d+", value):
            return value, (1207, f"Invalid digit, Value '{value[:1]}', Pos 0, Type: {_NAMES[kind]} ")
        return value, None if -_RANGES[kind] <= int(value) < _RANGES[kind] else (1216, f"Overflow, Value '{value}', Type: {_NAMES[kind]} ")
    if kind == "numeric":
        try:
            number = Decimal(value)
        except InvalidOperation:
            return value, (1207, f"Invalid digit, Value '{value[:1]}', Pos 0, Type: Decimal ")
        fits = number.is_finite() and abs(number) < Decimal(10) ** (column.precision - column.scale)
        return value, None if fits else (1208, f"Overflow for NUMERIC({column.precision},{column.scale})")
    if kind == "boolean":
        known = value.lower() in ("t", "true", "y", "yes", "1", "f", "false", "n", "no", "0")
        return value, None if known else (1210, "Unknown boolean format")
    if kind.startswith("timestamp"):
        if copy.time_format in _EPOCHS and value.isdigit():
            at = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=int(value) / _EPOCHS[copy.time_format])
            return at.isoformat(" "), None
        return value, None if _TIME.fullmatch(value) else (1206, "Invalid timestamp format or value [YYYY-MM-DD HH24:MI:SS]")
    if kind == "date":
        return value, None if re.fullmatch(_DATE, value) else (1205, "Invalid Date Format - length must be 10 or more")
    return value, None
