"""Deployments: where a topology runs and which stores it uses.

`local:DIR` needs no configuration: every store is embedded and lives below the folder. Other names are tables of `penstock.toml`:

    [laptop]
    local = "data/laptop"
    partitions = 4            # of topics that are created
    topics = {ads = "ads-v2"} # where a schema's topic is called otherwise

A store with a table of its own is the real one, and the rest lives below `local`:

    [production.kafka]
    bootstrap = "kafka-1:9092,kafka-2:9092"
    [production.hbase]
    host = "hbase-thrift"
    port = 9090
    [production.s3]
    bucket = "analytics-detail"
    [production.redshift]
    host = "analytics.abc123.eu-west-1.redshift.amazonaws.com"
    database = "analytics"
    user = "penstock"
    password = {env = "REDSHIFT_PASSWORD"}
    iam_role = "arn:aws:iam::123456789012:role/penstock-copy"
"""

from __future__ import annotations

import functools
import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Collection

from penstock.archive import Archive
from penstock.configuration import settings_of
from penstock.errors import ConfigurationError
from penstock.log import Log
from penstock.metrics import Metrics, NoMetrics, PrometheusMetrics
from penstock.model import Schema
from penstock.rollup.driver import Driver, ThreadDriver
from penstock.rollup.shard import Shard
from penstock.table import Table
from penstock.warehouse import Warehouse

DEFAULT_PARTITIONS = 4


class Deployment:
    """The stores of a deployment, each opened when it is first used, and its clock and randomness.

    settings: as in `penstock.toml`, with an absolute `local`. Pure data, so that it travels to workers in a topology's configuration.
    directory: of the embedded stores; None if there is none.
    """

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name, self.settings = name, settings
        self.directory = Path(settings["local"]) if "local" in settings else None
        self._opened: list[Any] = []

    @classmethod
    def named(cls, on: str, config: Path | None = None) -> Deployment:
        """The deployment called `on`: "local:DIR", or a table of penstock.toml in this folder or one above. Raises ConfigurationError."""
        return cls(on, settings_of(on, config))

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
        """Whether anything was ever written here, as far as can be told without asking a server."""
        return any(name in self.settings for name in ("kafka", "hbase", "s3")) or (self.directory is not None and self.directory.is_dir())

    def _folder(self, name: str) -> Path:
        if self.directory is None:
            raise ConfigurationError(
                f"deployment {self.name} has no {name}", hint='give it local = "FOLDER": what has no server of its own is kept there'
            )
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
        if "kafka" in self.settings:
            from penstock.log.kafka import KafkaLog

            return self._keep(KafkaLog(self.settings["kafka"]))  # type: ignore[no-any-return]
        from penstock.log.local import LocalLog

        return self._keep(LocalLog(self._folder("log")))  # type: ignore[no-any-return]

    @functools.cached_property
    def table(self) -> Table:
        """Cells and control cells."""
        if "hbase" in self.settings:
            from penstock.table.hbase import HBaseTable

            return self._keep(HBaseTable(self.settings["hbase"]))  # type: ignore[no-any-return]
        from penstock.table.sqlite import SqliteTable

        return self._keep(SqliteTable(self._folder("table") / "cells.db"))  # type: ignore[no-any-return]

    @functools.cached_property
    def archive(self) -> Archive:
        """Detail files."""
        if "s3" in self.settings:
            from penstock.archive.s3 import S3Archive

            return self._keep(S3Archive(self.settings["s3"]))  # type: ignore[no-any-return]
        from penstock.archive.directory import DirectoryArchive

        return self._keep(DirectoryArchive(self._folder("archive")))  # type: ignore[no-any-return]

    @functools.cached_property
    def warehouse(self) -> Warehouse:
        """SQL."""
        if "redshift" in self.settings:
            from penstock.warehouse.redshift import RedshiftWarehouse

            return self._keep(RedshiftWarehouse(self.settings["redshift"], self.archive))  # type: ignore[no-any-return]
        from penstock.warehouse.duckdb import DuckDbWarehouse

        fetch = self.archive.download if "s3" in self.settings else None
        return self._keep(DuckDbWarehouse(self._folder("warehouse") / "warehouse.duckdb", fetch=fetch))  # type: ignore[no-any-return]

    def new_driver(
        self, shards: Callable[[], Collection[Shard]], lock: threading.RLock, failed: Callable[[BaseException], None], threads: int
    ) -> Driver:
        """What steps the jobs of a bolt's shards here; the simulator has one of its own."""
        return ThreadDriver(shards, lock, failed, threads)

    @functools.cached_property
    def metrics(self) -> Metrics:
        """What tasks say of themselves."""
        if "metrics" in self.settings:
            return PrometheusMetrics(self.settings["metrics"])
        return NoMetrics()

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
