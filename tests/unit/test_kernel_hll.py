"""HyperLogLog: registers as a published hash library gives them, canonical bytes, and estimates within their stated error."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import FASTEST, IMPLEMENTATIONS, REFERENCE

from penstock.errors import CorruptionError, InternalError

BOTH = pytest.mark.parametrize("kernels", IMPLEMENTATIONS, ids=lambda kernels: kernels.name)
HASHES = st.lists(
    st.integers(0, 2**64 - 1)
    | st.integers(0, 2**64 - 1).map(lambda some: some & ~(2**59 - 1))
    | st.sampled_from([0, 1, 2**64 - 1, 2**48, 2**60]),
    max_size=300,
)


def sketch(kernels: Any, precision: int, hashes: list[int]) -> Any:
    made = kernels.Hll(precision)
    for hashed in hashes:
        made.add(hashed)
    return made


def expected(precision: int, hashes: list[int]) -> bytes:
    """Registers as the definition has them, from the binary digits of each hash."""
    registers = bytearray(2**precision)
    for hashed in hashes:
        digits = f"{hashed:064b}"
        rest = digits[precision:] + "1"
        register = int(digits[:precision], 2)
        registers[register] = max(registers[register], rest.index("1") + 1)
    return bytes(registers)


@pytest.mark.parametrize("xxh64", [REFERENCE.xxh64, FASTEST.xxh64], ids=["reference", "compiled"])
def test_xxh64_is_that_of_the_published_library(xxh64: Any) -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
    def check(data: bytes, seed: int) -> None:
        assert xxh64(data) == xxhash.xxh64_intdigest(data)
        assert xxh64(data, seed) == xxhash.xxh64_intdigest(data, seed)

    check()
    for length in range(100):
        assert xxh64(bytes(range(length))) == xxhash.xxh64_intdigest(bytes(range(length)))


@BOTH
@pytest.mark.parametrize("precision", [4, 5, 6, 8, 11, 16])
def test_registers_and_bytes_depend_on_the_values_alone(kernels: Any, precision: int) -> None:
    @settings(max_examples=25, deadline=None)
    @given(HASHES, st.randoms(use_true_random=False))
    def check(hashes: list[int], rng: random.Random) -> None:
        whole = sketch(kernels, precision, hashes)
        assert whole.registers() == expected(precision, hashes)
        again = rng.sample(hashes + hashes[:5], len(hashes) + len(hashes[:5]))
        cut = rng.randint(0, len(again))
        one, other = sketch(kernels, precision, again[:cut]), sketch(kernels, precision, again[cut:])
        one.merge(other)
        assert one.to_bytes() == whole.to_bytes() == sketch(REFERENCE, precision, hashes).to_bytes()
        one.merge(whole)
        assert one.to_bytes() == whole.to_bytes() and one.registers() == whole.registers()
        assert kernels.Hll.from_bytes(whole.to_bytes(), precision).registers() == whole.registers()
        assert whole.estimate() == pytest.approx(sketch(REFERENCE, precision, hashes).estimate(), rel=1e-12)

    check()


@BOTH
def test_the_smaller_form_is_written_on_both_sides_of_the_border(kernels: Any) -> None:
    precision, forms = 8, set()
    made = kernels.Hll(precision)
    for register in range(256):
        made.add(register << 56 | 1 << 55)
        data = made.to_bytes()
        forms.add(data[0] == 0)
        assert (data[0] == 0) == (register + 1 >= 192), "an entry of neighbours takes one byte, 256 registers take 192 dense"
        assert len(data) <= 1 + 192 + 1 and kernels.Hll.from_bytes(data, precision).registers() == made.registers()
    assert forms == {True, False}


@BOTH
def test_damaged_sketches_are_refused(kernels: Any) -> None:
    for data in (b"", b"\2", b"\2\0", b"\1\0", b"\0" + bytes(11), b"\0" + bytes(12), b"\3\1", b"\2" + bytes([0x80 | 0x3F, 0x0F])):
        with pytest.raises(CorruptionError):
            kernels.Hll.from_bytes(data, 4)


@BOTH
def test_precisions_do_not_mix(kernels: Any) -> None:
    with pytest.raises(InternalError, match="precision 5"):
        kernels.Hll(4).merge(kernels.Hll(5))
    for precision in (3, 17):
        with pytest.raises(InternalError, match="4 to 16"):
            kernels.Hll(precision)


@pytest.mark.parametrize("precision", [8, 11, 14])
@pytest.mark.parametrize("seed", [2, 3])  # fixed: about one seed in fifteen goes beyond three errors at one of the many counts
def test_estimates_are_within_three_standard_errors_from_none_to_a_million(precision: int, seed: int) -> None:
    print(f"seed {seed}")
    limit = 3 * 1.04 / 2 ** (precision / 2)
    values = np.random.default_rng(seed).permutation(10**6).astype("<i8").tobytes()
    made, checked = FASTEST.Hll(precision), {0, 1, 2, 5, 10, 100, 1000, *range(2_000, 20_000, 2_000), 50_000, 100_000, 300_000, 1_000_000}
    top = 10**6 if seed == 2 else 10**5
    assert made.estimate() == 0.0
    for count in range(1, top + 1):
        made.add(xxhash.xxh64_intdigest(values[8 * count - 8 : 8 * count]))
        if count in checked:
            assert abs(made.estimate() - count) <= max(limit * count, 0.5), f"{count} distinct values"


def test_estimates_have_the_stated_error_and_no_bias_where_small_and_large_ranges_meet() -> None:
    """The mean of many sketches is much nearer than one may be: 2.5 times the number of registers is where the original estimator jumps."""
    precision, sketches = 8, 200
    error = 1.04 / 2 ** (precision / 2)
    for count in (64, 256, 640, 1280, 20_000):
        rng = np.random.default_rng(count)
        estimates = np.array(
            [sketch(FASTEST, precision, rng.integers(0, 2**64, count, np.uint64).tolist()).estimate() for _ in range(sketches)]
        )
        assert abs(estimates.mean() / count - 1) < 3 * error / sketches**0.5, f"{count} distinct values are biased"
        assert np.sqrt(np.mean((estimates / count - 1) ** 2)) < 1.15 * error, f"{count} distinct values err more than stated"
