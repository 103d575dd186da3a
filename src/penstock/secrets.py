"""Secrets by reference: a deployment names the environment variable or the file that holds one, and never the secret itself.

A topology's configuration shows a deployment to anyone who may see Storm. So what looks like a secret and is written out is refused.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Iterator

from penstock.errors import ConfigurationError

_SECRET = re.compile(r"passw(or)?d|secret|token|private_?key|api_?key|access_?key|credential", re.IGNORECASE)
_IN_URL = re.compile(r"\w+://[^/\s:@]+:[^/\s@]+@")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def is_reference(value: Any) -> bool:
    """Whether a value says where a secret is: {env = NAME} or {file = PATH}."""
    return (
        isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("env", "file") and isinstance(next(iter(value.values())), str)
    )


def resolve(value: Any) -> Any:
    """What a reference refers to; any other value as it is. Raises ConfigurationError if there is nothing there."""
    if not is_reference(value):
        return value
    [(kind, place)] = value.items()
    if kind == "env":
        if place not in os.environ:
            raise ConfigurationError(
                f"the environment variable {place} is not set", hint="the deployment takes a secret from it: set it wherever this runs"
            )
        return os.environ[place]
    try:
        return Path(place).expanduser().read_text().rstrip("\r\n")
    except OSError as problem:
        raise ConfigurationError(
            f"{place} cannot be read: {problem.strerror}", hint="the deployment takes a secret from it: put it wherever this runs"
        ) from None


def find_literals(settings: Any, path: str = "") -> list[str]:
    """The paths, such as "kafka.sasl_plain_password", of all values that look like secrets written out."""
    return list(_literals(settings, path))


def _literals(value: Any, path: str) -> Iterator[str]:
    if is_reference(value):
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _literals(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _literals(inner, f"{path}[{number}]")
    elif isinstance(value, str) and value:
        name = path.rpartition(".")[2]
        if _SECRET.search(name) and not name.endswith(("_file", "_path")) or _IN_URL.search(value) or _PEM.search(value):
            yield path


def check_no_literals(settings: dict[str, Any], where: str) -> None:
    """Raise ConfigurationError if a secret is written out in the settings of a deployment."""
    found = find_literals(settings)
    if found:
        raise ConfigurationError(
            f"{where}: {', '.join(found)} look{'s' if len(found) == 1 else ''} like a secret written out",
            hint='write {env = "NAME"} or {file = "PATH"}: a topology\'s configuration is shown to anyone who may see Storm',
        )
