"""The Redshift stand-in of the tests: PostgreSQL at a free port, and the relay before it, each a process."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import UsageError
from penstock.stack import probe
from penstock.stack.ports import HOST, choose
from penstock.stack.postgres import DATABASE, USER, Postgres
from penstock.stack.redshift.backend import Backend
from penstock.stack.redshift.faults import Control
from penstock.stack.server import Site

ROLE = "arn:aws:iam::123456789012:role/penstock"


class StandIn:
    """One that runs. port: the relay's. control: where its faults are ordered. postgres: the port of the PostgreSQL behind it."""

    def __init__(self, port: int, control: int, postgres: int) -> None:
        self.port, self.control, self.postgres = port, control, postgres
        self._numbers = itertools.count(1)

    @classmethod
    @contextlib.contextmanager
    def started(cls, endpoint: str) -> Iterator[StandIn]:
        """Start both; end both, and remove what they wrote. endpoint: of the S3 that COPY reads from."""
        with contextlib.ExitStack() as ending:
            folder = Path(tempfile.mkdtemp(prefix="penstock-redshift-"))
            ending.callback(shutil.rmtree, folder, ignore_errors=True)
            os.chmod(folder, 0o755)  # root runs PostgreSQL as somebody else
            ports = choose(["postgres", "redshift", "control"], {}, {})
            postgres = Postgres(Site(folder, ports))
            try:
                postgres.require()
            except UsageError as problem:
                pytest.fail(
                    f"{problem.message}: the Redshift stand-in is PostgreSQL behind a relay. apt-get install postgresql", pytrace=False
                )
            postgres.prepare(lambda what: None)
            [program] = postgres.programs()
            _run(ending, [*program.command(), "-c", "fsync=off", "-c", "max_connections=200"], folder / "postgres.log", program.stop)
            _await(lambda: probe.postgres(ports["postgres"], USER, DATABASE), folder / "postgres.log")
            command = [sys.executable, "-m", "penstock.stack.redshift", "--port", str(ports["redshift"])]
            command += ["--control", str(ports["control"])]
            command += ["--postgres", f"{HOST}:{ports['postgres']}", "--s3", endpoint]
            _run(ending, command, folder / "relay.log", 15)
            _await(lambda: probe.postgres(ports["redshift"], USER, DATABASE), folder / "relay.log")
            yield cls(ports["redshift"], ports["control"], ports["postgres"])

    @contextlib.contextmanager
    def database(self) -> Iterator[dict[str, Any]]:
        """A fresh database, dropped afterwards: its settings, as `[NAME.redshift]` has them."""
        name = f"test{os.getpid()}_{next(self._numbers)}"
        self.administer(f"CREATE DATABASE {name}")
        yield {"host": HOST, "port": self.port, "database": name, "user": USER, "iam_role": ROLE, "ssl": False}
        self.administer(f"DROP DATABASE {name} WITH (FORCE)")

    def faults(self, settings: dict[str, Any]) -> Control:
        """The control of a database's faults."""
        return Control(self.control, str(settings["database"]))

    def administer(self, sql: str, database: str = DATABASE) -> list[list[str | None]]:
        """The rows of a statement that PostgreSQL itself is given, past the relay."""
        backend = Backend((HOST, self.postgres), {"user": USER, "database": database})
        try:
            return backend.query(sql)
        finally:
            backend.close()


def _run(ending: contextlib.ExitStack, command: list[str], log: Path, stop: int) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", **os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent, env=environment)

    def end() -> None:
        process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    ending.callback(end)


def _await(ready: Any, log: Path) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            return ready()
        except probe.UNREADY as problem:
            if time.monotonic() > until:
                raise AssertionError(f"not ready: {problem}\n{log.read_text()}") from problem
        time.sleep(0.02)
