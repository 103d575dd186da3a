"""The Redshift stand-in, through the driver as it is: each claim of docs/redshift-standin.md."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redshift_connector
from standin import ROLE

BUCKET = "detail"


@pytest.fixture(scope="session")
def bucket(s3_endpoint: str) -> Any:
    """A client of S3 with a bucket."""
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=s3_endpoint, **keys)
    client.create_bucket(Bucket=BUCKET)
    return client


def connect(settings: dict[str, Any], **more: Any) -> Any:
    """A connection by the unpatched driver."""
    names = ("host", "port", "database", "user", "ssl")
    return redshift_connector.connect(password="", **{name: settings[name] for name in names}, **more)


@pytest.fixture
def connection(redshift: dict[str, Any]) -> Any:
    """One to a fresh database."""
    made = connect(redshift)
    yield made
    made.close()


def run(connection: Any, sql: str, *values: Any) -> list[Any]:
    """The rows of a statement."""
    cursor = connection.cursor()
    cursor.execute(sql, values or None)
    return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


def put(bucket: Any, key: str, table: pa.Table) -> dict[str, Any]:
    """Write Parquet; its entry in a manifest."""
    data = io.BytesIO()
    pq.write_table(table, data)
    bucket.put_object(Bucket=BUCKET, Key=key, Body=data.getvalue())
    return {"url": f"s3://{BUCKET}/{key}", "mandatory": True, "meta": {"content_length": len(data.getvalue())}}


def manifest(bucket: Any, key: str, *entries: dict[str, Any]) -> str:
    """Write a manifest; its address."""
    bucket.put_object(Bucket=BUCKET, Key=key, Body=json.dumps({"entries": entries}))
    return f"s3://{BUCKET}/{key}"


EVENTS = "CREATE TABLE events (ts TIMESTAMP, id BIGINT, name VARCHAR(20), cost DECIMAL(18,6), ok BOOLEAN)"


def events(first: int, count: int) -> pa.Table:
    """Rows for EVENTS."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "ts": pa.array([dt.datetime(2015, 5, 17, 10, 5, 3, n % 1_000_000) for n in numbers], pa.timestamp("us")),
            "id": pa.array(numbers, pa.int64()),
            "name": pa.array([None if n % 7 == 0 else "" if n % 7 == 1 else f'n"{n}, é' for n in numbers]).dictionary_encode(),
            "cost": pa.array([Decimal(n) / 1_000_000 for n in numbers], pa.decimal128(18, 6)),
            "ok": pa.array([n % 2 == 0 for n in numbers]),
        }
    )


def test_the_driver_gets_in_and_runs_statements_with_bind_parameters(connection: Any) -> None:
    assert run(connection, "SELECT %s::INT + 1, %s", 41, "forty-two") == [(42, "forty-two")]
    run(connection, EVENTS)
    row = (dt.datetime(2015, 5, 17, 10, 5, 3, 7), 2**40, "é", Decimal("12.345678"), True)
    run(connection, "INSERT INTO events VALUES (%s, %s, %s, %s, %s)", *row)
    connection.commit()
    assert run(connection, "SELECT * FROM events") == [row]


def test_a_copy_of_a_manifest_of_parquet_runs_within_the_transaction(connection: Any, bucket: Any) -> None:
    url = manifest(bucket, "m1", put(bucket, "a.parquet", events(0, 1_000)), put(bucket, "b.parquet", events(1_000, 500)))
    run(connection, EVENTS)
    connection.commit()
    copy = f"COPY events FROM '{url}' IAM_ROLE '{ROLE}' FORMAT AS PARQUET MANIFEST"
    run(connection, copy)
    assert run(connection, "SELECT count(*) FROM events") == [(1_500,)]
    connection.rollback()
    assert run(connection, "SELECT count(*) FROM events") == [(0,)]
    run(connection, copy)
    connection.commit()
    expected = [tuple(row.values()) for row in events(0, 1_500).to_pylist()]
    assert run(connection, "SELECT * FROM events ORDER BY id") == expected
