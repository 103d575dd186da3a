"""The keys of records that come without one: the text of the schema's key field, so that an entity keeps to one partition."""

from __future__ import annotations

import importlib
from typing import Any, Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import ConfigurationError
from penstock.kernels import DECODERS
from penstock.kernels.columns import Column, Records
from penstock.kernels.encode import Slices
from penstock.model import Schema

KeyReader = Callable[[Slices], "Slices | None"]


def key_reader(schema: Schema) -> KeyReader:
    """What takes the key of each value: UTF-8 for text, decimal digits for whole numbers; null for a record without one that fits the schema.

    Answers None where the schema names no key, or one that is not part of the value.
    """
    if schema.key is None or schema.fields[schema.key].source != "value":
        return lambda values: None
    decoder = decoder_of(schema.format)({schema.key: schema.fields[schema.key]})

    def read(values: Slices) -> Slices:
        decoded = decoder.decode(records_of(values))
        return keys_of(decoded.columns[schema.key], decoded.reject)

    return read


def keys_of(column: Column, reject: npt.NDArray[np.int32]) -> Slices:
    """The keys of decoded records: null where the key is, or where the record is a reject."""
    keys = _texts(column)
    missing = reject != 0
    if column.valid is not None:
        missing |= column.valid == 0
    return Slices(keys.buffer, keys.start, np.where(missing, -1, keys.length).astype(np.int32))


def decoder_of(name: str) -> Any:
    """The decoder class of a schema's format. Raises ConfigurationError for one that cannot be imported."""
    if name in DECODERS:
        return DECODERS[name]
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as problem:
        raise ConfigurationError(
            f"format {name!r}: there is no such decoder ({problem})", hint="write package.module:DecoderClass, and install that package"
        ) from problem


def records_of(values: Slices, timestamps: npt.NDArray[np.int64] | None = None) -> Records:
    """Values as the records that a decoder takes, without key and headers. timestamps: the log's, in microseconds; 0 unless given."""
    count = len(values)
    zeros, ones = np.zeros(count, np.int64), np.full(count, -1, np.int32)
    return Records(
        bytes(values.buffer),
        np.arange(count, dtype=np.int64),
        zeros if timestamps is None else timestamps,
        zeros,
        ones,
        values.start,
        values.length,
        zeros,
        np.zeros(count, np.int32),
    )


def _texts(column: Column) -> Slices:
    if column.offsets is not None:
        return Slices(column.data.tobytes(), column.offsets[:-1].astype(np.int64), np.diff(column.offsets))
    if column.field.kind == "enum":
        texts = column.to_arrow().cast(pa.string())
    elif column.field.kind == "bool":
        texts = pa.array(column.data != 0).cast(pa.string())
    else:
        texts = pa.array(column.data).cast(pa.string())
    _, offsets, data = texts.fill_null("").buffers()
    ends = np.frombuffer(offsets, np.int32)[: len(column.data) + 1]
    return Slices(b"" if data is None else data.to_pybytes(), ends[:-1].astype(np.int64), np.diff(ends))
