"""The warehouse in Redshift, as the stand-in is one: what COPY says of bad files, columns that moved, conflicts, and connections that are cut."""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from warehouse_worlds import ADS, H, Files, World, offsets, rows_of

from penstock.errors import ConfigurationError, LoadError, NotFoundError, QueryError, UnavailableError
from penstock.model.units import HOUR
from penstock.warehouse import Column, Dataset
from penstock.warehouse.redshift import RedshiftWarehouse
from penstock.warehouse.redshift.ledger import _PIECE

if TYPE_CHECKING:
    from penstock.stack.redshift.faults import Control


@pytest.fixture
def world(s3: dict[str, Any], redshift: dict[str, Any]) -> World:
    return World("redshift", (s3, redshift))


@pytest.fixture
def store(world: World) -> Iterator[RedshiftWarehouse]:
    found = world.open()
    found.prepare(ADS)
    yield found
    found.close()


@pytest.fixture
def files(world: World) -> Files:
    return Files(world.archive())


def of_load(control: Control) -> list[str]:
    """The statements of the last load, each by its first words."""
    found = [" ".join(sql.split()[:2]).upper() for sql in control.statements()]
    return found[len(found) - 1 - found[::-1].index("LOCK TABLE") - 1 :]


def grow(store: RedshiftWarehouse) -> None:
    """Add a column to the table, so that files without it are loaded by way of a temporary table."""
    store.prepare(dataclasses.replace(ADS, columns=(*ADS.columns[:1], Column("campaign", "int", False), *ADS.columns[1:])))


BEFORE = "BEGIN LOCK SELECT SELECT"  # the ledger, the dataset
AFTER = "SELECT DELETE INSERT COMMIT"  # what came, the ledger


def test_a_load_locks_before_it_reads_and_is_one_transaction(store: RedshiftWarehouse, files: Files, redshift_faults: Control) -> None:
    def load(*these: Any) -> str:
        assert store.load(*files.manifest(*these), 1) == "loaded"
        statements = of_load(redshift_faults)
        assert statements[:2] == ["BEGIN TRANSACTION", "LOCK TABLE"]
        return " ".join(one.split()[0] for one in statements)

    first, late, later = files.file(0, 6), files.file(6, 9), files.file(9, 12)
    columns, copied = "SELECT", "COPY SELECT"  # the table's, and how many rows it took
    assert load(first) == f"{BEFORE} {columns} {copied} {AFTER}"
    assert load(first, late) == f"{BEFORE} DELETE {columns} {copied} {AFTER}"
    grow(store)
    assert load(first, late, later) == f"{BEFORE} DELETE {columns} CREATE {copied} INSERT DROP {AFTER}"


STRAIGHT = ["lock table", "select \\* from", "copy", r"pg_last_copy_count", r"count\(\*\)", "insert into .*ledger", "^commit"]
REPLACED = ['delete from .*"ads"', *STRAIGHT]
STAGED = ["create temp", 'insert into .*"ads"', "drop table"]
WAYS = [(way, match) for way, all_ in (("new", STRAIGHT), ("again", REPLACED), ("grown", STAGED)) for match in all_]


@pytest.mark.parametrize(("way", "match"), WAYS)
def test_error_1023_at_any_statement_is_tried_again(
    store: RedshiftWarehouse, files: Files, world: World, redshift_faults: Control, way: str, match: str
) -> None:
    begin(store, files, way)
    with redshift_faults.armed(match, "1023", times=2) as fault:
        assert store.load(*files.manifest(files.file(0, 5), files.file(5, 9)), 2) == "loaded"
        assert redshift_faults.hits(fault) == 2
    assert offsets(store) == list(range(9)) and world.left_over() == []


@pytest.mark.parametrize("action", ["drop-before", "drop-after"])
@pytest.mark.parametrize(("way", "match"), [*WAYS, ("again", "CONNECT")])
def test_a_connection_cut_at_any_statement_loads_the_hour_once(
    store: RedshiftWarehouse, files: Files, world: World, redshift_faults: Control, way: str, match: str, action: str
) -> None:
    begin(store, files, way)
    with redshift_faults.armed(match, action) as fault:
        assert store.load(*files.manifest(files.file(0, 5), files.file(5, 9)), 2) == "loaded"
        assert redshift_faults.hits(fault) == 1
    assert offsets(store) == list(range(9)) and world.left_over() == []
    assert [(row.rows, row.loaded_at) for row in store.ledger("ads")] == [(9, 2)]


def begin(store: RedshiftWarehouse, files: Files, way: str) -> None:
    """What is there before the load that a test is about."""
    if way != "new":
        store.load(*files.manifest(files.file(0, 5)), 1)
    if way == "grown":
        grow(store)


@pytest.mark.parametrize("step", ["stage", "insert"])
def test_a_loader_killed_at_a_step_of_a_table_that_has_grown_leaves_the_hour_as_it_was(
    store: RedshiftWarehouse, files: Files, world: World, step: str
) -> None:
    """The other steps are those of every load: see the contract."""
    begin(store, files, "grown")
    loads = files.manifest(files.file(0, 5), files.file(5, 9))
    loader = multiprocessing.get_context("spawn").Process(target=load_and_die, args=(world, step, *loads))
    loader.start()
    loader.join(60)
    assert loader.exitcode == -signal.SIGKILL
    assert offsets(store) == list(range(5)) and [row.rows for row in store.ledger("ads")] == [5]
    assert store.load(*loads, 3) == "loaded"
    assert offsets(store) == list(range(9)) and world.left_over() == []


def load_and_die(world: World, step: str, *loads: Any) -> None:
    """Load in a process that is killed at a step of the load."""
    store = world.open()
    store.step = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == step else None
    store.load(*loads, 2)


@pytest.mark.parametrize(("left", "first", "end"), [(9, 0, 9), (9, 4, 9), (3, 4, 9), (5, 4, 9)])
def test_rows_that_the_ledger_does_not_know_of_are_replaced(
    store: RedshiftWarehouse, files: Files, redshift_server: Any, redshift: dict[str, Any], left: int, first: int, end: int
) -> None:
    """The hour's row in the ledger was removed by hand, to load what is left of its files; as many rows as are new, or more, or fewer."""
    other = files.file(0, 4, hour=H + HOUR)
    store.load(*files.manifest(files.file(0, left)), 1)
    store.load(*files.manifest(other), 1)
    redshift_server.administer("DELETE FROM penstock_ledger WHERE hour = '2015-05-17 10:00:00'", redshift["database"])
    assert store.load(*files.manifest(files.file(first, end)), 2) == "loaded"
    assert offsets(store) == sorted([*range(first, end), *range(4)])
    assert [row.rows for row in store.ledger("ads")] == [end - first, 4]


def test_rows_loaded_by_hand_are_replaced_by_files_without_any(
    store: RedshiftWarehouse, files: Files, redshift_server: Any, redshift: dict[str, Any]
) -> None:
    redshift_server.administer("INSERT INTO ads (ts, log_offset) VALUES ('2015-05-17 10:59:59', 1)", redshift["database"])
    assert store.load(*files.manifest(files.file(0, 0)), 2) == "loaded"
    assert offsets(store) == [] and [row.rows for row in store.ledger("ads")] == [0]


@pytest.mark.parametrize("rows", [0, 5])
def test_a_table_that_holds_other_rows_than_its_files_gave_fails_the_load(
    store: RedshiftWarehouse, files: Files, world: World, redshift_server: Any, redshift: dict[str, Any], rows: int
) -> None:
    """As if COPY took times for other ones."""
    if rows:
        store.load(*files.manifest(files.file(0, rows)), 1)
    for statement in (
        "CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.log_offset = 7 THEN NEW.ts = '2015-05-17 11:00:00'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER moves BEFORE INSERT ON ads FOR EACH ROW EXECUTE FUNCTION moved()",
    ):
        redshift_server.administer(statement, redshift["database"])
    with pytest.raises(LoadError, match="the manifest has 9 rows, COPY took 9, and 8 came to lie within the hour by 'ts'"):
        store.load(*files.manifest(files.file(0, 9)), 2)
    assert offsets(store) == list(range(rows)) and world.left_over() == []
    assert [row.rows for row in store.ledger("ads")] == ([rows] if rows else [])


def test_a_commit_whose_answer_never_comes_is_resolved_from_the_ledger_and_else_said_to_be_in_doubt(
    s3: dict[str, Any], redshift: dict[str, Any], store: RedshiftWarehouse, files: Files, redshift_faults: Control
) -> None:
    loads = files.manifest(files.file(0, 5))
    with redshift_faults.armed("^commit", "drop-after"):
        assert store.load(*loads, 1) == "loaded"
    copies = [sql for sql in redshift_faults.statements() if sql.upper().startswith("COPY")]
    assert len(copies) == 1  # the second try saw it in the ledger
    once = RedshiftWarehouse({**redshift, "attempts": 1}, store.archive)
    more = files.manifest(files.file(0, 5), files.file(5, 9))
    with redshift_faults.armed("^commit", "drop-after"):
        with pytest.raises(UnavailableError, match="may be committed or not"):
            once.load(*more, 2)
    assert once.load(*more, 3) == "unchanged"
    assert offsets(store) == list(range(9))


def test_tries_come_to_an_end_and_the_error_says_how_many_there_were(
    redshift: dict[str, Any], store: RedshiftWarehouse, files: Files, redshift_faults: Control
) -> None:
    twice = RedshiftWarehouse({**redshift, "attempts": 2}, store.archive, pause=0.001)
    with redshift_faults.armed("copy", "1023", times=None):
        with pytest.raises(UnavailableError, match="ads 2015-05-17T10: tried 2 times: .*[Ss]erializable isolation violation"):
            twice.load(*files.manifest(files.file(0, 5)), 1)
    assert offsets(store) == []
    redshift_faults.add("copy", "error", code="42501", message="permission denied for relation x")
    with pytest.raises(ConfigurationError, match="COPY may not read the archive"):
        store.load(*files.manifest(files.file(0, 5)), 1)


def test_an_address_that_nobody_answers_is_unavailable_and_a_wrong_database_is_a_mistake(
    redshift: dict[str, Any], store: RedshiftWarehouse
) -> None:
    with pytest.raises(UnavailableError, match="tried 2 times: Redshift at 127.0.0.1:1 cannot be reached"):
        RedshiftWarehouse({**redshift, "port": 1, "attempts": 2}, store.archive, pause=0.001).ledger("ads")
    with pytest.raises(ConfigurationError, match="nowhere"):
        RedshiftWarehouse({**redshift, "database": "nowhere"}, store.archive).ledger("ads")
    with pytest.raises(ConfigurationError, match="speaks no TLS"):
        RedshiftWarehouse({**redshift, "ssl": True}, store.archive).ledger("ads")


def test_a_value_that_does_not_fit_is_told_with_its_file_and_column(store: RedshiftWarehouse, files: Files, world: World) -> None:
    """A column that somebody narrowed by hand in the dataset's description, so that COPY meets text that is too long."""
    narrow = dataclasses.replace(
        ADS, name="narrow", columns=tuple(dataclasses.replace(c, max_bytes=3) if c.name == "hour" else c for c in ADS.columns)
    )
    store.prepare(narrow)
    entry, path = files.file(0, 300)
    manifest = dataclasses.replace(files.manifest((entry, path))[0], dataset="narrow")
    with pytest.raises(LoadError) as told:
        store.load(manifest, [path], 1)
    assert path in told.value.message and "hour" in told.value.message and "nothing was loaded" in told.value.message
    assert store.ledger("narrow") == [] and world.left_over() == []


def test_files_of_three_schemas_load_side_by_side_by_the_names_of_their_columns(store: RedshiftWarehouse, files: Files) -> None:
    """COPY fits Parquet by position: here the table has its columns in another order than any file."""
    table = rows_of(10, 15)
    store.load(*files.manifest(files.file(0, 5)), 1)
    campaign = pa.field("campaign", pa.int64())
    wide = dataclasses.replace(ADS, columns=(*ADS.columns[:1], Column("campaign", "int", False), *ADS.columns[1:]))
    wider = dataclasses.replace(wide, columns=(Column("paid", "bool", False), *wide.columns))
    store.prepare(wide)
    store.prepare(wider)
    first = files.file(0, 5)
    second = files.file(5, 10, rows_of(5, 10).add_column(1, campaign, pa.array(range(50, 55), pa.int64())))
    third = table.add_column(1, campaign, pa.array([7, None, 7, 7, 7], pa.int64())).add_column(
        0, pa.field("paid", pa.bool_()), pa.array([True] * 5)
    )
    assert store.load(*files.manifest(first, second, files.file(10, 15, third)), 2) == "loaded"
    found = store.query("SELECT log_offset, advertiser, campaign, paid, cost FROM ads ORDER BY log_offset").to_pylist()
    assert [row["advertiser"] for row in found] == list(range(15))
    assert [row["campaign"] for row in found] == [None] * 5 + [50, 51, 52, 53, 54, 7, None, 7, 7, 7]
    assert [row["paid"] for row in found] == [None] * 10 + [True] * 5
    assert found[1]["cost"] == decimal.Decimal("0.125")


def test_text_that_may_grow_grows_in_the_table(store: RedshiftWarehouse) -> None:
    def lengths() -> Any:
        return store.query(
            "SELECT character_maximum_length n FROM information_schema.columns WHERE table_name = 'ads' AND column_name = 'hour'"
        ).to_pydict()

    before = lengths()
    longer = dataclasses.replace(
        ADS, columns=tuple(dataclasses.replace(c, max_bytes=20_000) if c.name == "hour" else c for c in ADS.columns)
    )
    store.prepare(longer)
    assert lengths() != before
    after = lengths()
    store.prepare(ADS)  # a process of the older schema: the column stays as it is
    assert lengths() == after


def test_two_that_prepare_at_once_make_one_table(world: World, files: Files) -> None:
    problems: list[BaseException] = []

    def prepare() -> None:
        try:
            world.open().prepare(ADS)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert world.open().load(*files.manifest(files.file(0, 3)), 1) == "loaded"


def test_a_table_that_penstock_did_not_make_is_left_alone(world: World, redshift: dict[str, Any], redshift_server: Any) -> None:
    redshift_server.administer("CREATE TABLE ads (mine int)", redshift["database"])
    with pytest.raises(ConfigurationError, match="'ads' cannot be made .*already exists"):
        world.open().prepare(ADS)
    assert world.open().query("SELECT mine FROM ads").to_pydict() == {"mine": []}


def test_tables_lie_in_the_schema_that_the_deployment_names(world: World, redshift: dict[str, Any], files: Files) -> None:
    store = RedshiftWarehouse({**redshift, "schema": "order"}, world.archive())
    store.prepare(ADS)
    assert store.load(*files.manifest(files.file(0, 3)), 1) == "loaded"
    assert store.query('SELECT count(*) n FROM "order".ads').to_pydict() == {"n": [3]}
    assert world.open().ledger("ads") == []  # the schema public has none


def test_ranges_that_no_varchar_holds_are_kept_in_parts(store: RedshiftWarehouse, files: Files) -> None:
    entry, path = files.file(0, 1)
    entries = [dataclasses.replace(entry, shard=f"{'s' * 100}-{n}", first=2 * n, next=2 * n + 1) for n in range(2000)]
    manifest = dataclasses.replace(files.manifest((entry, path))[0], entries=tuple(entries))
    assert len(str(manifest.ranges)) > 3 * _PIECE
    from penstock.warehouse.redshift import ledger
    from penstock.warehouse.redshift.connection import Connection

    connection = Connection(store.settings)
    ledger.enter(connection, "public", manifest, 5)
    connection.commit()
    connection.close()
    (row,) = store.ledger("ads")
    assert row.ranges == manifest.ranges and row.rows == 2000 and row.loaded_at == 5


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS one INTO mine",
        "WITH x AS (SELECT 1) SELECT * INTO mine FROM x",
        "EXPLAIN ANALYZE DELETE FROM ads",
        "SELECT nextval('s')",
    ],
)
def test_a_query_writes_nothing(store: RedshiftWarehouse, files: Files, sql: str) -> None:
    store.load(*files.manifest(files.file(0, 3)), 1)
    with pytest.raises(QueryError):
        store.query(sql)
    assert offsets(store) == [0, 1, 2]


def test_a_read_of_the_ledger_waits_for_no_load(store: RedshiftWarehouse, files: Files, redshift_faults: Control) -> None:
    store.load(*files.manifest(files.file(0, 3)), 1)
    with redshift_faults.armed("^copy", "hold") as fault:
        loading = threading.Thread(target=store.load, args=(*files.manifest(files.file(0, 3, hour=H + HOUR)), 2))
        loading.start()
        redshift_faults.await_hit(fault)
        assert [row.hour for row in store.ledger("ads")] == [H]
        assert offsets(store) == [0, 1, 2]
    loading.join(60)
    assert [row.hour for row in store.ledger("ads")] == [H, H + HOUR]


def test_a_manifest_that_a_killed_loader_left_is_swept_by_the_next_load(store: RedshiftWarehouse, files: Files, world: World) -> None:
    left = f"{store._manifests.folder}/ads-2015-05-17T09-0.json"
    world.archive().write(left, b"{}")
    world.archive().write("_manifests/of-another-warehouse/ads-2015-05-17T09-0.json", b"{}")
    store.load(*files.manifest(files.file(0, 3)), 1)
    assert [file.path for file in world.archive().files("_manifests")] == ["_manifests/of-another-warehouse/ads-2015-05-17T09-0.json"]


def test_a_session_makes_one_connection_and_a_new_one_after_an_error(
    store: RedshiftWarehouse, files: Files, redshift_faults: Control
) -> None:
    timeouts = "SET statement_timeout"  # what a connection begins with
    with store.session():
        for n in range(3):
            store.load(*files.manifest(files.file(0, 3, hour=H + n * HOUR)), 1)
        with contextlib.suppress(QueryError):
            store.query("SELECT * FROM nowhere")
        store.ledger("ads")
    found = [sql for sql in redshift_faults.statements() if sql.startswith(timeouts)]
    assert len(found) == 1 + 2  # preparing, and two of the session


def test_a_session_goes_on_after_a_load_of_what_was_never_prepared(world: World, files: Files) -> None:
    store, loads = world.open(), files.manifest(files.file(0, 3))
    with store.session():
        assert store.ledger("ads") == []
        with pytest.raises(NotFoundError, match="no dataset 'ads'"):
            store.load(*loads, 1)
        store.prepare(ADS)
        assert store.load(*loads, 1) == "loaded"


def test_a_large_file_is_checked_on_disk_and_a_footer_may_be_enough(
    store: RedshiftWarehouse, files: Files, redshift: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.warehouse.redshift.files._IN_MEMORY", 0)
    one, two = files.file(0, 5), files.file(5, 9)
    assert store.load(*files.manifest(one), 1) == "loaded"
    data = files.archive.read(two[0].path)
    files.damage(two, data[:50] + bytes([data[50] ^ 1]) + data[51:])
    with pytest.raises(LoadError, match="SHA-256"):
        store.load(*files.manifest(one, two), 2)
    quick = RedshiftWarehouse({**redshift, "verify": "footer"}, store.archive)
    files.damage(two, data + b"x")
    with pytest.raises(LoadError, match=f"holds {len(data) + 1} bytes, not the {len(data)}"):
        quick.load(*files.manifest(one, two), 2)
    files.archive.remove([two[0].path])
    with pytest.raises(LoadError, match="g-ads-i-0-5-9.* is not there"):
        quick.load(*files.manifest(one, two), 2)
    files.damage(two, data)
    assert quick.load(*files.manifest(one, two), 2) == "loaded"


def test_an_archive_in_a_folder_cannot_be_loaded_from(redshift: dict[str, Any], tmp_path: Any) -> None:
    from penstock.archive.directory import DirectoryArchive

    archive = DirectoryArchive(tmp_path)
    store = RedshiftWarehouse(redshift, archive)
    store.prepare(ADS)
    files = Files(archive)
    with pytest.raises(ConfigurationError, match="Redshift loads from S3"):
        store.load(*files.manifest(files.file(0, 3)), 1)


@pytest.mark.parametrize("seed", range(3))
def test_with_faults_at_random_every_hour_is_there_once(
    store: RedshiftWarehouse, files: Files, world: World, redshift_faults: Control, seed: int
) -> None:
    """Twelve hours, each loaded again with a late file, by two loaders; connections are cut and transactions refused at one statement in thirty."""
    for number, action in enumerate(("drop-before", "drop-after", "1023")):
        redshift_faults.add(".", action, times=None, probability=1 / 90, seed=10 * seed + number)
    loads = []
    for n in range(12):
        first, late = files.file(0, 20, hour=H + n * HOUR), files.file(20, 30, hour=H + n * HOUR)
        loads += [files.manifest(first), files.manifest(first, late)]

    def load_all() -> None:
        mine = world.open()
        for manifest, paths in loads:
            while True:
                try:
                    mine.load(manifest, paths, 1)
                    break
                except UnavailableError:
                    continue
                except LoadError as problem:  # the other one has loaded the late file: what is here would lose it
                    assert "no longer has all" in problem.message
                    break

    threads = [threading.Thread(target=load_all) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    redshift_faults.clear()
    assert [(row.hour, row.rows) for row in store.ledger("ads")] == [(H + n * HOUR, 30) for n in range(12)]
    assert offsets(store) == sorted([*range(30)] * 12)
    assert world.left_over() == []


LIVE = {"host": "PENSTOCK_REDSHIFT_HOST", "database": "PENSTOCK_REDSHIFT_DATABASE", "user": "PENSTOCK_REDSHIFT_USER"}


@pytest.mark.skipif(
    any(
        name not in os.environ
        for name in (*LIVE.values(), "PENSTOCK_REDSHIFT_PASSWORD", "PENSTOCK_REDSHIFT_IAM_ROLE", "PENSTOCK_REDSHIFT_BUCKET")
    ),
    reason="loads into a real Redshift: set PENSTOCK_REDSHIFT_HOST, _DATABASE, _USER, _PASSWORD, _IAM_ROLE and _BUCKET (docs/redshift.md)",
)
def test_live_a_real_redshift_loads_an_hour_once_and_takes_a_late_file() -> None:
    """In a schema of its own, which is left empty of tables."""
    import uuid

    from penstock.archive.s3 import S3Archive

    run = uuid.uuid4().hex[:8]
    settings = {name: os.environ[variable] for name, variable in LIVE.items()}
    settings |= {
        "iam_role": os.environ["PENSTOCK_REDSHIFT_IAM_ROLE"],
        "password": {"env": "PENSTOCK_REDSHIFT_PASSWORD"},
        "schema": "penstock_test",
    }  # type: ignore[dict-item]
    archive = S3Archive({"bucket": os.environ["PENSTOCK_REDSHIFT_BUCKET"], "prefix": f"penstock-test-{run}"})
    store, files = RedshiftWarehouse(settings, archive), Files(archive)
    live = Dataset(f"ads_{run}", ADS.columns, ADS.time, ADS.key)
    written: list[str] = []

    def manifest(*these: Any) -> Any:
        written.extend(entry.path for entry, _ in these)
        found, paths = files.manifest(*these)
        return dataclasses.replace(found, dataset=live.name), paths

    try:
        store.prepare(live)
        first, late = files.file(0, 1000), files.file(1000, 1500)
        assert store.load(*manifest(first), 1) == "loaded"
        assert store.load(*manifest(first), 1) == "unchanged"
        assert store.load(*manifest(first, late), 2) == "loaded"
        found = store.query(f'SELECT * FROM penstock_test."{live.name}" ORDER BY log_offset')
        assert (
            found.select(ADS.columns[n].name for n in range(len(ADS.columns))).to_pylist()
            == pa.concat_tables([rows_of(0, 1000), rows_of(1000, 1500)]).to_pylist()
        )
        with pytest.raises(LoadError, match="no longer has all"):
            store.load(*manifest(first), 3)
    finally:
        from penstock.warehouse.redshift.connection import Connection

        connection = Connection(store.settings)
        for statement in (
            f'DROP TABLE IF EXISTS penstock_test."{live.name}"',
            f"DELETE FROM penstock_test.penstock_ledger WHERE dataset = '{live.name}'",
        ):
            connection.execute(statement)
        connection.execute(f"DELETE FROM penstock_test.penstock_datasets WHERE dataset = '{live.name}'")
        connection.commit()
        connection.close()
        archive.remove(sorted(set(written)))
