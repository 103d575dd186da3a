"""What readers of the archive are shown: the published generation of the bolts that fill it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from penstock.archive import Archive, Entry, StoredFile
from penstock.errors import NotFoundError
from penstock.rollup.control import NO_WATERMARK
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.warehouse import Dataset
from penstock.warehouse.datasets import datasets_of
from penstock.warehouse.export import PartitionProgress

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.topology import Topology


class GenerationView:
    """An archive with the files of one generation alone; for reading. Two generations archive the same events, and would count twice together."""

    def __init__(self, archive: Archive, generation: str) -> None:
        self.archive, self.prefix = archive, f"{generation}-"

    def entries(self, dataset: str, hour: int) -> list[Entry]:
        """See `Archive.entries`."""
        return [entry for entry in self.archive.entries(dataset, hour) if entry.shard.startswith(self.prefix)]

    def hours(self, dataset: str) -> list[int]:
        """See `Archive.hours`."""
        return [hour for hour in self.archive.hours(dataset) if self.entries(dataset, hour)]

    def datasets(self) -> list[str]:
        """See `Archive.datasets`."""
        return [dataset for dataset in self.archive.datasets() if self.hours(dataset)]

    def read(self, path: str) -> bytes:
        """See `Archive.read`."""
        return self.archive.read(path)

    def location(self, path: str) -> str:
        """See `Archive.location`."""
        return self.archive.location(path)

    def write(self, path: str, data: bytes) -> None:
        """See `Archive.write`."""
        self.archive.write(path, data)

    def add(self, entries: list[Entry]) -> None:
        """See `Archive.add`."""
        self.archive.add(entries)

    def upload(self, path: str, file: str | os.PathLike[str]) -> None:
        """See `Archive.upload`."""
        self.archive.upload(path, file)

    def download(self, path: str, file: str | os.PathLike[str]) -> None:
        """See `Archive.download`."""
        self.archive.download(path, file)

    def filesystem(self) -> Any:
        """See `Archive.filesystem`."""
        return self.archive.filesystem()

    def index(self, dataset: str, hour: int) -> list[Entry]:
        """See `Archive.index`."""
        return [entry for entry in self.archive.index(dataset, hour) if entry.shard.startswith(self.prefix)]

    def files(self, folder: str) -> Iterator[StoredFile]:
        """See `Archive.files`: those of all generations."""
        return self.archive.files(folder)

    def drop(self, entries: list[Entry]) -> None:
        """See `Archive.drop`."""
        self.archive.drop(entries)

    def remove(self, paths: list[str]) -> None:
        """See `Archive.remove`."""
        self.archive.remove(paths)

    def sweep(self, before: int, *, dry_run: bool = False) -> int:
        """See `Archive.sweep`."""
        return self.archive.sweep(before, dry_run=dry_run)

    def close(self) -> None:
        """The archive's owner closes it."""


def archive_bolts(topology: type[Topology], deployment: Deployment) -> list[BoltDefinition]:
    """The published definitions of a topology's archive bolts. Raises NotFoundError where there are none, or where they never ran."""
    registry = Registry(deployment.table)
    bolts = [definition.bolt for definition in topology.definitions.values() if definition.kind == "archive"]
    if not bolts:
        raise NotFoundError(f"{topology.__name__} archives nothing", hint="give it a bolt: archive = ArchiveBolt.spec(detail)")
    return published(registry, bolts)


def published(registry: Registry, bolts: list[str]) -> list[BoltDefinition]:
    """The published definitions of some bolts. Raises NotFoundError for one that never ran here."""
    started = registry.bolts()
    for bolt in bolts:
        if bolt not in started:
            raise NotFoundError(f"bolt {bolt} was never started here", hint="`penstock run` starts it; --on names another deployment")
    return [registry.definition(bolt, registry.published(bolt)) for bolt in bolts]


def datasets(definition: BoltDefinition) -> tuple[Dataset, ...]:
    """The datasets that an archive bolt makes: accepted, late, rejects."""
    from penstock.model import Schema

    return datasets_of(Schema.from_json(definition.schema))


def progress_of(definition: BoltDefinition, deployment: Deployment) -> list[PartitionProgress]:
    """How far each partition of the bolt's topic is archived. Read it before the archive's index; the log's ends are read after the control cells."""
    topic = deployment.topic(definition.schema["name"])
    incarnation = deployment.log.incarnation(topic)
    controls = {
        shard.partition: control
        for shard, control in Registry(deployment.table).shards(definition.bolt, definition.generation)
        if shard.topic == topic and shard.incarnation == incarnation
    }
    found = []
    for partition in range(deployment.log.partitions(topic)):
        control, end = controls.get(partition), deployment.log.end(topic, partition)
        if control is None:
            found.append(PartitionProgress(partition, None, deployment.log.start(topic, partition), end, None, claimed=False))
        else:
            watermark = None if control.done.watermark == NO_WATERMARK else control.done.watermark
            found.append(PartitionProgress(partition, watermark, control.done.offset, end, control.caught_up_at))
    return found
