"""Keys, scopes and tokens: what is stored, what is believed for how long, and that nothing reaches further than it was given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigurationError, NotFoundError, UsageError
from penstock.model import Decimal, Enum, Int, String
from penstock.serve.keys import KEY_TABLE, Key, KeyStore, id_of, matches
from penstock.serve.scope import Scope
from penstock.serve.settings import ServeSettings, mistake, signing_secret
from penstock.serve.tokens import EMBED, Tokens
from penstock.table.memory import MemoryTable

SECOND = 1_000_000
SECRET = "s" * 40


class Clock:
    now = 1_700_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table() -> MemoryTable:
    return MemoryTable()


@pytest.fixture
def store(table: MemoryTable, clock: Clock) -> KeyStore:
    return KeyStore(lambda: table, clock, 5 * SECOND)


def test_a_key_is_found_by_its_id_and_matches_its_text_alone(store: KeyStore) -> None:
    text, key = store.create("me", Scope())
    assert store.find(id_of(text) or "") == key
    assert matches(key, text)
    for place in range(len(text)):
        other = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        assert not matches(key, other)
    assert not matches(key, text[:-1]) and not matches(key, text + "A") and not matches(key, "")
    assert store.create("me", Scope())[0] != text


def test_the_secret_is_nowhere_in_the_table(store: KeyStore, table: MemoryTable) -> None:
    text, _ = store.create("me", Scope(entities={"advertiser": ("1001",)}))
    stored = repr(list(table.scan(KEY_TABLE)))
    assert text.split("_", 2)[2] not in stored
    assert "1001" in stored


def test_a_revoked_key_is_refused_by_every_store_within_its_refresh(table: MemoryTable, store: KeyStore, clock: Clock) -> None:
    _, key = store.create("me", Scope())
    other = KeyStore(lambda: table, clock, 5 * SECOND)
    assert other.find(key.id) == key
    store.revoke(key.id)
    assert store.find(key.id).state(clock.now) == "revoked"  # type: ignore[union-attr]
    clock.now += 4 * SECOND
    assert other.find(key.id) == key
    clock.now += 1 * SECOND
    assert other.find(key.id).state(clock.now) == "revoked"  # type: ignore[union-attr]
    assert store.revoke(key.id).revoked == key.created  # the first time counts


def test_a_key_that_is_not_there_is_asked_for_once_in_a_refresh(table: MemoryTable, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    get = table.get
    monkeypatch.setattr(table, "get", lambda name, keys: asked.append(keys) or get(name, keys))
    store = KeyStore(lambda: table, clock, 5 * SECOND)
    assert [store.find("0" * 12) for _ in range(3)] == [None] * 3
    assert len(asked) == 1
    clock.now += 5 * SECOND
    assert store.find("0" * 12) is None
    assert len(asked) == 2


def test_a_key_expires(store: KeyStore, clock: Clock) -> None:
    _, key = store.create("me", Scope(), expires=clock.now + 1)
    assert key.state(clock.now) == "active" and key.state(clock.now + 1) == "expired"
    with pytest.raises(ConfigurationError, match="would have expired"):
        store.create("me", Scope(), expires=clock.now)


def test_a_key_survives_its_bytes(store: KeyStore) -> None:
    _, key = store.create("me", Scope(("write",), ("r",), ("d",), {"f": ("1", "2")}), rate=3, minimum_audience=4)
    assert Key.decode(key.encode()) == key
    assert store.list() == [key]


def test_what_is_no_key_is_refused(store: KeyStore) -> None:
    for make in (
        lambda: store.create(" ", Scope()),
        lambda: store.create("me", Scope(), rate=0),
        lambda: Scope(("fly",)),
        lambda: Scope(()),
    ):
        with pytest.raises(ConfigurationError):
            make()
    with pytest.raises(NotFoundError):
        store.revoke("0" * 12)


# Scopes.

NAMES = st.one_of(st.none(), st.lists(st.sampled_from("abc"), max_size=3, unique=True).map(tuple))
ENTITIES = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["x", "y"]), st.lists(st.sampled_from("123"), max_size=3, unique=True).map(tuple), max_size=2),
)
SCOPES = st.builds(
    Scope,
    actions=st.lists(st.sampled_from(["read", "write"]), min_size=1, max_size=2, unique=True).map(tuple),
    rollups=NAMES,
    datasets=NAMES,
    entities=ENTITIES,
)


def reached(scope: Scope) -> set[tuple[str, ...]]:
    """All that a scope opens, in a small world."""
    found: set[tuple[str, ...]] = {("action", action) for action in scope.actions}
    for what in ("rollups", "datasets"):
        found |= {(what, name) for name in "abc" if getattr(scope, what) is None or name in getattr(scope, what)}
    for field in ("x", "y"):
        values = scope.values(field, Int())
        found |= {("entity", field, str(value)) for value in (1, 2, 3) if values is None or value in values}
    return found


@given(SCOPES, SCOPES)
def test_a_narrowed_scope_reaches_what_both_do(ours: Scope, theirs: Scope) -> None:
    try:
        both = ours.narrowed(theirs)
    except ConfigurationError:
        assert not set(ours.actions) & set(theirs.actions)
        return
    assert reached(both) == reached(ours) & reached(theirs)


@given(SCOPES, SCOPES)
def test_a_scope_covers_only_what_reaches_no_further(ours: Scope, theirs: Scope) -> None:
    if ours.covers(theirs):
        assert reached(theirs) <= reached(ours)
    assert ours.covers(ours)


@given(SCOPES)
def test_a_scope_survives_its_plain_form(scope: Scope) -> None:
    assert Scope.from_json(json.loads(json.dumps(scope.to_json()))) == scope


def test_what_is_no_scope_is_refused() -> None:
    for data in (
        {"actions": "read"},
        {"rollups": "all"},
        {"entities": ["1"]},
        {"entities": {"x": "1"}},
        {"planets": ["Mars"]},
        {"actions": []},
    ):
        with pytest.raises(ConfigurationError):
            Scope.from_json(data)  # type: ignore[arg-type]


def test_values_are_compared_as_the_field_holds_them() -> None:
    scope = Scope(entities={"n": ("7", "+8", "many"), "money": ("1.50",), "kind": ("view", "nothing")})
    assert scope.values("n", Int()) == {7: "7", 8: "+8"}
    assert scope.values("money", Decimal(4)) == {15000: "1.50"}
    assert list((scope.values("kind", Enum("view", "click")) or {}).values()) == ["view"]
    assert scope.values("other", String()) == {}
    assert Scope().values("other", String()) is None


# Tokens.


def test_a_token_says_what_was_signed_until_it_expires(store: KeyStore, clock: Clock) -> None:
    _, key = store.create("me", Scope(entities={"x": ("1", "2")}))
    tokens = Tokens(SECRET, "here")
    text = tokens.make(key, Scope(entities={"x": ("1",)}), use=EMBED, now=clock.now, expires=clock.now + 60 * SECOND, minimum_audience=9)
    claims = tokens.read(text, clock.now)
    assert claims is not None
    assert (claims.key, claims.scope.entities, claims.minimum_audience) == (key.id, {"x": ("1",)}, 9)
    assert tokens.read(text, clock.now + 59 * SECOND) is not None
    assert tokens.read(text, clock.now + 60 * SECOND) is None
    assert Tokens(SECRET, "there").read(text, clock.now) is None
    assert Tokens("t" * 40, "here").read(text, clock.now) is None
    assert Tokens(None, "here").read(text, clock.now) is None


def test_a_token_never_reaches_further_or_lives_longer_than_its_key(store: KeyStore, clock: Clock) -> None:
    _, key = store.create("me", Scope(entities={"x": ("1",)}), expires=clock.now + 10 * SECOND)
    tokens = Tokens(SECRET, "here")
    for scope in (Scope(), Scope(entities={"x": ("1", "2")}), Scope(entities={"y": ("1",)}), Scope(("write",), entities={"x": ("1",)})):
        with pytest.raises(UsageError, match="reaches further than the key"):
            tokens.make(key, scope, use=EMBED, now=clock.now, expires=clock.now + 5 * SECOND)
    text = tokens.make(key, key.scope, use=EMBED, now=clock.now, expires=clock.now + 1000 * SECOND)
    assert tokens.read(text, clock.now).expires == clock.now + 10 * SECOND  # type: ignore[union-attr]


def claims_of(store: KeyStore, clock: Clock, **changed: Any) -> dict[str, Any]:
    seconds = clock.now // SECOND
    made = {
        "iss": "penstock",
        "aud": "here",
        "sub": "0" * 12,
        "iat": seconds,
        "exp": seconds + 60,
        "use": EMBED,
        "scope": {},
        "minimum_audience": 0,
    }
    return {name: value for name, value in {**made, **changed}.items() if value is not None}


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "other"},
        {"iss": None},
        {"aud": None},
        {"exp": None},
        {"sub": None},
        {"scope": "all"},
        {"scope": None},
        {"exp": "soon"},
        {"use": None},
    ],
)
def test_a_token_that_is_signed_but_not_whole_is_refused(store: KeyStore, clock: Clock, changed: dict[str, Any]) -> None:
    tokens = Tokens(SECRET, "here")
    assert tokens.read(jwt.encode(claims_of(store, clock), SECRET, "HS256"), clock.now) is not None
    assert tokens.read(jwt.encode(claims_of(store, clock, **changed), SECRET, "HS256"), clock.now) is None


def test_a_token_of_another_algorithm_is_refused(store: KeyStore, clock: Clock) -> None:
    tokens = Tokens(SECRET, "here")
    assert tokens.read(jwt.encode(claims_of(store, clock), None, "none"), clock.now) is None  # type: ignore[arg-type]
    assert tokens.read(jwt.encode(claims_of(store, clock), SECRET * 2, "HS512"), clock.now) is None
    for text in ("", "a.b.c", "pk_", "é", "." * 1000):
        assert tokens.read(text, clock.now) is None


# Settings.


def test_the_secret_that_signs_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    made = signing_secret(ServeSettings(), tmp_path)
    assert made and len(made) >= 32
    assert signing_secret(ServeSettings(), tmp_path) == made
    assert (tmp_path / "serve" / "signing.key").stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "serve").iterdir()] == ["signing.key"]
    assert signing_secret(ServeSettings(), None) is None


def test_a_secret_is_named_and_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING", "short")
    with pytest.raises(ConfigurationError, match="shorter than 32 bytes"):
        signing_secret(ServeSettings(signing_key={"env": "SIGNING"}), None)
    monkeypatch.setenv("SIGNING", SECRET)
    assert signing_secret(ServeSettings(signing_key={"env": "SIGNING"}), None) == SECRET


@pytest.mark.parametrize(
    "table, part",
    [
        ({"signing_key": "written out"}, "signing_key is not"),
        ({"rat": 5}, "did you mean rate"),
        ({"rate": 0}, "rate = 0 is too small"),
        ({"rate": True}, "is not a int"),
        ({"refresh": "soon"}, "no length of time"),
        ({"refresh": "10ms"}, "of a second or more"),
        ({"origins": ["*"]}, "name each as"),
        ({"origins": "https://a"}, "is not a list"),
        ({"reception": 1}, "reception is not a table"),
        (3, "not a table"),
    ],
)
def test_a_setting_that_cannot_work_is_named(table: Any, part: str) -> None:
    assert part in (mistake(table) or "")


def test_settings_of_every_kind_are_taken() -> None:
    assert (
        mistake(
            {
                field.name: 1
                for field in dataclasses.fields(ServeSettings)
                if field.type == "int" and field.name not in ("refresh", "lifetime", "session", "live", "lag")
            }
        )
        is None
    )
    assert mistake({"lag": "0s"}) is mistake({"lag": "200ms"}) is None and "lag" in (mistake({"lag": 1}) or "")
    assert mistake({"refresh": "5s", "origins": ["https://a.example"], "audit": "-", "signing_key": {"env": "X"}, "reception": {}}) is None
