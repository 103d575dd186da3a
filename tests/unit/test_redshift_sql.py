"""The SQL that Redshift is given, and the SQL that a user may give it."""

from __future__ import annotations

import dataclasses

import pytest

from penstock.errors import ConfigurationError, QueryError
from penstock.model import Bool, Decimal, Enum, Int, Schema, String, Timestamp
from penstock.warehouse import Column
from penstock.warehouse.datasets import dataset_of, datasets_of, grown
from penstock.warehouse.redshift.ddl import changes, copy, create_stage, create_table, literal, quoted
from penstock.warehouse.redshift.statement import check_reading

SCHEMA = Schema(
    "ads",
    time="ts",
    key="order",
    fields={
        "ts": Timestamp("ms"),
        "order": Int(),
        "name": String(max_bytes=100),
        "type": Enum("click", "save"),
        "cost": Decimal(6, nullable=True),
        "paid": Bool(),
    },
)


def test_a_table_has_the_schemas_types_its_key_and_its_time() -> None:
    assert create_table(dataset_of(SCHEMA), "analytics").splitlines() == [
        'CREATE TABLE "analytics"."ads" (',
        '    "ts" TIMESTAMP,',
        '    "order" BIGINT,',
        '    "name" VARCHAR(100),',
        '    "type" VARCHAR(64),',
        '    "cost" DECIMAL(18,6),',
        '    "paid" BOOLEAN,',
        '    "partition_id" BIGINT,',
        '    "log_offset" BIGINT,',
        '    "log_time" TIMESTAMP',
        ') DISTSTYLE KEY DISTKEY ("order") SORTKEY ("ts")',
    ]


def test_without_a_key_redshift_spreads_the_rows_as_it_likes_and_text_is_never_longer_than_a_varchar() -> None:
    rejects = create_table(datasets_of(SCHEMA)[2])
    assert rejects.endswith(') DISTSTYLE AUTO SORTKEY ("log_time")')
    assert '"value" VARCHAR(65535)' in rejects


def test_a_stage_has_the_columns_of_the_files_in_their_order() -> None:
    assert create_stage("penstock_stage_0", dataset_of(SCHEMA), ("ts", "name", "cost")) == (
        'CREATE TEMP TABLE "penstock_stage_0" ("ts" TIMESTAMP, "name" VARCHAR(100), "cost" DECIMAL(18,6)) DISTSTYLE EVEN SORTKEY ("ts")'
    )


def test_copy_names_role_and_manifest_and_nothing_that_columnar_files_do_not_take() -> None:
    assert copy("s", "s3://b/it's.json", "arn:aws:iam::123456789012:role/x") == (
        "COPY \"s\" FROM 's3://b/it''s.json' IAM_ROLE 'arn:aws:iam::123456789012:role/x' FORMAT AS PARQUET MANIFEST"
    )
    assert "IAM_ROLE default FORMAT" in copy("s", "s3://b/m.json", "default")


@pytest.mark.parametrize("text", ["a\\b", "a\nb", "a\0b"])
def test_what_could_be_read_in_two_ways_is_no_text_of_a_statement(text: str) -> None:
    with pytest.raises(ConfigurationError):
        literal(text)


@pytest.mark.parametrize("name", ['a"b', "A", "", "a-b", "1a", "a" * 128])
def test_an_identifier_is_plain(name: str) -> None:
    with pytest.raises(ConfigurationError, match="usable name"):
        quoted(name)


def test_columns_are_added_text_grows_and_never_shrinks() -> None:
    known = dataset_of(SCHEMA)
    longer = tuple(dataclasses.replace(c, max_bytes={"name": 200, "type": 70}.get(c.name, c.max_bytes)) for c in known.columns)
    wider = dataclasses.replace(known, columns=(longer[0], Column("campaign", "int", False), *longer[1:]))
    widen, add = changes(known, grown(known, wider), "public")
    assert widen == [
        'ALTER TABLE "public"."ads" ALTER COLUMN "name" TYPE VARCHAR(200)',
        'ALTER TABLE "public"."ads" ALTER COLUMN "type" TYPE VARCHAR(70)',
    ]
    assert add == ['ALTER TABLE "public"."ads" ADD COLUMN "campaign" BIGINT']
    back = grown(grown(known, wider), dataclasses.replace(wider, columns=(*known.columns, Column("campaign", "int", True))))
    assert changes(grown(known, wider), back, "public") == ([], [])
    assert {c.name: c.max_bytes for c in back.columns}["name"] == 200


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        " select 1 ; ",
        "-- what\nWITH x AS (SELECT ';' AS a) SELECT * FROM x;-- that",
        "/* ; */ (SELECT 1)",
        "SELECT $$;$$",
        'SELECT 1 AS ";"',
        "EXPLAIN SELECT 1",
    ],
)
def test_one_statement_that_reads_is_let_through_without_what_follows_it(sql: str) -> None:
    assert not check_reading(sql).endswith(";")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "0 statements"),
        (" ;; ", "0 statements"),
        ("-- nothing", "0 statements"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT 1; -- x\n DROP TABLE ads", "2 statements"),
        ("UNLOAD ('SELECT 1') TO 's3://b/x'", "read-only, and this one begins with UNLOAD"),
        ("commit", "begins with COMMIT"),
        ("/* SELECT */ delete from ads", "begins with DELETE"),
        ("CALL p()", "begins with CALL"),
    ],
)
def test_several_statements_none_and_those_that_write_are_refused(sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        check_reading(sql)


def test_check_prints_the_tables_of_an_export_for_both_warehouses() -> None:
    import json

    import duckdb
    from click.testing import CliRunner

    from penstock.cli import cli

    shown = CliRunner().invoke(cli, ["check", "advertiser_analytics", "--ddl"])
    assert shown.exit_code == 0, shown.output
    mine, theirs = shown.output.split("-- redshift\n")
    with duckdb.connect() as connection:
        connection.execute(mine)  # as it stands
        made = {name for (name,) in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()}
    assert {"ads", "ads_late", "ads_rejects", "rollup_by_advertiser_country_1h", "rollup_by_advertiser_1d"} <= made
    assert theirs.count("CREATE TABLE") == len(made) and theirs.count("SORTKEY") == len(made)
    data = json.loads(CliRunner().invoke(cli, ["check", "advertiser_analytics", "--ddl", "--json"]).output)
    assert set(data) == {"duckdb", "redshift"} and set(data["duckdb"]) == set(data["redshift"]) == made
