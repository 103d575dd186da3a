"""Files into a topic: what `penstock produce` does."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Callable, Sequence

from penstock.log import Log
from penstock.log.formats import read_blocks
from penstock.log.keys import key_reader
from penstock.log.producer import Producer, now_us
from penstock.log.sources import Source, format_of
from penstock.model import Schema

Progress = Callable[[int, "int | None", int], None]
_FLUSH_SECONDS = 1.0  # how long a record of a slow input waits at most


@dataclasses.dataclass(frozen=True)
class ProduceReport:
    """What was produced: records, all of them durable; how many of these did not parse and are there as they were; bytes read; each partition's end."""

    records: int
    unparsed: int
    bytes: int
    ends: dict[int, int]


def produce_files(
    log: Log,
    schema: Schema,
    paths: Sequence[str | os.PathLike[str]],
    *,
    format: str | None = None,
    topic: str | None = None,
    codec: str = "lz4",
    on_progress: Progress | None = None,
    clock: Callable[[], int] = now_us,
) -> ProduceReport:
    """Produce the records of files, or of standard input ("-"), to the schema's topic, which must be there.

    format: "jsonl", "msgpack", "csv" or "combined"; by each file's name unless given (.jsonl, .ndjson, .json; .msgpack, .mpk; .csv; .log; with .gz,
    .zst or .bz2 behind). on_progress(bytes read, bytes in all or None, records): after every block. clock: the records' log timestamp, microseconds.

    Raises ConfigurationError for a path or a format that cannot be read, before anything is produced where it can be known then.
    """
    formats = [format_of(path, format) for path in paths]
    sources = [Source(path) for path in paths]
    sizes = [source.total for source in sources]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    keys, unparsed, read, flushed = key_reader(schema), 0, 0, time.monotonic()
    with Producer(log, topic or schema.name, codec=codec, clock=clock) as producer:
        for source, name in zip(sources, formats):
            with source:
                for block in read_blocks(source, name, schema):
                    producer.send_many(block.values, keys(block.values))
                    unparsed += block.unparsed
                    if time.monotonic() - flushed > _FLUSH_SECONDS:
                        producer.flush()
                        flushed = time.monotonic()
                    if on_progress is not None:
                        on_progress(read + source.position, total, producer.sent)
                read += source.position
    ends = {partition: log.end(producer.topic, partition) for partition in range(producer.partitions)}
    return ProduceReport(producer.sent, unparsed, read, ends)
