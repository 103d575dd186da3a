"""Real servers in a stack of the test's own: what they hold survives a kill -9, and `down` leaves no process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.deployment import Deployment
from penstock.errors import UsageError
from penstock.stack import SERVERS, Stack, probe
from penstock.stack.ports import is_free
from penstock.stack.process import marked

pytestmark = pytest.mark.servers


@pytest.fixture
def own() -> Iterator[Stack]:
    """A stack in a folder that every user may enter, as PostgreSQL has to where the tests run as root. Nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="penstock-stack-") as folder:
        os.chmod(folder, 0o755)
        made = Stack(Path(folder) / "state")
        try:
            yield made
        finally:
            made.down(wipe=True)
        assert processes_of(made) == [] and not made.state.folder.exists()


def processes_of(stack: Stack) -> list[int]:
    """All processes that carry the marks of a stack, whoever started them."""
    return [process.pid for server in SERVERS for process in marked(f"{stack.state.folder}:{server}")]


def kill(stack: Stack, name: str) -> None:
    """kill -9, and wait until it is seen as dead."""
    os.kill(stack.processes()[name], signal.SIGKILL)
    until = time.monotonic() + 10
    while name in stack.processes():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert {one.health for one in stack.status() if one.name == name} == {"dead"}


def test_kafka_keeps_what_it_acknowledged_over_a_kill_and_over_down_and_up(own: Stack) -> None:
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import KafkaAdminClient, NewTopic

    assert own.up(["kafka"]) == {"kafka": True}
    assert own.up(["kafka"]) == {"kafka": False}
    bootstrap = own.settings()["kafka"]["bootstrap"]
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
    admin.close()

    def produce(numbers: range) -> None:
        producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
        for sent in [producer.send("kept", b"%d" % number, partition=0) for number in numbers]:
            sent.get(timeout=30)
        producer.close()

    def held() -> list[int]:
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        consumer.assign([TopicPartition("kept", 0)])
        end = consumer.end_offsets([TopicPartition("kept", 0)])[TopicPartition("kept", 0)]
        found: list[int] = []
        while len(found) < end:
            found += [int(record.value) for records in consumer.poll(timeout_ms=500).values() for record in records]
        consumer.close()
        return found

    produce(range(500))
    kill(own, "kafka")
    own.start("kafka")
    os.kill(own.processes()["kafka"], signal.SIGKILL)  # and not waited for: it seems to run for a moment yet
    assert own.start("kafka") == {"kafka": True}
    assert own.settings()["kafka"]["bootstrap"] == bootstrap
    assert held() == list(range(500))
    produce(range(500, 600))
    assert own.down() == ["kafka"] and processes_of(own) == [] and is_free(own.state.ports["kafka"])
    own.up(["kafka"])
    assert held() == list(range(600))


def test_hbase_keeps_what_it_acknowledged_over_a_kill(own: Stack) -> None:
    import happybase

    own.up(["hbase"])
    settings = own.settings()["hbase"]

    def connect() -> happybase.Connection:
        return happybase.Connection(settings["host"], settings["port"], timeout=60_000)

    connection = connect()
    connection.create_table("kept", {"c": {"max_versions": 1}})
    rows = {b"row %04d" % number: {b"c:n": b"%d" % number} for number in range(1_000)}
    with connection.table("kept").batch(batch_size=100) as batch:
        for row, cells in rows.items():
            batch.put(row, cells)
    kill(own, "hbase")
    assert own.start("hbase") == {"hbase": True, "hbase-thrift": False, "hbase-thrift2": False}
    assert dict(connect().table("kept").scan()) == rows
    kill(own, "hbase-thrift")
    assert own.up(["hbase"]) == {"hbase": False, "hbase-thrift": True, "hbase-thrift2": False}
    assert dict(connect().table("kept").scan()) == rows


def test_each_daemon_of_storm_comes_back_after_a_kill(own: Stack) -> None:
    own.up(["storm"])
    port = own.settings()["storm"]["nimbus"].rpartition(":")[2]
    for name in ("supervisor", "nimbus", "zookeeper"):
        kill(own, name)
        assert own.start(name) == {name: True}
        until = time.monotonic() + 60
        while not all(one.well for one in own.status()):  # Nimbus finds a ZooKeeper that was away a while after it is back
            assert time.monotonic() < until, own.status()
            time.sleep(0.2)
    probe.supervisors(int(port))
    config = own.state.folder / "storm"
    assert (config / "local" / "nimbus").is_dir() and (config / "local" / "supervisor").is_dir(), "Storm keeps its state elsewhere"


@pytest.mark.skipif(shutil.which("psql") is None, reason="asks PostgreSQL through psql")
def test_postgresql_keeps_what_it_committed_over_a_kill(own: Stack) -> None:
    own.up(["postgres"])

    def ask(text: str) -> str:
        environment = {**os.environ, **own.exports()}
        done = subprocess.run(["psql", "-AtXc", text], env=environment, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    ask("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    kill(own, "postgres")
    own.up(["postgres"])
    assert ask("SELECT count(*), sum(n) FROM kept") == "1000|500500"
    assert ask("SELECT current_user || '@' || current_database()") == "penstock@penstock"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_root_is_told_which_folder_postgresql_cannot_enter(own: Stack) -> None:
    closed = own.state.folder.parent / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(UsageError, match=f"may not enter {closed}") as raised:
        Stack(closed / "state").up(["postgres"])
    assert f"chmod o+x {closed}" in str(raised.value.hint)


def test_s3_takes_and_gives_objects(own: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    own.up(["s3"])
    for name, value in own.exports().items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="detail")
    client.put_object(Bucket="detail", Key="hour=1/a.parquet", Body=b"PAR1" * 1_000)
    assert client.get_object(Bucket="detail", Key="hour=1/a.parquet")["Body"].read() == b"PAR1" * 1_000
    kill(own, "s3")
    own.up(["s3"])
    assert [one["Name"] for one in client.list_buckets()["Buckets"]] == ["penstock"], "moto keeps nothing, and the documentation says so"


def test_the_deployment_archives_to_s3(own: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    own.up(["s3"])
    monkeypatch.setenv("PENSTOCK_STACK", str(own.state.folder))
    with Deployment.named("stack") as deployment:
        deployment.archive.write("ads/hour=2015-05-17T10/a.parquet", b"PAR1")
        assert deployment.archive.read("ads/hour=2015-05-17T10/a.parquet") == b"PAR1"
        assert deployment.archive.location("ads/a") == "s3://penstock/ads/a"


def test_the_stand_in_for_redshift_copies_from_the_stacks_s3_and_comes_back_after_a_kill(own: Stack) -> None:
    import boto3
    import redshift_connector

    own.up(["postgres", "s3", "redshift"])
    settings, addresses = own.settings()["redshift"], own.exports()

    def ask(*statements: str) -> list[list[object]]:
        names = ("host", "port", "database", "user", "ssl")
        with redshift_connector.connect(password="", **{name: settings[name] for name in names}) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            connection.commit()
            return list(cursor.fetchall()) if cursor.description else []

    keys = {"aws_access_key_id": addresses["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": addresses["AWS_SECRET_ACCESS_KEY"]}
    client = boto3.client("s3", endpoint_url=addresses["AWS_ENDPOINT_URL_S3"], region_name="us-east-1", **keys)
    client.create_bucket(Bucket="detail")
    client.put_object(Bucket="detail", Key="kept.csv", Body=b"1\n2\n")
    ask("CREATE TABLE kept (n INT)", f"COPY kept FROM 's3://detail/kept.csv' IAM_ROLE '{settings['iam_role']}' CSV")
    kill(own, "redshift")
    own.up(["redshift"])
    assert ask("SELECT COUNT(*), SUM(n) FROM kept") == [[2, 3]]


def test_the_stand_in_for_redshift_needs_a_postgresql_of_the_stack(own: Stack) -> None:
    with pytest.raises(UsageError, match="stands before the stack's PostgreSQL") as raised:
        own.up(["redshift"])
    assert "penstock stack up postgres s3 redshift" in str(raised.value.hint)
