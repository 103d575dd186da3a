"""The programs of the system that the servers need: Java, Maven, PostgreSQL. Each is looked for only when it is needed."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from penstock.errors import UsageError

JAVA_LEAST = 17
INSTALL = "apt-get install openjdk-17-jdk-headless maven postgresql"
_POSTGRES = Path("/usr/lib/postgresql")


@functools.lru_cache(maxsize=1)
def java() -> Path:
    """The `java` to run: that of JAVA_HOME, else the first of PATH. Raises UsageError if there is none, or only one that is too old."""
    home = os.environ.get("JAVA_HOME")
    at = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    at = at or shutil.which("java")
    if at is None:
        raise UsageError(f"there is no Java {JAVA_LEAST} or later here", hint=f"install it: {INSTALL}")
    said = subprocess.run([at, "-version"], capture_output=True, text=True, check=False).stderr
    version = java_version(said)
    if version is None or version < JAVA_LEAST:
        found = f"is Java {version}" if version else "does not say which Java it is"
        raise UsageError(f"{at} {found}; the servers need {JAVA_LEAST} or later", hint=f"install it, or set JAVA_HOME: {INSTALL}")
    return Path(at)


def java_version(said: str) -> int | None:
    """The major version in what `java -version` prints: "17.0.15" is 17, "1.8.0_402" is 8."""
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else None


def maven() -> Path:
    """The `mvn` of PATH. Raises UsageError."""
    at = shutil.which("mvn")
    if at is None:
        raise UsageError("there is no Maven (mvn) here, and the servers' jars are not in the cache yet", hint=f"install it: {INSTALL}")
    return Path(at)


def postgres() -> Path:
    """The folder with PostgreSQL's `initdb` and `postgres`: of PATH, else the newest that Debian keeps out of it. Raises UsageError."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(_POSTGRES.glob("*/bin"), key=lambda folder: _number(folder.parent.name), reverse=True)
    for folder in folders:
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
            return folder
    raise UsageError("there is no PostgreSQL server (initdb, postgres) here", hint=f"install it: {INSTALL}")


def _number(version: str) -> float:
    try:
        return float(version)
    except ValueError:
        return 0.0
