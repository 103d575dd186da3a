"""A schema: what the records of one topic hold."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Callable, Mapping

from penstock.errors import DeclarationError
from penstock.model.derive import Derived, derived_of
from penstock.model.fields import Field, Timestamp, check_name, field_from_json
from penstock.model.units import duration


def fingerprint(data: Any) -> str:
    """16 hex digits of the SHA-256 of pure data in canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()[:16]


# What filters, the archive and the warehouse call things themselves.
RESERVED = frozenset({"any", "not", "log_offset", "log_time", "partition_id"})


class Schema:
    """The fields of a dataset's records, which of them is the event time, and how late a record may be.

    name: of the dataset; the topic is called so unless a deployment says otherwise.
    time: the field that holds the event time; a Timestamp that is not nullable.
    lateness: a record older than the newest event time seen in its partition by more than this is late: counted and archived as
        late, and in no roll-up.
    ahead: a record that claims to be from further ahead of its own log timestamp than this is a reject.
    key: the field that producers key by (an entity keeps to one partition, which makes cells fewest). Optional.
    format: "json", "msgpack", or "package.module:Class", a `penstock.kernels.Decoder`.
    fields: name to Field. derive: name to a function marked with `penstock.derived`.

    Raises DeclarationError, naming the field and the fix.
    """

    def __init__(
        self,
        name: str,
        *,
        time: str,
        fields: Mapping[str, Field],
        lateness: str | int = "1d",
        ahead: str | int = "1h",
        derive: Mapping[str, Callable[..., Any] | Derived] | None = None,
        key: str | None = None,
        format: str = "json",
    ) -> None:
        self.name = check_name(name, "schema")
        if name.startswith("penstock_") or name.endswith(("_late", "_rejects")):
            raise DeclarationError(
                f"schema {name!r} has a reserved name",
                hint="tables that begin with penstock_ are Penstock's own; those in _late and _rejects another schema's",
            )
        if not isinstance(fields, Mapping):
            raise DeclarationError(f"schema {name!r}: fields are {fields!r}", hint='fields={"ts": Timestamp("ms"), ...}')
        self.fields: dict[str, Field] = {}
        for field_name, field in fields.items():
            self._check_name(field_name, "field")
            if not isinstance(field, Field):
                fix = "Int(), String(), Enum(...), Timestamp(...), Decimal(...) or Bool()"
                fix = f"{field.__name__}()" if isinstance(field, type) and issubclass(field, Field) else fix
                raise DeclarationError(f"schema {name!r}: field {field_name!r} is {field!r}, not a field", hint=f"write {fix}")
            field.check(field_name)
            self.fields[field_name] = field
        self.derive: dict[str, Derived] = {}
        for column_name, function in (derive or {}).items():
            self._check_name(column_name, "derived column")
            self._add_derived(column_name, derived_of(function, f"schema {name!r}: derived column {column_name!r}"))
        self._check_paths()
        if time not in self.fields or not isinstance(self.fields[time], Timestamp):
            candidates = [n for n, f in self.fields.items() if isinstance(f, Timestamp)]
            raise DeclarationError(
                f"schema {name!r}: time {time!r} is not a Timestamp field",
                hint=f"name one of {', '.join(candidates)}" if candidates else 'add one: "ts": Timestamp("ms")',
            )
        if self.fields[time].nullable:
            raise DeclarationError(
                f"schema {name!r}: time field {time!r} is nullable",
                hint="a record without an event time belongs to no window; drop nullable=True",
            )
        self.time = time
        self.lateness = duration(lateness, f"schema {name!r}: lateness")
        self.ahead = duration(ahead, f"schema {name!r}: ahead")
        if key is not None and key not in self.fields:
            raise DeclarationError(f"schema {name!r}: key {key!r} is not a field", hint=f"the fields are {', '.join(self.fields)}")
        self.key = key
        if format not in ("json", "msgpack") and not re.fullmatch(r"[\w.]+:\w+", format):
            raise DeclarationError(
                f"schema {name!r}: format {format!r} is unknown", hint='use "json", "msgpack" or "package.module:DecoderClass"'
            )
        self.format = format

    def _check_name(self, name: str, what: str) -> None:
        check_name(name, f"schema {self.name!r}: {what}")
        if name in RESERVED:
            raise DeclarationError(
                f"schema {self.name!r}: {what} {name!r} has a reserved name", hint=f'call it something else and say path="{name}"'
            )

    def _add_derived(self, name: str, column: Derived) -> None:
        what = f"schema {self.name!r}: derived column {name!r}"
        declared = self.fields.get(name)
        if declared is not None and name in column.of:
            raise DeclarationError(f"{what} is made of the field of the same name", hint="give one of them another name")
        for source in column.of:
            if source not in self.fields:
                raise DeclarationError(f"{what}: there is no field {source!r}", hint=f"the fields are {', '.join(self.fields)}")
        if declared is not None:
            raise DeclarationError(f"{what}: there is a field of that name already", hint="give one of them another name")
        column.field.check(name)
        if not column.field.nullable and column.field.default is None:
            raise DeclarationError(
                f"{what} may come out null, and is not nullable",
                hint=f"give it nullable=True or a default: @derived({type(column.field).__name__}(default=...), of=[...])",
            )
        self.derive[name] = column

    def _check_paths(self) -> None:
        paths = {f.keys(n): n for n, f in self.fields.items() if f.source == "value"}
        for path, name in paths.items():
            for length in range(1, len(path)):
                if path[:length] in paths:
                    raise DeclarationError(
                        f"schema {self.name!r}: field {name!r} lies inside field {paths[path[:length]]!r}",
                        hint="a value is either read or looked into: drop one of the two",
                    )

    @property
    def columns(self) -> dict[str, Field]:
        """All columns of a decoded batch: fields, then derived ones."""
        return {**self.fields, **{name: column.field for name, column in self.derive.items()}}

    def sources(self, columns: set[str]) -> list[str]:
        """The fields to decode so that `columns` and the event time can be had, in declared order."""
        wanted = {self.time} | columns
        for name in columns & set(self.derive):
            wanted |= set(self.derive[name].of)
        return [name for name in self.fields if name in wanted]

    def to_json(self) -> dict[str, Any]:
        """The schema as pure data. Fields and derived columns are lists: their order is that of files and tables, and JSON objects have none."""
        return {
            "name": self.name,
            "time": self.time,
            "lateness": self.lateness,
            "ahead": self.ahead,
            "key": self.key,
            "format": self.format,
            "fields": [{"name": n, **f.to_json()} for n, f in self.fields.items()],
            "derive": [{"name": n, **d.to_json()} for n, d in self.derive.items()],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Schema:
        """The schema of its pure-data form."""
        return cls(
            data["name"],
            time=data["time"],
            lateness=data["lateness"],
            ahead=data["ahead"],
            key=data["key"],
            format=data["format"],
            fields={f["name"]: field_from_json(f) for f in data["fields"]},
            derive={d["name"]: Derived.from_json(d) for d in data["derive"]},
        )

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes how a record is judged or read."""
        return fingerprint(self.to_json())

    def __repr__(self) -> str:
        return f"Schema({self.name!r}, {len(self.fields)} fields)"
