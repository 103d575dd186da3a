"""Faults at statements of a test's choice: an error, a connection that is cut before or after the statement took effect, a statement that is held."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import socket
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Callable, Iterator

from penstock.errors import PenstockError
from penstock.stack.ports import HOST

ACTIONS = ("1023", "error", "drop-before", "drop-after", "hold")
CONNECT = "CONNECT"  # what a new connection counts as
_LOGGED, _LONGEST = 10_000, 4_000  # statements that are remembered, and how many characters of each


@dataclass(frozen=True)
class Fault:
    """What happens at which statements.

    match: a regular expression that is searched for in the statement, whatever its case; CONNECT stands for a new connection. action: "1023" (a
    serializable isolation violation), "error" (with code and message), "drop-before" (the connection is cut, and the statement never ran),
    "drop-after" (it took effect, its transaction's commit too if it is one, and the client does not hear of it), "hold" (it waits until the fault
    is cleared). skip: how many statements that match are let through first. times: how often it happens; None: always. probability: of each.
    database: the one that it is for; None: all.
    """

    match: str
    action: str
    skip: int = 0
    times: int | None = 1
    probability: float = 1.0
    seed: int = 0
    database: str | None = None
    code: str = "XX000"
    message: str = "a fault of the stand-in"


class _Armed:
    """A fault with its count."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.pattern = re.compile(fault.match, re.IGNORECASE | re.DOTALL)
        self.skip, self.hits = fault.skip, 0
        self.random = random.Random(fault.seed)
        self.cleared = threading.Event()

    def strikes(self, sql: str, database: str) -> bool:
        """Whether it happens now."""
        fault = self.fault
        if fault.database not in (None, database) or fault.times is not None and self.hits >= fault.times or not self.pattern.search(sql):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.random.random() >= fault.probability:
            return False
        self.hits += 1
        return True


class Faults:
    """The faults of a relay, and what statements its clients ran. Used by several threads."""

    def __init__(self) -> None:
        self._armed: dict[int, _Armed] = {}
        self._ids = itertools.count(1)
        self._log: deque[tuple[str, str]] = deque(maxlen=_LOGGED)
        self._changing = threading.Lock()

    def add(self, fault: Fault) -> int:
        """Arm one; its id. Raises ValueError for one that makes no sense."""
        if fault.action not in ACTIONS:
            raise ValueError(f"there is no action {fault.action!r}; there are {', '.join(ACTIONS)}")
        with self._changing:
            number = next(self._ids)
            self._armed[number] = _Armed(fault)
            return number

    def clear(self, number: int | None = None, database: str | None = None) -> None:
        """Disarm one, or all of a database, or all; what is held goes on."""
        with self._changing:
            for known, armed in list(self._armed.items()):
                if number in (None, known) and database in (None, armed.fault.database):
                    armed.cleared.set()
                    del self._armed[known]

    def hits(self, number: int) -> int:
        """How often one happened; 0 of one that is not armed."""
        with self._changing:
            armed = self._armed.get(number)
            return armed.hits if armed else 0

    def statements(self, database: str | None = None) -> list[str]:
        """The statements that clients ran, oldest first."""
        with self._changing:
            return [sql for known, sql in self._log if database in (None, known)]

    def at(self, sql: str, database: str) -> tuple[Fault, threading.Event] | None:
        """The fault that happens at a statement, and what says that it is cleared."""
        with self._changing:
            self._log.append((database, sql[:_LONGEST]))
            for armed in self._armed.values():
                if armed.strikes(sql, database):
                    return armed.fault, armed.cleared
        return None


class ControlServer:
    """Lets other processes arm faults: an object of JSON a line, each answered by one."""

    def __init__(self, faults: Faults, port: int = 0) -> None:
        self.faults = faults
        self._listener = socket.create_server((HOST, port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connected,), name="control-session", daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        with contextlib.suppress(OSError), connected, connected.makefile("rw") as lines:
            for line in lines:
                try:
                    answer = {"ok": self._do(json.loads(line))}
                except (ValueError, TypeError, KeyError, AttributeError, re.error) as problem:
                    answer = {"problem": str(problem)}
                lines.write(json.dumps(answer) + "\n")
                lines.flush()

    def _do(self, asked: dict[str, Any]) -> Any:
        what = asked.pop("do")
        if what == "add":
            return self.faults.add(Fault(**asked))
        known: dict[str, Callable[..., Any]] = {
            "clear": self.faults.clear,
            "hits": self.faults.hits,
            "statements": self.faults.statements,
        }
        return known[what](**asked)


class Control:
    """The other side of `ControlServer`. database: the one whose faults and statements this is about; None: all."""

    def __init__(self, port: int, database: str | None = None) -> None:
        self.port, self.database = port, database

    def add(self, match: str, action: str, **more: Any) -> int:
        """Arm a fault of `Fault`'s fields; its id."""
        return int(self._ask("add", **asdict(Fault(match, action, **{"database": self.database, **more}))))

    def clear(self, number: int | None = None) -> None:
        """Disarm one, or all; what is held goes on."""
        self._ask("clear", number=number, database=self.database)

    def hits(self, number: int) -> int:
        """How often one happened since it was armed."""
        return int(self._ask("hits", number=number))

    def await_hit(self, number: int, timeout: float = 30.0) -> None:
        """Wait until one has happened. Raises PenstockError if it does not."""
        until = time.monotonic() + timeout
        while not self.hits(number):
            if time.monotonic() > until:
                raise PenstockError(f"fault {number} did not happen within {timeout:g} s")
            time.sleep(0.01)

    def statements(self) -> list[str]:
        """The statements that clients ran, oldest first."""
        return list(self._ask("statements", database=self.database))

    @contextlib.contextmanager
    def armed(self, match: str, action: str, **more: Any) -> Iterator[int]:
        """A fault for a while: its id."""
        number = self.add(match, action, **more)
        try:
            yield number
        finally:
            self.clear(number)

    def _ask(self, what: str, **told: Any) -> Any:
        with socket.create_connection((HOST, self.port), 30) as connected, connected.makefile("rw") as lines:
            lines.write(json.dumps({"do": what, **told}) + "\n")
            lines.flush()
            answer = json.loads(lines.readline())
        if "problem" in answer:
            raise PenstockError(f"the stand-in's control refuses {what}: {answer['problem']}")
        return answer["ok"]
