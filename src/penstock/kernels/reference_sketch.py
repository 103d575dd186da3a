"""Hashing, sketches and variable-length numbers in plain Python: what the reference of the aggregation kernels is made of."""

from __future__ import annotations

import math
from typing import Any

from penstock.errors import CorruptionError, InternalError
from penstock.model import Field

_64 = 2**64 - 1
_P1, _P2, _P3, _P4, _P5 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


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
                lanes[lane] = _round(lanes[lane], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        hashed = sum(_rotate(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18))) & _64
        for lane in lanes:
            hashed = ((hashed ^ _round(0, lane)) * _P1 + _P4) & _64
    else:
        hashed = (seed + _P5) & _64
    hashed = (hashed + length) & _64
    for _ in range((length - at) // 8):
        hashed = (_rotate(hashed ^ _round(0, int.from_bytes(data[at : at + 8], "little")), 27) * _P1 + _P4) & _64
        at += 8
    if length - at >= 4:
        hashed = (_rotate(hashed ^ int.from_bytes(data[at : at + 4], "little") * _P1 & _64, 23) * _P2 + _P3) & _64
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
            entries += varint(register - previous - 1 << 6 | rank)
            previous = register
        if len(entries) < 3 * 2**self.precision // 4:
            return varint(len(self._ranks) + 1) + entries
        packed = sum(rank << 6 * register for register, rank in self._ranks.items())
        return b"\0" + packed.to_bytes(3 * 2**self.precision // 4, "little")

    @classmethod
    def from_bytes(cls, data: bytes, precision: int) -> Hll:
        """The sketch of its bytes. Raises CorruptionError."""
        reader = Reader(data, 0)
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


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


class Reader:
    """Reads untrusted bytes; every read is checked against their end, and only the one canonical form of a value passes."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def corrupt(self, what: str) -> CorruptionError:
        return CorruptionError(
            f"cell is corrupt at byte {self.at} of {len(self.data)}: {what}",
            hint="nothing of it is used; rebuild its window from the archive",
        )

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
            packed = int.from_bytes(self.data[self.at : self.at + size], "little")
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
