"""Which events fit the schema: what the bolts would say of them, by the same kernels, for all that wait at once."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import ConfigurationError
from penstock.kernels import judge, reasons
from penstock.kernels.columns import Columns
from penstock.kernels.encode import Slices
from penstock.log.keys import decoder_of, keys_of, records_of
from penstock.model import Schema
from penstock.rollup.control import NO_WATERMARK
from penstock.serve.reception.stamps import Sent, Stamper

FORBIDDEN = 0xFF  # a reason of reception's own: the key does not reach the event's entity
_EVER = 1 << 62  # no event is late here: that depends on what others bring


@dataclasses.dataclass(frozen=True)
class Reject:
    """An event that was not taken. index: in its request. field: at fault, None where it is the whole event. reason: one of penstock.kernels.reasons."""

    index: int
    field: str | None
    reason: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        """The reject as plain data."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Part:
    """The events of one request. reach: by field, the values that its key reaches; None for all."""

    values: Slices
    sent: Sent
    reach: Mapping[str, Sequence[Any]] | None = None


@dataclasses.dataclass(frozen=True)
class Examined:
    """The events of some requests, one after the other. reject: a code each, 0 for those that fit. keys: of the log's records; None without."""

    values: Slices
    timestamps: npt.NDArray[np.int64]
    reject: npt.NDArray[np.int32]
    keys: Slices | None


class Examiner:
    """Examines the events of one schema. Not for several threads at a time.

    stamps: which fields are filled where they are absent. max_event: bytes. Raises ConfigurationError for a stamp that does not fit the schema.
    """

    def __init__(self, schema: Schema, stamps: Mapping[str, str], max_event: int) -> None:
        if schema.format not in ("json", "msgpack"):
            raise ConfigurationError(
                f"dataset {schema.name!r} has events of format {schema.format}, which cannot be posted",
                hint="append them with penstock.log.producer",
            )
        self.schema, self._max_event = schema, max_event
        self._stamper = Stamper(schema, stamps)
        self._names = tuple(schema.fields)
        self._decoder = decoder_of(schema.format)(schema.fields)

    def examine(self, parts: Sequence[Part]) -> Examined:
        """The events of some requests, stamped and judged."""
        counts = [len(part.values) for part in parts]
        values = joined([part.values for part in parts])
        values = self._stamper.stamped(values, [(count, part.sent) for count, part in zip(counts, parts)])
        timestamps = np.repeat(np.array([part.sent.received for part in parts], np.int64), counts)
        decoded = self._decoder.decode(records_of(values, timestamps))
        reject = decoded.reject
        times = decoded.columns[self.schema.time].data
        judge(times, timestamps, reject, 0, len(reject), NO_WATERMARK, _EVER, self.schema.ahead, np.zeros(len(reject), np.uint8))
        reject[(values.length > self._max_event) & (reject == 0)] = reasons.TOO_LONG
        first = 0
        for count, part in zip(counts, parts):
            if part.reach is not None:
                self._reach(decoded, first, first + count, part.reach)
            first += count
        key = self.schema.key
        keys = keys_of(decoded.columns[key], reject) if key is not None and self.schema.fields[key].source == "value" else None
        return Examined(values, timestamps, reject, keys)

    def _reach(self, decoded: Columns, start: int, stop: int, reach: Mapping[str, Sequence[Any]]) -> None:
        """Reject the events of [start, stop) whose entity the key does not reach."""
        reject = decoded.reject[start:stop]
        for name, values in reach.items():
            column = decoded.columns[name].to_arrow().slice(start, stop - start)
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if not len(values):
                inside = np.zeros(len(reject), bool)
            else:
                inside = pc.is_in(column, pa.array(values, _plain(column.type)).cast(column.type)).to_numpy(zero_copy_only=False)
            reject[(reject == 0) & ~inside] = FORBIDDEN | (self._names.index(name) + 1) << 8

    def rejects(self, codes: npt.NDArray[np.int32]) -> tuple[Reject, ...]:
        """The rejects among the events of one request."""
        return tuple(self._reject(index, int(codes[index])) for index in np.flatnonzero(codes).tolist())

    def _reject(self, index: int, code: int) -> Reject:
        field, reason = self._names[(code >> 8) - 1] if code >> 8 else None, code & 0xFF
        if reason == FORBIDDEN:
            return Reject(index, field, "forbidden", f"field {field!r} holds what this key does not reach")
        if reason == reasons.FUTURE:
            return Reject(index, self.schema.time, "future", f"field {self.schema.time!r} claims to come from the future")
        return Reject(index, field, reasons.NAMES[reason], reasons.describe(code, self._names))


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_timestamp(kind) else kind


def joined(all: Sequence[Slices]) -> Slices:
    """Slices one after the other, of one buffer."""
    if len(all) == 1:
        return all[0]
    shifts = np.cumsum([0, *(len(one.buffer) for one in all)])
    return Slices(
        b"".join(one.buffer for one in all),
        np.concatenate([one.start + shift for one, shift in zip(all, shifts.tolist())]),
        np.concatenate([one.length for one in all]),
    )
