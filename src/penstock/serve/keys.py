"""Access keys: made, listed, revoked, and verified.

A key reads `pk_<id>_<secret>`. The table holds the SHA-256 of the secret and not the secret. A slow hash, as for passwords, would buy nothing and cost
every request: the secret is 256 bits from the system's random source, so there is no dictionary to try, and 2**256 guesses are out of reach at any speed.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import hmac
import json
import re
import secrets
import threading
from typing import Any, Callable

from penstock.errors import ConfigurationError, CorruptionError, NotFoundError
from penstock.serve.scope import Scope
from penstock.table import Table, prefix_end

KEY_TABLE, KEY_COLUMN = "keys", b"k"
SECOND = 1_000_000
_PREFIX = b"key/"
_TEXT = re.compile(r"pk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_REMEMBERED = 10_000  # records in memory, absent ones among them


@dataclasses.dataclass(frozen=True)
class Key:
    """A key as the table holds it.

    digest: SHA-256 of the secret, hexadecimal. created, expires, revoked: microseconds since 1970, the last two None for never. rate: requests a minute,
    None for the deployment's. minimum_audience: fewer people than this are not shown, whatever the query says.
    """

    id: str
    name: str
    digest: str
    scope: Scope
    created: int
    expires: int | None = None
    revoked: int | None = None
    rate: int | None = None
    minimum_audience: int = 0

    def encode(self) -> bytes:
        """Canonical bytes."""
        data = {**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, "scope": self.scope.to_json()}
        return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Key:
        """Raises CorruptionError for anything that `encode` does not write."""
        try:
            value: dict[str, Any] = json.loads(data)
            return cls(scope=Scope.from_json(value.pop("scope")), **value)
        except (ValueError, KeyError, TypeError) as problem:
            raise CorruptionError(f"a key's cell does not parse: {problem}", hint="restore the table from a backup") from None

    def state(self, now: int) -> str:
        """ "active", "expired" or "revoked"."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


class KeyStore:
    """The keys of a deployment, in its table store. Safe for use by several threads.

    now: the wall clock, microseconds since 1970. refresh: how many microseconds a record is believed before the table is asked again; a revoked key is
    refused by every server that much later at the most.
    """

    def __init__(self, table: Callable[[], Table], now: Callable[[], int], refresh: int = 5 * SECOND) -> None:
        self._table, self._now, self._refresh = table, now, refresh
        self._known: collections.OrderedDict[str, tuple[int, Key | None]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def create(
        self, name: str, scope: Scope, *, expires: int | None = None, rate: int | None = None, minimum_audience: int = 0
    ) -> tuple[str, Key]:
        """A new key: its text, which is shown this once, and its record. Raises ConfigurationError."""
        if not name.strip() or len(name) > 100:
            raise ConfigurationError(f"{name!r} cannot name a key", hint="say whose it is, in up to 100 characters")
        if rate is not None and rate < 1:
            raise ConfigurationError(f"rate: {rate} is no number of requests a minute", hint="use 1 or more")
        if expires is not None and expires <= self._now():
            raise ConfigurationError("the key would have expired already", hint="give an instant to come, or a length such as 90d")
        table = self._table()
        table.create(KEY_TABLE)
        secret = secrets.token_urlsafe(32)
        key = Key(secrets.token_hex(6), name, _digest(secret), scope, self._now(), expires, None, rate, minimum_audience)
        if not table.compare_and_set(KEY_TABLE, _row(key.id), KEY_COLUMN, None, key.encode()):
            return self.create(name, scope, expires=expires, rate=rate, minimum_audience=minimum_audience)  # the id was taken
        return f"pk_{key.id}_{secret}", key

    def list(self) -> list[Key]:
        """All keys that were ever made, the oldest first."""
        table = self._table()
        if KEY_TABLE not in table.tables():
            return []
        found = [Key.decode(cells[KEY_COLUMN]) for _, cells in table.scan(KEY_TABLE, _PREFIX, prefix_end(_PREFIX))]
        return sorted(found, key=lambda key: (key.created, key.id))

    def revoke(self, id: str) -> Key:
        """Revoke a key, for good. Raises NotFoundError."""
        table = self._table()
        while True:
            stored = table.get(KEY_TABLE, [(_row(id), KEY_COLUMN)])[0] if KEY_TABLE in table.tables() else None
            if stored is None:
                raise NotFoundError(f"there is no key {id}", hint="`penstock serve keys list` shows the ids")
            key = Key.decode(stored)
            if key.revoked is not None:
                return key
            revoked = dataclasses.replace(key, revoked=self._now())
            if table.compare_and_set(KEY_TABLE, _row(id), KEY_COLUMN, stored, revoked.encode()):
                with self._lock:
                    self._known.pop(id, None)
                return revoked

    def peek(self, id: str) -> tuple[bool, Key | None]:
        """Whether the record of a key is known without asking the table, and the record."""
        with self._lock:
            found = self._known.get(id)
            if found is None or not 0 <= self._now() - found[0] < self._refresh:
                return False, None
            self._known.move_to_end(id)
            return True, found[1]

    def find(self, id: str) -> Key | None:
        """The record of a key, not older than `refresh`; None if there is none. Raises UnavailableError."""
        known, key = self.peek(id)
        if known:
            return key
        asked, table = self._now(), self._table()
        try:
            stored = table.get(KEY_TABLE, [(_row(id), KEY_COLUMN)])[0]
        except NotFoundError:  # no key was ever made
            stored = None
        key = None if stored is None else Key.decode(stored)
        with self._lock:
            self._known[id] = asked, key
            self._known.move_to_end(id)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return key


def id_of(text: str) -> str | None:
    """The id in a key's text; None for what cannot be a key."""
    parsed = _TEXT.fullmatch(text)
    return parsed[1] if parsed else None


def matches(key: Key, text: str) -> bool:
    """Whether a text is this key. Takes as long however much of it is right."""
    parsed = _TEXT.fullmatch(text)
    return parsed is not None and hmac.compare_digest(parsed[1], key.id) and hmac.compare_digest(_digest(parsed[2]), key.digest)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _row(id: str) -> bytes:
    return _PREFIX + id.encode()
