"""A stack of real servers in one folder: bring up, take down, look at, restart."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from penstock.configuration import CONFIG_FILE
from penstock.errors import NotFoundError, PenstockError, UsageError
from penstock.stack import probe
from penstock.stack.hbase import HBase
from penstock.stack.kafka import Kafka
from penstock.stack.ports import choose, is_free
from penstock.stack.postgres import Postgres
from penstock.stack.process import Process, marked, spawn
from penstock.stack.redshift.server import Redshift
from penstock.stack.s3 import S3
from penstock.stack.server import Program, Server, Site
from penstock.stack.state import State
from penstock.stack.storm import Storm

SERVERS: Mapping[str, type[Server]] = {server.name: server for server in (Kafka, HBase, Storm, Postgres, S3, Redshift)}
DEFAULT = ("kafka", "hbase", "storm")
PARTITIONS = 4  # of topics that the deployment `stack` creates
Progress = Callable[[str, str], None]  # takes the name of a server or process, and what it is doing
_TAIL = 20  # lines of a log that an error shows
_LOOK = 0.1  # seconds between two probes
_LETS_GO = 15.0  # seconds in which a process that was killed lets go of its ports: its threads may outlive what seems to be its end
_STRAY_GRACE = 5.0  # seconds that a worker or component has to end


@dataclass(frozen=True)
class Standing:
    """How a process is. memory: resident bytes. uptime: seconds. health: "ok", "stopped", "dead", or why it does not answer."""

    server: str
    name: str
    health: str
    pid: int | None = None
    ports: Mapping[str, int] | None = None
    memory: int = 0
    uptime: float = 0.0

    @property
    def well(self) -> bool:
        """Whether it is as it should be: running and answering, or stopped on purpose."""
        return self.health in ("ok", "stopped")


class Stack:
    """The servers whose data, logs and ports are kept in the folder `state`. Safe to use from several processes and threads."""

    def __init__(self, state: Path) -> None:
        self.state = State(Path(state).expanduser().resolve())
        self._interrupted = threading.Event()

    def up(
        self, names: Sequence[str] = DEFAULT, *, ports: Mapping[str, int] | None = None, progress: Progress | None = None
    ) -> dict[str, bool]:
        """Bring servers up and wait until they are ready. What runs stays as it is; what died is started again with its ports and data.

        ports: by name, for those that are not to be chosen. Whether each process was started now (else it ran already).
        Raises UsageError (a program of the system is missing, a port is taken), UnavailableError or CorruptionError (jars), PenstockError
        (a server does not start: with the end of its log). Servers that did come up stay up.
        """
        told, say = dict(ports or {}), progress or _silent
        wanted = _known(names)
        with self._locked(say):
            for server in self._servers(wanted):
                if not all(self._runs(name) for name in server.processes):
                    server.require()
            self._choose_ports(wanted, told)
            servers = self._servers(wanted)
            started: dict[str, bool] = {}
            for result in self._each(servers, lambda server: self._bring_up(server, say)):
                started.update(result)
            return started

    def down(self, names: Sequence[str] | None = None, *, wipe: bool = False, progress: Progress | None = None) -> list[str]:
        """Stop servers, all if none is named: what uses another first. The names of the processes that ran.

        wipe: remove their data, logs and ports too.
        """
        say = progress or _silent
        if not self.state.exists:
            return []
        with self._locked(say):
            there = self.state.servers
            wanted = _known(names) if names else there
            servers = self._servers([name for name in wanted if name in there])
            stopped: list[str] = []
            for batch in ([one for one in servers if one.name == "storm"], [one for one in servers if one.name != "storm"]):
                for result in self._each(batch, lambda server: self._take_down(server, say)):
                    stopped += result
            if wipe:
                self._wipe(servers)
            return stopped

    def status(self) -> list[Standing]:
        """How each process of each server that was ever brought up is; then Storm's workers, if there are any."""
        remembered = self.state.processes
        pairs = [(server, program) for server in self._servers(self.state.servers) for program in server.programs()]

        def standing(pair: tuple[Server, Program]) -> Standing:
            server, program = pair
            process = remembered.get(program.name)
            ports = {name: server.site.ports[name] for name in program.ports}
            if process is None or not process.alive:
                return Standing(server.name, program.name, "stopped" if process is None else "dead", ports=ports)
            return Standing(server.name, program.name, _health(program), process.pid, ports, process.memory, process.uptime)

        with ThreadPoolExecutor(max_workers=8) as pool:  # one that hangs delays the answer by one timeout, not one each
            found = list(pool.map(standing, pairs))
        workers = self._strays("storm") if "storm" in self.state.servers else []
        if workers:
            memory, uptime = sum(one.memory for one in workers), max(one.uptime for one in workers)
            found.append(Standing("storm", f"workers ({len(workers)} processes)", "ok", memory=memory, uptime=uptime))
        return found

    def settings(self) -> dict[str, Any]:
        """The deployment `stack`: the settings of all servers that were ever brought up here."""
        found: dict[str, Any] = {"local": str(self.state.folder / "local"), "partitions": PARTITIONS}
        for server in self._servers(self.state.servers):
            if settings := server.settings():
                found[server.name] = settings
        return found

    def exports(self) -> dict[str, str]:
        """Environment variables with which other programs find the servers."""
        found = {"PENSTOCK_STACK": str(self.state.folder)}
        for server in self._servers(self.state.servers):
            found.update(server.exports())
        return found

    def processes(self) -> dict[str, int]:
        """The id of each process that runs, by name."""
        return {name: process.pid for name, process in self.state.processes.items() if process.alive}

    def start(self, name: str, *, progress: Progress | None = None) -> dict[str, bool]:
        """Start one process, or what does not run of one server, and wait until it is ready. As `up`, but for what was up before."""
        server, programs = self._named(name)
        say = progress or _silent
        with self._locked(say):
            server.require()
            return self._bring_up(server, say, [program.name for program in programs])

    def stop(self, name: str, *, progress: Progress | None = None) -> list[str]:
        """Stop one process, or one server. What else it had started, such as Storm's workers, stays if it is one process."""
        server, programs = self._named(name)
        say = progress or _silent
        with self._locked(say):
            if name == server.name:
                return self._take_down(server, say)
            return [program.name for program in programs if self._end(program, say)]

    def restart(self, name: str, *, progress: Progress | None = None) -> dict[str, bool]:
        """Stop one process or server in its orderly way, and start it again."""
        self.stop(name, progress=progress)
        return self.start(name, progress=progress)

    def logs(self, name: str) -> dict[str, Path]:
        """The log of a process, those of all processes of a server, or those of Storm's "workers", by process: those that exist."""
        if name == "workers" and "storm" in self.state.servers:
            folder = Storm(Site(self.state.folder, self.state.ports)).artifacts
            return {str(path.parent.relative_to(folder)): path for path in sorted(folder.glob("*/*/worker.log"))}
        _, programs = self._named(name)
        found = {program.name: self._log(program) for program in programs}
        return {process: path for process, path in found.items() if path.is_file()}

    def _servers(self, names: Iterable[str]) -> list[Server]:
        site = Site(self.state.folder, self.state.ports)
        return [SERVERS[name](site) for name in names]

    def _named(self, name: str) -> tuple[Server, list[Program]]:
        """The server that is, or has a process of, this name; and those of its programs that are meant. Raises NotFoundError."""
        there = self._servers(self.state.servers)
        for server in there:
            if name == server.name:
                return server, server.programs()
            if name in server.processes:
                return server, [program for program in server.programs() if program.name == name]
        known = dict.fromkeys(each for server in there for each in (server.name, *server.processes))
        raise NotFoundError(
            f"the stack in {self.state.folder} has no {name}",
            hint=f"it has {', '.join(known)}" if known else "`penstock stack up` brings one up; --state names another folder",
        )

    @contextlib.contextmanager
    def _locked(self, say: Progress) -> Iterator[None]:
        with self.state.locked(lambda: say("stack", "another command works on it; waiting")):
            self._interrupted.clear()
            yield

    def _choose_ports(self, names: Sequence[str], told: dict[str, int]) -> None:
        wanted = {port: name for name in names for port in SERVERS[name].ports}
        unknown = sorted(set(told) - set(wanted))
        if unknown:
            raise UsageError(f"--port {unknown[0]}: none of {', '.join(names)} has such a port", hint=f"they have {', '.join(wanted)}")
        remembered = self.state.ports
        for port, number in told.items():
            server = SERVERS[wanted[port]]
            if remembered.get(port, number) != number and any(self._runs(name) for name in server.processes):
                raise UsageError(
                    f"--port {port}={number}: {server.name} runs, on {remembered[port]}", hint=f"penstock stack down {server.name}, first"
                )
        others = [number for port, number in remembered.items() if port not in wanted]
        self.state.remember(list(names), choose(wanted, remembered, told, avoid=others))
        self.state.write_config(self.settings())

    def _each(self, servers: Sequence[Server], work: Callable[[Server], Any]) -> list[Any]:
        """Do something for several servers side by side. All come to their end before the first error is raised."""
        if not servers:
            return []
        with ThreadPoolExecutor(max_workers=len(servers)) as pool:
            futures = [pool.submit(work, server) for server in servers]
            try:
                for future in futures:
                    future.exception()
            except KeyboardInterrupt:
                self._interrupted.set()
                raise
        return [future.result() for future in futures]

    def _runs(self, name: str) -> bool:
        process = self.state.processes.get(name)
        return process is not None and process.alive

    def _bring_up(self, server: Server, say: Progress, only: Sequence[str] | None = None) -> dict[str, bool]:
        names = only or server.processes
        if not all(self._runs(name) for name in names):
            server.prepare(lambda what: say(server.name, what))
        started: dict[str, bool] = {}
        programs = {program.name: program for program in server.programs()}
        try:
            for name in names:
                process = self.state.processes.get(name)
                started[name] = process is None or not self._runs_on(programs[name], process, say)
                if started[name]:
                    if not server.outlived:
                        self._end_strays(server, say)
                    process = self._launch(server, programs[name])
                    say(name, "starting")
                    self._await(programs[name], process, say)
                say(name, "ready" if started[name] else "runs already")
        except BaseException:
            for name in reversed([name for name, now in started.items() if now]):
                self._end(programs[name], say)
            raise
        return started

    def _runs_on(self, program: Program, process: Process, say: Progress) -> bool:
        """Whether a process that is known runs and is ready. One that was just killed may seem to run: its end takes a moment."""
        if not process.alive:
            return False
        try:
            self._await(program, process, say)
        except PenstockError:
            if process.alive:
                raise
        return process.alive

    def _launch(self, server: Server, program: Program) -> Process:
        patience = time.monotonic() + (_LETS_GO if program.name in self.state.processes else 0)
        for port in program.ports:
            number = server.site.ports[port]
            while not is_free(number):
                if time.monotonic() < patience:
                    time.sleep(_LOOK)
                    continue
                raise UsageError(
                    f"port {number} ({port}) is taken by a process that is not of this stack",
                    hint=f"end that process, or choose another one: penstock stack up {server.name} --port {port}=NUMBER",
                )
        log = self._log(program)
        process = spawn(program.command(), log=log, folder=program.folder, environment=program.environment(), mark=self._mark(server.name))
        self.state.started(program.name, process)
        return process

    def _await(self, program: Program, process: Process, say: Progress) -> None:
        """Wait until a process is ready."""
        began = said = time.monotonic()
        while True:
            try:
                program.probe(program.patience)
                return
            except probe.UNREADY as problem:
                why = str(problem) or type(problem).__name__
            now = time.monotonic()
            if not process.alive:
                raise self._failed(program, "ended while it started")
            if now - began > program.within:
                raise self._failed(program, f"was not ready within {program.within:.0f} seconds ({why})")
            if self._interrupted.is_set():
                raise KeyboardInterrupt
            if now - said >= 1:
                said = now
                say(program.name, f"starting, {now - began:.0f} s")
            time.sleep(_LOOK)

    def _failed(self, program: Program, what: str) -> PenstockError:
        log = self._log(program)
        lines = log.read_text(errors="replace").splitlines()[-_TAIL:] if log.exists() else []
        return PenstockError(f"{program.name} {what}", hint="\n".join([f"the end of {log}:", *(f"| {line[:400]}" for line in lines)]))

    def _log(self, program: Program) -> Path:
        return self.state.folder / "logs" / f"{program.name}.log"

    def _mark(self, server: str) -> str:
        return f"{self.state.folder}:{server}"

    def _strays(self, server: str) -> list[Process]:
        """What runs of a server beside its recorded processes."""
        recorded = set(self.state.processes.values())
        return [process for process in marked(self._mark(server)) if process not in recorded]

    def _take_down(self, server: Server, say: Progress) -> list[str]:
        stopped = []
        for program in reversed(server.programs()):
            if self._end(program, say):
                stopped.append(program.name)
            self._end_strays(server, say)  # after each: a supervisor would start its workers again, and Nimbus answers them until it ends
        return stopped

    def _end(self, program: Program, say: Progress) -> bool:
        """Stop a process, if it runs. Whether it did."""
        process = self.state.processes.get(program.name)
        if process is None:
            return False
        ran = process.alive
        if ran:
            say(program.name, "stopping")
            by_itself = process.stop(program.stop, program.grace)
            say(program.name, "stopped" if by_itself else f"killed: it did not end within {program.grace:.0f} seconds")
        self.state.stopped(program.name)
        return ran

    def _end_strays(self, server: Server, say: Progress) -> None:
        strays = self._strays(server.name)
        if strays:
            say(server.name, f"stopping {len(strays)} further processes")
        for process in strays:
            process.send(signal.SIGTERM)
        until = time.monotonic() + _STRAY_GRACE
        for process in strays:
            process.stop(grace=max(0.0, until - time.monotonic()))

    def _wipe(self, servers: Sequence[Server]) -> None:
        for server in servers:
            shutil.rmtree(server.folder, ignore_errors=True)
            for program in server.programs():
                for log in (self._log(program), self._log(program).with_name(f"{program.name}.log.1")):
                    log.unlink(missing_ok=True)
        self.state.forget([server.name for server in servers], [port for server in servers for port in server.ports])
        if self.state.servers:
            self.state.write_config(self.settings())
            return
        for folder in ("logs", "local"):
            shutil.rmtree(self.state.folder / folder, ignore_errors=True)
        self.state.remove()

    @property
    def config(self) -> Path:
        """The file with the deployment `stack`."""
        return self.state.folder / CONFIG_FILE


def _known(names: Sequence[str]) -> list[str]:
    """The names without repetition. Raises UsageError for one that is no server."""
    for name in names:
        if name not in SERVERS:
            raise UsageError(f"there is no server {name!r}", hint=f"there are {', '.join(SERVERS)}")
    return list(dict.fromkeys(names))


def _health(program: Program) -> str:
    try:
        program.probe(probe.TIMEOUT)
    except probe.UNREADY as problem:
        return f"not answering: {problem or type(problem).__name__}"
    return "ok"


def _silent(name: str, what: str) -> None:
    """Progress that nobody wants."""
