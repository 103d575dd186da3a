"""Input formats: JSON Lines, a msgpack stream, CSV with a header, a web server's access log; to records in a schema's own format.

What does not parse is passed on as it is, so that it ends as a reject, with its offset and its bytes, and not in nothing. Blank lines are no records.
"""

from __future__ import annotations

import csv
import datetime as dt
import functools
import json
import re
from typing import Any, Callable, Iterator, NamedTuple

import msgpack
import numpy as np

from penstock.errors import ConfigurationError
from penstock.kernels.encode import Slices, find_lines
from penstock.log.sources import Source
from penstock.model import Field, Schema

LONGEST = 64 << 20  # bytes of one record
_CSV_ROWS = 4096


class Block(NamedTuple):
    """Some records, in order, and how many of them did not parse and are passed on as they were."""

    values: Slices
    unparsed: int


Write = Callable[
    [Any], bytes
]  # a parsed record in the schema's format; ValueError, TypeError, OverflowError or RecursionError if it has no such form
_UNWRITABLE = (ValueError, TypeError, OverflowError, RecursionError)


def read_blocks(source: Source, format: str, schema: Schema) -> Iterator[Block]:
    """All records of an input, in the schema's format."""
    if schema.format not in ("json", "msgpack") and format in ("csv", "combined"):
        raise ConfigurationError(
            f"schema {schema.name!r}: records of format {schema.format} cannot be made of {format}",
            hint="produce files that hold such records: jsonl or msgpack",
        )
    readers = {"jsonl": _json_lines, "msgpack": _msgpack_stream, "csv": _csv_rows, "combined": _combined}
    return readers[format](source, schema)


def write_json(record: Any) -> bytes:
    """A record as compact JSON."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _writer(schema: Schema) -> Write:
    return msgpack.packb if schema.format == "msgpack" else write_json


def converted(raw: list[bytes], parse: Callable[[bytes], Any], write: Write) -> Block:
    """Records of another format in the schema's. One that does not parse, or has no such form, stays as it is."""
    out, unparsed = [], 0
    for line in raw:
        try:
            out.append(write(parse(line)))
        except _UNWRITABLE:
            out.append(line)
            unparsed += 1
    return Block(Slices.of(out), unparsed)


def _lines(source: Source) -> Iterator[Slices]:
    rest, ended = b"", False
    while not ended:
        data = source.read()
        ended = not data
        if ended and not rest:
            return
        block = rest + (data or b"\n")
        starts, lengths, end = find_lines(block)
        rest = block[end:]
        if len(rest) > LONGEST:
            raise ConfigurationError(f"{source.name}: a line is longer than {LONGEST >> 20} MiB", hint="is this the right --format?")
        yield Slices(block, starts, lengths)


def _json_lines(source: Source, schema: Schema) -> Iterator[Block]:
    for lines in _lines(source):
        if schema.format == "msgpack":
            yield converted([lines.get(row) or b"" for row in range(len(lines))], parse_json, msgpack.packb)
            continue
        block = np.frombuffer(lines.buffer, np.uint8)  # the very bytes go through: here only a look at the braces
        odd = np.flatnonzero((block[lines.start] != ord("{")) | (block[lines.start + np.maximum(lines.length, 1) - 1] != ord("}")))
        trimmed = ((lines.get(row) or b"").strip() for row in odd.tolist())
        yield Block(lines, sum(not (line.startswith(b"{") and line.endswith(b"}")) for line in trimmed))


def parse_json(text: bytes) -> Any:
    """JSON as the standard has it: no NaN, no infinities. Raises ValueError."""
    return json.loads(text.decode(), parse_constant=_refuse)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _msgpack_stream(source: Source, schema: Schema) -> Iterator[Block]:
    rest, ended, position = b"", False, 0
    while not ended:
        data = source.read()
        ended = not data
        block = rest + data
        ends = [0]
        unpacker = msgpack.Unpacker(max_buffer_size=LONGEST + len(data) + 1, strict_map_key=False)
        unpacker.feed(block)
        try:
            while True:
                unpacker.skip()
                ends.append(unpacker.tell())
        except msgpack.OutOfData:
            rest = block[ends[-1] :]
        except ValueError:
            raise ConfigurationError(
                f"{source.name}: no msgpack at byte {position + ends[-1]}", hint="is this the right --format?"
            ) from None
        if len(rest) > LONGEST:
            raise ConfigurationError(
                f"{source.name}: the record at byte {position + ends[-1]} is longer than {LONGEST >> 20} MiB",
                hint="is this the right --format?",
            )
        position += ends[-1]
        bounds = np.array(ends, np.int64)
        values = Slices(block, bounds[:-1], np.diff(bounds).astype(np.int32))
        if schema.format == "json":
            yield converted([values.get(row) or b"" for row in range(len(values))], msgpack.unpackb, write_json)
        else:
            yield Block(values, 0)
    if rest:
        yield Block(Slices.of([rest]), 1)


_QUOTED = rb'"((?:[^"\\]|\\.)*)"'
_COMBINED = re.compile(rb"(\S+) \S+ .*?\[([^\]]+)\] " + _QUOTED + rb" (\d{3}) (\d+|-) " + _QUOTED + b" " + _QUOTED + rb"(?: .*)?")
_REQUEST = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (.+?)(?: HTTP/\d(?:\.\d)?)?")
_TIME = re.compile(rb"(\d\d)/(\w{3})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")
_MONTHS = {
    name: number
    for number, name in enumerate((b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1)
}


def _combined(source: Source, schema: Schema) -> Iterator[Block]:
    write = _writer(schema)
    for lines in _lines(source):
        yield converted([lines.get(row) or b"" for row in range(len(lines))], parse_combined, write)


def parse_combined(line: bytes) -> dict[str, Any]:
    """One line of a web server's access log in the combined format (Apache, nginx) as a page view.

    ts is in milliseconds since 1970; the path keeps its query; "-" is null; what the server escaped stays escaped. Raises ValueError.
    """
    match = _COMBINED.fullmatch(line)
    if match is None:
        raise ValueError("not a line of the combined format")
    ip, when, request, status, size, referrer, agent = match.groups()
    asked = _REQUEST.fullmatch(request.decode())
    if asked is None:
        raise ValueError("not a request line")
    return {
        "ts": _time_ms(when),
        "ip": ip.decode(),
        "method": asked[1],
        "path": asked[2],
        "status": int(status),
        "bytes": None if size == b"-" else int(size),
        "referrer": _dash(referrer),
        "user_agent": _dash(agent),
    }


def _dash(text: bytes) -> str | None:
    return None if text == b"-" else text.decode()


@functools.lru_cache(4096)
def _time_ms(text: bytes) -> int:
    match = _TIME.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        raise ValueError("not a time")
    offset = dt.timedelta(hours=int(match[8]), minutes=int(match[9])) * (-1 if match[7] == b"-" else 1)
    moment = dt.datetime(
        int(match[3]), _MONTHS[match[2]], int(match[1]), int(match[4]), int(match[5]), int(match[6]), tzinfo=dt.timezone(offset)
    )
    return int(moment.timestamp()) * 1000


def _csv_rows(source: Source, schema: Schema) -> Iterator[Block]:
    taken: list[bytes] = []

    def text() -> Iterator[str]:
        first = True
        for lines in _lines(source):
            for row in range(len(lines)):
                raw = lines.get(row) or b""
                taken.append(raw)
                yield raw.decode("utf-8-sig" if first else "utf-8", "surrogateescape") + "\n"
                first = False

    rows = csv.reader(text(), strict=True)
    header = next(rows, None)
    if header is None:
        return
    columns, write = csv_columns(header, schema), _writer(schema)
    out: list[bytes] = []
    unparsed = 0
    while True:
        taken.clear()
        try:
            row = next(rows, None)
            if row is None:
                break
            out.append(write(csv_record(row, columns)))
        except (csv.Error, *_UNWRITABLE):
            out.append(b"\n".join(taken))
            unparsed += 1
        if len(out) >= _CSV_ROWS:
            yield Block(Slices.of(out), unparsed)
            out, unparsed = [], 0
    yield Block(Slices.of(out), unparsed)


Column = tuple[tuple[str, ...], "Field | None"]


def csv_columns(header: list[str], schema: Schema) -> list[Column]:
    """For each column of a CSV file, the keys that lead to its value and the field that it feeds: named as the field or as its path ("user.id").

    A column that feeds no field is kept as text, under its own name.
    """
    known: dict[str, Column] = {}
    for name, field in schema.fields.items():
        if field.source == "value":
            known[".".join(field.keys(name))] = known[name] = field.keys(name), field
    return [known.get(title.strip(), ((title.strip(),), None)) for title in header]


def csv_record(row: list[str], columns: list[Column]) -> dict[str, Any]:
    """A row as a record. An empty cell is left out, unless its field is text that may not be missing. Raises ValueError for a row of another width."""
    if len(row) != len(columns):
        raise ValueError(f"{len(row)} cells in {len(columns)} columns")
    record: dict[str, Any] = {}
    for text, (keys, field) in zip(row, columns):
        if not text and (field is None or field.nullable or field.default is not None or field.kind != "string"):
            continue
        inner = record
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = text if field is None else _typed(text, field)
    return record


def _typed(text: str, field: Field) -> Any:
    """A cell as its field's type; the text itself where it is not of that type, for the decoder to reject."""
    try:
        if field.kind in ("int", "decimal") or (field.kind == "timestamp" and field.unit != "iso8601"):  # type: ignore[attr-defined]
            return int(text) if re.fullmatch(r"[+-]?\d+", text.strip(), re.ASCII) else float(text)
        if field.kind == "bool":
            return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)
    except ValueError:
        return text
    return text
