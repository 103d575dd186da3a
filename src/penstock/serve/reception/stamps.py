"""What is stamped onto events that lack it: an id, when they were received, from which address, and with which browser.

A stamp is put behind what the event holds already: of keys that occur twice the last counts, so that a null is replaced as well, and not a byte of the rest is
read or written anew.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Mapping, Sequence

import msgpack
import numpy as np

from penstock.errors import ConfigurationError
from penstock.kernels.encode import Slices
from penstock.log.keys import decoder_of, records_of
from penstock.model import Schema, String, Timestamp

STAMPS = {"id": String, "received": Timestamp, "ip": String, "user_agent": String}
_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_BLANK = b" \t\n\r"


@dataclasses.dataclass(frozen=True)
class Sent:
    """What a request says of all of its events. ids: what the ids of its events begin with, 24 hexadecimal digits. received: microseconds since 1970."""

    ids: str
    received: int
    ip: str | None = None
    user_agent: str | None = None


class Stamper:
    """Fills fields of one schema. fields: which field each stamp goes to; none for none. Raises ConfigurationError for a field that cannot take it."""

    def __init__(self, schema: Schema, fields: Mapping[str, str]) -> None:
        self.fields = {name: what for what, name in fields.items()}
        self._schema = schema
        for what, name in fields.items():
            self._check(what, name)
        absent = {
            name: dataclasses.replace(schema.fields[name], nullable=True, default=None)
            if not isinstance(schema.fields[name], Timestamp)
            else Timestamp(schema.fields[name].unit, path=schema.fields[name].path, nullable=True)  # type: ignore[attr-defined]
            for name in schema.fields
            if name in self.fields
        }
        self._decoder = decoder_of(schema.format)(absent) if absent else None

    def _check(self, what: str, name: str) -> None:
        where, field = f"serve.reception.stamp.{self._schema.name}: {what}", self._schema.fields.get(name)
        if field is None:
            raise ConfigurationError(f"{where}: there is no field {name!r}", hint=f"the fields are {', '.join(self._schema.fields)}")
        if not isinstance(field, STAMPS[what]):
            raise ConfigurationError(f"{where}: {name!r} is a {type(field).__name__}", hint=f"name a {STAMPS[what].__name__} field")
        if field.source != "value" or len(field.keys(name)) > 1:
            raise ConfigurationError(f"{where}: {name!r} does not lie at the top of an event's value", hint="name a field that does")
        if self._schema.format not in ("json", "msgpack"):
            raise ConfigurationError(f"{where}: events are {self._schema.format}", hint="stamps go onto json and msgpack")

    def stamped(self, values: Slices, sent: Sequence[tuple[int, Sent]]) -> Slices:
        """The events of some requests, in order, stamped where they lack something. sent: of each request how many events, and what it says of them."""
        if self._decoder is None or not len(values):
            return values
        decoded = self._decoder.decode(records_of(values))
        lacking = {
            name: (column.valid == 0) & (decoded.reject == 0) for name, column in decoded.columns.items() if column.valid is not None
        }
        if not any(mask.any() for mask in lacking.values()):
            return values
        changed: dict[int, bytes] = {}
        first = 0
        for count, one in sent:
            constant = {name: self._constant(name, one) for name in lacking if self.fields[name] != "id"}
            some = np.flatnonzero(np.logical_or.reduce([mask[first : first + count] for mask in lacking.values()]))
            for index in some.tolist():
                row = first + index
                added = {
                    name: constant[name] if name in constant else f"{one.ids}{index:08x}"
                    for name, mask in lacking.items()
                    if mask[row] and constant.get(name, "") is not None
                }
                if added:
                    changed[row] = self._append(values.get(row) or b"", added)
            first += count
        return _replaced(values, changed)

    def _constant(self, name: str, sent: Sent) -> Any:
        field: Any = self._schema.fields[name]
        what = self.fields[name]
        if what == "received":
            if field.unit == "iso8601":
                from penstock.model.units import iso

                return iso(sent.received)
            return sent.received // _UNITS[field.unit]
        text = getattr(sent, what)
        return None if text is None else text.encode()[: field.max_bytes].decode("utf-8", "ignore")

    def _append(self, value: bytes, added: dict[str, Any]) -> bytes:
        named = {self._schema.fields[name].keys(name)[0]: one for name, one in added.items()}
        return append_msgpack(value, named) if self._schema.format == "msgpack" else append_json(value, named)


def append_json(value: bytes, added: Mapping[str, Any]) -> bytes:
    """A JSON object with more keys behind its own."""
    inside = value.rstrip(_BLANK)[:-1]
    comma = b"" if inside.strip(_BLANK) == b"{" else b","
    return inside + comma + json.dumps(added, separators=(",", ":"), ensure_ascii=False).encode()[1:]


def append_msgpack(value: bytes, added: Mapping[str, Any]) -> bytes:
    """A msgpack map with more keys behind its own."""
    first = value[0]
    count, start = (first & 0x0F, 1) if first < 0xDE else (int.from_bytes(value[1 : (size := 3 if first == 0xDE else 5)], "big"), size)
    head = msgpack.Packer().pack_map_header(count + len(added))
    return b"".join((head, value[start:], *(msgpack.packb(part) for pair in added.items() for part in pair)))


def _replaced(values: Slices, changed: Mapping[int, bytes]) -> Slices:
    """Slices of which some rows are other bytes."""
    start, length, at = values.start.copy(), values.length.copy(), len(values.buffer)
    for row, value in changed.items():
        start[row], length[row] = at, len(value)
        at += len(value)
    return Slices(b"".join((values.buffer, *changed.values())), start, length)
