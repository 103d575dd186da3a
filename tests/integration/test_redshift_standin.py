"""The Redshift stand-in, through the driver as it is: each claim of docs/redshift-standin.md."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import io
import json
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redshift_connector
from standin import ROLE, StandIn

from penstock.errors import PenstockError
from penstock.stack.redshift import wire
from penstock.stack.redshift.faults import Control
from penstock.stack.redshift.relay import Relay, Settings

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


# SQL


def fails(connection: Any, sql: str, *values: Any) -> dict[str, str]:
    """The error of a statement, as the driver has it; the transaction is over afterwards."""
    with pytest.raises(redshift_connector.Error) as raised:
        run(connection, sql, *values)
    connection.rollback()
    return dict(raised.value.args[0])


def test_it_says_that_it_is_redshift(connection: Any) -> None:
    assert str(connection._server_version) == "8.0.2"
    assert "Redshift" in run(connection, "SELECT version()")[0][0]


@pytest.mark.parametrize(
    "sql, expected",
    [
        ("SELECT DATEDIFF(day, '2015-05-17 23:59'::TIMESTAMP, '2015-05-18 00:01'::TIMESTAMP)", 1),
        ("SELECT DATEDIFF('hour', '2015-05-17 23:59'::TIMESTAMP, '2015-05-18 00:01'::TIMESTAMP)", 1),
        ("SELECT DATEDIFF(qtr, '2015-01-31'::DATE, '2016-04-01'::DATE)", 5),
        ("SELECT DATEDIFF(week, '2015-05-16'::DATE, '2015-05-17'::DATE)", 1),  # a Saturday and a Sunday
        ("SELECT DATEDIFF(seconds, '2015-05-17 00:00:02'::TIMESTAMP, '2015-05-17 00:00:00'::TIMESTAMP)", -2),
        ("SELECT DATEADD(month, -1, '2015-03-31'::TIMESTAMP)", dt.datetime(2015, 2, 28)),
        ("SELECT DATEADD(qtr, 1, '2015-03-31 01:00'::TIMESTAMP)", dt.datetime(2015, 6, 30, 1)),
        ("SELECT DATE_TRUNC('hour', '2015-05-17 10:05:03'::TIMESTAMP)", dt.datetime(2015, 5, 17, 10)),
        ("SELECT DATE_TRUNC('week', '2015-05-17'::DATE)", dt.datetime(2015, 5, 11)),
        ("SELECT DATE_PART(dow, '2015-05-17'::DATE)", 0),
        ("SELECT DATE_PART('hour', '2015-05-17 10:05:03'::TIMESTAMP)", 10),
        ("SELECT EXTRACT(epoch FROM '1970-01-02'::TIMESTAMP)", 86_400),
        ("SELECT TRUNC('2015-05-17 10:05:03'::TIMESTAMP)", dt.date(2015, 5, 17)),
        ("SELECT TRUNC(2.77::DECIMAL(4, 2), 1)", Decimal("2.7")),
        ("SELECT LAST_DAY('2016-02-03'::TIMESTAMP)", dt.date(2016, 2, 29)),
        ("SELECT ADD_MONTHS('2015-02-28'::TIMESTAMP, 1)", dt.datetime(2015, 3, 31)),
        ("SELECT CONVERT_TIMEZONE('America/New_York', '2015-05-17 12:00'::TIMESTAMP)", dt.datetime(2015, 5, 17, 8)),
        ("SELECT CONVERT_TIMEZONE('America/New_York', 'UTC', '2015-05-17 12:00'::TIMESTAMP)", dt.datetime(2015, 5, 17, 16)),
        ("SELECT NVL(NULL, 2)", 2),
        ("SELECT NVL2(NULL, 'a', NVL2(1, 'b', 'c'))", "b"),
        ("SELECT DECODE(2, 1, 'one', 2, 'two', 'many')", "two"),
        ("SELECT DECODE(NULL, NULL, 'none')", "none"),
        ("SELECT LEN('é')", 1),
        ("SELECT CHARINDEX('c', 'abc')", 3),
        ("SELECT ROUND(2.345::FLOAT8, 2)", 2.35),
        ("SELECT AVG(n) FROM (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 2) AS x", 1),
        ("SELECT AVG(n::DECIMAL(8, 3)) FROM (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 2) AS x", Decimal("1.666")),
        ("SELECT AVG(n::FLOAT8) FROM (SELECT 1 AS n UNION ALL SELECT 2) AS x", 1.5),
        (
            "SELECT MAX(a) FROM (SELECT AVG(n) OVER (PARTITION BY g ORDER BY n) AS a FROM (SELECT 1 AS n, 1 AS g UNION ALL SELECT 4, 1) AS x) AS y",
            2,
        ),
        ("SELECT LISTAGG(n, ', ') WITHIN GROUP (ORDER BY n DESC) FROM (SELECT 1 AS n UNION ALL SELECT 2) AS x", "2, 1"),
        ("SELECT LISTAGG(DISTINCT n) FROM (SELECT 1 AS n UNION ALL SELECT 1) AS x", "1"),
        ("SELECT MEDIAN(n) FROM (SELECT 1 AS n UNION ALL SELECT 4) AS x", 2.5),
        ("SELECT APPROXIMATE COUNT(DISTINCT n) FROM (SELECT 1 AS n UNION ALL SELECT 1) AS x", 1),
        ("SELECT JSON_EXTRACT_PATH_TEXT('{\"a\": {\"b\": 7}}', 'a', 'b')", "7"),
        ("SELECT IS_VALID_JSON('{')", False),
        ("SELECT JSON_SERIALIZE(JSON_PARSE('[1,2]'))", "[1, 2]"),
        ("SELECT COUNT(*) FROM (SELECT 1 MINUS SELECT 1) AS x", 0),
        ("SELECT 'it''s /* no */ -- comment' /* a ' comment */ -- another '", "it's /* no */ -- comment"),
        ("SELECT ABS(DATEDIFF(second, GETDATE(), SYSDATE)) < 600", True),
    ],
)
def test_functions_of_redshift(connection: Any, sql: str, expected: Any) -> None:
    assert run(connection, sql) == [(expected,)]


@pytest.mark.parametrize(
    "sql, code, said",
    [
        ("SELECT COUNT(*) FILTER (WHERE id > 1) FROM t", "42601", 'syntax error at or near "("'),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "42601", 'near "ON"'),
        ("INSERT INTO t VALUES (1) RETURNING id", "42601", 'near "RETURNING"'),
        ("DELETE FROM t RETURNING id", "42601", 'near "RETURNING"'),
        ("SELECT DISTINCT ON (id) id FROM t", "0A000", "DISTINCT ON"),
        ("SELECT ARRAY[1, 2]", "42601", 'near "["'),
        ("SELECT '{1}'::INT[]", "42601", 'near "["'),
        ("SELECT * FROM t, LATERAL (SELECT t.id) AS x", "42601", 'near "LATERAL"'),
        ("SELECT * FROM (VALUES (1)) AS x", "42601", 'near "VALUES"'),
        ("SELECT 1 FROM t WHERE id IS NOT DISTINCT FROM 2", "42601", 'near "DISTINCT"'),
        ("SELECT * FROM t FOR UPDATE", "0A000", "FOR UPDATE"),
        ("SELECT STRING_AGG(id::TEXT, ',') FROM t", "42883", "string_agg() does not exist"),
        ("SELECT ARRAY_AGG(id) FROM t", "42883", "array_agg() does not exist"),
        ("SELECT id, NOW() FROM t", "0A000", "not supported on Redshift tables"),
        ("CREATE INDEX i ON t (id)", "0A000", "CREATE INDEX"),
        ("CREATE TABLE u (a JSONB)", "0A000", 'Column "u.a" has unsupported type "jsonb"'),
        ("CREATE TABLE u (a INT[])", "0A000", 'Column "u.a" has unsupported type "int[]"'),
        ("CREATE TABLE u (a SERIAL)", "0A000", 'unsupported type "SERIAL"'),
        ("CREATE TABLE u (a VARCHAR(70000))", "22023", "cannot exceed 65535"),
        ("CREATE TABLE u (a INT) DISTKEY (b)", "42703", 'distkey column "b" does not exist'),
        ("CREATE TABLE u (a INT CHECK (a > 0))", "42601", 'near "CHECK"'),
        ("ALTER TABLE t ADD COLUMN IF NOT EXISTS b INT", "42601", 'near "NOT"'),
        ("ALTER TABLE t ADD COLUMN b INT, ADD COLUMN c INT", "42601", 'near ","'),
        ("ALTER TABLE t ADD COLUMN b INT NOT NULL", "42601", "non-null default"),
        ("UNLOAD ('SELECT 1') TO 's3://b/k' IAM_ROLE default", "0A000", "UNLOAD"),
        ("SAVEPOINT s", "0A000", "SAVEPOINT"),
        ("COPY t FROM STDIN", "0A000", "LOAD source is not supported"),
        ("SELEC 1", "42601", "syntax error"),
        ("SELECT * FROM nowhere", "42P01", "does not exist"),
    ],
)
def test_what_redshift_does_not_take_is_refused_as_redshift_would(connection: Any, sql: str, code: str, said: str) -> None:
    run(connection, "CREATE TABLE t (id INT)")
    connection.commit()
    problem = fails(connection, sql)
    assert problem["C"] == code and said.lower() in problem["M"].lower(), problem
    assert run(connection, "SELECT COUNT(*) FROM t") == [(0,)]


def test_an_error_ends_the_transaction_until_it_is_rolled_back(connection: Any) -> None:
    run(connection, "CREATE TABLE t (id INT)")
    for sql in ("SELECT 1 / 0", "SELECT ARRAY[1]", "COPY t FROM 's3://nowhere/x' IAM_ROLE default CSV"):
        run(connection, "SELECT 1")
        with pytest.raises(redshift_connector.ProgrammingError):
            run(connection, sql)
        for after in ("SELECT 1", "COPY t FROM 's3://nowhere/x' IAM_ROLE default CSV"):
            with pytest.raises(redshift_connector.ProgrammingError, match="25P02"):
                run(connection, after)
        connection.rollback()
        assert run(connection, "SELECT 1") == [(1,)]
        connection.rollback()


# Tables


def test_keys_are_declared_and_not_enforced(connection: Any) -> None:
    run(
        connection,
        "CREATE TABLE t (id BIGINT PRIMARY KEY ENCODE az64, other INT UNIQUE REFERENCES nowhere (id), kind CHAR(2) NOT NULL DEFAULT 'a',"
        ' "order" TIMESTAMP SORTKEY, CONSTRAINT c UNIQUE (other), FOREIGN KEY (other) REFERENCES nowhere (id)) DISTSTYLE KEY DISTKEY (id)',
    )
    for _ in range(2):
        run(connection, "INSERT INTO t (id, other) VALUES (1, 2)")
    assert run(connection, "SELECT COUNT(*), MAX(kind) FROM t") == [(2, "a ")]
    assert fails(connection, "INSERT INTO t VALUES (NULL)")["C"] == "23502"  # a primary key is NOT NULL all the same


def test_how_a_table_is_distributed_and_sorted_is_shown(connection: Any) -> None:
    run(
        connection,
        "CREATE TABLE IF NOT EXISTS t (at TIMESTAMP NOT NULL ENCODE RAW, who BIGINT, name VARCHAR(7)) DISTKEY(who) COMPOUND SORTKEY (at, who) ENCODE AUTO",
    )
    run(connection, "INSERT INTO t VALUES ('2015-05-17', 1, 'x')")
    connection.commit()
    shown = run(connection, 'SELECT "column", type, distkey, sortkey, "notnull" FROM pg_table_def WHERE tablename = %s', "t")
    assert shown == [
        ("at", "timestamp without time zone", False, 1, True),
        ("who", "bigint", True, 2, False),
        ("name", "character varying(7)", False, 0, False),
    ]
    info = run(connection, 'SELECT diststyle, sortkey1, sortkey_num, tbl_rows FROM svv_table_info WHERE "table" = %s', "t")
    assert info == [("KEY(who)", "at", 2, Decimal(1))]
    columns = "SELECT column_name, data_type, character_maximum_length FROM svv_columns WHERE table_name = 't' ORDER BY ordinal_position"
    assert run(connection, columns)[2] == ("name", "character varying", 7)


def test_a_varchar_counts_bytes(connection: Any) -> None:
    run(connection, "CREATE TABLE t (name VARCHAR(3), other TEXT)")
    run(connection, "CREATE TABLE copied (LIKE t)")
    run(connection, "ALTER TABLE t ADD COLUMN more VARCHAR(2)")
    run(connection, "INSERT INTO t VALUES ('éa', %s)", "x" * 256)
    connection.commit()
    for sql in (
        "INSERT INTO t VALUES ('éé')",
        "INSERT INTO copied VALUES ('éé')",
        "UPDATE t SET more = 'éa'",
        f"UPDATE t SET other = '{'x' * 257}'",
    ):
        problem = fails(connection, sql)
        assert problem["C"] == "22001" and problem["M"].startswith("value too long for type character varying("), problem


def test_a_varchar_grows_outside_of_transactions_only(connection: Any) -> None:
    run(connection, "CREATE TABLE t (name VARCHAR(3))")
    run(connection, "INSERT INTO t VALUES ('abc')")
    connection.commit()
    grow = "ALTER TABLE t ALTER COLUMN name TYPE VARCHAR(6)"
    assert fails(connection, grow)["C"] == "25001"
    connection.autocommit = True
    run(connection, grow)
    run(connection, "INSERT INTO t VALUES ('éèê')")
    assert fails(connection, "ALTER TABLE t ALTER COLUMN name TYPE BIGINT")["C"] == "0A000"
    run(connection, "ALTER TABLE t ALTER DISTKEY name")
    run(connection, "ALTER TABLE t ALTER COLUMN name ENCODE zstd")


def test_super_holds_json(connection: Any) -> None:
    run(connection, "CREATE TABLE t (doc SUPER)")
    run(connection, "INSERT INTO t VALUES (JSON_PARSE('{\"a\": [1, 2]}'))")
    cursor = connection.cursor()
    cursor.execute("SELECT doc FROM t")
    assert cursor.description[0][1] == 4000 and json.loads(cursor.fetchone()[0]) == {"a": [1, 2]}


def test_a_stage_like_another_table_is_its_sessions_alone(redshift: dict[str, Any], connection: Any) -> None:
    run(connection, EVENTS)
    connection.commit()
    run(connection, "CREATE TEMP TABLE stage (LIKE events INCLUDING DEFAULTS)")
    run(connection, "INSERT INTO stage (id) VALUES (1)")
    other = connect(redshift)
    assert fails(other, "SELECT * FROM stage")["C"] == "42P01"
    run(other, "CREATE TEMP TABLE stage (LIKE events)")
    run(other, "INSERT INTO stage (id) VALUES (1)")
    other.commit()
    connection.commit()
    other.close()


def test_settings_of_redshift_are_taken(connection: Any) -> None:
    for sql in (
        "SET query_group TO 'load'",
        "SET enable_result_cache_for_session TO off",
        "SET statement_timeout TO 60000",
        "RESET query_group",
    ):
        run(connection, sql)


# What commits by itself


def test_truncate_commits_the_transaction_that_it_is_in(redshift: dict[str, Any], connection: Any) -> None:
    run(connection, "CREATE TABLE a (id INT)")
    run(connection, "CREATE TABLE b (id INT)")
    run(connection, "INSERT INTO a VALUES (1)")
    connection.commit()
    run(connection, "INSERT INTO b VALUES (1)")
    run(connection, "TRUNCATE a")
    connection.rollback()
    assert run(connection, "SELECT (SELECT COUNT(*) FROM a), (SELECT COUNT(*) FROM b)") == [(0, 1)]
    connection.rollback()
    connection.autocommit = True
    run(connection, "TRUNCATE TABLE b")
    assert run(connection, "SELECT COUNT(*) FROM b") == [(0,)]


def test_vacuum_does_not_run_within_a_transaction(connection: Any) -> None:
    run(connection, "CREATE TABLE a (id INT)")
    connection.commit()
    for sql in ("VACUUM a", "VACUUM DELETE ONLY a TO 75 PERCENT BOOST"):
        assert fails(connection, sql)["C"] == "25001"
        connection.autocommit = True
        run(connection, sql)
        connection.autocommit = False
    run(connection, "ANALYZE a PREDICATE COLUMNS")


def test_tables_are_made_and_dropped_within_the_transaction(connection: Any) -> None:
    run(connection, "CREATE TABLE a (id INT) DISTSTYLE ALL")
    connection.rollback()
    assert fails(connection, "SELECT * FROM a")["C"] == "42P01"
    run(connection, "CREATE TABLE a (id INT)")
    connection.commit()
    run(connection, "DROP TABLE a")
    connection.rollback()
    assert run(connection, "SELECT * FROM a") == []


# COPY


def copy(url: str, options: str, table: str = "t") -> str:
    """A COPY."""
    return f"COPY {table} FROM '{url}' IAM_ROLE '{ROLE}' {options}"


def write(bucket: Any, key: str, text: str | bytes, *, packed: bool = False) -> str:
    """Write an object; its address."""
    data = text.encode() if isinstance(text, str) else text
    bucket.put_object(Bucket=BUCKET, Key=key, Body=gzip.compress(data) if packed else data)
    return f"s3://{BUCKET}/{key}"


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A name below which no other test writes."""
    return f"{request.node.name}/{uuid.uuid4().hex}"


def test_parquet_is_matched_by_position(connection: Any, bucket: Any, key: str) -> None:
    run(connection, "CREATE TABLE t (a BIGINT, b BIGINT, c VARCHAR(5))")
    connection.commit()
    url = write_parquet(bucket, f"{key}/x", pa.table({"b": pa.array([1]), "a": pa.array([2])}))
    run(connection, f"COPY t (a, b) FROM '{url}' IAM_ROLE default FORMAT PARQUET")
    assert run(connection, "SELECT a, b, c FROM t") == [(1, 2, None)]
    run(connection, copy(url, "FILLRECORD FORMAT AS PARQUET"))
    assert run(connection, "SELECT COUNT(*) FROM t WHERE a = 1 AND b = 2 AND c IS NULL") == [(2,)]
    problem = fails(connection, copy(url, "FORMAT AS PARQUET"))
    assert problem["M"] == "Spectrum Scan Error" and "Table columns: 3, Data columns: 2" in problem["D"] and url in problem["D"]


def write_parquet(bucket: Any, key: str, table: pa.Table) -> str:
    return str(put(bucket, key, table)["url"])


@pytest.mark.parametrize(
    "column, array, what",
    [
        ("INT", pa.array([1], pa.int64()), "Column type: INTEGER"),
        ("BIGINT", pa.array([1], pa.int32()), "Column type: BIGINT"),
        ("BIGINT", pa.array(["1"]), "Column type: BIGINT"),
        ("DECIMAL(18,6)", pa.array([Decimal("1.00")], pa.decimal128(18, 2)), "Column type: NUMERIC(18,6)"),
        ("DECIMAL(10,2)", pa.array([Decimal("1.00")], pa.decimal128(18, 2)), "Column type: NUMERIC(10,2)"),
        ("VARCHAR(3)", pa.array(["ok", "éé"]), "longer than the length defined in the table. Table: 3, Data: 4"),
        ("BIGINT NOT NULL", pa.array([1, None], pa.int64()), "Missing data for not-null field"),
    ],
)
def test_parquet_that_does_not_fit_the_table_is_refused(connection: Any, bucket: Any, key: str, column: str, array: Any, what: str) -> None:
    run(connection, f"CREATE TABLE t (a {column})")
    connection.commit()
    url = write_parquet(bucket, f"{key}/x", pa.table({"a": array}))
    problem = fails(connection, copy(url, "FORMAT AS PARQUET"))
    assert problem["M"] == "Spectrum Scan Error" and what in problem["D"] and url in problem["D"], problem
    assert run(connection, "SELECT COUNT(*) FROM t") == [(0,)]


def test_a_value_that_does_not_fit_is_in_the_system_tables_with_file_line_and_column(connection: Any, bucket: Any, key: str) -> None:
    run(connection, "CREATE TABLE t (a VARCHAR(3))")
    connection.commit()
    good, bad = (put(bucket, f"{key}/{name}", pa.table({"a": ["ok"] * 9 + [last]})) for name, last in (("good", "abc"), ("bad", "éé")))
    fails(connection, copy(manifest(bucket, f"{key}/m", good, bad), "FORMAT PARQUET MANIFEST"))
    found = run(connection, "SELECT TRIM(file_name), line_number, TRIM(column_name), TRIM(error_message) FROM sys_load_error_detail")
    assert [row[:3] for row in found] == [(bad["url"], 10, "a")] and "Table: 3, Data: 4" in found[0][3]
    padded = run(connection, "SELECT file_name FROM sys_load_error_detail")[0][0]
    assert len(padded) == 256, "Redshift pads these"


def test_a_manifest_names_all_files_or_none_is_loaded(connection: Any, bucket: Any, key: str) -> None:
    run(connection, "CREATE TABLE t (a BIGINT)")
    connection.commit()
    there = put(bucket, f"{key}/there", pa.table({"a": [1]}))
    gone = {**there, "url": f"s3://{BUCKET}/{key}/gone"}
    options = "FORMAT AS PARQUET MANIFEST"
    problem = fails(connection, copy(manifest(bucket, f"{key}/m", there, gone), options))
    assert f"{key}/gone" in problem["M"] and "does not exist" in problem["M"]
    run(connection, copy(manifest(bucket, f"{key}/m", there, {**gone, "mandatory": False}), options))
    assert run(connection, "SELECT COUNT(*) FROM t") == [(1,)]
    size = {**there, "meta": {"content_length": 7}}
    for entries, said in (
        ([size], "content_length"),
        ([{"url": there["url"]}], "meta.content_length"),
        ([{"url": "https://x/y"}], "Invalid S3 URL"),
        ([], "no entries"),
    ):
        assert said in fails(connection, copy(manifest(bucket, f"{key}/m", *entries), options))["M"]
    assert "json" in fails(connection, copy(write(bucket, f"{key}/m", "{"), options))["M"]
    assert "does not exist" in fails(connection, copy(f"s3://{BUCKET}/{key}/none", options))["M"]
    assert "does not exist" in fails(connection, copy("s3://no-such-bucket/none", "FORMAT AS PARQUET"))["M"]
    broken = write(bucket, f"{key}/broken", b"PAR1 is not all that it takes")
    assert broken in fails(connection, copy(broken, "FORMAT AS PARQUET"))["D"]
    assert run(connection, "SELECT COUNT(*) FROM t") == [(0,)]


@pytest.mark.parametrize(
    "statement, said",
    [
        ("COPY t FROM 's3://b/k' FORMAT AS PARQUET", "CREDENTIALS argument is required"),
        ("COPY t FROM 's3://b/k' IAM_ROLE 'me' FORMAT AS PARQUET", "Invalid credentials"),
        (f"COPY t FROM 's3://b/k' IAM_ROLE '{ROLE}' FORMAT AS PARQUET MAXERROR 0", "MAXERROR argument is not supported for PARQUET"),
        (f"COPY t FROM 's3://b/k' IAM_ROLE '{ROLE}' FORMAT AS PARQUET GZIP", "GZIP argument is not supported for PARQUET"),
        (f"COPY t FROM 's3://b/k' IAM_ROLE '{ROLE}' REGION 'eu-west-1' PARQUET", "REGION argument is not supported for PARQUET"),
        (f"COPY t FROM 's3://b/k' IAM_ROLE '{ROLE}' FORMAT AS NONSENSE", 'syntax error at or near "NONSENSE"'),
        (f"COPY t FROM 's3://b/k' IAM_ROLE '{ROLE}' CSV CSV", "redundant"),
        (f"COPY t FROM 's3://b/k' IAM_ROLE '{ROLE}' CSV AVRO", "AVRO"),
        (f"COPY t FROM 'emr://b/k' IAM_ROLE '{ROLE}'", "from S3 alone"),
        (f"COPY t (nothing) FROM 's3://{BUCKET}' IAM_ROLE '{ROLE}' CSV", '"nothing"'),
        (f"COPY nowhere FROM 's3://{BUCKET}' IAM_ROLE '{ROLE}' CSV", "does not exist"),
    ],
)
def test_a_copy_that_makes_no_sense_is_refused(connection: Any, bucket: Any, statement: str, said: str) -> None:
    run(connection, "CREATE TABLE t (id INT)")
    connection.commit()
    assert said in fails(connection, statement)["M"]


TYPES = "CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR(10), at TIMESTAMP, cost DECIMAL(18,6), ok BOOLEAN)"
AT = dt.datetime(2015, 5, 17, 10, 5, 3)


def test_csv_packed_or_not(connection: Any, bucket: Any, key: str) -> None:
    run(connection, TYPES)
    text = 'id,name,at,cost,ok\r\n1,"a ""b"",\nc",2015-05-17 10:05:03,1.5,true\r\n\r\n2,,,,\r\n3,\\N,2015-05-17T10:05:03Z,-0.000001,0\r\n'
    run(connection, copy(write(bucket, f"{key}/x.gz", text, packed=True), "FORMAT AS CSV GZIP IGNOREHEADER 1 IGNOREBLANKLINES"))
    expected = [
        (1, 'a "b",\nc', AT, Decimal("1.500000"), True),
        (2, "", None, None, None),
        (3, None, AT, Decimal("-0.000001"), False),
    ]
    assert run(connection, "SELECT * FROM t ORDER BY id") == expected
    run(connection, "DELETE FROM t")
    run(connection, copy(write(bucket, f"{key}/y", "2||||\n"), "EMPTYASNULL"))
    run(connection, copy(write(bucket, f"{key}/z", "4;NONE;1431857103;1;y\n"), "DELIMITER ';' NULL AS 'NONE' TIMEFORMAT 'epochsecs'"))
    run(connection, copy(write(bucket, f"{key}/w", "5,ééééééé\n"), "CSV FILLRECORD TRUNCATECOLUMNS"))
    assert run(connection, "SELECT * FROM t ORDER BY id") == [
        (2, None, None, None, None),
        (4, None, AT, Decimal(1), True),
        (5, "ééééé", None, None, None),
    ]


def test_json(connection: Any, bucket: Any, key: str) -> None:
    run(connection, TYPES)
    run(connection, "ALTER TABLE t ADD COLUMN doc SUPER")
    text = (
        '{"id": 1, "name": "é", "cost": 0.1, "ok": true, "doc": {"a": [1]}, "other": 1}\n{"at": "2015-05-17 10:05:03",\n "id": 2, "ID": 7} '
    )
    run(connection, copy(write(bucket, f"{key}/x.gz", text, packed=True), "FORMAT AS JSON 'auto' GZIP"))
    assert run(connection, "SELECT * FROM t ORDER BY id") == [
        (1, "é", None, Decimal("0.1"), True, '{"a": [1]}'),
        (2, None, AT, None, None, None),
    ]


BAD = "\n".join(
    [
        "1,ok,,,",
        "x,ok,,,",
        "3,ok",
        "4,ok,,,,5",
        "5,01234567890,,,",
        "6,ok,yesterday,,",
        ",ok,,,",
        "8,ok,,1e20,",
        "9,ok,,,maybe",
        f"{2**63},ok,,,",
        "11,fine,,,",
    ]
)
REASONS = [
    (2, "id", 1207),
    (3, "name", 1214),
    (4, "ok", 1202),
    (5, "name", 1204),
    (6, "at", 1206),
    (7, "id", 1213),
    (8, "cost", 1208),
    (9, "ok", 1210),
    (10, "id", 1216),
]


def test_rows_that_cannot_be_loaded_are_left_out_up_to_maxerror_and_said_where(connection: Any, bucket: Any, key: str) -> None:
    run(connection, TYPES)
    connection.commit()
    url = write(bucket, f"{key}/bad", BAD)
    problem = fails(connection, copy(url, "CSV"))
    assert problem["M"] == "Load into table 't' failed.  Check 'stl_load_errors' system table for details."
    first = "SELECT TRIM(filename), line_number, TRIM(colname), err_code, TRIM(raw_line), TRIM(raw_field_value) FROM stl_load_errors"
    assert run(connection, first) == [(url, 2, "id", 1207, "x,ok,,,", "x")]
    assert run(connection, "SELECT COUNT(*) FROM t") == [(0,)]
    connection.rollback()
    fails(connection, copy(url, "CSV MAXERROR 9"))
    run(connection, copy(url, "CSV MAXERROR AS 10"))
    assert run(connection, "SELECT pg_last_copy_count()") == [(2,)]
    assert run(connection, "SELECT id FROM t ORDER BY id") == [(1,), (11,)]
    connection.commit()
    reasons = "SELECT line_number, TRIM(colname), err_code FROM stl_load_errors WHERE query = pg_last_copy_id() ORDER BY line_number"
    assert run(connection, reasons) == REASONS
    assert any(b"could not be loaded" in notice.get(b"M", b"") for notice in connection.notices)


def test_files_that_are_not_what_they_are_said_to_be(connection: Any, bucket: Any, key: str) -> None:
    run(connection, TYPES)
    connection.commit()
    assert "compression" in fails(connection, copy(write(bucket, f"{key}/a", "1,,,,\n"), "CSV GZIP"))["M"]
    assert "stl_load_errors" in fails(connection, copy(write(bucket, f"{key}/b", b"1,\xff,,,\n"), "CSV"))["M"]
    assert "stl_load_errors" in fails(connection, copy(write(bucket, f"{key}/c", '[1]\n{"id": 2}'), "JSON 'auto'"))["M"]
    run(connection, copy(write(bucket, f"{key}/b", b"1,\xff,,,\n"), "CSV ACCEPTINVCHARS"))
    run(connection, copy(write(bucket, f"{key}/c", '[1]\n{"id": 2}'), "JSON 'auto' MAXERROR 2"))
    assert run(connection, "SELECT id, name FROM t ORDER BY id") == [(1, "?"), (2, None)]


def test_the_last_copy_is_known_after_a_rollback_and_queries_are_remembered(connection: Any, bucket: Any, key: str) -> None:
    run(connection, "CREATE TABLE t (a BIGINT)")
    connection.commit()
    assert run(connection, "SELECT pg_last_copy_id(), pg_last_copy_count()") == [(-1, 0)]
    connection.rollback()
    statement = copy(write_parquet(bucket, f"{key}/x", pa.table({"a": [1, 2]})), "PARQUET")
    run(connection, statement)
    connection.rollback()
    found = run(connection, "SELECT query, TRIM(querytxt), aborted FROM stl_query WHERE query = pg_last_copy_id()")
    assert [row[1:] for row in found] == [(statement, 0)] and run(connection, "SELECT pg_last_copy_count()") == [(2,)]
    connection.autocommit = True
    run(connection, statement)
    assert run(connection, "SELECT pg_last_copy_count(), (SELECT COUNT(*) FROM t)") == [(2, 2)]


# Transactions side by side


class Elsewhere:
    """A statement in a thread: what it waits for is seen from outside."""

    def __init__(self, connection: Any, sql: str) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(connection, sql))
        self._thread.start()

    def _run(self, connection: Any, sql: str) -> None:
        try:
            run(connection, sql)
        except redshift_connector.Error as problem:
            self.error = problem

    def end(self) -> BaseException | None:
        """Wait for its end; its error."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error


def await_lock(server: StandIn, settings: dict[str, Any]) -> None:
    """Wait until a session of the database waits for a lock."""
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{settings['database']}' AND wait_event_type = 'Lock'"
    until = time.monotonic() + 30
    while server.administer(waiting) == [["0"]]:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def two(redshift: dict[str, Any], connection: Any) -> Any:
    """Two connections to a database with the tables a and b."""
    for name in "ab":
        run(connection, f"CREATE TABLE {name} (id INT)")
    connection.commit()
    other = connect(redshift)
    yield connection, other
    other.close()


def test_transactions_that_each_read_what_the_other_writes_are_refused(two: Any) -> None:
    one, other = two
    run(one, "SELECT * FROM a")
    run(other, "SELECT * FROM b")
    run(one, "INSERT INTO b VALUES (1)")
    run(other, "INSERT INTO a VALUES (1)")
    one.commit()
    with pytest.raises(redshift_connector.ProgrammingError, match="1023.*Serializable isolation violation"):
        other.commit()
    other.rollback()
    assert run(other, "SELECT * FROM a") == []


def test_a_write_to_a_table_that_was_read_and_has_changed_since_is_refused_whatever_the_rows(two: Any) -> None:
    one, other = two
    run(other, "SELECT * FROM a WHERE id = 7")
    run(one, "INSERT INTO a VALUES (1)")
    one.commit()
    problem = fails(other, "INSERT INTO a VALUES (7)")
    assert problem["M"] == "1023" and problem["C"] == "XX000" and "transactions forming the cycle are" in problem["D"]
    run(other, "INSERT INTO a VALUES (7)")
    other.commit()


def test_blind_writes_to_one_table_wait_for_each_other_and_both_succeed(
    two: Any, redshift_server: StandIn, redshift: dict[str, Any]
) -> None:
    one, other = two
    run(one, "INSERT INTO a VALUES (1)")
    waits = Elsewhere(other, "INSERT INTO a VALUES (2)")
    await_lock(redshift_server, redshift)
    one.commit()
    assert waits.end() is None
    other.commit()
    assert run(one, "SELECT id FROM a ORDER BY id") == [(1,), (2,)]


def test_a_delete_that_waits_sees_what_was_committed_meanwhile(two: Any, redshift_server: StandIn, redshift: dict[str, Any]) -> None:
    one, other = two
    run(one, "INSERT INTO a VALUES (1)")
    waits = Elsewhere(other, "DELETE FROM a")
    await_lock(redshift_server, redshift)
    one.commit()
    assert waits.end() is None
    other.commit()
    assert run(one, "SELECT * FROM a") == []


def test_a_lock_that_is_taken_first_leaves_nothing_to_conflict(two: Any, redshift_server: StandIn, redshift: dict[str, Any]) -> None:
    """The ledger's way: who locks before it looks never meets error 1023."""
    one, other = two
    run(one, "LOCK TABLE a")
    assert run(one, "SELECT COUNT(*) FROM a") == [(0,)]
    waits = Elsewhere(other, "LOCK a")
    await_lock(redshift_server, redshift)
    run(one, "INSERT INTO a VALUES (1)")
    one.commit()
    assert waits.end() is None
    assert run(other, "SELECT COUNT(*) FROM a") == [(1,)]
    run(other, "INSERT INTO a VALUES (2)")
    other.commit()


def test_without_that_lock_two_that_look_before_they_insert_do_not_both_succeed(two: Any) -> None:
    one, other = two
    assert run(one, "SELECT COUNT(*) FROM a") == run(other, "SELECT COUNT(*) FROM a") == [(0,)]
    run(one, "INSERT INTO a VALUES (1)")
    one.commit()
    assert fails(other, "INSERT INTO a VALUES (1)")["M"] == "1023"


# Faults


def test_error_1023_on_demand_rolls_back(two: Any, redshift_faults: Control) -> None:
    one, other = two
    with redshift_faults.armed("insert into a", "1023", skip=1) as number:
        run(one, "INSERT INTO a VALUES (1)")
        assert fails(one, "INSERT INTO a VALUES (2)")["M"] == "1023"
        assert redshift_faults.hits(number) == 1
        run(one, "INSERT INTO a VALUES (3)")
    one.commit()
    assert run(other, "SELECT * FROM a") == [(3,)]


@pytest.mark.parametrize("action, kept", [("drop-before", []), ("drop-after", [(1,)])])
def test_a_commit_whose_answer_is_lost_took_effect_or_not(two: Any, redshift_faults: Control, action: str, kept: Any) -> None:
    one, other = two
    run(one, "INSERT INTO a VALUES (1)")
    redshift_faults.add("^commit", action)
    with pytest.raises(redshift_connector.InterfaceError):
        one.commit()
    assert run(other, "SELECT * FROM a") == kept


@pytest.mark.parametrize("action, kept", [("drop-before", []), ("drop-after", [(1,)])])
def test_so_does_a_statement_outside_of_a_transaction(two: Any, redshift_faults: Control, action: str, kept: Any) -> None:
    one, other = two
    one.autocommit = True
    redshift_faults.add("insert", action)
    with pytest.raises(redshift_connector.InterfaceError):
        run(one, "INSERT INTO a VALUES (1)")
    assert run(other, "SELECT * FROM a") == kept


def test_a_statement_is_held_until_the_fault_is_cleared(two: Any, redshift_faults: Control) -> None:
    one, other = two
    number = redshift_faults.add("insert into a", "hold")
    held = Elsewhere(one, "INSERT INTO a VALUES (1)")
    redshift_faults.await_hit(number)
    assert run(other, "SELECT COUNT(*) FROM a") == [(0,)]
    other.rollback()
    redshift_faults.clear(number)
    assert held.end() is None
    one.commit()
    assert run(other, "SELECT COUNT(*) FROM a") == [(1,)]


def test_errors_of_choice_connections_refused_and_faults_at_random(redshift: dict[str, Any], two: Any, redshift_faults: Control) -> None:
    one, _ = two
    redshift_faults.add("select", "error", code="53300", message="too many")
    assert fails(one, "SELECT 1") | {"S": ""} == {"S": "", "C": "53300", "M": "too many"}
    redshift_faults.add("^CONNECT$", "error", code="57P03", message="not now")
    with pytest.raises(redshift_connector.ProgrammingError, match="not now"):
        connect(redshift)
    connect(redshift).close()
    number = redshift_faults.add("insert", "1023", probability=0.5, times=None, seed=7)
    failed = 0
    for _ in range(40):
        try:
            run(one, "INSERT INTO a VALUES (1)")
            one.commit()
        except redshift_connector.ProgrammingError:
            one.rollback()
            failed += 1
    assert 5 < failed < 35 and redshift_faults.hits(number) == failed
    redshift_faults.clear()
    assert run(one, "SELECT COUNT(*) FROM a") == [(40 - failed,)]
    assert redshift_faults.statements().count("INSERT INTO a VALUES (1)") == 40


def test_orders_for_faults_that_make_no_sense_are_refused(redshift_faults: Control) -> None:
    for match, action in (("x", "explode"), ("(", "1023")):
        with pytest.raises(PenstockError):
            redshift_faults.add(match, action)


# The wire


def start(**values: str) -> bytes:
    """The first packet of a session."""
    return wire.start_up({"user": "penstock", **values})


def exchange(port: int, *data: bytes) -> bytes:
    """Send, half close, and read until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), 30) as raw:
        for piece in data:
            raw.sendall(piece)
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := raw.recv(65_536):
                found += piece
        return found


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x04",
        b"\x7f\xff\xff\xff",
        b"\0\0\0\x08\0\x02\0\0",
        b"\0\0\0\x0c\0\x03\0\0user",
        b"",
        b"\0\0\0\x08\x04\xd2\x16\x2f\0\0",
    ],
)
def test_a_first_packet_that_is_none_is_answered_or_dropped(redshift_server: StandIn, redshift: dict[str, Any], data: bytes) -> None:
    found = exchange(redshift_server.port, data)
    assert found in (b"", b"N") or found[:1] == b"E" or found[:2] == b"NE"
    connect(redshift).close()


@pytest.mark.parametrize(
    "data", [b"Q\0\0\0\x03", b"Q\x7f\xff\xff\xff", b"\0\0\0\0\x04", b"P\0\0\0\x06ab", b"B\0\0\0\x05a", b"~\0\0\0\x04", b"Q\0"]
)
def test_a_message_that_is_none_ends_its_session_alone(redshift_server: StandIn, redshift: dict[str, Any], data: bytes) -> None:
    found = exchange(redshift_server.port, start(database=redshift["database"]), data)
    assert found[:1] == b"R" and (data == b"Q\0" or b"C08P01" in found)
    connect(redshift).close()


def test_the_user_and_the_database_have_to_be_there(redshift: dict[str, Any]) -> None:
    with pytest.raises(redshift_connector.Error, match="does not exist"):
        connect({**redshift, "database": "nowhere"})


def test_a_password_is_asked_for_where_there_is_one(redshift_server: StandIn, redshift: dict[str, Any]) -> None:
    relay = Relay(Settings(("127.0.0.1", redshift_server.postgres), password="right"))
    try:
        settings = {name: redshift[name] for name in ("host", "database", "user", "ssl")} | {"port": relay.port}
        redshift_connector.connect(password="right", **settings).close()
        with pytest.raises(redshift_connector.InterfaceError, match="password authentication failed"):
            redshift_connector.connect(password="wrong", **settings)
    finally:
        relay.close()


def test_it_ends_all_sessions_when_it_ends(redshift_server: StandIn, redshift: dict[str, Any]) -> None:
    relay = Relay(Settings(("127.0.0.1", redshift_server.postgres)))
    connection = connect({**redshift, "port": relay.port})
    run(connection, "CREATE TABLE t (id INT)")
    relay.close()
    with pytest.raises(redshift_connector.InterfaceError):
        run(connection, "SELECT 1")
    with pytest.raises(redshift_connector.InterfaceError):
        connect({**redshift, "port": relay.port})
    assert fails(connect(redshift), "SELECT * FROM t")["C"] == "42P01"


def test_a_statement_that_is_cancelled_stops(redshift_server: StandIn, redshift: dict[str, Any], connection: Any) -> None:
    runs = Elsewhere(connection, "SELECT pg_sleep(600)")
    running = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{redshift['database']}' AND wait_event = 'PgSleep'"
    until = time.monotonic() + 30
    while redshift_server.administer(running) == [["0"]]:
        assert time.monotonic() < until
        time.sleep(0.01)
    exchange(redshift_server.port, wire.first(wire.CANCEL, connection._backend_key_data))
    assert "57014" in str(runs.end())
    connection.rollback()
    assert run(connection, "SELECT 1") == [(1,)]


def test_what_a_client_that_went_away_had_begun_is_rolled_back(redshift_server: StandIn, two: Any, redshift: dict[str, Any]) -> None:
    one, other = two
    run(one, "INSERT INTO a VALUES (1)")
    Elsewhere(one, "SELECT pg_sleep(600)")
    running = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{redshift['database']}' AND wait_event = 'PgSleep'"
    until = time.monotonic() + 30
    while redshift_server.administer(running) == [["0"]]:
        assert time.monotonic() < until
        time.sleep(0.01)
    one._usock.shutdown(socket.SHUT_RDWR)
    run(other, "LOCK a")
    assert run(other, "SELECT * FROM a") == []


def test_results_of_any_size_pass_through(connection: Any) -> None:
    assert run(connection, "SELECT REPEAT('x', 20000000)") == [("x" * 20_000_000,)]
    rows = run(connection, "SELECT n, REPEAT('y', 30) FROM generate_series(1, 100000) AS n")
    assert rows == [(n, "y" * 30) for n in range(1, 100_001)]
    assert run(connection, "SELECT LEN(%s)", "z" * 5_000_000) == [(5_000_000,)]
    problem = fails(connection, "SELECT '" + "z" * (17 << 20) + "'")
    assert problem["C"] == "54001" and "Maximum Allowed: 16777216" in problem["M"]


def test_many_sessions_at_once(redshift: dict[str, Any], connection: Any) -> None:
    run(connection, "CREATE TABLE t (id INT)")
    connection.commit()

    def work(number: int) -> None:
        mine = connect(redshift)
        for step in range(5):
            run(mine, "INSERT INTO t VALUES (%s)", 100 * number + step)
            mine.commit()
        mine.close()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(20)))
    assert run(connection, "SELECT id FROM t ORDER BY id") == sorted((100 * number + step,) for number in range(20) for step in range(5))


def test_simple_queries_of_several_statements(redshift: dict[str, Any], connection: Any) -> None:
    run(connection, "CREATE TABLE t (name VARCHAR(2))")
    connection.commit()
    sql = "INSERT INTO t VALUES ('a;b'::VARCHAR(1)); SELECT LEN(name) FROM t; -- nothing;\n"
    found = exchange(redshift["port"], start(database=redshift["database"]), wire.message(b"Q", wire.text(sql)), wire.message(b"X"))
    assert b"INSERT 0 1\0" in found and b"SELECT 1\0" in found and found.count(b"Z\0\0\0\x05I") == 2
    assert run(connection, "SELECT name FROM t") == [("a",)]


def test_clients_that_parse_without_a_name_and_send_all_at_once(redshift: dict[str, Any], connection: Any) -> None:
    """As libpq's do: a whole transaction before the first Sync."""
    run(connection, "CREATE TABLE t (id INT)")
    connection.commit()
    group = b"".join(
        wire.message(kind, body)
        for sql in ("BEGIN", "INSERT INTO t VALUES (1)", "DELETE FROM t", "INSERT INTO t VALUES (2)", "COMMIT")
        for kind, body in (
            (b"P", b"\0" + wire.text(sql) + b"\0\0"),
            (b"B", b"\0\0\0\0\0\0\0\0"),
            (b"E", b"\0\0\0\0\0"),
        )
    )
    found = exchange(redshift["port"], start(database=redshift["database"]), group + wire.message(b"S"), wire.message(b"X"))
    assert b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I" in found and found.count(b"INSERT 0 1\0") == 2, found
    assert run(connection, "SELECT id FROM t") == [(2,)]


def test_write_dataframe_of_the_driver_works(connection: Any) -> None:
    pandas = pytest.importorskip("pandas")
    run(connection, "CREATE TABLE t (a BIGINT, b VARCHAR(5))")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "é"]})
    connection.cursor().write_dataframe(frame, "t")
    assert run(connection, "SELECT * FROM t ORDER BY a") == [(1, "x"), (2, "é")]
