"""penstock.Topology: streamparse's, with each component told which bolt it belongs to, so that spouts find their positions."""
from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, Iterator

import streamparse
from streamparse.dsl.component import ComponentSpec
from streamparse.dsl.topology import TopologyType

from penstock.bolts.base import BatchBolt
from penstock.errors import ConfigurationError, DeclarationError, NotFoundError
from penstock.model import Rollup, Schema
from penstock.rollup.registry import BoltDefinition
from penstock.spouts.base import CONFIG, BatchSpout


def snake(name: str) -> str:
    """AdvertiserAnalytics -> advertiser_analytics."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class _TopologyType(TopologyType):
    """Completes the components before streamparse makes Thrift of them."""

    def __new__(mcs, classname: str, bases: tuple[type, ...], class_dict: dict[str, Any]) -> type:
        topology, bolts, spouts = snake(classname), {}, {}
        for attribute, spec in class_dict.items():
            if isinstance(spec, ComponentSpec) and issubclass(spec.component_cls, (BatchBolt, BatchSpout)):
                spec.name = spec.name or attribute
                (bolts if issubclass(spec.component_cls, BatchBolt) else spouts)[spec.name] = spec
        definitions, fed = {}, {}
        for name, spec in bolts.items():
            if id(spec.source) in fed:
                raise DeclarationError(f"topology {classname}: bolts {fed[id(spec.source)]!r} and {name!r} share a spout",
                                       hint="give each its own KafkaSpout.spec(...): one that stalls must not hold back the other, and reading the log once more is cheap")
            fed[id(spec.source)] = name
            definitions[name] = BoltDefinition(bolt=f"{topology}.{name}", **spec.makes)
            common = {"bolt": definitions[name].bolt, "generation": definitions[name].generation, "schema": definitions[name].schema, "flush": spec.flush,
                      "limits": vars(spec.component_cls.limits)}
            _configure(spec, {**common, "rollups": list(definitions[name].rollups)})
            _configure(spec.source, common)
        for name, spec in spouts.items():
            if id(spec) not in fed:
                raise DeclarationError(f"topology {classname}: spout {name!r} feeds no bolt", hint=f"pass it to a bolt's spec, or drop it")
        class_dict["definitions"] = definitions
        class_dict["topology_name"] = topology
        cls: type = super().__new__(mcs, classname, bases, class_dict)
        return cls


def _configure(spec: ComponentSpec, settings: dict[str, Any]) -> None:
    config = json.loads(spec.config)
    config[CONFIG] = json.dumps(settings, sort_keys=True)
    spec.config = spec.common.json_conf = json.dumps(config)


class Topology(streamparse.Topology, metaclass=_TopologyType):
    """A topology whose attributes are its components.

        class PageAnalytics(Topology):
            live = KafkaSpout.spec(pages)
            rollups = RollupBolt.spec(live, [traffic])

    definitions: by component name, each bolt as pure data. topology_name: the class's name in snake_case.
    """

    definitions: dict[str, BoltDefinition]
    topology_name: str

    @classmethod
    def schemas(cls) -> list[Schema]:
        """The schemas that its spouts read, each once."""
        found: dict[str, Schema] = {}
        for definition in cls.definitions.values():
            schema = Schema.from_json(definition.schema)
            found.setdefault(schema.name, schema)
        return list(found.values())

    @classmethod
    def rollups(cls) -> Iterator[Rollup]:
        """All roll-ups of its bolts."""
        for definition in cls.definitions.values():
            yield from map(Rollup.from_json, definition.rollups)


def load_topology(name: str) -> type[Topology]:
    """The topology of a module ("penstock.topologies.page_analytics", "page_analytics") or a file ("topologies/page_analytics.py").

    A module or file may hold several: "module:Class" says which. Raises NotFoundError or DeclarationError.
    """
    place, _, wanted = name.partition(":")
    module = _import(place)
    found = {cls.__name__: cls for _, cls in inspect.getmembers(module, inspect.isclass)
             if issubclass(cls, Topology) and cls is not Topology and cls.__module__ == module.__name__}
    if wanted:
        if wanted not in found:
            raise NotFoundError(f"{place} has no topology {wanted!r}", hint=f"it has {', '.join(found) or 'none'}")
        return found[wanted]
    if len(found) != 1:
        raise NotFoundError(f"{place} holds {len(found)} topologies", hint=f"say which: {', '.join(f'{place}:{n}' for n in found)}" if found else "a topology is a class that derives from penstock.Topology")
    return next(iter(found.values()))


def _import(place: str) -> Any:
    path = Path(place)
    if place.endswith(".py") or path.is_file():
        if not path.is_file():
            raise NotFoundError(f"there is no file {place}", hint="TOPOLOGY is a Python file or the name of a module")
        place = _module_name(path.resolve())
    candidates = [place] if "." in place else [place, f"penstock.topologies.{place}", f"topologies.{place}"]
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for candidate in candidates:
        try:
            return importlib.import_module(candidate)
        except ModuleNotFoundError as problem:
            if problem.name is None or not (candidate == problem.name or candidate.startswith(problem.name + ".")):
                raise ConfigurationError(f"{candidate} needs the module {problem.name!r}, which is not installed", hint=f"pip install {problem.name}, in the environment that penstock runs in") from None
    raise NotFoundError(f"there is no topology {place!r}", hint="TOPOLOGY is a Python file or the name of a module")


def _module_name(path: Path) -> str:
    """The name to import a file by, so that no module is ever imported under two names."""
    import penstock.topologies

    for folder in penstock.topologies.__path__:
        if Path(folder).resolve() == path.parent:
            return f"penstock.topologies.{path.stem}"
    root = path.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    # A project's topologies/ holds plain files, as streamparse has it; what they import stands at the project's root.
    project = root.parent if root.name == "topologies" else root
    for folder in dict.fromkeys((str(project), str(root))):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    return f"topologies.{name}" if root.name == "topologies" and project != root else name
