"""The folder of a stack: which ports its servers have, which processes run, and the deployment `stack` that describes them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, TextIO

from penstock.configuration import CONFIG_FILE, STACK, STATE_FOLDER, find_stack
from penstock.errors import CorruptionError, UsageError
from penstock.stack.process import Process

STATE = "PENSTOCK_STACK"
_FILE, _LOCK, _VERSION = "stack.json", "lock", 1
_EMPTY: Mapping[str, Any] = {"version": _VERSION, "servers": [], "ports": {}, "processes": {}}


def find(told: Path | None = None) -> Path:
    """The folder of state: `told`, else $PENSTOCK_STACK, else the nearest .penstock-stack from here upwards, else one to be made here."""
    named = told or os.environ.get(STATE)
    if named:
        return Path(named).expanduser().resolve()
    config = find_stack()
    return config.parent if config else Path.cwd() / STATE_FOLDER


class State:
    """What is remembered between commands. Reads are whole at any time; changes belong inside `locked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changing = threading.Lock()

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep other commands on this stack out, in this process or another. waiting: called if one is at work, before waiting for it."""
        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            if not self._is_current(file):  # the one that had it before wiped the folder
                with self.locked():
                    yield
            else:
                yield

    def _lock_file(self) -> TextIO:
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                return (self.folder / _LOCK).open("a")
            except FileNotFoundError:  # the folder was wiped in between: make it again
                continue
            except OSError as problem:
                if isinstance(problem, FileExistsError) and not self.folder.exists():  # wiped while mkdir looked whether it is a folder
                    continue
                raise UsageError(f"{self.folder} cannot be written: {problem.strerror}", hint="--state names another folder") from None

    def _is_current(self, file: TextIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), (self.folder / _LOCK).stat())
        except FileNotFoundError:
            return False

    @property
    def exists(self) -> bool:
        """Whether a stack was ever brought up here."""
        return (self.folder / _FILE).is_file()

    @property
    def servers(self) -> list[str]:
        """The servers that were ever brought up here."""
        return list(self._read()["servers"])

    @property
    def ports(self) -> dict[str, int]:
        """The ports of those servers."""
        return dict(self._read()["ports"])

    def remember(self, servers: list[str], ports: Mapping[str, int]) -> None:
        """Add servers and their ports."""
        with self._changed() as data:
            data["servers"] = [*data["servers"], *(name for name in servers if name not in data["servers"])]
            data["ports"] = {**data["ports"], **ports}

    @property
    def processes(self) -> dict[str, Process]:
        """The processes that were started and not stopped since, dead or alive, by name."""
        return {name: Process.from_json(data) for name, data in self._read()["processes"].items()}

    def started(self, name: str, process: Process) -> None:
        """A process was started."""
        with self._changed() as data:
            data["processes"][name] = process.to_json()

    def stopped(self, name: str) -> None:
        """A process was stopped, on purpose."""
        with self._changed() as data:
            data["processes"].pop(name, None)

    def forget(self, servers: list[str], ports: list[str]) -> None:
        """Servers are gone with all their data."""
        with self._changed() as data:
            data["servers"] = [name for name in data["servers"] if name not in servers]
            data["ports"] = {name: port for name, port in data["ports"].items() if name not in ports}

    def remove(self) -> None:
        """Remove its own files, and the folder if nothing else is in it."""
        for name in (CONFIG_FILE, _FILE, _LOCK):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of the user's is in it
            self.folder.rmdir()

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write the deployment `stack`."""
        text = "# The deployment of `penstock stack`: written anew by each `penstock stack up`.\n" + toml(STACK, settings)
        _replace(self.folder / CONFIG_FILE, text)

    def _read(self) -> dict[str, Any]:
        path = self.folder / _FILE
        try:
            data: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return json.loads(json.dumps(_EMPTY))  # type: ignore[no-any-return]
        except ValueError as problem:
            raise CorruptionError(f"{path} cannot be read: {problem}", hint="remove it; what runs has to be ended by hand then") from None
        if data.get("version") != _VERSION:
            raise UsageError(f"{path} is of another version of Penstock", hint="take the stack down with that version, with --wipe")
        return data

    @contextlib.contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        with self._changing:
            data = self._read()
            yield data
            _replace(self.folder / _FILE, json.dumps(data, indent=1) + "\n")


def toml(name: str, table: Mapping[str, Any]) -> str:
    """A table of texts, numbers, booleans, lists of them and further tables, as TOML. name: as it stands in the brackets."""
    lines = [f"[{name}]", *(f"{_key(key)} = {_plain(value)}" for key, value in table.items() if not isinstance(value, Mapping))]
    inner = [toml(f"{name}.{_key(key)}", value) for key, value in table.items() if isinstance(value, Mapping)]
    return "\n".join(["\n".join(lines) + "\n", *inner])


def _key(key: str) -> str:
    """A key of TOML, which a dot would take apart."""
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _plain(key)


def _plain(value: Any) -> str:
    """JSON is TOML here, but for one character that TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _replace(path: Path, text: str) -> None:
    """Write a file at once: who reads it sees the old one or the new one."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(text)
    fresh.replace(path)
