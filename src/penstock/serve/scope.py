"""How far a key reaches: actions, roll-ups, datasets, and whose numbers."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Mapping, Sequence

from penstock.errors import ConfigurationError, QueryError
from penstock.model import Field
from penstock.query.request import parse_value

READ, WRITE = "read", "write"
ACTIONS = (READ, WRITE)
_NAMES = ("actions", "rollups", "datasets", "entities")


@dataclasses.dataclass(frozen=True)
class Scope:
    """What a key may do. None stands for all there are, now and later.

    actions: "read" (queries) and "write" (posting events). rollups, datasets: names. entities: by an entity's field ("advertiser") the texts of the values
    that are open; with it, roll-ups and datasets whose entity is another field are closed.
    """

    actions: tuple[str, ...] = (READ,)
    rollups: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    entities: Mapping[str, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        wrong = [action for action in self.actions if action not in ACTIONS]
        if wrong or not self.actions:
            raise ConfigurationError(f"a key's actions are {', '.join(self.actions) or 'none'}", hint=f"use {' and '.join(ACTIONS)}")

    def to_json(self) -> dict[str, Any]:
        """The scope as pure data; what is not narrowed is left out."""
        return {name: _plain(value) for name in _NAMES if (value := getattr(self, name)) is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scope:
        """The scope of its pure-data form. Raises ConfigurationError for what is none."""
        try:
            unknown = sorted(set(data) - set(_NAMES))
            if unknown:
                raise ConfigurationError(f"a scope has no {unknown[0]}", hint=f"it has {', '.join(_NAMES)}")
            entities = data.get("entities")
            return cls(
                actions=_texts(data.get("actions", (READ,))),
                rollups=None if data.get("rollups") is None else _texts(data["rollups"]),
                datasets=None if data.get("datasets") is None else _texts(data["datasets"]),
                entities=None if entities is None else {str(field): _texts(values) for field, values in entities.items()},
            )
        except (TypeError, AttributeError):
            raise ConfigurationError(f"{data!r} is no scope", hint="see docs/keys.md") from None

    def narrowed(self, other: Scope) -> Scope:
        """What both reach: never more than either."""
        return Scope(
            actions=tuple(action for action in self.actions if action in other.actions) or (),
            rollups=_both(self.rollups, other.rollups),
            datasets=_both(self.datasets, other.datasets),
            entities=_both_entities(self.entities, other.entities),
        )

    def covers(self, other: Scope) -> bool:
        """Whether another scope reaches no further than this one."""
        try:
            return self.narrowed(other) == other
        except ConfigurationError:  # nothing is left
            return False

    def values(self, name: str, field: Field) -> dict[Any, str] | None:
        """The values of an entity's field that are open: by what the field holds for each, its text. None for all of them; a field that is not named has none.

        Values that the field cannot hold are passed over: no entity is called so.
        """
        if self.entities is None:
            return None
        found = {}
        for text in self.entities.get(name, ()):
            with contextlib.suppress(QueryError):
                found[parse_value(field, text, name)] = text
        return found


def _plain(value: Any) -> Any:
    return {field: list(values) for field, values in value.items()} if isinstance(value, Mapping) else list(value)


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    if isinstance(values, (str, bytes, Mapping)):
        raise TypeError("one text is no list")
    return tuple(dict.fromkeys(str(value) for value in values))


def _both(ours: tuple[str, ...] | None, theirs: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    return tuple(one for one in theirs if one in ours)


def _both_entities(
    ours: Mapping[str, tuple[str, ...]] | None, theirs: Mapping[str, tuple[str, ...]] | None
) -> Mapping[str, tuple[str, ...]] | None:
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    return {field: tuple(one for one in values if one in ours[field]) for field, values in theirs.items() if field in ours}
