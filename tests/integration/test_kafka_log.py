"""KafkaLog against a real broker, and what it reads against what confluent-kafka's consumer reads."""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import kafka
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from penstock.errors import ConfigurationError, NotFoundError, PenstockError, UnavailableError
from penstock.kernels import read_batches
from penstock.kernels.encode import encode_list
from penstock.log.kafka import KafkaLog
from penstock.log.kafka.append import _Batch, stamped
from penstock.stack import artifacts, ports

pytestmark = pytest.mark.servers
FAR = 1 << 40
PASSWORD = "not-a-secret"
Record = tuple[int, "bytes | None", "bytes | None"]


class Broker:
    """A broker of the test's own, which may be killed. Listeners: plain, TLS, TLS with a password, and one that is reached through a proxy."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None
        self.jars = artifacts.resolve("kafka", print) / "lib"
        self.ports = ports.choose(["plain", "controller", "tls", "sasl", "behind", "proxy"], {}, {})
        self.certificate = folder / "broker.pem"
        self._make_certificate()
        names = {"plain": "PLAINTEXT", "tls": "SSL", "sasl": "SASL_SSL", "behind": "PROXIED"}
        shown = {**self.ports, "behind": self.ports["proxy"]}
        (folder / "server.properties").write_text(
            "\n".join(
                [
                    "process.roles=broker,controller",
                    "node.id=1",
                    f"controller.quorum.voters=1@127.0.0.1:{self.ports['controller']}",
                    "listeners="
                    + ",".join(f"{name}://127.0.0.1:{self.ports[key]}" for key, name in names.items())
                    + f",CONTROLLER://127.0.0.1:{self.ports['controller']}",
                    "advertised.listeners=" + ",".join(f"{name}://localhost:{shown[key]}" for key, name in names.items()),
                    "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL",
                    "controller.listener.names=CONTROLLER",
                    "inter.broker.listener.name=PLAINTEXT",
                    f"log.dirs={folder / 'data'}",
                    *(f"{name}.replication.factor=1" for name in ("default", "offsets.topic", "transaction.state.log")),
                    "transaction.state.log.min.isr=1",
                    "offsets.topic.num.partitions=1",
                    "transaction.state.log.num.partitions=1",
                    "group.initial.rebalance.delay.ms=0",
                    "auto.create.topics.enable=false",
                    "log.retention.ms=-1",
                    "broker.session.timeout.ms=3000",  # a broker that was killed is refused again until then
                    "broker.heartbeat.interval.ms=500",
                    f"ssl.keystore.location={folder / 'broker.p12'}",
                    f"ssl.keystore.password={PASSWORD}",
                    "ssl.keystore.type=PKCS12",
                    "sasl.enabled.mechanisms=PLAIN",
                    "listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required "
                    f'user_reader="{PASSWORD}";',
                ]
            )
        )
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._java("kafka.tools.StorageTool", "format", "-t", identity, "-c", str(folder / "server.properties"))

    def _make_certificate(self) -> None:
        store = ["-keystore", str(self.folder / "broker.p12"), "-storepass", PASSWORD, "-alias", "broker"]
        san = ["-ext", "san=dns:localhost,ip:127.0.0.1"]
        subprocess.run(
            ["keytool", "-genkeypair", "-keyalg", "EC", "-dname", "CN=localhost", "-storetype", "PKCS12", *san, *store],
            check=True,
            capture_output=True,
        )
        subprocess.run(["keytool", "-exportcert", "-rfc", "-file", str(self.certificate), *store], check=True, capture_output=True)

    def _java(self, *arguments: str) -> None:
        command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{self.jars}/*", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def start(self) -> Broker:
        self.process = subprocess.Popen(
            ["java", "-Xmx400m", "-XX:TieredStopAtLevel=1", "-cp", f"{self.jars}/*", "kafka.Kafka", str(self.folder / "server.properties")],
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 90
        while True:
            try:
                with contextlib.closing(KafkaLog(self.settings())) as log:
                    log.topics()
                return self
            except UnavailableError:
                assert self.process.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
                time.sleep(0.2)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def settings(self, listener: str = "plain", **more: Any) -> dict[str, Any]:
        return {"bootstrap": f"localhost:{self.ports['proxy' if listener == 'behind' else listener]}", "replication": 1, **more}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    own = Broker(tmp_path_factory.mktemp("kafka")).start()
    yield own
    own.kill()


@pytest.fixture
def log(broker: Broker) -> Iterator[KafkaLog]:
    made = KafkaLog(broker.settings())
    yield made
    made.close()


@pytest.fixture
def topic() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


def admin(broker: Broker) -> Any:
    return contextlib.closing(kafka.KafkaAdminClient(bootstrap_servers=broker.settings()["bootstrap"]))


def batch(*values: bytes, codec: str = "lz4") -> bytes:
    return encode_list(list(values), [1_700_000_000_000_000] * len(values), codec=codec)


def until(holds: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def patiently(call: Callable[[], Any], seconds: float = 60) -> Any:
    """What a call returns once it is no longer refused by an outage; each try has to end soon."""
    deadline = time.monotonic() + seconds
    while True:
        started = time.monotonic()
        try:
            return call()
        except PenstockError as problem:
            assert problem.retriable, problem
            assert time.monotonic() < deadline, problem
            time.sleep(0.1)
        finally:
            assert time.monotonic() - started < 8, "a call that blocks this long stops Storm's heartbeat"


def read_all(log: Any, topic: str, partition: int = 0, offset: int = 0, max_bytes: int = 1 << 20, end: int | None = None) -> list[Record]:
    """All records up to the end, checking that each offset is either a record or said to be none."""
    out: list[Record] = []
    end = log.end(topic, partition) if end is None else end
    while offset < end:
        chunk = patiently(lambda at=offset: log.read(topic, partition, at, max_bytes, FAR))
        if chunk is None:
            continue
        found = read_batches(chunk.data)
        got = [(int(found.offsets[row]), found.key(row), found.value(row)) for row in range(len(found)) if found.offsets[row] >= offset]
        empty = [at for start, stop in (*chunk.skipped, *chunk.lost) for at in range(start, stop)]
        assert sorted([at for at, _, _ in got] + empty) == list(range(offset, chunk.next))
        out += got
        offset = chunk.next
    return out


def oracle(broker: Broker, topic: str, partition: int = 0, offset: int = 0) -> list[tuple[int, bytes | None]]:
    """What confluent-kafka's consumer reads."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.settings()["bootstrap"],
            "group.id": "oracle",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    consumer.assign([TopicPartition(topic, partition, offset)])
    out = []
    while (message := consumer.poll(20)) is not None:
        if message.error():
            break
        out.append((message.offset(), message.value()))
    consumer.close()
    return out


def same(broker: Broker, log: KafkaLog, topic: str, partition: int = 0) -> list[Record]:
    """Read both ways, with reads of several sizes and from several offsets; returns the records."""
    expected = oracle(broker, topic, partition)
    for size in (1, 5_000, 1 << 20):
        found = read_all(log, topic, partition, max_bytes=size)
        assert [(at, value) for at, _, value in found] == expected
    rng = random.Random(5)
    for start in rng.sample(range(log.end(topic, partition)), 5):
        assert [(at, value) for at, _, value in read_all(log, topic, partition, start)] == [one for one in expected if one[0] >= start]
    return found


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_all_codecs_of_another_producer(broker: Broker, log: KafkaLog, topic: str, codec: str) -> None:
    log.create(topic, 1)
    producer = Producer(
        {"bootstrap.servers": broker.settings()["bootstrap"], "compression.type": codec, "batch.num.messages": 70, "linger.ms": 5}
    )
    for number in range(2000):
        producer.produce(topic, b"value %d " % number * (number % 7 + 1), key=b"k%d" % (number % 10), headers=[("h", b"x")])
        producer.poll(0)
    producer.flush(30)
    assert len(same(broker, log, topic)) == 2000


def test_only_committed_records_are_read_whatever_transactions_interleave(broker: Broker, log: KafkaLog, topic: str) -> None:
    seed = 20261124
    print("seed", seed)
    rng = random.Random(seed)
    log.create(topic, 1)
    config = {"bootstrap.servers": broker.settings()["bootstrap"], "linger.ms": 0}
    plain = Producer(config)
    writers = [Producer({**config, "transactional.id": f"{topic}-{number}"}) for number in range(3)]
    for writer in writers:
        writer.init_transactions(30)
    open_, committed = [False] * 3, 0
    for step in range(120):
        number = rng.randrange(4)
        if number == 3:
            plain.produce(topic, b"plain %d" % step)
            plain.flush(10)
            continue
        writer = writers[number]
        if not open_[number]:
            writer.begin_transaction()
            open_[number] = True
        if rng.random() < 0.65:
            for one in range(rng.randrange(1, 5)):
                writer.produce(topic, b"of %d at %d, %d" % (number, step, one))
            writer.flush(10)
        elif rng.random() < 0.5:
            writer.commit_transaction(30)
            open_[number], committed = False, committed + 1
        else:
            writer.abort_transaction(30)
            open_[number] = False
    stable = log.end(topic, 0)
    read_all(log, topic, end=stable)  # what transactions that are open hold back is not there yet
    for number, writer in enumerate(writers):
        if open_[number]:
            writer.abort_transaction(30)
    until(lambda: log.end(topic, 0) == kafka_end(broker, topic))
    found = same(broker, log, topic)
    assert committed > 3 and len(found) > 20 and log.end(topic, 0) > len(found) + 20


def kafka_end(broker: Broker, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": broker.settings()["bootstrap"], "group.id": "oracle"})
    with contextlib.closing(consumer):
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), 10)[1])


def test_a_position_that_ends_in_an_aborted_transaction_moves_on_without_data(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    log.append(topic, 0, [batch(b"a", b"b")])
    writer = Producer({"bootstrap.servers": broker.settings()["bootstrap"], "transactional.id": topic})
    writer.init_transactions(30)
    writer.begin_transaction()
    writer.produce(topic, b"gone")
    writer.flush(10)
    assert log.end(topic, 0) == 2 and log.read(topic, 0, 2, 100, 100) is None
    writer.abort_transaction(30)
    until(lambda: log.end(topic, 0) == 4)
    at = 2
    while at < 4:  # the broker may show the record before the marker behind it
        chunk = until(lambda at=at: log.read(topic, 0, at, 100, 100))
        assert (chunk.previous, chunk.skipped, chunk.lost, chunk.data) == (at, ((at, chunk.next),), (), b"")
        at = chunk.next


def test_what_delete_records_took_is_lost_also_inside_a_batch(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    for first in (0, 10, 20):
        log.append(topic, 0, [batch(*(b"%d" % (first + one) for one in range(10)))])
    with admin(broker) as client:
        client.delete_records({kafka.TopicPartition(topic, 0): 13})
    assert log.start(topic, 0) == 13 and log.offset_at(topic, 0, 0) == 13
    chunk = log.read(topic, 0, 5, 1 << 20, FAR)
    assert chunk is not None and (chunk.next, chunk.lost, chunk.skipped, chunk.data) == (13, ((5, 13),), (), b"")
    assert [value for _, _, value in read_all(log, topic, offset=13)] == [b"%d" % one for one in range(13, 30)]


def test_a_topic_created_anew_is_never_read_under_the_old_position(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    log.append(topic, 0, [batch(b"old", b"old", b"old")])
    before = log.incarnation(topic)
    assert len(read_all(log, topic)) == 3
    with admin(broker) as client:
        client.delete_topics([topic])
        other = KafkaLog(broker.settings())
        until(lambda: topic not in other.topics())
        other.create(topic, 1)
        other.append(topic, 0, [batch(*[b"new"] * 9)])
        other.close()
    deadline = time.monotonic() + 10
    while log.incarnation(topic) == before:
        with contextlib.suppress(NotFoundError, UnavailableError):
            chunk = log.read(topic, 0, 3, 1 << 20, FAR)
            assert chunk is None or log.incarnation(topic) != before, chunk
        assert time.monotonic() < deadline
    assert [value for _, _, value in read_all(log, topic)] == [b"new"] * 9


def test_a_topic_that_is_deleted_is_not_found_within_seconds(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    assert log.read(topic, 0, 0, 1, 1) is None
    with admin(broker) as client:
        client.delete_topics([topic])

    def gone() -> bool:
        try:
            log.read(topic, 0, 0, 1, 1)
        except NotFoundError:
            return True
        except UnavailableError:
            return False
        return False

    until(gone, 5)


def test_partitions_that_are_added_are_seen_and_read(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    log.append(topic, 0, [batch(b"first")])
    assert len(read_all(log, topic)) == 1
    with admin(broker) as client:
        client.create_partitions({topic: 3})
    until(lambda: log.partitions(topic) == 3, 5)
    patiently(lambda: log.append(topic, 2, [batch(b"added")]))
    assert [value for _, _, value in read_all(log, topic, 2)] == [b"added"]


def test_a_compacted_topic_is_refused(broker: Broker, log: KafkaLog, topic: str) -> None:
    with admin(broker) as client:
        client.create_topics({topic: {"num_partitions": 1, "replication_factor": 1, "configs": {"cleanup.policy": "compact,delete"}}})
    until(lambda: topic in log.topics())
    with pytest.raises(ConfigurationError, match="compacted") as problem:
        log.read(topic, 0, 0, 1, 1)
    assert "cleanup.policy=delete" in str(problem.value)


def test_an_offset_is_found_by_time_in_the_middle_of_a_compressed_batch(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    times = [1_700_000_000_000 + one for one in (10, 30, 20, 50, 40, 60, 60, 90)]
    producer = Producer({"bootstrap.servers": broker.settings()["bootstrap"], "compression.type": "zstd", "linger.ms": 50})
    for at in times:
        producer.produce(topic, b"x", timestamp=at)
    producer.flush(10)
    for wanted in range(times[0] - 5, times[-1] + 5):
        assert log.offset_at(topic, 0, wanted * 1000) == next((number for number, at in enumerate(times) if at >= wanted), 8)
    assert log.offset_at(topic, 0, times[0] * 1000 + 1) == 1, "a microsecond later is later"


def test_records_read_one_by_one_are_the_same_records(
    broker: Broker, log: KafkaLog, topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log.create(topic, 1)
    log.append(topic, 0, [batch(*(b"%d" % one for one in range(500)))])
    writer = Producer({"bootstrap.servers": broker.settings()["bootstrap"], "transactional.id": topic})
    writer.init_transactions(30)
    for ending in (writer.abort_transaction, writer.commit_transaction):
        writer.begin_transaction()
        writer.produce(topic, b"in a transaction", key=b"k", headers=[("h", b"v"), ("n", None)])
        writer.flush(10)
        ending(30)
    until(lambda: log.end(topic, 0) == kafka_end(broker, topic) == 504)
    raw = read_all(log, topic)
    assert log.mode == "raw" and len(raw) == 501
    monkeypatch.setattr("penstock.log.kafka.raw.problem", lambda: "kafka-python is another one")
    slow = KafkaLog(broker.settings())
    assert slow.mode == "records"
    assert read_all(slow, topic) == raw and read_all(slow, topic, offset=123) == raw[123:]
    assert slow.read(topic, 0, 504, 1, 1) is None and "record by record" in caplog.text
    slow.close()


def test_group_offsets_are_there_for_lag_tools(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 2)

    def noted() -> bool:
        log.report("lag-" + topic, topic, {0: 0, 1: 7})
        found = consumer.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=10)
        return [one.offset for one in found] == [0, 7]

    with contextlib.closing(Consumer({"bootstrap.servers": broker.settings()["bootstrap"], "group.id": "lag-" + topic})) as consumer:
        until(noted)
    log.report("lag-" + topic, "there-is-none", {0: 1})
    log.report("", topic, {0: 1})


def test_several_threads_read_and_append(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 3)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for one in range(30):
                log.append(topic, number % 3, [batch(b"%d/%d" % (number, one)), batch(b"%d/%d'" % (number, one))])
                if one % 5 == 0:
                    read_all(log, topic, (number + one) % 3)
        except BaseException as problem:
            failed.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for partition in range(3):
        values = [value or b"" for _, _, value in read_all(log, topic, partition)]
        for number in (partition, partition + 3):
            mine = [value for value in values if value.startswith(b"%d/" % number)]
            assert mine == [b"%d/%d%s" % (number, one, mark) for one in range(30) for mark in (b"", b"'")]


def test_a_batch_that_the_broker_refuses_is_named_and_does_not_spoil_the_next(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    with pytest.raises(ConfigurationError, match=r"larger than the topic allows[\s\S]*max.message.bytes"):
        log.append(topic, 0, [batch(b"a"), batch(os.urandom(2 << 20)), batch(b"c")])
    assert [value for _, _, value in read_all(log, topic)] == [b"a"]
    assert log.append(topic, 0, [batch(b"d")]) == 1


def test_tls_with_a_password_by_reference(broker: Broker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READERS_PASSWORD", PASSWORD)
    sasl = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_plain_username": "reader"}
    trusted = {"ssl_cafile": str(broker.certificate)}
    good = broker.settings("sasl", **sasl, **trusted, sasl_plain_password={"env": "READERS_PASSWORD"})
    log = KafkaLog(good)
    log.create(topic, 1)
    log.append(topic, 0, [batch(b"kept to ourselves")])
    assert [value for _, _, value in read_all(log, topic)] == [b"kept to ourselves"]
    log.close()
    tls = KafkaLog(broker.settings("tls", security_protocol="SSL", **trusted))
    assert tls.end(topic, 0) == 1
    tls.close()
    monkeypatch.setenv("READERS_PASSWORD", "wrong")
    with contextlib.closing(KafkaLog(good)) as log, pytest.raises(PenstockError, match="password"):
        log.end(topic, 0)
    with (
        contextlib.closing(KafkaLog(broker.settings("tls", security_protocol="SSL"))) as log,
        pytest.raises(ConfigurationError, match="TLS"),
    ):
        log.end(topic, 0)


class Proxy:
    """Stands before the broker and, while `faults` is set, cuts connections, often after a request went through and before its answer came back."""

    def __init__(self, listen: int, to: int, seed: int) -> None:
        self.to, self.rng, self.faults, self.cuts = to, random.Random(seed), False, 0
        self.server = socket.create_server(("127.0.0.1", listen))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.to))
            for source, sink, answers in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pump, args=(source, sink, answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self.faults and self.rng.random() < (0.06 if answers else 0.01):
                    self.cuts += 1
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def proxy(broker: Broker) -> Proxy:
    seed = 77
    print("seed", seed)
    return Proxy(broker.ports["proxy"], broker.ports["behind"], seed)


def test_appends_whose_answers_are_lost_are_written_once_and_in_order(broker: Broker, proxy: Proxy, topic: str) -> None:
    log = KafkaLog(broker.settings("behind", append_timeout=1))
    log.create(topic, 1)
    proxy.faults = True
    expected: list[bytes] = []
    for number in range(60):
        values = [[b"%d.%d.%d" % (number, one, at) for at in range(3)] for one in range(1 + number % 8)]
        batches = [batch(*some) for some in values]
        assert patiently(lambda batches=batches: log.append(topic, 0, batches)) == len(expected)
        expected += [value for some in values for value in some]
        if number % 10 == 0:
            assert [value for _, _, value in read_all(log, topic, end=len(expected))] == expected
    proxy.faults = False
    log.close()
    plain = KafkaLog(broker.settings())
    assert proxy.cuts > 5
    assert [value for _, _, value in same(broker, plain, topic)] == expected
    plain.close()


def test_an_append_that_was_given_up_does_not_spoil_the_next(broker: Broker, proxy: Proxy, topic: str) -> None:
    log = KafkaLog(broker.settings("behind", append_timeout=1))
    log.create(topic, 1)
    log.append(topic, 0, [batch(b"a")])
    proxy.rng.random = lambda: 0.02  # type: ignore[method-assign]  # every answer is lost, no request is
    proxy.faults = True
    with pytest.raises(UnavailableError, match="append the same batches again"):
        log.append(topic, 0, [batch(b"given up")])
    proxy.faults = False
    patiently(lambda: log.append(topic, 0, [batch(b"b"), batch(b"c")]))
    assert [value for _, _, value in read_all(log, topic)] == [b"a", b"given up", b"b", b"c"]
    log.close()


def test_a_sequence_that_the_broker_does_not_follow_is_begun_anew(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    log.append(topic, 0, [batch(b"a")])
    [stream] = log._appender._streams.values()
    before, stream.sequence = stream.producer, 7
    assert log.append(topic, 0, [batch(b"b"), batch(b"c")]) == 1 and stream.producer != before
    assert log.append(topic, 0, [batch(b"d")]) == 3
    assert [value for _, _, value in read_all(log, topic)] == [b"a", b"b", b"c", b"d"]


def test_a_batch_that_the_broker_has_already_is_found_where_it_lies(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    first = batch(b"0", b"1")
    log.append(topic, 0, [batch(b"other")])
    [stream] = log._appender._streams.values()
    assert stream.producer is not None
    stamp = *stream.producer, stream.sequence
    log.append(topic, 0, [first])
    for number in range(8):  # the broker knows the place of the last five alone
        log.append(topic, 0, [batch(b"later %d" % number)])
    stream.pending, stream.floor = [_Batch(first, 2, stamp, stamped(first, *stamp), True)], 0
    assert log.append(topic, 0, [first]) == 1, "as after an answer that was lost"
    assert log.append(topic, 0, [batch(b"last")]) == 11
    assert len(read_all(log, topic)) == 12


def test_a_broker_that_is_killed_costs_nothing_but_time(broker: Broker, topic: str) -> None:
    log = KafkaLog(broker.settings())
    log.create(topic, 2)
    written: dict[int, list[bytes]] = {0: [], 1: []}
    found: dict[int, list[bytes]] = {0: [], 1: []}
    stop, failed = threading.Event(), list[BaseException]()

    def write(partition: int) -> None:
        try:
            number = 0
            while not stop.is_set():
                values = [b"%d-%d" % (partition, number + one) for one in range(50)]
                patiently_long(lambda values=values: log.append(topic, partition, [batch(*values[:20]), batch(*values[20:])]))
                written[partition] += values
                number += 50
        except BaseException as problem:
            failed.append(problem)

    def patiently_long(call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except UnavailableError:
                time.sleep(0.1)

    def read() -> None:
        try:
            at = {0: 0, 1: 0}
            while not stop.is_set() or any(len(found[one]) < len(written[one]) for one in at):
                for partition in at:
                    chunk = patiently(lambda p=partition: log.read(topic, p, at[p], 1 << 20, FAR))
                    if chunk is not None:
                        assert not chunk.lost
                        records = read_batches(chunk.data)
                        found[partition] += [records.value(row) for row in range(len(records)) if records.offsets[row] >= chunk.previous]
                        at[partition] = chunk.next
        except BaseException as problem:
            failed.append(problem)

    threads = [threading.Thread(target=write, args=(0,)), threading.Thread(target=write, args=(1,)), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(1.5)
        broker.kill()
        time.sleep(1)
        broker.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join(90)
    if any(thread.is_alive() for thread in threads):
        faulthandler.dump_traceback(file=sys.__stderr__)
    assert not failed and not any(thread.is_alive() for thread in threads)
    for partition in (0, 1):
        assert [value for _, value in oracle(broker, topic, partition)] == written[partition], "appended"
        assert len(written[partition]) > 100 and found[partition] == written[partition], "read"
    log.close()


def test_a_broker_that_hangs_holds_no_call_up(broker: Broker, log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    log.append(topic, 0, [batch(b"a")])
    assert len(read_all(log, topic)) == 1
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)
    try:
        for call in (lambda: log.read(topic, 0, 1, 1, 1), lambda: log.end(topic, 0), log.topics, lambda: log.read(topic, 0, 1, 1, 1)):
            time.sleep(1.1)
            started = time.monotonic()
            with pytest.raises(UnavailableError):
                call()
            assert time.monotonic() - started < 8
        started = time.monotonic()
        log.report("g", topic, {0: 1})
        assert time.monotonic() - started < 0.5
    finally:
        broker.process.send_signal(signal.SIGCONT)
    patiently(lambda: log.append(topic, 0, [batch(b"b")]))
    assert [value for _, _, value in read_all(log, topic)] == [b"a", b"b"]


def test_a_log_that_was_closed_is_used_again(log: KafkaLog, topic: str) -> None:
    log.create(topic, 1)
    log.append(topic, 0, [batch(b"a")])
    assert len(read_all(log, topic)) == 1
    log.close()
    log.append(topic, 0, [batch(b"b")])
    assert len(read_all(log, topic)) == 2
    assert not [one for one in threading.enumerate() if one.name.startswith("kafka-io") and not one.daemon]
