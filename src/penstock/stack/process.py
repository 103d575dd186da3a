"""Processes that outlive the command that started them: start, recognise, watch and end them. Linux: it reads /proc.

A process is its id, when it began and in which boot: an id alone may belong to a stranger by the time that one wants to end it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

MARK = "PENSTOCK_STACK_PROCESS"  # in the environment of every process of a stack, and so in that of whatever it starts
_PROC = Path("/proc")
_LOG_LIMIT = 32 << 20  # bytes after which a log is set aside at the next start
_POLL = 0.05  # seconds


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for another. began: clock ticks since the boot; boot: the id of that boot."""

    pid: int
    began: int
    boot: str

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that ended and was not waited for does not."""
        return identify(self.pid) == self

    @property
    def memory(self) -> int:
        """Resident bytes; 0 of one that has ended."""
        with contextlib.suppress(OSError):
            for line in (_PROC / str(self.pid) / "status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    @property
    def uptime(self) -> float:
        """Seconds since it began; 0 of one of an earlier boot."""
        if self.boot != _boot():
            return 0.0
        since_boot = float((_PROC / "uptime").read_text().split()[0])
        return max(0.0, since_boot - self.began / os.sysconf("SC_CLK_TCK"))

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.alive:
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds."""
        until = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL)
        return True

    def stop(self, number: int = signal.SIGTERM, grace: float = 10.0) -> bool:
        """Ask it to end with a signal and wait for `grace` seconds; then SIGKILL. Whether it ended by itself."""
        self.send(number)
        self.send(signal.SIGCONT)  # one that is stopped would never see the first
        if self.wait(grace):
            return True
        self.send(signal.SIGKILL)
        self.wait(grace)
        return False

    def to_json(self) -> dict[str, Any]:
        """Pure data."""
        return {"pid": self.pid, "began": self.began, "boot": self.boot}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Process:
        """What `to_json` made."""
        return cls(int(data["pid"]), int(data["began"]), str(data["boot"]))


def identify(pid: int) -> Process | None:
    """The process that has this id now; None if there is none, or only one that has ended and waits to be collected."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it, in brackets, may hold blanks and brackets
    state, began = fields[0], int(fields[19])
    return None if state in "ZX" else Process(pid, began, _boot())


def spawn(command: Sequence[str], *, log: Path, folder: Path, environment: Mapping[str, str], mark: str) -> Process:
    """Start a command in a session of its own, so that neither the terminal's Ctrl-C nor its end reaches it.

    log: gets its output, after what is there already. environment: added to this process's own. mark: value of MARK. Raises OSError.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_name(log.name + ".1"))
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **environment, MARK: mark},
            start_new_session=True,
        )
    found = identify(child.pid)
    # Somebody has to collect it when it ends, or it stays in the process table for as long as this process runs.
    threading.Thread(target=child.wait, name=f"wait-{child.pid}", daemon=True).start()
    return found or Process(child.pid, 0, _boot())


def marked(mark: str) -> list[Process]:
    """All processes that carry this mark, whoever started them: Storm's workers and their components are nobody's record but theirs."""
    wanted = f"{MARK}={mark}".encode()
    return [process for process, environment in _environments() if wanted in environment.split(b"\0")]


def _environments() -> Iterator[tuple[Process, bytes]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
                environment = (entry / "environ").read_bytes()
                found = identify(int(entry.name))
                if found is not None:
                    yield found, environment


def _boot() -> str:
    return (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
