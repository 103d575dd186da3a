"""`archive.<dataset>`: detail as it is archived, loaded into the warehouse or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from penstock.archive import Archive, Entry
from penstock.errors import CorruptionError, UnavailableError
from penstock.model.units import HOUR
from penstock.query.sql.pushdown import Filter, possible, within
from penstock.warehouse import Dataset
from penstock.warehouse.datasets import arrow_schema

_FORMAT = ds.ParquetFileFormat()


class ArchivedTable:
    """A dataset's files in the archive, of one generation of the bolt that writes them.

    Hours that the filter rules out are not listed, files and row groups without a row that passes are not read, nor are columns that nobody asks for.
    """

    def __init__(self, archive: Archive, dataset: Dataset, generation: str) -> None:
        self.archive, self.dataset, self.generation = archive, dataset, generation
        # An enum is text here: a dictionary's codes mean nothing from one file to another.
        self.schema = pa.schema(
            [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in arrow_schema(dataset)]
        )

    def scan(self, columns: Sequence[str], filter: Filter) -> Iterator[pa.RecordBatch]:
        """See `pushdown.Scan`. Raises CorruptionError for a file that is not there or cannot be read, UnavailableError for an archive that does not answer."""
        time, system = self.dataset.time, self.archive.filesystem()
        entries = [entry for hour in self.hours(filter) for entry in self._entries(hour)]
        fragments = [_FORMAT.make_fragment(one.path, system, within(time, one.hour, one.hour + HOUR)) for one in entries]
        what = f"archive.{self.dataset.name}"
        try:
            yield from (
                ds.FileSystemDataset(fragments, self.schema, _FORMAT, system).scanner(columns=list(columns), filter=filter).to_batches()
            )
        except FileNotFoundError as problem:
            raise CorruptionError(f"{what}: a file that the index lists is not there: {problem}", hint=_RESTORE) from problem
        except pa.ArrowInvalid as problem:
            raise CorruptionError(f"{what}: a file cannot be read: {problem}", hint=_RESTORE) from problem
        except OSError as problem:
            raise UnavailableError(f"{what}: the archive did not answer: {problem}") from problem

    def hours(self, filter: Filter) -> list[int]:
        """The hours of the archive in which a row can pass the filter."""
        hours = self.archive.hours(self.dataset.name)
        return [hours[place] for place in possible(self.schema, filter, [within(self.dataset.time, hour, hour + HOUR) for hour in hours])]

    def _entries(self, hour: int) -> list[Entry]:
        return [entry for entry in self.archive.entries(self.dataset.name, hour) if entry.shard.startswith(f"{self.generation}-")]


_RESTORE = "restore it, or rebuild the hour from the log"
