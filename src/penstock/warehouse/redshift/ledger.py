"""Penstock's own tables in Redshift: which hours are loaded from what, what the datasets' tables hold, and the lock."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any

from penstock.model.units import from_datetime, to_datetime
from penstock.warehouse import Column, Dataset, LedgerRow, Manifest
from penstock.warehouse.redshift.connection import Connection
from penstock.warehouse.redshift.ddl import DATASETS, LEDGER, LOCK, SYSTEM, quoted, table
from penstock.warehouse.redshift.problems import ServerError

_PIECE = 65_535  # bytes of a VARCHAR; JSON is ASCII here


def prepare_system(connection: Connection, schema: str) -> None:
    """Create what is missing of the schema and Penstock's own tables, all in one transaction."""
    try:
        _create(connection, schema)
    except ServerError:  # IF NOT EXISTS does not help against one that does the same at the same time
        connection.rollback()
        _create(connection, schema)


def _create(connection: Connection, schema: str) -> None:
    if not connection.rows("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    for name in sorted(set(SYSTEM) - tables(connection, schema)):
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table(schema, name)} {SYSTEM[name]}")
    connection.commit()


def tables(connection: Connection, schema: str) -> set[str]:
    """The tables of a schema."""
    return {str(row[0]) for row in connection.rows("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema])}


def lock(connection: Connection, schema: str) -> None:
    """Wait until nobody else loads or prepares, and keep it so until the transaction ends. The first statement of a transaction: see it as others left it."""
    connection.execute(f"LOCK TABLE {table(schema, LOCK)}")


def definition(connection: Connection, schema: str, dataset: str) -> Dataset | None:
    """The columns that the dataset's table has; None if it was never prepared."""
    found = connection.rows(f'SELECT "definition" FROM {table(schema, DATASETS)} WHERE "dataset" = %s ORDER BY "part"', [dataset])
    if not found:
        return None
    data = json.loads("".join(row[0] for row in found))
    return Dataset(data["name"], tuple(Column(**column) for column in data["columns"]), data["time"], data["key"])


def define(connection: Connection, schema: str, dataset: Dataset) -> None:
    """Remember the columns that the dataset's table has."""
    connection.execute(f'DELETE FROM {table(schema, DATASETS)} WHERE "dataset" = %s', [dataset.name])
    for part, piece in enumerate(_pieces(dataclasses.asdict(dataset))):
        connection.execute(f"INSERT INTO {table(schema, DATASETS)} VALUES (%s, %s, %s)", [dataset.name, part, piece])


def loaded(connection: Connection, schema: str, dataset: str, hour: int | None = None) -> list[LedgerRow]:
    """The ledger's rows of a dataset, in order; of one hour if given."""
    condition, values = ("", [dataset]) if hour is None else (' AND "hour" = %s', [dataset, timestamp(hour)])
    columns = '"hour", "manifest_hash", "rows", "ranges", "loaded_at"'
    found: dict[int, tuple[list[Any], list[str]]] = {}
    for row in connection.rows(
        f'SELECT {columns} FROM {table(schema, LEDGER)} WHERE "dataset" = %s{condition} ORDER BY "hour", "part"', values
    ):
        found.setdefault(from_datetime(row[0]), (row, []))[1].append(row[3])
    return [
        LedgerRow(dataset, at, row[1], int(row[2]), _ranges("".join(pieces)), from_datetime(row[4])) for at, (row, pieces) in found.items()
    ]


def enter(connection: Connection, schema: str, manifest: Manifest, now: int) -> None:
    """Put a loaded hour into the ledger, in place of what it says of it."""
    hour = timestamp(manifest.hour)
    connection.execute(f'DELETE FROM {table(schema, LEDGER)} WHERE "dataset" = %s AND "hour" = %s', [manifest.dataset, hour])
    for part, piece in enumerate(_pieces(manifest.ranges)):
        connection.execute(
            f"INSERT INTO {table(schema, LEDGER)} VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [manifest.dataset, hour, part, manifest.hash, manifest.rows, piece, timestamp(now)],
        )


def timestamp(micros: int) -> dt.datetime:
    """A moment as a TIMESTAMP: UTC, without a zone."""
    return to_datetime(micros).replace(tzinfo=None)


def _pieces(data: Any) -> list[str]:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]


def _ranges(text: str) -> dict[str, list[tuple[int, int]]]:
    return {shard: [(int(first), int(end)) for first, end in pairs] for shard, pairs in json.loads(text).items()}
