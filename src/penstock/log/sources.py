"""Where input comes from: a file, plain or compressed, or standard input; read in big blocks, with how far it has got."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa

from penstock.errors import ConfigurationError

STDIN = "-"
BLOCK = 1 << 22
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".msgpack": "msgpack",
    ".mpk": "msgpack",
    ".csv": "csv",
    ".log": "combined",
}
NAMES = ("jsonl", "msgpack", "csv", "combined")


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str:
    """The format asked for, or the one that the file's name ends in; standard input is JSON Lines. Raises ConfigurationError for neither."""
    if format is not None:
        if format not in NAMES:
            raise ConfigurationError(f"there is no input format {format!r}", hint=f"use one of {', '.join(NAMES)}")
        return format
    if os.fspath(path) == STDIN:
        return "jsonl"
    name = Path(path)
    ending = Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix
    if ending not in FORMATS:
        raise ConfigurationError(f"{os.fspath(path)}: the name does not tell the format", hint=f"say which: --format {', '.join(NAMES)}")
    return FORMATS[ending]


class Source:
    """One input. position: bytes of it read so far, as they lie on the disk; total: how many there are, None for standard input."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self.position = 0
        self.total: int | None = None
        self._file: IO[bytes] | None = None
        self._stream: Any = None
        if self.name == STDIN:
            self.name = "standard input"
            return
        try:
            self._file = open(path, "rb", buffering=0)
            self.total = os.fstat(self._file.fileno()).st_size if os.path.isfile(path) else None
        except OSError as problem:
            raise ConfigurationError(f"cannot read {self.name}: {problem.strerror}", hint="name a file, or - for standard input") from None
        if (codec := COMPRESSED.get(Path(path).suffix)) is not None:
            self._stream = pa.CompressedInputStream(pa.PythonFile(self._file, mode="r"), codec)

    def read(self) -> bytes:
        """What comes next, at most 4 MiB; empty at the end. Does not wait for more when some is there."""
        try:
            if self._stream is not None and self._file is not None:
                data = self._stream.read(BLOCK)
                self.position = self._file.tell()
            elif self._file is not None:
                data = self._file.read(BLOCK)
                self.position += len(data)
            else:
                data = sys.stdin.buffer.read1(BLOCK)  # type: ignore[union-attr]
                self.position += len(data)
        except OSError as problem:
            raise ConfigurationError(f"cannot read {self.name}: {problem}", hint="is the file whole?") from None
        return bytes(data)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
