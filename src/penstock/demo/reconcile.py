"""The numbers of a topology computed again, from the bytes in the log, by DuckDB: its JSON reader, its sums, its own idea of which record is late.

Shared with what is checked is only the framing of record batches (offsets, timestamps and where each value lies).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping

import duckdb
import pyarrow as pa

from penstock.demo.check import Check
from penstock.kernels import read_batches

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.rollup.registry import BoltDefinition

_CHUNK_BYTES, _CHUNK_OFFSETS = 4 << 20, 1 << 17
SHOWN = 3  # differences that are spelt out
DAY_US = 86_400_000_000
COUNTS = ("accepted", "late", "rejected")


def raw_records(deployment: Deployment, topic: str) -> pa.Table:
    """Every record of a topic as it lies in the log: partition, offset, log timestamp (microseconds) and value (bytes)."""
    schema = pa.schema([("part", pa.int32()), ("pos", pa.int64()), ("arrived", pa.int64()), ("value", pa.binary())])
    batches = []
    for partition in range(deployment.log.partitions(topic)):
        at, end = deployment.log.start(topic, partition), deployment.log.end(topic, partition)
        while at < end and (chunk := deployment.log.read(topic, partition, at, _CHUNK_BYTES, _CHUNK_OFFSETS)) is not None:
            records = read_batches(chunk.data)
            batches.append(
                pa.record_batch(
                    [
                        pa.array([partition] * len(records), pa.int32()),
                        pa.array(records.offsets),
                        pa.array(records.timestamps),
                        pa.array(map(records.value, range(len(records))), pa.binary()),
                    ],
                    schema=schema,
                )
            )
            at = chunk.next
    return pa.Table.from_batches(batches, schema=schema)


@contextlib.contextmanager
def judged(raw: pa.Table, fields: Mapping[str, str], fits: str, time: str, lateness: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with a table `events`: the records' fields, and `verdict` (accepted, late or rejected).

    fields: JSON keys to SQL types. fits: an SQL condition that holds for a record that fits the schema. time: an SQL expression of the event time in
    microseconds. lateness: in the same. A record from more than an hour after its arrival is a reject, as is one that is no UTF-8.
    """
    structure = ", ".join(f'"{name}": "{kind}"' for name, kind in fields.items())
    with duckdb.connect() as connection:
        connection.register("raw", raw)
        connection.execute(f"""
            CREATE TABLE events AS
            WITH texts AS (SELECT part, pos, arrived, TRY(decode(value)) AS text FROM raw),
                 parsed AS (SELECT part, pos, arrived, CASE WHEN json_valid(text) THEN json_transform(text, '{{{structure}}}') END AS record FROM texts),
                 flat AS (SELECT part, pos, arrived, unnest(record) FROM parsed),
                 timed AS (SELECT *, {time} AS event_time FROM flat),
                 fitting AS (SELECT *, coalesce(({fits}) AND event_time <= arrived + 3600000000, false) AS fits FROM timed)
            SELECT *, CASE WHEN NOT fits THEN 'rejected'
                           WHEN event_time < max(CASE WHEN fits THEN event_time END) OVER (PARTITION BY part ORDER BY pos) - {lateness} THEN 'late'
                           ELSE 'accepted' END AS verdict
            FROM fitting""")
        yield connection


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[Any, Any]:
    """A query's rows: the last column by the others (by the one other, where there is one)."""
    found = connection.execute(sql).fetchall()
    return {row[0] if len(row) == 2 else tuple(row[:-1]): row[-1] for row in found}


def compare(what: str, ours: Mapping[Any, Any], theirs: Mapping[Any, Any], show: Callable[[Mapping[Any, Any]], str] | None = None) -> Check:
    """Number by number; what one side lacks counts as 0. show: a side in a few words; its sum unless given."""
    keys = sorted(set(ours) | set(theirs), key=str)
    differing = [key for key in keys if (ours.get(key) or 0) != (theirs.get(key) or 0)]
    shown = [f"{key}: {ours.get(key)} and {theirs.get(key)}" for key in differing[:SHOWN]]
    if len(differing) > SHOWN:
        shown.append(f"and {len(differing) - SHOWN} more")
    total = show or (lambda side: f"{sum(value or 0 for value in side.values()):,}")
    return Check(what, total(ours), total(theirs), len(keys), tuple(shown))


def accounting(deployment: Deployment, definitions: list[BoltDefinition], connection: duckdb.DuckDBPyConnection) -> Iterator[Check]:
    """For each bolt and partition: offsets = accepted + rejected + late + skipped + lost, and the verdicts are those that DuckDB comes to."""
    from penstock.rollup.registry import Registry

    verdicts = {
        (part, verdict): count
        for part, verdict, count in connection.execute("SELECT part, verdict, count(*) FROM events GROUP BY ALL").fetchall()
    }
    for definition in definitions:
        topic, name = deployment.topic(definition.schema["name"]), definition.bolt.partition(".")[2]
        controls = {
            shard.partition: control for shard, control in Registry(deployment.table).shards(definition.bolt, definition.generation)
        }
        yield compare(
            f"{name}: offsets = accepted + rejected + late + skipped + lost",
            {p: control.done.counted for p, control in controls.items()},
            {p: deployment.log.end(topic, p) - control.start for p, control in controls.items()},
        )
        ours = {(p, verdict): getattr(control.done, verdict) for p, control in controls.items() for verdict in COUNTS}
        yield compare(f"{name}: {' / '.join(COUNTS)}", ours, verdicts, by_verdict)


def by_verdict(sums: Mapping[Any, Any]) -> str:
    """Counts by (partition, verdict) as text: a number a verdict."""
    return " / ".join(f"{sum(count for (_, verdict), count in sums.items() if verdict == name):,}" for name in COUNTS)


def warehouse_rows(deployment: Deployment, dataset: str, connection: duckdb.DuckDBPyConnection) -> Iterator[Check]:
    """The warehouse's tables hold the records of each verdict, each once: as many rows as different offsets, in each partition."""
    for table, verdict in ((dataset, "accepted"), (f"{dataset}_late", "late"), (f"{dataset}_rejects", "rejected")):
        ours = {}
        if deployment.warehouse.ledger(table):
            sql = f'SELECT partition_id, count(*), count(DISTINCT log_offset) FROM "{table}" GROUP BY ALL'
            ours = _by_part(zip(*(column.to_pylist() for column in deployment.warehouse.query(sql).columns)))
        theirs = connection.execute(
            f"SELECT part, count(*), count(DISTINCT pos) FROM events WHERE verdict = '{verdict}' GROUP BY ALL"
        ).fetchall()
        yield compare(
            f"warehouse: {table}, rows and different offsets",
            ours,
            _by_part(theirs),
            lambda sums: f"{sum(n for (_, what), n in sums.items() if what == 'rows'):,}",
        )


def _by_part(found: Iterable[tuple[int, int, int]]) -> dict[Any, int]:
    return {(part, what): count for part, *counts in found for what, count in zip(("rows", "offsets"), counts)}
