"""The files of an hour, before they are loaded: checked through the archive, and sorted by the columns that they have."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import io
import json
import os
import tempfile
import uuid
from collections.abc import Sequence

import pyarrow as pa

from penstock.archive import Archive, Entry
from penstock.errors import ConfigurationError, LoadError, NotFoundError, UnavailableError
from penstock.model.units import hour_text
from penstock.warehouse import Dataset, Manifest
from penstock.warehouse.parquet import RESTORE, check_digest, check_footer
from penstock.warehouse.redshift.settings import Settings

FOLDER = "_manifests"  # of the archive
_AT_ONCE = 4
_IN_MEMORY = 64 << 20  # bytes of a file; a larger one is checked on disk


@dataclasses.dataclass(frozen=True)
class Group:
    """The files of an hour that have the same columns: what one COPY takes."""

    columns: tuple[str, ...]
    entries: tuple[Entry, ...]
    urls: tuple[str, ...]

    @property
    def rows(self) -> int:
        """How many rows its files have."""
        return sum(entry.rows for entry in self.entries)

    def to_json(self) -> bytes:
        """The manifest as COPY reads it. Every file is mandatory, and of columnar ones it asks for the length."""
        entries = [{"url": url, "mandatory": True, "meta": {"content_length": entry.bytes}} for entry, url in zip(self.entries, self.urls)]
        return json.dumps({"entries": entries}, indent=1).encode()


def checked(archive: Archive, dataset: Dataset, manifest: Manifest, urls: Sequence[str], verify: str, what: str) -> tuple[Group, ...]:
    """The groups of an hour's files, each file checked. Raises LoadError, naming the file; UnavailableError if the archive does not answer."""
    for url in urls:
        if not url.startswith("s3://"):
            raise ConfigurationError(
                f"Redshift loads from S3, and {url} is not there", hint="give the deployment a table s3: its archive is then a bucket"
            )

    def columns_of(entry: Entry, url: str) -> tuple[str, ...]:
        return _columns(archive, dataset, entry, manifest.span, url, verify, what)

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="penstock-files") as pool:
        found = list(pool.map(columns_of, manifest.entries, urls))
    groups = []
    for columns in dict.fromkeys(found):
        of = [at for at, one in enumerate(found) if one == columns]
        groups.append(Group(columns, tuple(manifest.entries[at] for at in of), tuple(urls[at] for at in of)))
    return tuple(groups)


def _columns(archive: Archive, dataset: Dataset, entry: Entry, span: int, url: str, verify: str, what: str) -> tuple[str, ...]:
    try:
        if verify == "footer":
            with archive.filesystem().open_input_file(entry.path) as file:
                if file.size() != entry.bytes:
                    raise LoadError(f"{what}: {url} holds {file.size()} bytes, not the {entry.bytes} that were archived", hint=RESTORE)
                return check_footer(dataset, entry, span, file, url, what)
        if entry.bytes <= _IN_MEMORY:
            memory = io.BytesIO(archive.read(entry.path))
            check_digest(entry, memory, url, what)
            return check_footer(dataset, entry, span, memory, url, what)
        with tempfile.TemporaryDirectory(prefix="penstock-check-") as folder:
            copy = os.path.join(folder, "file.parquet")
            archive.download(entry.path, copy)
            with open(copy, "rb") as disk:
                check_digest(entry, disk, url, what)
                return check_footer(dataset, entry, span, disk, url, what)
    except (NotFoundError, FileNotFoundError):
        raise LoadError(f"{what}: {url} is not there; nothing was loaded", hint=RESTORE) from None
    except (OSError, pa.ArrowException) as problem:
        if isinstance(problem, UnavailableError):
            raise
        raise UnavailableError(f"{what}: {url} cannot be read ({problem})") from problem


class Manifests:
    """The manifests that COPY reads, as files of the archive. They are there while the lock is held, and no longer.

    Who holds the lock may remove all that he finds: a loader that was killed has left it. Warehouses that share an archive have a folder each.
    """

    def __init__(self, archive: Archive, settings: Settings) -> None:
        self.archive = archive
        place = f"{settings.place}/{settings.database}/{settings.schema}"
        self.folder = f"{FOLDER}/{hashlib.sha256(place.encode()).hexdigest()[:12]}"

    def write(self, manifest: Manifest, group: Group) -> str:
        """Write the manifest of a group, under a name of its own; its path."""
        path = f"{self.folder}/{manifest.dataset}-{hour_text(manifest.hour)}-{uuid.uuid4().hex}.json"
        self.archive.write(path, group.to_json())
        return path

    def url(self, path: str) -> str:
        """Where COPY finds a manifest."""
        return self.archive.location(path)

    def remove(self, paths: list[str]) -> None:
        """Remove manifests."""
        if paths:
            self.archive.remove(paths)

    def sweep(self) -> None:
        """Remove all that are there. With the lock in hand."""
        self.remove([file.path for file in self.archive.files(self.folder)])
