"""The aggregation kernels in plain Python: the oracle of the compiled ones, and what runs, loudly, where there is no compiler.

docs/cell-format.md gives the layout of cells and row keys byte for byte. Nothing here imports a compiled module.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import CorruptionError, InternalError
from penstock.kernels import reasons
from penstock.kernels.columns import Column, Columns
from penstock.kernels.plan import BreakdownKeys, MeasurePlan, RollupPlan
from penstock.model import Field
from penstock.model.fields import INT64_MAX, INT64_MIN, Timestamp
from penstock.model.rollup import CELL_FORMAT

NO_WATERMARK = -(2**62)  # before the first valid record; a lateness taken from it still fits 64 bits
ACCEPTED, LATE, REJECTED = 0, 1, 2
_64 = 2**64 - 1
_P1, _P2, _P3, _P4, _P5 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def judge(times: npt.NDArray[np.int64], log_timestamps: npt.NDArray[np.int64], reject: npt.NDArray[np.int32], start: int, stop: int, watermark: int,
          lateness: int, ahead: int, verdict: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
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


# Hashing


def _rotate(value: int, by: int) -> int:
    return (value << by | value >> (64 - by)) & _64


def _round(lane: int, word: int) -> int:
    return _rotate((lane + word * _P2) & _64, 31) * _P1 & _64


def xxh64(data: bytes, seed: int = 0) -> int:
    """XXH64 of bytes, from its specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md)."""
    at, length = 0, len(data)
    if length >= 32:
        lanes = [(seed + _P1 + _P2) & _64, (seed + _P2) & _64, seed, (seed - _P1) & _64]
        while at + 32 <= length:
            for lane in range(4):
                lanes[lane] = _round(lanes[lane], int.from_bytes(data[at:at + 8], "little"))
                at += 8
        hashed = sum(_rotate(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18))) & _64
        for lane in lanes:
            hashed = ((hashed ^ _round(0, lane)) * _P1 + _P4) & _64
    else:
        hashed = (seed + _P5) & _64
    hashed = (hashed + length) & _64
    for _ in range((length - at) // 8):
        hashed = (_rotate(hashed ^ _round(0, int.from_bytes(data[at:at + 8], "little")), 27) * _P1 + _P4) & _64
        at += 8
    if length - at >= 4:
        hashed = (_rotate(hashed ^ int.from_bytes(data[at:at + 4], "little") * _P1 & _64, 23) * _P2 + _P3) & _64
        at += 4
    for byte in data[at:]:
        hashed = _rotate(hashed ^ byte * _P5 & _64, 11) * _P1 & _64
    hashed = (hashed ^ hashed >> 33) * _P2 & _64
    hashed = (hashed ^ hashed >> 29) * _P3 & _64
    return hashed ^ hashed >> 32


def canonical_bytes(field: Field, value: Any) -> bytes:
    """What is hashed of a canonical value: UTF-8 of a text, 8 bytes little-endian of a number."""
    return value.encode() if field.kind in ("string", "enum") else int(value).to_bytes(8, "little", signed=True)


class Hll:
    """A HyperLogLog of 2**precision registers, 4 <= precision <= 16; each holds the greatest rank seen."""

    def __init__(self, precision: int) -> None:
        if not 4 <= precision <= 16:
            raise InternalError(f"a HyperLogLog of precision {precision}; 4 to 16 are possible")
        self.precision = precision
        self._ranks: dict[int, int] = {}

    def add(self, hashed: int) -> None:
        """Count a value by its XXH64."""
        rest = hashed << self.precision & _64
        self.set(hashed >> (64 - self.precision), min(64 - rest.bit_length(), 64 - self.precision) + 1)

    def set(self, register: int, rank: int) -> None:
        """Raise a register to a rank, if it is lower."""
        if rank > self._ranks.get(register, 0):
            self._ranks[register] = rank

    def merge(self, other: Hll) -> None:
        """Add what another of the same precision has counted. InternalError if it is of another."""
        if other.precision != self.precision:
            raise InternalError(f"a HyperLogLog of precision {other.precision} cannot be merged into one of {self.precision}")
        for register, rank in other._ranks.items():
            self.set(register, rank)

    def registers(self) -> bytes:
        """All registers, a byte each."""
        return bytes(self._ranks.get(register, 0) for register in range(2**self.precision))

    def estimate(self) -> float:
        """How many different values: the improved raw estimator, Algorithm 6 of O. Ertl, "New cardinality estimation algorithms for
        HyperLogLog sketches", arXiv:1702.01284."""
        size, most = 2**self.precision, 64 - self.precision
        counts = [0] * (most + 2)
        for rank in self._ranks.values():
            counts[rank] += 1
        counts[0] = size - len(self._ranks)
        if not self._ranks:
            return 0.0
        total = size * _tau(1 - counts[most + 1] / size)
        for count in counts[most:0:-1]:
            total = 0.5 * (total + count)
        return float(size * size / (2 * math.log(2) * (total + size * _sigma(counts[0] / size))))

    def to_bytes(self) -> bytes:
        """Its part of a cell: sparse while that is smaller, else dense."""
        entries, previous = bytearray(), -1
        for register, rank in sorted(self._ranks.items()):
            entries += _varint(register - previous - 1 << 6 | rank)
            previous = register
        if len(entries) < 3 * 2**self.precision // 4:
            return _varint(len(self._ranks) + 1) + entries
        packed = sum(rank << 6 * register for register, rank in self._ranks.items())
        return b"\0" + packed.to_bytes(3 * 2**self.precision // 4, "little")

    @classmethod
    def from_bytes(cls, data: bytes, precision: int) -> Hll:
        """The sketch of its bytes. Raises CorruptionError."""
        reader = _Reader(data, 0)
        made = reader.hll(precision)
        reader.end()
        return made


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z, last = 1.0, x, -1.0
    while z != last:
        x, last = x * x, z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x == 0.0 or x == 1.0:
        return 0.0
    y, z, last = 1.0, 1 - x, -1.0
    while z != last:
        x, last = math.sqrt(x), z
        y *= 0.5
        z -= (1 - x) ** 2 * y
    return z / 3


# Cells


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


class _Reader:
    """Reads untrusted bytes; every read is checked against their end, and only the one canonical form of a value passes."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def corrupt(self, what: str) -> CorruptionError:
        return CorruptionError(f"cell is corrupt at byte {self.at} of {len(self.data)}: {what}", hint="nothing of it is used; rebuild its window from the archive")

    def varint(self, bits: int) -> int:
        value = shift = 0
        while True:
            if self.at >= len(self.data):
                raise self.corrupt("it ends within a number")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if value >> bits or (byte == 0 and shift):
                raise self.corrupt(f"not a number of {bits} bits in its shortest form")
            if byte < 0x80:
                return value
            shift += 7

    def hll(self, precision: int) -> Hll:
        made, size, most = Hll(precision), 3 * 2**precision // 4, 65 - precision
        count, register, begin = self.varint(32), -1, self.at
        if count == 0:
            packed = int.from_bytes(self.data[self.at:self.at + size], "little")
            if len(self.data) - self.at < size:
                raise self.corrupt("it ends within dense registers")
            self.at += size
            for register in range(2**precision):
                rank = packed >> 6 * register & 63
                if rank > most:
                    raise self.corrupt(f"rank {rank} is beyond {most}")
                if rank:
                    made.set(register, rank)
            if made.to_bytes()[0] != 0:
                raise self.corrupt("dense registers that are smaller sparse")
            return made
        for _ in range(count - 1):
            entry = self.varint(precision + 6)
            register, rank = register + 1 + (entry >> 6), entry & 63
            if register >= 2**precision or not 1 <= rank <= most:
                raise self.corrupt(f"register {register} of rank {rank}")
            if self.at - begin >= size:
                raise self.corrupt("sparse registers that are not smaller than dense")
            made.set(register, rank)
        return made

    def end(self) -> None:
        if self.at != len(self.data):
            raise self.corrupt("bytes are left over")


def _stamp(cell: bytes) -> tuple[int, int]:
    """The stamp, and where the measures begin."""
    if not cell or cell[0] != CELL_FORMAT:
        raise CorruptionError(f"cell has format {cell[0] if cell else 'none'}, not {CELL_FORMAT}", hint="it was written by another version of Penstock, or damaged")
    reader = _Reader(cell, 1)
    return reader.varint(63), reader.at


def cell_stamp(cell: bytes) -> int:
    """The offset up to which a cell includes its shard's records. Raises CorruptionError."""
    return _stamp(cell)[0]


def strip_stamp(cell: bytes) -> bytes:
    """The cell without its stamp: the same state gives the same bytes. Raises CorruptionError."""
    return cell[:1] + cell[_stamp(cell)[1]:]


def _empty(measures: Sequence[MeasurePlan]) -> list[Any]:
    return [Hll(one.precision) if one.kind == "uniques" else 0 if one.kind in ("count", "sum") else None for one in measures]


def _merge(measures: Sequence[MeasurePlan], into: list[Any], other: list[Any]) -> None:
    for index, one in enumerate(measures):
        if one.kind == "uniques":
            into[index].merge(other[index])
        elif one.kind in ("count", "sum"):
            into[index] += other[index]
            if into[index] >= 2**(63 if one.kind == "count" else 127) or into[index] < -(2**127):
                raise CorruptionError(f"measure {one.name!r} overflows: no log holds that many records", hint="a cell of it was damaged")
        elif other[index] is not None:
            into[index] = other[index] if into[index] is None else (min if one.kind == "min" else max)(into[index], other[index])


def _write(measures: Sequence[MeasurePlan], state: list[Any], stamp: int) -> bytes:
    if not 0 <= stamp <= INT64_MAX:
        raise InternalError(f"stamp {stamp} is not an offset")
    out = bytearray([CELL_FORMAT]) + _varint(stamp)
    for one, value in zip(measures, state):
        if one.kind == "uniques":
            out += value.to_bytes()
        elif one.kind == "count":
            out += _varint(value)
        elif one.kind == "sum":
            out += _varint(_zigzag(value))
        else:
            out += _varint(0 if value is None else _zigzag(value) + 1)
    return bytes(out)


def decode_cell(plan: RollupPlan, cell: bytes) -> list[Any]:
    """One value a stored measure, in order: int of a count or a sum, int or None of an extreme, Hll of uniques. Raises CorruptionError."""
    reader, values = _Reader(cell, _stamp(cell)[1]), []
    for one in plan.measures:
        value: Any
        if one.kind == "uniques":
            value = reader.hll(one.precision)
        elif one.kind == "count":
            value = reader.varint(63)
        else:
            value = reader.varint(128) if one.kind == "sum" else reader.varint(65) - 1
            if value > _64 and one.kind != "sum":
                raise reader.corrupt("an extreme beyond 64 bits")
            value = None if value < 0 else value >> 1 ^ -(value & 1)
        values.append(value)
    reader.end()
    return values


def merge_cells(plan: RollupPlan, cells: Sequence[bytes], stamp: int) -> bytes:
    """One cell of several, none of which counts a record that another counts. Raises CorruptionError, and InternalError for none."""
    if not cells:
        raise InternalError("there is no cell to merge")
    state = _empty(plan.measures)
    for cell in cells:
        _merge(plan.measures, state, decode_cell(plan, cell))
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
    return bytes([128 + length]) + value.to_bytes(length, "big") if value >= 0 else bytes([128 - length]) + (value + 256**length - 1).to_bytes(length, "big")


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
        if _encode_text(decoded) != row[at - 1:end + 1]:
            raise _bad_row(row, "has no well-formed text")
        return decoded, end + 1
    length = abs(tag - 128)
    number = int.from_bytes(row[at:at + length], "big")
    value = number if tag >= 128 else number + 1 - 256**length
    if length > 8 or at + length > len(row) or not INT64_MIN <= value <= INT64_MAX or _encode_number(value) != row[at - 1:at + length]:
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
    return entity, int.from_bytes(row[at:at + 4], "big"), values


def row_parts(plan: RollupPlan, breakdown: int, row: bytes) -> tuple[bytes, int, bytes]:
    """What stands before a row's bucket, the bucket, and what stands after it. Raises CorruptionError."""
    _, at, _ = _walk(plan, breakdown, row)
    return row[:at], int.from_bytes(row[at:at + 4], "big"), row[at + 4:]


def column_key(generation: bytes, window_offset: int, shard: bytes) -> bytes:
    """The column of a window within its bucket, as one shard of a generation counts it."""
    if len(generation) != 8 or len(shard) != 12 or not 0 <= window_offset < 2**16:
        raise InternalError(f"generation {generation!r}, window offset {window_offset}, shard {shard!r} are not 8 bytes, 16 bits and 12 bytes")
    return generation + window_offset.to_bytes(2, "big") + shard


def split_column(column: bytes) -> tuple[bytes, int, bytes]:
    """The generation, the window's offset in its bucket, and the shard of a column. Raises CorruptionError."""
    if len(column) != 22:
        raise CorruptionError(f"column {column.hex()} has {len(column)} bytes, not 22", hint="the table holds columns that no roll-up wrote")
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
            len(value._ranks) for group in self._groups for state in group.values() for value in state if isinstance(value, Hll))

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
        needed = {self.plan.time} | {key for one in self.plan.breakdowns for key in one.keys} | {one.column for one in self.plan.measures if one.column}
        values = {name: dict(zip(rows, _values(columns.columns[name], rows))) for name in needed}
        for row in rows:
            time = values[self.plan.time][row]
            if not 0 <= time < Timestamp.LIMIT:
                raise InternalError(f"event time {time} of record {row} is out of range", hint="the schema's decoder must reject such a record")
            for breakdown, group in zip(self.plan.breakdowns, self._groups):
                key = (time // breakdown.width, *(values[name][row] for name in breakdown.keys))
                if (state := group.get(key)) is None:
                    state = group[key] = _empty(self.plan.measures)
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
            rows = [row_key(entity_prefix(one.fields[0], key[1]), one.index, key[0] // one.span, zip(one.fields[1:], key[2:])) for key in group]
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
                total = _empty(measures)
                if cell is not None:
                    _merge(measures, total, decode_cell(self.plan, cell))
                _merge(measures, total, state)
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
            yield bytes(data[offsets[row]:offsets[row + 1]]).decode()
        elif field.kind == "enum":
            yield field.values[data[row]]  # type: ignore[attr-defined]
        else:
            yield bool(data[row]) if field.kind == "bool" else int(data[row])
