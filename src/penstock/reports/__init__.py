"""Reports: SQL kept as files, with parameters. One text each, which DuckDB and Redshift read alike.

A report's file begins with comments that say what it is:

    -- title: Top content
    -- description: The pages that were viewed most.
    -- parameter: from timestamp = today-7d; views from here on
    -- parameter: top int = 20; how many pages

and `:from`, `:top` in its one statement stand for the values. A parameter without a default must be given; `= null` makes it optional. Kinds:
timestamp, date, int, decimal, text, and table, which is a name.
"""

from __future__ import annotations

import dataclasses
import decimal
import difflib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from penstock.configuration import find_config
from penstock.errors import ConfigurationError, NotFoundError, QueryError, UsageError
from penstock.model.units import DAY, duration, instant, to_datetime
from penstock.query.sql.literals import literal

FOLDER = "reports"  # of a project: its own reports
KINDS = ("timestamp", "date", "int", "decimal", "text", "table")
_HEADER = re.compile(r"--\s*(title|description|parameter):\s*(.*)")
_PARAMETER = re.compile(r"([a-z][a-z0-9_]*)\s+([a-z]+)\s*(?:=\s*([^;]*?)\s*)?;\s*(.+)")
# What is quoted and what is commented is skipped; a cast (::) is no parameter.
_PLACE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|::|:([a-z][a-z0-9_]*)", re.DOTALL)
_RELATIVE = re.compile(r"(now|today)\s*(?:([+-])\s*(\w+))?")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,99}(\.[a-z][a-z0-9_]{0,199})?")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a report. default: as a user would type it, "null" for none; None where it must be given."""

    name: str
    kind: str
    default: str | None
    what: str

    def literal(self, text: str, now: int) -> str:
        """A value as SQL. now: microseconds since 1970. Raises UsageError, naming the parameter and the fix."""
        where = f"--param {self.name}"
        if text == "null" and self.default == "null":
            return "NULL"
        if self.kind in ("timestamp", "date"):
            moment = to_datetime(_instant(text, now, where))
            return literal(moment if self.kind == "timestamp" else moment.date())
        if self.kind == "table":
            if not _TABLE.fullmatch(text):
                raise UsageError(f"{where}: {text!r} is not the name of a table", hint="write ads, archive.ads or warehouse.ads")
            return ".".join(f'"{part}"' for part in text.split("."))
        try:
            value: Any = text if self.kind == "text" else int(text) if self.kind == "int" else decimal.Decimal(text)
            return literal(value)
        except (ValueError, decimal.InvalidOperation):
            raise UsageError(f"{where}: {text!r} is not of kind {self.kind}", hint=f"it is {self.what}") from None
        except QueryError as problem:
            raise UsageError(f"{where}: {problem.message}", hint=problem.hint) from None


@dataclasses.dataclass(frozen=True)
class Report:
    """A report. sql: its text, without the comments at its head."""

    name: str
    title: str
    description: str
    parameters: tuple[Parameter, ...]
    sql: str

    def statement(self, values: Mapping[str, str], now: int) -> str:
        """The statement with the values that a user typed. Raises UsageError, naming the parameter and the fix."""
        known = {one.name: one for one in self.parameters}
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                has = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}"
                raise UsageError(f"report {self.name} has no parameter {name!r}", hint=has)
        missing = [one for one in self.parameters if one.default is None and one.name not in values]
        if missing:
            raise UsageError(
                f"report {self.name} needs {', '.join(one.name for one in missing)}",
                hint=" ".join(f"--param {one.name}=…" for one in missing) + f" ({'; '.join(one.what for one in missing)})",
            )
        made = {name: one.literal(values.get(name, one.default or ""), now) for name, one in known.items()}
        return _PLACE.sub(lambda found: made[found[1]] if found[1] else found[0], self.sql)


def reports() -> dict[str, Report]:
    """All reports by name: those that come with Penstock, and those of the project's own folder, which go before."""
    shipped = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".sql")]
    found = {file.name[:-4]: parse(file.name[:-4], file.read_text(encoding="utf-8")) for file in shipped}
    for path in sorted(own_folder().glob("*.sql")):
        found[path.stem] = _read(path)
    return dict(sorted(found.items()))


def report(name: str) -> Report:
    """One report: by its name, or by the path of its file. Raises NotFoundError, naming what is near."""
    if name.endswith(".sql"):
        return _read(Path(name))
    found = reports()
    if name not in found:
        near = difflib.get_close_matches(name, found, 1)
        raise NotFoundError(f"there is no report {name!r}", hint=f"did you mean {near[0]}?" if near else f"there are {', '.join(found)}")
    return found[name]


def own_folder() -> Path:
    """Where a project keeps its own reports: beside penstock.toml, else below the working folder."""
    config = find_config()
    return (config.parent if config else Path.cwd()) / FOLDER


def parse(name: str, text: str) -> Report:
    """The report of a file's text. Raises ConfigurationError, naming the report and the fix."""
    lines, head, parameters = text.splitlines(), {"title": name, "description": ""}, []
    while lines and (not lines[0].strip() or lines[0].startswith("--")):
        line = lines.pop(0)
        found = _HEADER.fullmatch(line.strip())
        if found and found[1] == "parameter":
            parameters.append(_parameter(name, found[2]))
        elif found:
            head[found[1]] = found[2].strip()
    sql = "\n".join(lines).strip().rstrip(";").rstrip()
    used = {place[1] for place in _PLACE.finditer(sql) if place[1]}
    declared = {one.name for one in parameters}
    if not sql or used != declared or len(declared) != len(parameters):
        wrong = sorted(used ^ declared)
        what = f"{', '.join(wrong)} is declared or used, and not both" if wrong else "it has no statement, or a parameter is declared twice"
        raise ConfigurationError(
            f"report {name}: {what}", hint="declare each :name of the statement once: -- parameter: name kind = default; what it is"
        )
    return Report(name, head["title"], head["description"], tuple(parameters), sql)


def _parameter(name: str, text: str) -> Parameter:
    found = _PARAMETER.fullmatch(text.strip())
    if found is None or found[2] not in KINDS:
        raise ConfigurationError(
            f"report {name}: {text!r} does not declare a parameter",
            hint=f"write -- parameter: name kind = default; what it is (kinds: {', '.join(KINDS)})",
        )
    return Parameter(found[1], found[2], found[3], found[4])


def _read(path: Path) -> Report:
    try:
        return parse(path.stem, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigurationError(f"cannot read {path}: {problem}", hint="a report is a file of SQL") from None


def _instant(text: str, now: int, where: str) -> int:
    """An instant as text: ISO 8601, or now or today (in UTC) with a duration added or taken away, such as today-7d."""
    relative = _RELATIVE.fullmatch(text.strip())
    if relative is None:
        return instant(text, where)
    begin = now // DAY * DAY if relative[1] == "today" else now
    away = duration(relative[3], where) if relative[3] else 0
    return begin + (away if relative[2] == "+" else -away)


__all__ = ["FOLDER", "KINDS", "Parameter", "Report", "own_folder", "parse", "report", "reports"]
