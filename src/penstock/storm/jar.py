"""The topology jar: the project's code or its packed environment below `resources/`, and the Java half of the msgpack serializer.

    resources/**                  what Storm's supervisor extracts, and where a component's process starts
    penstock/multilang/*.class    the serializer, which runs in Storm's worker
    org/msgpack/**                the library that it uses

`penstock submit` uploads it; `sparse submit -j` takes it as well. The same input gives the same bytes.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Iterator

from penstock.errors import ConfigurationError
from penstock.storm import launch
from penstock.storm.environment import copy_project

SERIALIZER = "penstock.multilang.MsgpackSerializer"  # Storm's `topology.multilang.serializer`
CLASSES = Path(__file__).with_name("serializer.jar")  # compiled, with its library: made by penstock.storm.serializer
_LEVEL = 3  # of zlib: an environment takes half the time of the default's, and 7 % more bytes
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold
_MANIFEST = b"Manifest-Version: 1.0\r\nCreated-By: penstock\r\n\r\n"


def build(out: Path, *, project: Path, environment: Path | None = None) -> Path:
    """Write the topology jar to `out` and return it.

    project: the project's folder; its own code is packed. environment: a folder that `penstock.storm.environment.pack` made of it, packed instead, code and
    all, for workers that have only Python. Needs neither Java nor a network. Raises ConfigurationError.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-jar-") as scratch:
        if environment is None:
            resources = Path(scratch)
            copy_project(project, resources)
        else:
            resources = environment
            if not (resources / launch.MANIFEST).is_file():
                raise ConfigurationError(f"no environment was packed in {environment}", hint="make one: penstock.storm.environment.pack")
        files = {f"resources/{name}": path for name, path in _files(resources)}
        # A component starts in the extracted folder, which has to be there if the project has no code of its own too.
        files.setdefault("resources/.penstock", Path(os.devnull))
        unfinished = out.with_name(f".{out.name}.{os.getpid()}")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            _write(unfinished, files)
            unfinished.replace(out)
        except OSError as problem:
            unfinished.unlink(missing_ok=True)
            raise ConfigurationError(
                f"{out} cannot be written: {problem.strerror}", hint="name a file in a folder that you may write to"
            ) from None
    return out


def _write(path: Path, files: dict[str, Path]) -> None:
    with zipfile.ZipFile(CLASSES) as classes, zipfile.ZipFile(path, "w") as jar:
        jar.writestr(entry("META-INF/MANIFEST.MF"), _MANIFEST, compresslevel=_LEVEL)
        for name in sorted(classes.namelist()):
            jar.writestr(entry(name), classes.read(name), compresslevel=_LEVEL)
        for name in sorted(files):
            jar.writestr(entry(name), files[name].read_bytes(), compresslevel=_LEVEL)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder).as_posix(), path


def entry(name: str) -> zipfile.ZipInfo:
    """A member of a jar that says nothing of when and by whom it was made."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    return entry
