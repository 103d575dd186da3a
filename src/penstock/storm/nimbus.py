"""A client of Nimbus, Storm's master, over its Thrift interface: what `penstock submit` and `penstock storm` ask of a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Callable, Iterator

from streamparse import thrift as storm
from thriftpy2.protocol import TBinaryProtocolFactory
from thriftpy2.rpc import make_client
from thriftpy2.thrift import TException
from thriftpy2.transport import TFramedTransportFactory

from penstock.errors import ConfigurationError, NotFoundError, UnavailableError, UsageError

PORT = 6627
CHUNK = 300 * 1024  # bytes of a jar a call
LARGEST_CALL = (1 << 20) - 4096  # bytes: Nimbus drops the connection of a call that is beyond its nimbus.thrift.max_buffer_size, 1 MiB
ALL_TIME = ":all-time"


class AlreadyRunningError(UsageError):
    """A topology of that name runs."""


class NotRunningError(NotFoundError):
    """No topology of that name runs."""


@dataclasses.dataclass(frozen=True)
class Running:
    """A topology that the cluster has. status: ACTIVE, INACTIVE, KILLED (still going), REBALANCING. uptime: seconds."""

    id: str
    name: str
    status: str
    uptime: int
    workers: int
    executors: int
    tasks: int


@dataclasses.dataclass(frozen=True)
class Executor:
    """A thread of a worker, and the component's tasks that it runs.

    uptime: seconds since it was placed there. emitted, acked, failed: Storm's samples, estimates that lag behind; None until its worker told the first. acked
    and failed are by a bolt of what it got; of a spout's tuples, by whoever got them.
    """

    component: str
    first_task: int
    last_task: int
    host: str
    port: int
    uptime: int
    emitted: int | None
    acked: int | None
    failed: int | None


@dataclasses.dataclass(frozen=True)
class Failure:
    """An error that a component reported. at: seconds since 1970."""

    component: str
    text: str
    at: int
    host: str
    port: int

    @property
    def summary(self) -> str:
        """The line that says what it is: of a Python traceback, wherever it lies in a Java one, the last; else the first."""
        lines = [line.strip() for line in self.text.splitlines()]
        said = [line for line in lines if line and not line.startswith(("at ", "... ", "Caused by"))]
        return (said[-1] if any(line.startswith("Traceback") for line in lines) else said[0]) if said else ""


@dataclasses.dataclass(frozen=True)
class Details:
    """A topology as it runs now."""

    id: str
    name: str
    status: str
    uptime: int
    executors: tuple[Executor, ...]
    failures: tuple[Failure, ...]


@dataclasses.dataclass(frozen=True)
class Supervisor:
    """A machine of the cluster. slots: how many workers it may run; used: how many it does."""

    host: str
    slots: int
    used: int
    uptime: int


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The cluster. version: of Storm, as its leader says."""

    leader: str
    version: str
    supervisors: tuple[Supervisor, ...]
    topologies: tuple[Running, ...]


def seeds_of(nimbus: str) -> list[tuple[str, int]]:
    """The addresses in "host:port,host2:port". Raises ConfigurationError."""
    found = []
    for seed in filter(None, (part.strip() for part in nimbus.split(","))):
        host, colon, port = seed.rpartition(":")
        if not colon:
            host, port = seed, str(PORT)
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigurationError(
                f"nimbus = {nimbus!r}: {seed!r} is not an address", hint=f"write host:port; Nimbus' usual port is {PORT}"
            )
        found.append((host, int(port)))
    if not found:
        raise ConfigurationError(f"nimbus = {nimbus!r} names no server", hint='write nimbus = "host:port", or several with commas between')
    return found


class NimbusClient:
    """Talks to the leader among the Nimbus servers of a cluster.

    nimbus: "host:port", or several with commas between, any of which can say who leads. timeout: seconds until a call that is not answered ends in
    an UnavailableError. Connects at the first call. Whether a call that ended so took effect is not known: look with `find`.
    """

    def __init__(self, nimbus: str, timeout: float = 30.0) -> None:
        self.seeds, self.timeout = seeds_of(nimbus), timeout
        self._client: Any = None

    # Connecting.

    def _open(self, address: tuple[str, int]) -> Any:
        return make_client(
            storm.Nimbus,
            *address,
            proto_factory=TBinaryProtocolFactory(),  # type: ignore[no-untyped-call]
            trans_factory=TFramedTransportFactory(),
            timeout=int(self.timeout * 1000),
        )

    def _connect(self) -> Any:
        """A connection to the leader. Raises UnavailableError."""
        problems = []
        for seed in self.seeds:
            try:
                client = self._open(seed)
                leader = client.getLeader()
            except (TException, OSError) as problem:
                problems.append(f"{seed[0]}:{seed[1]}: {_text(problem)}")
                continue
            if len(self.seeds) == 1 or (leader.host, leader.port) == seed:
                # The only address that one was given may be a forwarded one: the leader's own name may mean nothing here.
                return client
            client.close()
            try:
                return self._open((leader.host, leader.port))
            except (TException, OSError) as problem:
                problems.append(f"{leader.host}:{leader.port}, which leads: {_text(problem)}")
        raise UnavailableError(
            f"Nimbus does not answer: {'; '.join(problems)}",
            hint="is Storm up, and is its address in the deployment's [storm] table right?",
        )

    @contextlib.contextmanager
    def _calling(self, what: str, name: str = "") -> Iterator[Any]:
        """The connection, for one call; what goes wrong as an error of ours."""
        if self._client is None:
            self._client = self._connect()
        try:
            yield self._client
        except storm.AlreadyAliveException as problem:
            raise AlreadyRunningError(
                f"topology {name} runs already",
                hint=f"`penstock submit --replace` takes its place: it goes on from where that ended ({problem.msg})",
            ) from None
        except storm.NotAliveException:
            raise NotRunningError(f"no topology {name} runs", hint="`penstock storm list` shows what does") from None
        except storm.InvalidTopologyException as problem:
            raise ConfigurationError(f"Nimbus refuses topology {name}: {problem.msg}", hint="the setting that it names is wrong") from None
        except storm.AuthorizationException as problem:
            raise ConfigurationError(f"Nimbus does not permit {what} {name}: {problem.msg}", hint="ask who runs the cluster") from None
        except (TException, OSError) as problem:
            self.close()
            raise UnavailableError(
                f"Nimbus did not answer to {what} {name}: {_text(problem)}".replace(" :", ":"),
                hint="whether it was done, `penstock storm list` shows",
            ) from problem

    def _ask(self, what: str, call: Callable[[Any], Any], name: str = "") -> Any:
        """A call that changes nothing, and is made a second time if the connection was lost meanwhile, such as to a Nimbus that was restarted."""
        fresh = self._client is None
        try:
            with self._calling(what, name) as client:
                return call(client)
        except UnavailableError:
            if fresh:
                raise
        with self._calling(what, name) as client:
            return call(client)

    def close(self) -> None:
        """Close the connection. The next call makes a new one."""
        if self._client is not None:
            with contextlib.suppress(TException, OSError):
                self._client.close()
            self._client = None

    def __enter__(self) -> NimbusClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Looking.

    def cluster(self) -> Cluster:
        """The servers and topologies of the cluster."""
        found = self._ask("list", lambda client: client.getClusterInfo())
        leader = next((one for one in found.nimbuses if one.isLeader), None)
        return Cluster(
            f"{leader.host}:{leader.port}" if leader else "",
            leader.version if leader else "",
            tuple(Supervisor(one.host, one.num_workers, one.num_used_workers, one.uptime_secs) for one in found.supervisors),
            tuple(
                Running(one.id, one.name, one.status, one.uptime_secs, one.num_workers, one.num_executors, one.num_tasks)
                for one in found.topologies
            ),
        )

    def find(self, name: str) -> Running | None:
        """The topology of that name, if there is one; also one that was killed and is not gone yet."""
        return next((one for one in self.cluster().topologies if one.name == name), None)

    def running(self, name: str) -> Running:
        """The topology of that name. Raises NotRunningError, naming those that run."""
        known = self.cluster().topologies
        for one in known:
            if one.name == name:
                return one
        raise NotRunningError(
            f"no topology {name} runs", hint=f"there {'is' if len(known) == 1 else 'are'} {', '.join(one.name for one in known) or 'none'}"
        )

    def details(self, name: str) -> Details:
        """The executors of a topology, what they counted, and the errors that its components reported. Raises NotRunningError."""
        found = self._ask("stats", lambda client: client.getTopologyInfo(self.running(name).id), name)
        return Details(
            found.id,
            found.name,
            found.status,
            found.uptime_secs,
            tuple(sorted((_executor(one) for one in found.executors), key=lambda one: (one.component, one.first_task))),
            tuple(
                sorted(
                    (
                        Failure(component, one.error.strip(), one.error_time_secs, one.host or "", one.port or 0)
                        for component, errors in found.errors.items()
                        for one in errors
                    ),
                    key=lambda one: -one.at,
                )
            ),
        )

    def settings(self, name: str) -> dict[str, Any]:
        """The settings that a topology runs with, those of the cluster included. Raises NotRunningError."""
        found: dict[str, Any] = json.loads(self._ask("settings", lambda client: client.getTopologyConf(self.running(name).id), name))
        return found

    def cluster_settings(self) -> dict[str, Any]:
        """Nimbus' own settings."""
        found: dict[str, Any] = json.loads(self._ask("settings", lambda client: client.getNimbusConf()))
        return found

    # Changing.

    def upload(self, jar: Path, on_progress: Callable[[int, int], None] | None = None) -> str:
        """Send a jar to Nimbus, and say where it lies there. on_progress: called with the bytes sent, and how many there are."""
        total, sent = os.path.getsize(jar), 0
        with self._calling("upload") as client, open(jar, "rb") as source:
            location: str = client.beginFileUpload()
            while chunk := source.read(CHUNK):
                client.uploadChunk(location, chunk)
                sent += len(chunk)
                if on_progress:
                    on_progress(sent, total)
            client.finishFileUpload(location)
        return location

    def submit(self, name: str, location: str, settings: dict[str, Any], topology: storm.StormTopology, *, active: bool = True) -> None:
        """Start a topology. location: of its jar, as `upload` says. Raises AlreadyRunningError, and ConfigurationError for one that Nimbus refuses."""
        text = json.dumps(settings, sort_keys=True)
        status = storm.TopologyInitialStatus.ACTIVE if active else storm.TopologyInitialStatus.INACTIVE
        parts = [text, *(one.common.json_conf or "" for one in (*topology.bolts.values(), *topology.spouts.values()))]
        size = sum(len(part.encode()) for part in parts)
        if size > LARGEST_CALL:
            raise ConfigurationError(
                f"topology {name} is too large for Nimbus: its settings take {size:,} bytes, and a call {LARGEST_CALL:,}",
                hint="nimbus.thrift.max_buffer_size is the cluster's limit; or split the topology",
            )
        with self._calling("submit", name) as client:
            if not client.isTopologyNameAllowed(name):
                raise ConfigurationError(
                    f"Nimbus does not allow the name {name!r} for a topology",
                    hint="it is taken, or holds one of / . : \\; --name gives it another",
                )
            client.submitTopologyWithOpts(name, location, text, topology, storm.SubmitOptions(initial_status=status))

    def kill(self, name: str, wait: int | None = None) -> None:
        """Stop a topology. wait: seconds in which its spouts are silent and its bolts go on; the cluster's choice if not given."""
        with self._calling("kill", name) as client:
            client.killTopologyWithOpts(name, storm.KillOptions(wait_secs=wait))

    def activate(self, name: str) -> None:
        """Let the spouts of a topology emit again."""
        with self._calling("activate", name) as client:
            client.activate(name)

    def deactivate(self, name: str) -> None:
        """Let the spouts of a topology emit nothing."""
        with self._calling("deactivate", name) as client:
            client.deactivate(name)

    def rebalance(self, name: str, *, wait: int | None = None, workers: int | None = None, executors: dict[str, int] | None = None) -> None:
        """Spread a topology anew. executors: threads a component, at most as many as it has tasks. wait: seconds of silence before."""
        with self._calling("rebalance", name) as client:
            client.rebalance(name, storm.RebalanceOptions(wait_secs=wait, num_workers=workers, num_executors=executors or {}))


def _executor(one: Any) -> Executor:
    """An executor of its Thrift form."""
    counts: tuple[int | None, int | None, int | None] = None, None, None
    if one.stats is not None:
        specific = one.stats.specific.bolt or one.stats.specific.spout
        counts = _sum(one.stats.emitted), _sum(specific.acked), _sum(specific.failed)
    tasks = one.executor_info
    return Executor(one.component_id, tasks.task_start, tasks.task_end, one.host, one.port, one.uptime_secs or 0, *counts)


def _sum(counts: dict[str, dict[Any, int]] | None) -> int:
    """The counts since the start, of streams that are not Storm's own. A bolt's are by the component that they come from, too."""
    found = (counts or {}).get(ALL_TIME) or {}
    return sum(count for stream, count in found.items() if not str(getattr(stream, "componentId", stream)).startswith("__"))


def _text(problem: BaseException) -> str:
    """What a Thrift or socket error says, on one line."""
    return " ".join(str(getattr(problem, "message", None) or problem).split()) or type(problem).__name__


__all__ = [
    "AlreadyRunningError",
    "Cluster",
    "Details",
    "Executor",
    "Failure",
    "NimbusClient",
    "NotRunningError",
    "Running",
    "Supervisor",
    "seeds_of",
]
