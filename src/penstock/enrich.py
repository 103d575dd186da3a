"""What a derived column can be made of: browser, system and device of a user agent, and the place of an address. Needs the extra `penstock[enrich]`.

    @derived(String(default="??"), of=["ip"])
    def country(ip):
        return enrich.country(ip, "/srv/geo/GeoLite2-City-2026-11-24.mmdb")

    Schema(..., derive={"browser": enrich.browser, "country": country})

A column is asked for each distinct value once, and what was found is kept. Where nothing is known, the answer is null.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Callable

import pyarrow as pa

from penstock.errors import ConfigurationError
from penstock.model import String, derived

_LONGEST = 512  # characters of a user agent that are looked at: what is longer is made up, and takes long to search
_KEPT = 50_000  # answers, of user agents and of addresses each
_EXTRA = "pip install 'penstock[enrich]', on every machine that runs the topology"


@derived(String(default="Other"), of=["user_agent"])
def browser(user_agent: pa.Array) -> pa.Array:
    """Names such as "Chrome Mobile" or "Googlebot". A schema whose field is called `user_agent` names it as it is; others call it in a function of theirs."""
    return _each(user_agent, lambda text: _agent(text)[0])


@derived(String(default="Other"), of=["user_agent"])
def system(user_agent: pa.Array) -> pa.Array:
    """The operating system: "Windows", "iOS". As `browser`."""
    return _each(user_agent, lambda text: _agent(text)[1])


@derived(String(default="Other"), of=["user_agent"])
def device(user_agent: pa.Array) -> pa.Array:
    """What it runs on, where the user agent says it: "iPhone", "Samsung SM-S911B", "Spider". As `browser`."""
    return _each(user_agent, lambda text: _agent(text)[2])


def country(ip: pa.Array, database: str | os.PathLike[str]) -> pa.Array:
    """ISO codes of countries, by addresses (v4 or v6) and a file in MaxMind's format, which each worker has at that path. Raises ConfigurationError."""
    return _place(ip, database, 0)


def region(ip: pa.Array, database: str | os.PathLike[str]) -> pa.Array:
    """ISO codes of the largest subdivisions of the country, without the country's: "BE" is Berlin in DE. As `country`."""
    return _place(ip, database, 1)


def city(ip: pa.Array, database: str | os.PathLike[str]) -> pa.Array:
    """English names of cities. As `country`."""
    return _place(ip, database, 2)


def _each(column: pa.Array, function: Callable[[str], str | None]) -> pa.Array:
    """A function of each distinct value, and null of null."""
    coded = column.dictionary_encode()
    found = [None if text is None else function(text) for text in coded.dictionary.to_pylist()]
    return pa.array(found, pa.string()).take(coded.indices)


@functools.lru_cache(maxsize=_KEPT)
def _agent(text: str) -> tuple[str | None, str | None, str | None]:
    try:
        from ua_parser import parse
    except ImportError:
        raise ConfigurationError("derived column: user agents are read by ua-parser, which is not installed", hint=_EXTRA) from None
    found = parse(text[:_LONGEST])
    return _family(found.user_agent), _family(found.os), _family(found.device)


def _family(part: Any) -> str | None:
    return None if part is None else part.family


def _place(ip: pa.Array, database: str | os.PathLike[str], part: int) -> pa.Array:
    path = os.fspath(database)
    _open(path)  # a file that is not there is a mistake, also where no record has an address
    return _each(ip, lambda text: _found(path, text)[part])


@functools.lru_cache(maxsize=_KEPT)
def _found(path: str, ip: str) -> tuple[str | None, str | None, str | None]:
    try:
        record = _open(path).get(ip)
    except ValueError:  # no address, or v6 in a file of v4
        record = None
    if not isinstance(record, dict):
        return None, None, None
    regions = record.get("subdivisions")
    first = regions[0] if isinstance(regions, list) and regions else record.get("region")
    return _named(record.get("country"), "iso_code"), _named(first, "iso_code"), _named(record.get("city"), "names", "en")


def _named(value: Any, *keys: str) -> str | None:
    """A text inside of a record; the value itself in files that are flat."""
    for key in keys:
        if isinstance(value, str):
            return value
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


@functools.lru_cache(maxsize=16)
def _open(path: str) -> Any:
    try:
        import maxminddb
    except ImportError:
        raise ConfigurationError("derived column: places are read by maxminddb, which is not installed", hint=_EXTRA) from None
    try:
        return maxminddb.open_database(path)
    except (OSError, maxminddb.InvalidDatabaseError) as problem:
        why = getattr(problem, "strerror", None) or "it is no file in MaxMind's format"
        raise ConfigurationError(
            f"derived column: the database {path} cannot be read: {why}", hint="each machine that runs the topology has it at that path"
        ) from None


__all__ = ["browser", "city", "country", "device", "region", "system"]
