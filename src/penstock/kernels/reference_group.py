"""The aggregation kernels in plain Python: the oracle of the compiled ones, and what runs, loudly, where there is no compiler.

docs/cell-format.md gives the layout of cells and row keys byte for byte. Nothing here imports a compiled module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import CorruptionError, InternalError
from penstock.kernels import reasons
from penstock.kernels.columns import Column, Columns
from penstock.kernels.plan import BreakdownKeys, MeasurePlan, RollupPlan
from penstock.kernels.reference_sketch import Hll, Reader, canonical_bytes, varint, xxh64, zigzag
from penstock.model import Field
from penstock.model.fields import INT64_MAX, INT64_MIN, Timestamp
from penstock.model.rollup import CELL_FORMAT

__all__ = [
    "ACCEPTED",
    "Delta",
    "Hll",
    "LATE",
    "NO_WATERMARK",
    "REJECTED",
    "canonical_bytes",
    "cell_stamp",
    "column_key",
    "decode_cell",
    "decode_cells",
    "entity_prefix",
    "judge",
    "merge_cells",
    "row_key",
    "row_parts",
    "saturate",
    "split_column",
    "split_row",
    "strip_stamp",
    "xxh64",
]
NO_WATERMARK = -(2**62)  # before the first valid record; a lateness taken from it still fits 64 bits
ACCEPTED, LATE, REJECTED = 0, 1, 2


def judge(
    times: npt.NDArray[np.int64],
    log_timestamps: npt.NDArray[np.int64],
    reject: npt.NDArray[np.int32],
    start: int,
    stop: int,
    watermark: int,
    lateness: int,
    ahead: int,
    verdict: npt.NDArray[np.uint8],
) -> tuple[int, int, int, int]:
    """Judge the records [start, stop): see `penstock.kernels._judge.judge`."""
    counts = [0, 0, 0]
    _check_range(start, stop, len(times), len(log_timestamps), len(reject), len(verdict))
    if lateness < 0 or ahead < 0:
        raise InternalError(f"lateness {lateness} and ahead {ahead} must not be negative")
    for row in range(start, stop):
        time = int(times[row])
        if reject[row] == 0 and time > int(log_timestamps[row]) + ahead:
            reject[row] = reasons.FUTURE
        if reject[row] != 0:
            verdict[row] = REJECTED
        else:
            verdict[row] = LATE if time < watermark - lateness else ACCEPTED
            watermark = max(watermark, time)
        counts[verdict[row]] += 1
    return watermark, counts[ACCEPTED], counts[LATE], counts[REJECTED]


def _check_range(start: int, stop: int, *lengths: int) -> None:
    if not 0 <= start <= stop <= min(lengths):
        raise InternalError(f"rows [{start}, {stop}) are not within arrays of {', '.join(map(str, lengths))}")


# Cells


def _stamp(cell: bytes) -> tuple[int, int]:
    """The stamp, and where the measures begin."""
    if not cell or cell[0] != CELL_FORMAT:
        raise CorruptionError(
            f"cell has format {cell[0] if cell else 'none'}, not {CELL_FORMAT}",
            hint="it was written by another version of Penstock, or damaged",
        )
    reader = Reader(cell, 1)
    return reader.varint(63), reader.at


def cell_stamp(cell: bytes) -> int:
    """The offset up to which a cell includes its shard's records. Raises CorruptionError."""
    return _stamp(cell)[0]


def strip_stamp(cell: bytes) -> bytes:
    """The cell without its stamp: the same state gives the same bytes. Raises CorruptionError."""
    return cell[:1] + cell[_stamp(cell)[1] :]


def empty(measures: Sequence[MeasurePlan]) -> list[Any]:
    return [Hll(one.precision) if one.kind == "uniques" else 0 if one.kind in ("count", "sum") else None for one in measures]


def merge(measures: Sequence[MeasurePlan], into: list[Any], other: list[Any]) -> None:
    for index, one in enumerate(measures):
        if one.kind == "uniques":
            into[index].merge(other[index])
        elif one.kind in ("count", "sum"):
            into[index] += other[index]
            if into[index] >= 2 ** (63 if one.kind == "count" else 127) or into[index] < -(2**127):
                raise CorruptionError(f"measure {one.name!r} overflows: no log holds that many records", hint="a cell of it was damaged")
        elif other[index] is not None:
            into[index] = other[index] if into[index] is None else (min if one.kind == "min" else max)(into[index], other[index])


def _write(measures: Sequence[MeasurePlan], state: list[Any], stamp: int) -> bytes:
    if not 0 <= stamp <= INT64_MAX:
        raise InternalError(f"stamp {stamp} is not an offset")
    out = bytearray([CELL_FORMAT]) + varint(stamp)
    for one, value in zip(measures, state):
        if one.kind == "uniques":
            out += value.to_bytes()
        elif one.kind == "count":
            out += varint(value)
        elif one.kind == "sum":
            out += varint(zigzag(value))
        else:
            out += varint(0 if value is None else zigzag(value) + 1)
    return bytes(out)


def decode_cell(plan: RollupPlan, cell: bytes) -> list[Any]:
    """One value a stored measure, in order: int of a count or a sum, int or None of an extreme, Hll of uniques. Raises CorruptionError."""
    reader, values = Reader(cell, _stamp(cell)[1]), []
    for one in plan.measures:
        value: Any
        if one.kind == "uniques":
            value = reader.hll(one.precision)
        elif one.kind == "count":
            value = reader.varint(63)
        else:
            value = reader.varint(128) if one.kind == "sum" else reader.varint(65) - 1
            if value > 2**64 - 1 and one.kind != "sum":
                raise reader.corrupt("an extreme beyond 64 bits")
            value = None if value < 0 else value >> 1 ^ -(value & 1)
        values.append(value)
    reader.end()
    return values


def decode_cells(plan: RollupPlan, cells: Iterable[bytes]) -> list[list[Any]]:
    """For each stored measure, in order, its values in all of some cells, as `decode_cell` has them. Raises CorruptionError."""
    rows = [decode_cell(plan, cell) for cell in cells]
    return [[row[place] for row in rows] for place in range(len(plan.measures))]


def merge_cells(plan: RollupPlan, cells: Sequence[bytes], stamp: int) -> bytes:
    """One cell of several, none of which counts a record that another counts. Raises CorruptionError, and InternalError for none."""
    if not cells:
        raise InternalError("there is no cell to merge")
    state = empty(plan.measures)
    for cell in cells:
        merge(plan.measures, state, decode_cell(plan, cell))
    return _write(plan.measures, state, stamp)


def saturate(total: int) -> tuple[int, bool]:
    """A sum in 64 bits, and whether it had to be cut to fit."""
    value = min(max(total, INT64_MIN), INT64_MAX)
    return value, value != total


# Row keys


def _encode(field: Field, value: Any) -> bytes:
    if value is None:
        return b"\0"
    if field.kind == "bool":
        return b"\2" if value else b"\1"
    return _encode_text(value) if field.kind in ("string", "enum") else _encode_number(value)


def _encode_text(value: str) -> bytes:
    return b"\1" + value.encode().replace(b"\1", b"\1\2").replace(b"\0", b"\1\1") + b"\0"


def _encode_number(value: int) -> bytes:
    if not INT64_MIN <= value <= INT64_MAX:
        raise InternalError(f"{value} does not fit the 64 bits of a key's number")
    length = (abs(value).bit_length() + 7) // 8
    return (
        bytes([128 + length]) + value.to_bytes(length, "big")
        if value >= 0
        else bytes([128 - length]) + (value + 256**length - 1).to_bytes(length, "big")
    )


def _bad_row(row: bytes, what: str) -> CorruptionError:
    return CorruptionError(f"row key {row.hex()} {what}", hint="the table holds rows that this roll-up did not write")


def _decode(field: Field, row: bytes, at: int) -> tuple[Any, int]:
    """The value that begins at a place, and where it ends."""
    if at >= len(row):
        raise _bad_row(row, "ends early")
    tag = row[at]
    at += 1
    if tag == 0:
        return None, at
    if field.kind == "bool":
        if tag > 2:
            raise _bad_row(row, f"has tag {tag} for a bool")
        return tag == 2, at
    if field.kind in ("string", "enum"):
        end = row.find(b"\0", at)
        if tag != 1 or end < 0:
            raise _bad_row(row, "has no well-formed text")
        text = row[at:end]
        plain = text.replace(b"\1\1", b"\0").replace(b"\1\2", b"\1")
        try:
            decoded = plain.decode()
        except UnicodeDecodeError:
            raise _bad_row(row, "holds text that is not UTF-8") from None
        if _encode_text(decoded) != row[at - 1 : end + 1]:
            raise _bad_row(row, "has no well-formed text")
        return decoded, end + 1
    length = abs(tag - 128)
    number = int.from_bytes(row[at : at + length], "big")
    value = number if tag >= 128 else number + 1 - 256**length
    if length > 8 or at + length > len(row) or not INT64_MIN <= value <= INT64_MAX or _encode_number(value) != row[at - 1 : at + length]:
        raise _bad_row(row, "has no well-formed number")
    return value, at + length


def entity_prefix(field: Field, value: Any) -> bytes:
    """What all rows of an entity begin with: a byte of its hash, and its canonical value encoded."""
    encoded = _encode(field, value)
    return bytes([xxh64(encoded) & 0xFF]) + encoded


def row_key(prefix: bytes, breakdown: int, bucket: int, dims: Iterable[tuple[Field, Any]]) -> bytes:
    """The row of an entity's prefix, a breakdown, a bucket of windows and the dimensions' canonical values."""
    if not (0 <= breakdown < 2**8 and 0 <= bucket < 2**32):
        raise InternalError(f"breakdown {breakdown}, bucket {bucket} do not fit a row key")
    return prefix + bytes([breakdown]) + bucket.to_bytes(4, "big") + b"".join(_encode(field, value) for field, value in dims)


def _walk(plan: RollupPlan, breakdown: int, row: bytes) -> tuple[Any, int, list[Any]]:
    """The entity's value, where the bucket stands, and the dimensions' values."""
    fields = plan.breakdowns[breakdown].fields
    entity, at = _decode(fields[0], row, 1)
    if xxh64(row[1:at]) & 0xFF != row[0]:
        raise _bad_row(row, "does not begin with its entity's hash")
    if len(row) < at + 5 or row[at] != breakdown:
        raise _bad_row(row, f"is not of breakdown {breakdown}")
    end, values = at + 5, []
    for field in fields[1:]:
        value, end = _decode(field, row, end)
        values.append(value)
    if end != len(row):
        raise _bad_row(row, "has bytes left over")
    return entity, at + 1, values


def split_row(plan: RollupPlan, breakdown: int, row: bytes) -> tuple[Any, int, list[Any]]:
    """The entity's value, the bucket and the dimensions' values of a row. Raises CorruptionError."""
    entity, at, values = _walk(plan, breakdown, row)
    return entity, int.from_bytes(row[at : at + 4], "big"), values


def row_parts(plan: RollupPlan, breakdown: int, row: bytes) -> tuple[bytes, int, bytes]:
    """What stands before a row's bucket, the bucket, and what stands after it. Raises CorruptionError."""
    _, at, _ = _walk(plan, breakdown, row)
    return row[:at], int.from_bytes(row[at : at + 4], "big"), row[at + 4 :]


def column_key(generation: bytes, window_offset: int, shard: bytes) -> bytes:
    """The column of a window within its bucket, as one shard of a generation counts it."""
    if len(generation) != 8 or len(shard) != 12 or not 0 <= window_offset < 2**16:
        raise InternalError(
            f"generation {generation!r}, window offset {window_offset}, shard {shard!r} are not 8 bytes, 16 bits and 12 bytes"
        )
    return generation + window_offset.to_bytes(2, "big") + shard


def split_column(column: bytes) -> tuple[bytes, int, bytes]:
    """The generation, the window's offset in its bucket, and the shard of a column. Raises CorruptionError."""
    if len(column) != 22:
        raise CorruptionError(
            f"column {column.hex()} has {len(column)} bytes, not 22", hint="the table holds columns that no roll-up wrote"
        )
    return column[:8], int.from_bytes(column[8:10], "big"), column[10:]


# Group-by


class Delta:
    """What the accepted records of one shard add to cells, between two flushes: see `penstock.kernels._group.Delta`."""

    def __init__(self, plan: RollupPlan, generation: bytes, shard: bytes) -> None:
        column_key(generation, 0, shard)
        self.plan, self._generation, self._shard, self._frozen = plan, generation, shard, False
        self._groups: list[dict[tuple[Any, ...], list[Any]]] = [{} for _ in plan.breakdowns]

    @property
    def cells(self) -> int:
        """How many cells it changes."""
        return sum(map(len, self._groups))

    @property
    def nbytes(self) -> int:
        """About how many bytes of memory it takes."""
        return self.cells * (200 + 100 * len(self.plan.measures)) + 100 * sum(
            len(value._ranks) for group in self._groups for state in group.values() for value in state if isinstance(value, Hll)
        )

    def freeze(self) -> None:
        """Let nothing more be added."""
        self._frozen = True

    def add(self, columns: Columns, verdict: npt.NDArray[np.uint8], start: int, stop: int) -> None:
        """Add the accepted records of [start, stop)."""
        if self._frozen:
            raise InternalError("records are added to a frozen delta")
        _check_range(start, stop, len(columns), len(verdict))
        counted, passed = self.plan.masks(columns)
        rows = [row for row in range(start, stop) if verdict[row] == ACCEPTED and (counted is None or counted[row])]
        needed = (
            {self.plan.time}
            | {key for one in self.plan.breakdowns for key in one.keys}
            | {one.column for one in self.plan.measures if one.column}
        )
        values = {name: dict(zip(rows, _values(columns.columns[name], rows))) for name in needed}
        for row in rows:
            time = values[self.plan.time][row]
            if not 0 <= time < Timestamp.LIMIT:
                raise InternalError(
                    f"event time {time} of record {row} is out of range", hint="the schema's decoder must reject such a record"
                )
            for breakdown, group in zip(self.plan.breakdowns, self._groups):
                key = (time // breakdown.width, *(values[name][row] for name in breakdown.keys))
                if (state := group.get(key)) is None:
                    state = group[key] = empty(self.plan.measures)
                for index, one in enumerate(self.plan.measures):
                    if one.filter < 0 or passed[one.filter][row]:
                        self._count(state, index, one, values[one.column][row] if one.column else None)

    @staticmethod
    def _count(state: list[Any], index: int, one: MeasurePlan, value: Any) -> None:
        if one.kind == "count":
            state[index] += 1
        elif value is None:
            return
        elif one.kind == "sum":
            state[index] += value
        elif one.kind == "uniques":
            assert one.field is not None
            state[index].add(xxh64(canonical_bytes(one.field, value)))
        else:
            state[index] = value if state[index] is None else (min if one.kind == "min" else max)(state[index], value)

    def keys(self) -> list[BreakdownKeys]:
        """Where the cells of each breakdown go."""
        made = []
        for one, group in zip(self.plan.breakdowns, self._groups):
            rows = [
                row_key(entity_prefix(one.fields[0], key[1]), one.index, key[0] // one.span, zip(one.fields[1:], key[2:])) for key in group
            ]
            columns = [column_key(self._generation, key[0] % one.span, self._shard) for key in group]
            made.append(BreakdownKeys(one.index, one.table, one.width, np.array([key[0] for key in group], np.int64), rows, columns))
        return made

    def merge(self, breakdown: int, stored: Sequence[bytes | None], stamp: int) -> list[bytes | None]:
        """The cells of a breakdown, in the order of keys(), with what this delta adds."""
        group, measures, made = self._groups[breakdown], self.plan.measures, []
        if len(stored) != len(group):
            raise InternalError(f"{len(stored)} stored cells for {len(group)} keys of breakdown {breakdown}")
        for state, cell in zip(group.values(), stored):
            merged = None
            if cell is None or cell_stamp(cell) < stamp:
                total = empty(measures)
                if cell is not None:
                    merge(measures, total, decode_cell(self.plan, cell))
                merge(measures, total, state)
                merged = _write(measures, total, stamp)
            made.append(merged)
        return made


def _values(column: Column, rows: Sequence[int]) -> Iterator[Any]:
    """The canonical values of some records, None for null."""
    data, offsets, field = column.data, column.offsets, column.field
    for row in rows:
        if column.valid is not None and not column.valid[row]:
            yield None
        elif offsets is not None:
            yield bytes(data[offsets[row] : offsets[row + 1]]).decode()
        elif field.kind == "enum":
            yield field.values[data[row]]  # type: ignore[attr-defined]
        else:
            yield bool(data[row]) if field.kind == "bool" else int(data[row])
