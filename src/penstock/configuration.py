"""`penstock.toml`: where it is found, and what a deployment's table may say."""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path
from typing import Any

from penstock.errors import ConfigurationError
from penstock.secrets import check_no_literals

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG_FILE = "penstock.toml"
STACK = "stack"  # the deployment that `penstock stack` writes
STATE_FOLDER = ".penstock-stack"  # and where it does, unless $PENSTOCK_STACK says otherwise
SERVERS = {
    "kafka": "the log: bootstrap, replication, and kafka-python's security settings",
    "hbase": "the table: host, port, thrift2_port, prefix, regions, timeout, connections",
    "s3": "the archive: bucket, prefix, endpoint, region, addressing, encryption, kms_key, and credentials by reference",
    "redshift": "the warehouse: host, port, database, user, password by reference, schema, iam_role; or iam, cluster_identifier or workgroup",
    "storm": "the cluster: nimbus, workers, parallelism, python, worker_heap, options",
    "metrics": "Prometheus: port",
    "serve": "`penstock serve`: signing_key, origins, rate and more (docs/api.md)",
}
NEEDED = {
    "kafka": ("bootstrap",),
    "hbase": ("host", "port"),
    "s3": ("bucket",),
    "redshift": ("database", "iam_role"),
    "storm": ("nimbus",),
    "metrics": ("port",),
    "serve": (),
}
KEYS = {"local", "partitions", "topics", *SERVERS}


def settings_of(on: str, config: Path | None = None) -> dict[str, Any]:
    """The settings of the deployment called `on`: pure data, with an absolute `local` if there is one. Raises ConfigurationError."""
    kind, _, rest = on.partition(":")
    if kind == "local":
        if not rest:
            raise ConfigurationError("--on local: names no folder", hint="write --on local:data")
        return {"local": str(Path(rest).expanduser().resolve())}
    path = config or find_config()
    tables = read(path) if path else {}
    if on == STACK and on not in tables:
        path = find_stack()
        tables = read(path) if path else {}
        if path is None:
            raise ConfigurationError("deployment 'stack': no stack runs here", hint="`penstock stack up` starts the servers and writes it")
    if path is None:
        raise ConfigurationError(
            f"deployment {on!r}: there is no {CONFIG_FILE} here or above",
            hint=f"use --on local:DIR, or write a {CONFIG_FILE} with a table [{on}]",
        )
    if on not in tables:
        raise ConfigurationError(f"{path} has no deployment {on!r}", hint=f"it has {', '.join(tables) or 'none'}")
    settings = dict(tables[on]) if isinstance(tables[on], dict) else {}
    wrong = mistake(settings)
    if wrong:
        raise ConfigurationError(f"{path}, [{on}]: {wrong}", hint=f"settings are {', '.join(sorted(KEYS))}")
    check_no_literals(settings, f"{path}, [{on}]")
    if "local" in settings:
        settings["local"] = str((path.parent / Path(settings["local"]).expanduser()).resolve())
    return settings


def read(path: Path) -> dict[str, Any]:
    """All deployments of a file. Raises ConfigurationError."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as problem:
        raise ConfigurationError(f"{path} cannot be read: {problem}", hint="it is TOML with one table a deployment") from None


def mistake(settings: dict[str, Any]) -> str | None:
    """What cannot work about a table of `penstock.toml`."""
    unknown, partitions, topics = sorted(set(settings) - KEYS), settings.get("partitions", 1), settings.get("topics", {})
    if unknown:
        near = difflib.get_close_matches(unknown[0], KEYS, 1)
        return f"unknown setting {', '.join(unknown)}" + (f" (did you mean {near[0]}?)" if near else "")
    if not isinstance(settings.get("local", ""), str) or settings.get("local") == "":
        return "no local folder: local is the path of one"
    if "local" not in settings and not {"kafka", "hbase"} <= set(settings):
        return "no local folder, and not both a kafka and an hbase table: the embedded stores live in it"
    for name in sorted(set(SERVERS) & set(settings)):
        table = settings[name]
        if not isinstance(table, dict):
            return f"{name} is not a table ({SERVERS[name]})"
        missing = [key for key in NEEDED[name] if key not in table]
        if missing:
            return f"{name} says no {missing[0]} ({SERVERS[name]})"
    if "redshift" in settings and "s3" not in settings:
        return "a redshift table and no s3 table: Redshift loads from S3, so the archive has to be there"
    if not isinstance(partitions, int) or isinstance(partitions, bool) or partitions < 1:
        return f"partitions = {partitions!r} is not a number of partitions"
    if not isinstance(topics, dict) or not all(isinstance(topic, str) for topic in topics.values()):
        return 'topics is not a table of schema = topic, such as {ads = "ads-v2"}'
    return None


def find_config() -> Path | None:
    """`penstock.toml` in the working folder or the nearest one above; $PENSTOCK_CONFIG before both."""
    if named := os.environ.get("PENSTOCK_CONFIG"):
        return Path(named)
    return _upwards(Path(CONFIG_FILE))


def find_stack() -> Path | None:
    """The file that `penstock stack` wrote: in $PENSTOCK_STACK, or the state folder of the working folder or the nearest one above."""
    if named := os.environ.get("PENSTOCK_STACK"):
        return Path(named, CONFIG_FILE) if Path(named, CONFIG_FILE).is_file() else None
    return _upwards(Path(STATE_FOLDER, CONFIG_FILE))


def _upwards(name: Path) -> Path | None:
    here = Path.cwd()
    return next((folder / name for folder in (here, *here.parents) if (folder / name).is_file()), None)
