"""Servers of a benchmark's own, started for it and gone after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError

from bench.measure import BenchError


@contextlib.contextmanager
def own_servers(name: str, folder: Path, servers: Sequence[str]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The settings of a deployment on such servers, and the environment that goes with them, which is this process's meanwhile. name: of the benchmark, for messages.

    Raises BenchError if one does not start.
    """
    from penstock.stack.stack import Stack

    folder.parent.chmod(0o711)  # PostgreSQL does not run as root, and has to get there
    stack = Stack(folder)
    try:
        stack.up(servers)
        settings, environment = stack.settings(), stack.exports()
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            yield settings, environment
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
    except PenstockError as problem:
        raise BenchError(f"{name}: {problem.message}" + (f" ({problem.hint})" if problem.hint else "")) from problem
    finally:
        stack.down(servers, wipe=True)
