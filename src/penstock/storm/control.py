"""What `penstock storm` shows of a running topology: its tasks in a row each, and the logs of its workers."""

from __future__ import annotations

import dataclasses
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Callable, Iterator

from penstock.errors import NotFoundError, UnavailableError
from penstock.storm.nimbus import Details, Executor, NimbusClient

WORKER_LOG = "worker.log"
LOGVIEWER_TIMEOUT = 5.0  # seconds
POLL = 0.3  # seconds between two looks at a log that is followed
READ_BACK = 1 << 20  # bytes of a log's end in which its last lines are looked for, doubled until they are found


def is_system(component: str) -> bool:
    """Whether a component is Storm's own, such as an acker."""
    return component.startswith("__")


def executors_of(details: Details, *, system: bool = False) -> list[Executor]:
    """The executors of a topology; Storm's own only if asked for."""
    return [one for one in details.executors if system or not is_system(one.component)]


def as_json(details: Details) -> dict[str, Any]:
    """A topology as pure data."""
    found = dataclasses.asdict(details)
    found["executors"] = [dataclasses.asdict(one) for one in details.executors]
    found["failures"] = [dataclasses.asdict(one) for one in details.failures]
    return found


@dataclasses.dataclass(frozen=True)
class WorkerLog:
    """A worker's log. components: that the worker runs. path: on its host. url: by which Storm's logviewer gives it, if one runs there."""

    host: str
    port: int
    components: tuple[str, ...]
    path: str
    url: str

    @property
    def here(self) -> Path | None:
        """The file, if the worker's host is this machine and it is there."""
        path = Path(self.path)
        return path if is_here(self.host) and path.is_file() else None


def is_here(host: str) -> bool:
    """Whether a host's name is one of this machine's."""
    if host in ("localhost", socket.gethostname(), socket.getfqdn()):
        return True
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return False
    if address.startswith("127."):
        return True
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))  # only an address of this machine's can be bound
    except OSError:
        return False
    return True


def worker_logs(client: NimbusClient, name: str, component: str | None = None) -> list[WorkerLog]:
    """The logs of a topology's workers, or of those that run a component. Raises NotRunningError, NotFoundError."""
    details, settings = client.details(name), client.cluster_settings()
    folder = settings.get("storm.workers.artifacts.dir") or "workers-artifacts"
    if not folder.startswith("/"):
        folder = f"{settings.get('storm.log.dir') or 'logs'}/{folder}"
    executors = executors_of(details)
    names = sorted({one.component for one in executors})
    if component is not None and component not in names:
        raise NotFoundError(f"topology {name} runs no component {component!r}", hint=f"it runs {', '.join(names) or 'none yet'}")
    workers: dict[tuple[str, int], list[str]] = {}
    for one in executors:
        workers.setdefault((one.host, one.port), []).append(one.component)
    found = []
    for (host, port), components in sorted(workers.items()):
        if component is None or component in components:
            file = f"{details.id}/{port}/{WORKER_LOG}"
            query = urllib.parse.urlencode({"file": file})
            url = f"http://{host}:{settings.get('logviewer.port', 8000)}/api/v1/download?{query}"
            found.append(WorkerLog(host, port, tuple(sorted(set(components))), f"{folder}/{file}", url))
    if not found:
        raise NotFoundError(f"topology {name} has no worker yet", hint=f"`penstock storm stats {name}` shows when it has")
    return found


def last_lines(log: WorkerLog, count: int) -> list[str]:
    """The last lines of a log: read here if the worker's host is this machine, or else from its logviewer. Raises UnavailableError, saying where it is."""
    path = log.here
    if path is not None:
        return _tail(path, count)
    try:
        with urllib.request.urlopen(log.url, timeout=LOGVIEWER_TIMEOUT) as answer:
            text: str = answer.read().decode(errors="replace")
    except (urllib.error.URLError, OSError, ValueError) as problem:
        raise UnavailableError(
            f"the log of the worker at {log.host}:{log.port} is on {log.host}, in {log.path}",
            hint=f"Storm's logviewer does not answer there ({getattr(problem, 'reason', problem)}): start it, or read the file on {log.host}",
        ) from None
    return text.splitlines()[-count:]


def _tail(path: Path, count: int) -> list[str]:
    """The last lines of a file, without reading all of it."""
    size, back = path.stat().st_size, READ_BACK
    with open(path, "rb") as file:
        while True:
            file.seek(max(0, size - back))
            lines = file.read(size - file.tell()).decode(errors="replace").splitlines()
            if len(lines) > count or back >= size:
                return lines[-count:] if count else []
            back *= 2


def follow(paths: list[Path], stopped: Callable[[], bool] = lambda: False) -> Iterator[tuple[Path, str]]:
    """Lines as they are added to files, each with its file. Goes on until `stopped`; a file that is rolled over is read from its beginning."""
    at = {path: path.stat().st_size for path in paths}
    rest = dict.fromkeys(paths, b"")
    while not stopped():
        moved = False
        for path in paths:
            try:
                size = path.stat().st_size
            except OSError:
                continue
            if size < at[path]:
                at[path], rest[path] = 0, b""
            if size > at[path]:
                moved = True
                with open(path, "rb") as file:
                    file.seek(at[path])
                    added = file.read(size - at[path])
                at[path] += len(added)
                *lines, rest[path] = (rest[path] + added).split(b"\n")
                for line in lines:
                    yield path, line.decode(errors="replace")
        if not moved:
            time.sleep(POLL)


__all__ = ["WorkerLog", "as_json", "executors_of", "follow", "is_here", "is_system", "last_lines", "worker_logs"]
