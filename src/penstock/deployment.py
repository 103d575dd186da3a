"""Deployments: where a topology runs and which stores it uses.

`local:DIR` needs no configuration: every store is embedded and lives below the folder. Other names are tables of `penstock.toml`:

    [laptop]
    local = "data/laptop"
    partitions = 4            # of topics that are created
    topics = {ads = "ads-v2"} # where a schema's topic is called otherwise
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Collection

from penstock.archive import Archive
from penstock.errors import ConfigurationError
from penstock.log import Log
from penstock.model import Schema
from penstock.rollup.driver import Driver, ThreadDriver
from penstock.rollup.shard import Shard
from penstock.table import Table
from penstock.warehouse import Warehouse

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG_FILE = "penstock.toml"
KEYS = {"local", "partitions", "topics"}
DEFAULT_PARTITIONS = 4


class Deployment:
    """The stores of a deployment, each opened when it is first used, and its clock and randomness.

    settings: as in `penstock.toml`, with an absolute `local`. Pure data, so that it travels to workers in a topology's configuration.
    """

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name, self.settings = name, settings
        self.directory = Path(settings["local"])
        self._opened: list[Any] = []

    @classmethod
    def named(cls, on: str, config: Path | None = None) -> Deployment:
        """The deployment called `on`: "local:DIR", or a table of penstock.toml in this folder or one above. Raises ConfigurationError."""
        kind, _, rest = on.partition(":")
        if kind == "local":
            if not rest:
                raise ConfigurationError("--on local: names no folder", hint="write --on local:data")
            return cls(on, {"local": str(Path(rest).expanduser().resolve())})
        path = config or find_config()
        if path is None:
            raise ConfigurationError(
                f"deployment {on!r}: there is no {CONFIG_FILE} here or above",
                hint=f"use --on local:DIR, or write a {CONFIG_FILE} with a table [{on}]",
            )
        try:
            tables = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as problem:
            raise ConfigurationError(f"{path} cannot be read: {problem}", hint="it is TOML with one table a deployment") from None
        if on not in tables:
            raise ConfigurationError(f"{path} has no deployment {on!r}", hint=f"it has {', '.join(tables) or 'none'}")
        settings = dict(tables[on]) if isinstance(tables[on], dict) else {}
        wrong = mistake(settings)
        if wrong:
            raise ConfigurationError(f"{path}, [{on}]: {wrong}", hint=f"settings are {', '.join(sorted(KEYS))}")
        settings["local"] = str((path.parent / Path(settings["local"]).expanduser()).resolve())
        return cls(on, settings)

    @classmethod
    def from_json(cls, text: str) -> Deployment:
        """The deployment that a topology's configuration carries."""
        data = json.loads(text)
        return cls(data["name"], data["settings"])

    def to_json(self) -> str:
        """What a topology's configuration carries."""
        return json.dumps({"name": self.name, "settings": self.settings}, sort_keys=True)

    @property
    def partitions(self) -> int:
        """How many partitions a topic is created with."""
        return int(self.settings.get("partitions", DEFAULT_PARTITIONS))

    def topic(self, schema: Schema | str) -> str:
        """The topic that holds a schema's records."""
        name = schema if isinstance(schema, str) else schema.name
        return str(self.settings.get("topics", {}).get(name, name))

    def exists(self) -> bool:
        """Whether anything was ever written here."""
        return self.directory.is_dir()

    def _folder(self, name: str) -> Path:
        path = self.directory / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ConfigurationError(
                f"deployment {self.name}: {path} cannot be made: {problem.strerror}", hint="name a folder that you may write to"
            ) from None
        return path

    def _keep(self, store: Any) -> Any:
        self._opened.append(store)
        return store

    @functools.cached_property
    def log(self) -> Log:
        """The event log."""
        from penstock.log.local import LocalLog

        return self._keep(LocalLog(self._folder("log")))  # type: ignore[no-any-return]

    @functools.cached_property
    def table(self) -> Table:
        """Cells and control cells."""
        from penstock.table.sqlite import SqliteTable

        return self._keep(SqliteTable(self._folder("table") / "cells.db"))  # type: ignore[no-any-return]

    @functools.cached_property
    def archive(self) -> Archive:
        """Detail files."""
        from penstock.archive.directory import DirectoryArchive

        return self._keep(DirectoryArchive(self._folder("archive")))  # type: ignore[no-any-return]

    @functools.cached_property
    def warehouse(self) -> Warehouse:
        """SQL."""
        from penstock.warehouse.duckdb import DuckDbWarehouse

        return self._keep(DuckDbWarehouse(self._folder("warehouse") / "warehouse.duckdb"))  # type: ignore[no-any-return]

    def new_driver(
        self, shards: Callable[[], Collection[Shard]], lock: threading.RLock, failed: Callable[[BaseException], None], threads: int
    ) -> Driver:
        """What steps the jobs of a bolt's shards here; the simulator has one of its own."""
        return ThreadDriver(shards, lock, failed, threads)

    def now(self) -> int:
        """The wall clock, microseconds since 1970."""
        return time.time_ns() // 1000

    def fresh(self) -> str:
        """A new random name."""
        return uuid.uuid4().hex

    def close(self) -> None:
        """Close what was opened."""
        while self._opened:
            self._opened.pop().close()
        for name in ("log", "table", "archive", "warehouse"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def mistake(settings: dict[str, Any]) -> str | None:
    """What cannot work about a table of `penstock.toml`."""
    unknown, partitions, topics = sorted(set(settings) - KEYS), settings.get("partitions", 1), settings.get("topics", {})
    if unknown:
        return f"unknown setting {', '.join(unknown)}"
    if not isinstance(settings.get("local"), str):
        return "no local folder"
    if not isinstance(partitions, int) or isinstance(partitions, bool) or partitions < 1:
        return f"partitions = {partitions!r} is not a number of partitions"
    if not isinstance(topics, dict) or not all(isinstance(topic, str) for topic in topics.values()):
        return 'topics is not a table of schema = topic, such as {ads = "ads-v2"}'
    return None


def find_config() -> Path | None:
    """`penstock.toml` in the working folder or the nearest one above; $PENSTOCK_CONFIG before both."""
    if named := os.environ.get("PENSTOCK_CONFIG"):
        return Path(named)
    here = Path.cwd()
    return next((folder / CONFIG_FILE for folder in (here, *here.parents) if (folder / CONFIG_FILE).is_file()), None)
