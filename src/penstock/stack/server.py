"""What a server of the stack is: programs to start in order, the ports they need, the files they read, and how one sees that they work."""

from __future__ import annotations

import signal
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, ClassVar, Mapping

from penstock.stack import artifacts, tools
from penstock.stack.ports import HOST
from penstock.stack.probe import TIMEOUT

Told = Callable[[str], None]  # takes a line of progress


@dataclass(frozen=True)
class Site:
    """Where a stack lives. folder: absolute. ports: by name, of all its servers."""

    folder: Path
    ports: Mapping[str, int]

    def address(self, port: str) -> str:
        """host:port."""
        return f"{HOST}:{self.ports[port]}"


@dataclass(frozen=True)
class Program:
    """One process of a server.

    command, environment: asked for only when it is started, for they look for programs of the system.
    probe: given how many seconds its question may take, returns when the program is ready for work; else raises one of probe.UNREADY.
    ports: the names of those it listens on. within: seconds in which it has to be ready on a busy machine. patience: how many seconds a
    question may take meanwhile. stop, grace: the signal that ends it, and how many seconds it gets.
    """

    name: str
    command: Callable[[], list[str]]
    probe: Callable[[float], None]
    ports: tuple[str, ...]
    folder: Path
    within: float = 180.0
    patience: float = TIMEOUT
    stop: int = signal.SIGTERM
    grace: float = 15.0
    environment: Callable[[], Mapping[str, str]] = dict


class Server(ABC):
    """A server: its constants, and below its site what it needs.

    `ports`: the names of its ports. `processes`: the names of its processes, in the order in which they start. `outlived`: whether what
    these started may go on without them; else it is ended before they are started again.
    """

    name: ClassVar[str]
    ports: ClassVar[tuple[str, ...]]
    processes: ClassVar[tuple[str, ...]]
    outlived: ClassVar[bool] = False

    def __init__(self, site: Site) -> None:
        self.site = site
        self.folder = site.folder / self.name

    @abstractmethod
    def require(self) -> None:
        """Raise UsageError for a program of the system that is not there."""

    @abstractmethod
    def prepare(self, told: Told) -> None:
        """Get its jars and write its configuration. Repeatable; its data stay."""

    @abstractmethod
    def programs(self) -> list[Program]:
        """Its processes, in the order in which they start. To be called after `prepare`."""

    def settings(self) -> dict[str, Any]:
        """Its table of the deployment `stack`; empty if it has none."""
        return {}

    def exports(self) -> dict[str, str]:
        """Environment variables with which other programs find it."""
        return {}


class JavaServer(Server):
    """A server that runs from jars of the cache."""

    def require(self) -> None:
        """Java; and Maven, where the jars have to be resolved yet."""
        tools.java()
        if not all((artifacts.home(self.name) / library).is_dir() for library in artifacts.LIBRARIES[self.name]):
            tools.maven()

    def prepare(self, told: Told) -> None:
        """Get the jars and make the folder."""
        artifacts.resolve(self.name, told)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def home(self) -> Path:
        """The folder of its jars."""
        return artifacts.home(self.name)

    def java(self, main: str, *arguments: str, heap: str, flags: tuple[str, ...], classpath: str | None = None) -> list[str]:
        """A command line. heap: the largest, such as "768m"."""
        return [
            str(tools.java()),
            f"-Xmx{heap}",
            *flags,
            "-XX:+ExitOnOutOfMemoryError",  # one that limps on without memory is harder to see than one that is gone
            "-Djava.awt.headless=true",
            "-Djava.net.preferIPv4Stack=true",
            "-cp",
            classpath or f"{self.home / 'lib'}/*",
            main,
            *arguments,
        ]


# For programs that do little: on few cores, the time to start is what counts, and G1 and the second compiler cost most of it.
QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# For those that carry the load.
BUSY = ("-XX:+UseG1GC",)


def python_path() -> str:
    """The folder of this environment's programs. Not resolved: a virtual environment's python is a link out of it."""
    return str(Path(sys.executable).parent)
