"""A request's body as events, in the schema's format. The bytes of an event go through as they are, unless it has to change its format."""

from __future__ import annotations

import cramjam
import msgpack
import numpy as np

from penstock.errors import CorruptionError
from penstock.kernels import compress
from penstock.kernels.encode import Slices, find_elements, find_lines
from penstock.log.formats import converted, parse_json, write_json
from penstock.serve.problems import Problem

FORMS = {
    "application/json": "json",
    "text/plain": "json",  # what navigator.sendBeacon sends without asking first
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
}
CODINGS = {"": "", "identity": "", "gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}
_BLANK = b" \t\n\r"


def inflated(body: bytes, coding: str, limit: int) -> bytes:
    """A body without its content coding. Raises Problem: 415 for one that is not known, 413 beyond `limit` bytes, 400 for bytes that do not decompress."""
    name = CODINGS.get(coding.strip().lower())
    if name is None:
        raise Problem(
            415, f"Content-Encoding {coding[:40]!r} is not read here.", parameter="Content-Encoding", hint="send gzip, zstd, or nothing"
        )
    if name:
        try:
            body = compress.decompress(compress.CODECS[name], body, limit)
        except CorruptionError as problem:
            cause = problem.__context__
            if isinstance(cause, cramjam.DecompressionError) and compress.too_small(cause):
                raise too_large(limit) from None
            raise Problem(400, f"The body does not decompress as {name}.", parameter="body", hint="send it whole") from None
    if len(body) > limit:
        raise too_large(limit)
    return body


def too_large(limit: int) -> Problem:
    """413 for a body that is too large once decompressed."""
    return Problem(413, f"The body is larger than {limit:,} bytes when decompressed.", parameter="body", hint="send less at once")


def form_of(content_type: str) -> str:
    """ "json", "jsonl" or "msgpack". Raises Problem 415."""
    media = content_type.partition(";")[0].strip().lower()
    form = FORMS.get(media)
    if form is None:
        raise Problem(
            415,
            f"A body of type {media[:60] or 'unknown'!r} is not read here.",
            parameter="Content-Type",
            hint="send application/json, application/x-ndjson or application/msgpack",
        )
    return form


def events_of(body: bytes, form: str, format: str, most: int) -> Slices:
    """The events of a body, one or many, in the schema's format: "json" or "msgpack".

    An event that cannot be had in that format stays as it is, and is nothing that fits the schema. Raises Problem: 400 for a body that is no list
    of anything, 413 for more than `most` events.
    """
    try:
        values = {"json": _json, "jsonl": _lines, "msgpack": _msgpack}[form](body, most)
    except OverflowError:
        raise Problem(413, f"There are more than {most:,} events in the body.", parameter="body", hint="send fewer at once") from None
    except ValueError as problem:
        raise Problem(
            400, f"The body holds no events: {problem}.", parameter="body", hint="see /docs for the forms that are read"
        ) from None
    if not len(values):
        raise Problem(400, "The body holds no events.", parameter="body", hint="send one or more")
    if (form == "msgpack") == (format == "msgpack"):
        return values
    raw = [values.get(row) or b"" for row in range(len(values))]
    return converted(raw, msgpack.unpackb, write_json).values if form == "msgpack" else converted(raw, parse_json, msgpack.packb).values


def _json(body: bytes, most: int) -> Slices:
    begin = body.lstrip(_BLANK)[:1]
    if begin == b"[":
        return Slices(body, *find_elements(body, most))
    if begin != b"{":
        raise ValueError("it is neither an object nor an array of objects")
    return Slices(body, np.zeros(1, np.int64), np.array([len(body)], np.int32))


def _lines(body: bytes, most: int) -> Slices:
    if not body.endswith(b"\n"):
        body += b"\n"
    starts, lengths, _ = find_lines(body)
    if len(starts) > most:
        raise OverflowError
    return Slices(body, starts, lengths)


def _msgpack(body: bytes, most: int) -> Slices:
    """One map, several one after the other, or an array of them."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(body) + 1)
    unpacker.feed(body)
    first, count = body[:1], None
    if first and (0x90 <= first[0] <= 0x9F or first[0] in (0xDC, 0xDD)):
        count = unpacker.read_array_header()
        if count > most:
            raise OverflowError
    ends = [unpacker.tell()]
    try:
        while len(ends) <= (most if count is None else count):
            unpacker.skip()
            ends.append(unpacker.tell())
        if count is None and ends[-1] < len(body):
            raise OverflowError
    except msgpack.OutOfData:
        if count is not None:
            raise ValueError("its msgpack array is cut off") from None
    except (ValueError, RecursionError):
        raise ValueError(f"there is no msgpack at byte {ends[-1]}") from None
    if ends[-1] != len(body):
        raise ValueError(f"there is no whole msgpack value at byte {ends[-1]}")
    bounds = np.array(ends, np.int64)
    return Slices(body, bounds[:-1], np.diff(bounds).astype(np.int32))
