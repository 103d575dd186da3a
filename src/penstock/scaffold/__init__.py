"""What `penstock new` makes a project from: the files of `new-project/`, with NAME in their names and texts replaced.

A template's name ends in `.tmpl`, so that no tool takes it for a module; `@NAME@` stands for the module's name (shop), `@CLASS@` for the class's (Shop),
`@TITLE@` for what the user typed. `lib/` becomes NAME_lib, `topology.py` NAME.py, and `gitignore` .gitignore.
"""

from __future__ import annotations

import dataclasses
import json
import keyword
import random
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

from penstock.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.abc import Traversable

SAMPLE_EVENTS = 600
SAMPLE_START = 1_772_409_600_000  # 2026-03-02T00:00Z, in milliseconds
_PAGES = {
    "/shop": 30,
    "/shop/shoes": 20,
    "/shop/hats": 12,
    "/checkout": 12,
    "/blog/spring": 10,
    "/blog/summer": 8,
    "/about": 5,
    "/": 3,
}  # with weights
_COUNTRIES = ("DE", "FR", "US", "BR", "JP")


@dataclasses.dataclass(frozen=True)
class Project:
    """What was made. module: the name that its topology, its schema and its package go by."""

    folder: Path
    module: str
    files: tuple[str, ...]


def create(name: str, into: Path) -> Project:
    """Make a project called `name` in a folder of that name below `into`. Raises ConfigurationError for a name or a folder that cannot be used."""
    module = name.replace("-", "_").lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", module) or keyword.iskeyword(module):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a project",
            hint="use letters, digits, - and _, a letter first, at most 40: it names a Python module and tables",
        )
    folder = into.expanduser() / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            f"{folder} is there already, and is not an empty folder", hint="choose another name, or --into another folder"
        )
    words = {"@NAME@": module, "@CLASS@": "".join(part.capitalize() for part in module.split("_")), "@TITLE@": name}
    files = {}
    for path, text in _templates(resources.files("penstock.scaffold") / "new-project", ""):
        for word, value in words.items():
            text = text.replace(word, value)
        files[_place(path, module)] = text
    files["sample.jsonl"] = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in sample_events())
    try:
        for path, text in files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
    except OSError as problem:
        raise ConfigurationError(
            f"{problem.filename} cannot be written: {problem.strerror}", hint="--into names the folder in which the project is made"
        ) from None
    return Project(folder, module, tuple(sorted(files)))


def _place(path: str, module: str) -> str:
    """Where the file of a template goes."""
    named = {
        "gitignore": ".gitignore",
        "topologies/topology.py": f"topologies/{module}.py",
        "tests/test_topology.py": f"tests/test_{module}.py",
    }
    return named.get(path, path.replace("lib/", f"{module}_lib/", 1) if path.startswith("lib/") else path)


def _templates(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    """Every template below a folder: the path of the file that it makes, and its text."""
    for entry in sorted(folder.iterdir(), key=lambda found: found.name):
        if entry.is_dir():
            yield from _templates(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".tmpl"):
            yield prefix + entry.name.removesuffix(".tmpl"), entry.read_text()


def sample_events() -> Iterator[dict[str, object]]:
    """A day's visits, the same every time; one in forty fails, and in the hour of 14:00 every checkout does."""
    chance = random.Random(2026)
    for number in range(SAMPLE_EVENTS):
        ts = SAMPLE_START + number * 86_400_000 // SAMPLE_EVENTS
        page, country = chance.choices(list(_PAGES), list(_PAGES.values()))[0], chance.choices(_COUNTRIES)[0]
        broken = chance.random() < 0.025 or (page == "/checkout" and ts // 3_600_000 % 24 == 14)
        yield {
            "ts": ts,
            "page": page,
            "visitor": f"v{int(chance.random() ** 2 * 150)}",
            "country": country,
            "status": 503 if broken else 200,
            "ms": 15 + int(chance.expovariate(0.01)),
        }
