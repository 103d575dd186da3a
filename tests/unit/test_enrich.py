"""Derived columns of user agents and addresses: real parsers, and a database file that is written here."""

from __future__ import annotations

import ipaddress
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock import Schema, String, Timestamp, derived, enrich
from penstock.errors import ConfigurationError
from penstock.kernels.encode import encode_list
from penstock.rollup.reader import Reader

PLACES: dict[str, Any] = {
    "81.2.69.0/24": {
        "country": {"iso_code": "GB"},
        "subdivisions": [{"iso_code": "ENG"}, {"iso_code": "WSM"}],
        "city": {"names": {"de": "London!", "en": "London"}},
    },
    "10.0.0.0/8": {"country": {"iso_code": "DE"}, "subdivisions": [], "city": {"names": {"de": "Köln"}}},
    "192.0.2.0/25": {"country": "FR", "region": "IDF", "city": "Paris"},
    "198.51.100.7/32": {"continent": {"code": "EU"}},
    "2001:db8::/32": {"country": {"iso_code": "JP"}},
}
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1"
DESKTOP = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.36"
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def packed(value: Any) -> bytes:
    """A value as MaxMind's format has it."""
    if isinstance(value, str):
        return _head(2, len(value.encode())) + value.encode()
    if isinstance(value, tuple):  # a whole number, by the kind that its reader insists on
        kind, number = value
        return _head(kind, size := (number.bit_length() + 7) // 8) + number.to_bytes(size, "big")
    if isinstance(value, list):
        return _head(11, len(value)) + b"".join(map(packed, value))
    return _head(7, len(value)) + b"".join(packed(key) + packed(one) for key, one in value.items())


def _head(kind: int, size: int) -> bytes:
    assert size < 285
    length = bytes([size - 29]) if size >= 29 else b""
    return (bytes([kind << 5 | min(size, 29)]) if kind < 8 else bytes([min(size, 29), kind - 7])) + length


def write(path: Path, places: dict[str, Any]) -> None:
    """A database: a binary tree over the bits of addresses (v4 as ::a.b.c.d), then the records, then what the file says of itself."""
    nodes: list[list[Any]] = [[None, None]]
    records, at = b"", {}
    for text, place in places.items():
        at[text] = len(records)
        records += packed(place)
        network = ipaddress.ip_network(text)
        length = network.prefixlen + (96 if network.version == 4 else 0)
        bits = f"{int(network.network_address):0128b}"[:length]
        node = 0
        for bit in bits[:-1]:
            if nodes[node][int(bit)] is None:
                nodes.append([None, None])
                nodes[node][int(bit)] = len(nodes) - 1
            node = nodes[node][int(bit)]
        nodes[node][int(bits[-1])] = text
    count = len(nodes)
    values = [[count if one is None else count + 16 + at[one] if isinstance(one, str) else one for one in node] for node in nodes]
    about = {
        "binary_format_major_version": (5, 2),
        "binary_format_minor_version": (5, 0),
        "build_epoch": (9, 1_760_000_000),
        "database_type": "Test-City",
        "description": {"en": "of a test"},
        "ip_version": (5, 6),
        "languages": ["en"],
        "node_count": (6, count),
        "record_size": (5, 32),
    }
    tree = b"".join(struct.pack(">II", *node) for node in values)
    path.write_bytes(tree + b"\0" * 16 + records + b"\xab\xcd\xefMaxMind.com" + packed(about))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("geo") / "places.mmdb"
    write(path, PLACES)
    return path


def texts(*values: str | None) -> pa.Array:
    return pa.array(values, pa.string())


def test_places_are_those_of_the_file(database: Path) -> None:
    ip = texts("81.2.69.142", "10.1.2.3", "192.0.2.1", "192.0.2.200", "198.51.100.7", "2001:db8::1", "2001:db9::1", None, "", "nonsense")
    nothing = [None] * 4
    assert enrich.country(ip, database).to_pylist() == ["GB", "DE", "FR", None, None, "JP", *nothing]
    assert enrich.region(ip, str(database)).to_pylist() == ["ENG", None, "IDF", None, None, None, *nothing]
    assert enrich.city(ip, database).to_pylist() == ["London", None, "Paris", None, None, None, *nothing]
    assert enrich.city(texts(), database).to_pylist() == []
    assert enrich.city(ip[2:4], database).to_pylist() == ["Paris", None]


def test_user_agents_are_read() -> None:
    column = texts(IPHONE, DESKTOP, None, BOT, DESKTOP, "", "nonsense", "x" * 8000)
    assert enrich.browser(column).to_pylist() == ["Mobile Safari", "Chrome", None, "Googlebot", "Chrome", None, None, None]
    assert enrich.system(column).to_pylist() == ["iOS", "Windows", None, None, "Windows", None, None, None]
    assert enrich.device(column).to_pylist() == ["iPhone", None, None, "Spider", None, None, None, None]


DATABASE: list[Path] = []  # of the functions below, which a schema names by where they are


@derived(String(default="??"), of=["peer"])
def country(peer: pa.Array) -> pa.Array:
    return enrich.country(peer, DATABASE[-1])


@derived(String(nullable=True), of=["agent"])
def seen_with(agent: pa.Array) -> pa.Array:
    return enrich.browser(agent)


def test_a_schema_names_them_as_derived_columns(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"ts": Timestamp("ms"), "peer": String(), "user_agent": String(nullable=True)}
    monkeypatch.setattr(sys.modules[__name__], "DATABASE", [database])
    derive = {"browser": enrich.browser, "system": enrich.system, "device": enrich.device, "country": country}
    schema = Schema.from_json(json.loads(json.dumps(Schema("visits", time="ts", fields=fields, derive=derive).to_json())))
    events = [
        {"ts": 5, "peer": "10.9.9.9", "user_agent": IPHONE},
        {"ts": 6, "peer": "127.0.0.1", "user_agent": None},
        {"ts": 7, "peer": 3},
    ]
    run = Reader(schema).read(encode_list([json.dumps(one).encode() for one in events], [9_000_000] * 3))
    found = {name: column.to_arrow().to_pylist()[:2] for name, column in run.columns.columns.items()}
    assert found["country"] == ["DE", "??"] and found["browser"] == ["Mobile Safari", "Other"]
    assert found["system"] == ["iOS", "Other"] and found["device"] == ["iPhone", "Other"]
    assert run.columns.reject[2]
    other = Schema("other", time="ts", fields={"ts": Timestamp("ms"), "agent": String()}, derive={"browser": seen_with})
    again = Reader(other).read(encode_list([json.dumps({"ts": 5, "agent": DESKTOP}).encode()], [9_000_000]))
    assert again.columns.columns["browser"].to_arrow().to_pylist() == ["Chrome"]


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.mmdb").write_bytes(b"no database")
    for path, why in ((tmp_path / "missing.mmdb", "No such file"), (tmp_path / "broken.mmdb", "MaxMind's format")):
        with pytest.raises(ConfigurationError, match=why) as caught:
            enrich.country(texts(None), path)
        assert str(path) in caught.value.message and caught.value.hint
    for module, call in (
        ("ua_parser", lambda: enrich.browser(texts("never seen"))),
        ("maxminddb", lambda: enrich.city(texts("1.1.1.1"), "x")),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ConfigurationError, match="not installed") as caught:
            call()
        assert "penstock[enrich]" in (caught.value.hint or "")
