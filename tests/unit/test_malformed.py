"""100,000 mutated records: none crashes a decoder, each is accepted or rejected with a reason, none is lost."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import msgpack
import numpy as np
import pytest
from decoding import FIELDS, PAIRS, assert_same, records_of

from penstock.kernels import reasons

SEED = 20150517
COUNT = 50_000  # a format
BATCH = 1000
INTERESTING = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\u",
    b"\\ud800",
    b"1e999",
    b"-",
    b"\xff",
    b"\xc0\x80",
    b"\xc1",
    b"\xdb\xff\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b"\xde\xff\xff",
    b"\x00",
    b"null",
    b"\x9f" * 40,
    b"[" * 40,
]


def _event(rng: random.Random) -> dict[str, object]:
    event: dict[str, object] = {
        "ts": rng.randrange(2**41),
        "at": "2015-05-17T10:05:03.123456Z",
        "seconds": rng.randrange(10**9) + rng.random(),
        "id": rng.randrange(-(2**63), 2**63),
        "user": {"id": rng.randrange(10**6), "name": rng.choice(["ann", "böb", "名前", 'a"b\\', "a" * rng.randrange(3, 14)])},
        "type": rng.choice(["impression", "click", "é"]),
        "ok": rng.random() < 0.5,
        "cost": rng.randrange(10**6) / 10**6,
        "a": {"b": {"c": round(rng.random() * 100, 2)}},
        "note": rng.choice([None, "x" * rng.randrange(40)]),
        "unwanted": [1, "two", {"three": [None, True, 3.5]}],
    }
    keys = [key for key in event if key in ("ts", "id") or rng.random() < 0.9]
    if rng.random() < 0.1:
        rng.shuffle(keys)
    return {key: event[key] for key in keys}


def _mutate(rng: random.Random, value: bytes, other: bytes) -> bytes:
    data = bytearray(value)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + rng.randrange(30)]
        elif kind == 3:
            data[at:at] = rng.choice(INTERESTING)
        elif kind == 4:
            del data[at : at + rng.randrange(1, 5)]
        elif at < len(data):
            data[at] = rng.randrange(256)
    return bytes(data)


@pytest.mark.parametrize(
    "format, encode", [("json", lambda event: json.dumps(event, ensure_ascii=False).encode()), ("msgpack", msgpack.packb)]
)
def test_mutated_records_are_accepted_or_rejected_and_never_lost(format: str, encode: Callable[[dict[str, object]], bytes]) -> None:
    print(f"seed {SEED}")
    rng = random.Random(f"{SEED} {format}")
    compiled, reference = PAIRS[format]
    decoder, oracle = compiled(FIELDS), reference(FIELDS)
    originals = [encode(_event(rng)) for _ in range(500)]
    accepted = rejected = 0
    seen: set[int] = set()
    for batch in range(COUNT // BATCH):
        records = records_of([_mutate(rng, rng.choice(originals), rng.choice(originals)) for _ in range(BATCH)])
        columns = decoder.decode(records)
        assert len(columns) == BATCH and all(len(column.to_arrow()) == BATCH for column in columns.columns.values())
        for column in columns.columns.values():
            column.to_arrow().validate(full=True)
        for code in columns.reject[columns.reject != 0].tolist():
            assert code & 0xFF in reasons.NAMES and 0 <= code >> 8 <= len(FIELDS)
        accepted += int(np.count_nonzero(columns.reject == 0))
        rejected += int(np.count_nonzero(columns.reject))
        seen |= {code & 0xFF for code in columns.reject.tolist()}
        if batch % 4 == 0:
            assert_same(columns, oracle.decode(records))
    assert accepted + rejected == COUNT
    assert accepted > COUNT // 10 and rejected > COUNT // 10, "the mutations are too mild or too wild to say anything"
    assert seen >= {
        0,
        reasons.MALFORMED,
        reasons.TOO_DEEP,
        reasons.MISSING,
        reasons.WRONG_TYPE,
        reasons.OUT_OF_RANGE,
        reasons.NOT_IN_ENUM,
        reasons.TOO_LONG,
    }
