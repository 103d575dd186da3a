"""penstock.Topology: streamparse's, with each component told which bolt it belongs to, so that spouts find their positions."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import streamparse
from streamparse.dsl.component import ComponentSpec
from streamparse.dsl.topology import TopologyType

from penstock.bolts.base import BatchBolt
from penstock.errors import ConfigurationError, DeclarationError, NotFoundError
from penstock.model.fields import check_name
from penstock.rollup.registry import BoltDefinition
from penstock.spouts.base import CONFIG, BatchSpout


def snake(name: str) -> str:
    """AdvertiserAnalytics -> advertiser_analytics."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


# What the class holds beside its components.
RESERVED = (
    "config",
    "definitions",
    "read",
    "specs",
    "thrift_bolts",
    "thrift_spouts",
    "thrift_topology",
    "to_flux_dict",
    "topology_name",
    "write",
)


class _TopologyType(TopologyType):
    """Completes the components before streamparse makes Thrift of them."""

    def __new__(mcs, classname: str, bases: tuple[type, ...], class_dict: dict[str, Any]) -> type:
        topology = check_name(snake(classname), f"topology {classname}")
        bolts: dict[str, ComponentSpec] = {}
        spouts: dict[str, ComponentSpec] = {}
        for attribute, spec in class_dict.items():
            if isinstance(spec, ComponentSpec) and issubclass(spec.component_cls, (BatchBolt, BatchSpout)):
                spec.name = check_name(spec.name or attribute, f"topology {classname}: component")
                if spec.name in bolts or spec.name in spouts:
                    raise DeclarationError(
                        f"topology {classname}: two components are called {spec.name!r}",
                        hint="positions are kept under the name: give each its own",
                    )
                if attribute in RESERVED:
                    raise DeclarationError(
                        f"topology {classname}: {attribute!r} cannot be the name of a component",
                        hint=f"call it something else than {', '.join(RESERVED)}",
                    )
                (bolts if issubclass(spec.component_cls, BatchBolt) else spouts)[spec.name] = spec
        definitions: dict[str, BoltDefinition] = {}
        fed: dict[int, str] = {}
        for name, spec in bolts.items():
            if id(spec.source) in fed:
                raise DeclarationError(
                    f"topology {classname}: bolts {fed[id(spec.source)]!r} and {name!r} share a spout",
                    hint="give each its own KafkaSpout.spec(...): one that stalls must not hold back the other; reading twice is cheap",
                )
            fed[id(spec.source)] = name
            definitions[name] = BoltDefinition(bolt=f"{topology}.{name}", **spec.makes)
            common = {
                "bolt": definitions[name].bolt,
                "generation": definitions[name].generation,
                "schema": definitions[name].schema,
                "flush": spec.flush,
                "limits": vars(spec.component_cls.limits),
            }
            _configure(spec, {**common, "rollups": list(definitions[name].rollups)})
            _configure(spec.source, common)
        for name, spec in spouts.items():
            if id(spec) not in fed:
                raise DeclarationError(f"topology {classname}: spout {name!r} feeds no bolt", hint="pass it to a bolt's spec, or drop it")
        class_dict["definitions"] = definitions
        class_dict["topology_name"] = topology
        cls: type = super().__new__(mcs, classname, bases, class_dict)
        return cls

    def __eq__(cls, other: object) -> bool:
        """`sparse` takes the first topology of a module that does not equal streamparse's base class: so does ours, which a module imports first."""
        return cls is other or (other is streamparse.Topology and not cls.specs)

    def __hash__(cls) -> int:
        return id(cls)


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


def load_topology(name: str) -> type[Topology]:
    """The topology of a module ("penstock.topologies.page_analytics", "page_analytics") or a file ("topologies/page_analytics.py").

    A module or file may hold several: "module:Class" says which. Raises NotFoundError or DeclarationError.
    """
    place, _, wanted = name.partition(":")
    module = _import(place)
    found = {
        cls.__name__: cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Topology) and cls is not Topology and cls.__module__ == module.__name__
    }
    if wanted:
        if wanted not in found:
            raise NotFoundError(f"{place} has no topology {wanted!r}", hint=f"it has {', '.join(found) or 'none'}")
        return found[wanted]
    if len(found) != 1:
        raise NotFoundError(
            f"{place} holds {len(found)} topologies",
            hint=f"say which: {', '.join(f'{place}:{n}' for n in found)}"
            if found
            else "one is a class that derives from penstock.Topology",
        )
    return next(iter(found.values()))


def _import(place: str) -> ModuleType:
    _put_first(Path.cwd())
    if place.endswith(".py") or Path(place).is_file():
        return _import_file(Path(place))
    plain = place.removeprefix("topologies.")
    candidates = [place, f"penstock.topologies.{place}"] if plain == place else []
    for candidate in candidates if all(part.isidentifier() for part in plain.split(".")) else ():
        found = _import_name(candidate)
        if found is not None:
            return found
    local = Path("topologies", f"{plain}.py")
    if local.is_file():
        return _import_file(local)
    raise NotFoundError(f"there is no topology {place!r}", hint="TOPOLOGY is a Python file or the name of a module")


def _import_name(name: str, path: Path | None = None) -> ModuleType | None:
    """The module (of a file, if `path` says which); None if there is none of that name. Raises ConfigurationError for one that needs what is not installed."""
    try:
        return importlib.import_module(name) if path is None else _load(name, path)
    except ModuleNotFoundError as problem:
        if problem.name is not None and (name == problem.name or name.startswith(problem.name + ".")):
            return None
        raise ConfigurationError(
            f"{name} needs the module {problem.name!r}, which is not installed",
            hint=f"pip install {problem.name}, in the environment that penstock runs in",
        ) from None


def _load(name: str, path: Path) -> ModuleType:
    """The file as the module of that name, whichever other file the name would lead to."""
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_file(path: Path) -> ModuleType:
    """The module of a file, by the name that everything else imports it by, so that none is ever imported under two names."""
    import penstock.topologies

    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", hint="TOPOLOGY is a Python file or the name of a module")
    path = path.resolve()
    root = path.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    if path.parent in [Path(folder).resolve() for folder in penstock.topologies.__path__]:
        name, module = path.stem, _import_name(f"penstock.topologies.{path.stem}")
    elif root.name == "topologies":
        # A project's topologies/ holds plain files, as streamparse has it; what they import stands at the project's root.
        _put_first(root.parent)
        name = ".".join(("topologies", *path.relative_to(root).with_suffix("").parts))
        module = _import_name(name, path)
    else:
        _put_first(root)
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        module = _import_name(name)
    found = getattr(module, "__file__", None)
    if module is None or found is None or Path(found).resolve() != path:
        raise ConfigurationError(
            f"{path} would be imported as {name}, which is {found or 'another folder'}",
            hint="workers import it by that name, and so would everything else: call the file something else",
        )
    return module


def _put_first(folder: Path) -> None:
    """Look for modules in a folder first, unless they are looked for there already."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
