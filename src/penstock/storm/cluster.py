"""What a deployment's [storm] table says, checked."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigurationError
from penstock.storm.settings import heap_of

if TYPE_CHECKING:
    from penstock.deployment import Deployment

KEYS = ("nimbus", "options", "parallelism", "python", "worker_heap", "workers")
PACKED = "packed"
ANY_PYTHON = "python3"  # on the path of a worker
LOOPBACK = ("localhost", "127.", "::1", "[::1]")


@dataclasses.dataclass(frozen=True)
class ClusterTable:
    """A deployment's [storm] table.

    nimbus: addresses, as `NimbusClient` takes them. parallelism: tasks by component; `every` for those that it does not name, None for what the
    topology says. python: the interpreter on the workers. packed: whether the environment travels in the jar, or is the interpreter's own. heap: of a
    worker, MiB; None to derive it. options: further Storm settings.
    """

    nimbus: str
    workers: int
    parallelism: dict[str, int]
    every: int | None
    python: str
    packed: bool
    heap: int | None
    options: dict[str, Any]

    @classmethod
    def of(cls, deployment: Deployment) -> ClusterTable:
        """The table of a deployment. Raises ConfigurationError if it has none, or one that cannot work."""
        where = f"deployment {deployment.name}"
        table = deployment.settings.get("storm")
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{where} has no Storm cluster",
                hint='write a table [NAME.storm] with nimbus = "host:6627" into penstock.toml, or start one with `penstock stack up storm` (--on stack)',
            )
        unknown = sorted(set(table) - set(KEYS))
        if unknown:
            near = difflib.get_close_matches(unknown[0], KEYS, 1)
            raise ConfigurationError(
                f"{where}, [storm]: unknown setting {unknown[0]}",
                hint=f"did you mean {near[0]}?" if near else f"settings are {', '.join(KEYS)}; Storm's own go into options",
            )
        nimbus = table.get("nimbus")
        if not isinstance(nimbus, str):
            raise ConfigurationError(f"{where}, [storm]: nimbus = {nimbus!r} is not an address", hint='write nimbus = "host:6627"')
        parallelism = table.get("parallelism")
        named = dict(parallelism) if isinstance(parallelism, dict) else {}
        for what, number in [("workers", table.get("workers", 1)), *(("parallelism", one) for one in named.values())]:
            _check_count(where, what, number)
        if not isinstance(parallelism, dict) and parallelism is not None:
            _check_count(where, "parallelism", parallelism)
        options = table.get("options", {})
        if not isinstance(options, dict):
            raise ConfigurationError(f"{where}, [storm]: options is not a table", hint='write options = {"topology.priority" = 10}')
        return cls(
            nimbus,
            table.get("workers", 1),
            named,
            None if isinstance(parallelism, dict) else parallelism,
            *_python(table.get("python"), nimbus, where),
            heap_of(table.get("worker_heap")),
            dict(options),
        )


def _check_count(where: str, what: str, number: Any) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigurationError(f"{where}, [storm]: {what} = {number!r} is not a number of 1 or more", hint=f"write {what} = 2")


def _python(value: Any, nimbus: str, where: str) -> tuple[str, bool]:
    """The interpreter of the workers, and whether the environment travels. Where the cluster is this machine, this interpreter will do."""
    if value is None:
        here = all(seed.strip().startswith(LOOPBACK) for seed in nimbus.split(","))
        return (sys.executable, False) if here else (ANY_PYTHON, True)
    if value == PACKED:
        return ANY_PYTHON, True
    packed, colon, path = value.partition(":") if isinstance(value, str) and value.startswith(PACKED) else ("", "", value)
    if not isinstance(path, str) or not path.startswith("/"):
        raise ConfigurationError(
            f"{where}, [storm]: python = {value!r} is neither a path on the workers nor {PACKED!r}",
            hint='write python = "/path/of/python", which has penstock on every worker, or "packed": the environment travels in the jar, for python3 '
            'there, or "packed:/path/of/python"',
        )
    return path, bool(packed and colon)


__all__ = ["PACKED", "ClusterTable"]
