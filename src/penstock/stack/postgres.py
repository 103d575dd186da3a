"""PostgreSQL from the system: what stands in for Redshift, with the relay before it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from penstock.errors import PenstockError, UsageError
from penstock.stack import probe, tools
from penstock.stack.ports import HOST
from penstock.stack.server import Program, Server, Told

USER = DATABASE = "penstock"
_UNPRIVILEGED = ("postgres", "nobody")  # who runs it, in this order, where Penstock itself is root


class Postgres(Server):
    """PostgreSQL, with one user and one database, both called `penstock`, and no password: only this machine reaches it."""

    name = "postgres"
    ports = ("postgres",)
    processes = ("postgres",)

    def require(self) -> None:
        """PostgreSQL; and, for root, somebody else to run it as, with the program to do so."""
        tools.postgres()
        if os.geteuid() == 0:
            self._other()

    def prepare(self, told: Told) -> None:
        """The database cluster, at the first time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._complete.exists():
            return
        told("initdb")
        if self._data.exists():
            shutil.rmtree(self._data)  # of a first time that did not come to its end
        self._data.mkdir()
        if os.geteuid() == 0:
            owner = self._other()
            os.chown(self._data, owner.pw_uid, owner.pw_gid)
            self._must_be_open_to(owner)
        tool = tools.postgres()
        # Without fsync: the new files are written again at once, by the server itself.
        self._run([tool / "initdb", "-D", self._data, "-U", USER, "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
        self._run([tool / "postgres", "--single", "-D", self._data, "postgres"], f"CREATE DATABASE {DATABASE}\n")
        self._complete.touch()

    @property
    def _complete(self) -> Path:
        """There once the data folder is whole."""
        return self.folder / "initialised"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def programs(self) -> list[Program]:
        """The server."""
        options = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",  # their paths have a limit that a folder of state may exceed
            "max_connections": 50,
            "shared_buffers": "64MB",
        }
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        port = self.site.ports["postgres"]
        return [
            Program(
                "postgres",
                lambda: [*self._as_other(), str(tools.postgres() / "postgres"), "-D", str(self._data), "-p", str(port), *settings],
                lambda timeout: probe.postgres(port, USER, DATABASE, timeout),
                ("postgres",),
                self.folder,
                stop=signal.SIGINT,  # fast: it ends sessions; SIGTERM waits until all clients have gone
            )
        ]

    def _run(self, command: list[str | Path], text: str = "") -> None:
        words = [*self._as_other(), *map(str, command)]
        done = subprocess.run(words, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=self.folder)
        if done.returncode != 0:
            raise PenstockError(f"{Path(command[0]).name} failed in {self._data}", hint="\n".join(done.stdout.strip().splitlines()[-8:]))

    def _as_other(self) -> list[str]:
        """What to put before a command of PostgreSQL, which refuses to run as root."""
        if os.geteuid() != 0:
            return []
        other = self._other()
        return ["setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups", "--"]

    @staticmethod
    def _other() -> pwd.struct_passwd:
        if shutil.which("setpriv") is None:
            raise UsageError(
                "PostgreSQL does not run as root, and there is no setpriv here to run it as somebody else",
                hint="apt-get install util-linux, or run the stack as another user",
            )
        for name in _UNPRIVILEGED:
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise UsageError("PostgreSQL does not run as root, and there is no user postgres or nobody", hint="run the stack as another user")

    def _must_be_open_to(self, owner: pwd.struct_passwd) -> None:
        reaches = subprocess.run([*self._as_other(), "test", "-x", str(self._data)], check=False).returncode == 0
        if not reaches:
            closed = next((folder for folder in reversed(self._data.parents) if not folder.stat().st_mode & 0o001), self._data)
            raise UsageError(
                f"PostgreSQL does not run as root but as {owner.pw_name}, who may not enter {closed}",
                hint=f"chmod o+x {closed}, choose another folder with --state, or run the stack as another user",
            )

    def exports(self) -> dict[str, str]:
        """The variables of libpq, which psql and all drivers read."""
        return {"PGHOST": HOST, "PGPORT": str(self.site.ports["postgres"]), "PGUSER": USER, "PGDATABASE": DATABASE}
