"""What `sparse submit` needs of a Penstock topology: streamparse's pre-submit hook.

A project has `tasks.py` with `from penstock.storm.sparse import pre_submit`. streamparse calls it with the settings that it is about to submit, and submits
what it leaves behind: those of `penstock submit`, after the same checks and with the same tables, topics and positions made.

    sparse submit -e prod -n shop -j shop.jar -o penstock.from=latest

The deployment is the environment's name (-e), unless PENSTOCK_ON or -o penstock.on=NAME says another one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Iterator

import streamparse
from streamparse.dsl.topology import TopologyType

from penstock.deployment import Deployment
from penstock.errors import ConfigurationError, NotFoundError, PenstockError
from penstock.runner.local import prepare
from penstock.storm.cluster import ClusterTable
from penstock.storm.compose import compose, definitions_of
from penstock.storm.nimbus import seeds_of
from penstock.storm.submit import launcher
from penstock.topology import Topology, load_topology

ON, FROM = "penstock.on", "penstock.from"
STORMS = ("topology.", "storm.messaging.", "worker.")
NOT_OURS = ("topology.python.path", "topology.original_name")  # streamparse's notes
COUNTS = ("topology.workers", "topology.acker.executors")
FOLDER = "topologies"  # streamparse's topology_specs


def pre_submit(topology_name: str, env_name: str, env_config: dict[str, Any], options: dict[str, Any]) -> None:
    """Called by `sparse submit`. Ends the process with a message, as `penstock submit` would, if the topology cannot be submitted."""
    try:
        on = options.pop(ON, None) or os.environ.get("PENSTOCK_ON") or env_name
        with Deployment.named(on) as deployment:
            complete(topology_name, deployment, env_config, options)
    except PenstockError as problem:
        sys.exit(f"error: {problem}")


def complete(topology_name: str, deployment: Deployment, env_config: dict[str, Any], options: dict[str, Any]) -> None:
    """Prepare, and put what Storm is to run into streamparse's class, and its settings into `options`. Raises PenstockError."""
    start = options.pop(FROM, None)
    table = ClusterTable.of(deployment)
    chosen, path = found(topology_name)
    _check_nimbus(table, env_config)
    # By the name that the workers import it by, rather than the file's own, which streamparse uses.
    topology = load_topology(f"{path}:{chosen.__name__}")
    workers = _given(options, COUNTS[0])
    wanted = {key: value for key, value in options.items() if key.startswith(STORMS) and key not in (*NOT_OURS, *COUNTS)}
    ackers = _given(options, COUNTS[1])
    if ackers is not None:
        wanted[COUNTS[1]] = ackers
    composed = compose(
        topology, deployment, definitions_of(topology, deployment), launcher(table), name=topology_name, options=wanted, workers=workers
    )
    prepare(topology, deployment, start)
    for ours, theirs in ((composed.topology.bolts, chosen.thrift_bolts), (composed.topology.spouts, chosen.thrift_spouts)):
        theirs.clear()
        theirs.update(ours)
    options.update(composed.settings)
    # Storm's half of the serializer is in the settings, Python's in the command of each component, to which streamparse would add a word.
    env_config["serializer"] = None
    for note in composed.notes:
        print(note)


def found(topology_name: str) -> tuple[type[Topology], Path]:
    """The class that streamparse has loaded and is about to submit, and its file. Raises NotFoundError."""
    loaded = {path.stem: (cls, path) for cls, path in _loaded()}
    if topology_name in loaded:
        return loaded[topology_name]
    if len(loaded) != 1:  # --override_name gives another name than the file's
        raise NotFoundError(
            f"which of {', '.join(sorted(loaded)) or 'no topologies'} is {topology_name!r} cannot be told",
            hint="a module of topologies/ must not import another one, or call it as the file is called; `penstock submit --name` can",
        )
    return next(iter(loaded.values()))


def _loaded() -> Iterator[tuple[type[Topology], Path]]:
    """Of each module in the folder of topologies, the class that streamparse takes: the first."""
    folder = Path(FOLDER).resolve()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or not file or Path(file).resolve().parent != folder:
            continue
        for value in vars(module).values():
            if isinstance(value, TopologyType) and value != streamparse.Topology:
                if not issubclass(value, Topology):
                    raise ConfigurationError(f"{value.__name__} in {file} is not a penstock.Topology", hint="derive it from that")
                yield value, Path(file).resolve()
                break


def _given(options: dict[str, Any], key: str) -> int | None:
    """A number that the user gave, rather than streamparse's own: one for each machine that config.json lists."""
    value = options.get(key)
    return None if value is None or value == len(options.get("storm.workers.list") or ()) else int(value)


def _check_nimbus(table: ClusterTable, env_config: dict[str, Any]) -> None:
    """streamparse talks to the Nimbus of config.json: it must be the deployment's."""
    if env_config.get("use_ssh_for_nimbus", True):
        return  # through a tunnel, addresses are those of the far end
    theirs = seeds_of(os.environ.get("STREAMPARSE_NIMBUS") or env_config["nimbus"])[0]
    if theirs not in seeds_of(table.nimbus):
        raise ConfigurationError(
            f"streamparse would submit to Nimbus at {theirs[0]}:{theirs[1]}, and the deployment's is {table.nimbus}",
            hint=f"write it into config.json, or set STREAMPARSE_NIMBUS={table.nimbus.split(',')[0]}",
        )


__all__ = ["pre_submit"]
