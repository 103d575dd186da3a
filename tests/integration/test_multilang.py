"""The Java half of the msgpack serializer, the class that the topology jar carries, against pystorm's half: a Java process here is Storm's side of the pipe."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pystorm.component import Component
from pystorm.exceptions import StormWentAwayError
from pystorm.serializers.msgpack_serializer import MsgpackSerializer

from penstock.storm import environment, jar, serializer
from penstock.storm.jar import CLASSES, SERIALIZER

pytestmark = pytest.mark.servers
HERE = Path(__file__).parent
JSON = "org.apache.storm.multilang.JsonSerializer"
MIB = 1 << 20
SEED = int(os.environ.get("PENSTOCK_SEED", time.time_ns() % 1_000_000))


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the harness compiled, and in `jars` what Storm's worker has."""
    folder = tmp_path_factory.mktemp("java")
    jars = serializer.resolve(folder / "jars")
    serializer.compile_java(HERE / "java", jars, folder / "classes")
    return folder


class Storm:
    """Storm's side: a Java process with a serializer. `pipe` is pystorm's own end of it."""

    def __init__(self, java: Path, *settings: str, kind: str = SERIALIZER, heap: str = "512m") -> None:
        # The serializer is the jar's own, with its own library; a logger would write to the standard output, which here is the pipe.
        jars = [str(jar) for jar in (java / "jars").glob("*.jar") if not jar.name.startswith(("msgpack-", "log4j-slf4j"))]
        classpath = os.pathsep.join([str(java / "classes"), str(CLASSES), *jars])
        self.pids = java / "pids"
        self.pids.mkdir(exist_ok=True)
        command = ["java", f"-Xmx{heap}", "-XX:+UseSerialGC", "-cp", classpath, "Harness", kind, str(self.pids), *settings]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.pipe = MsgpackSerializer(self.stdout, _Whole(self.stdin), threading.RLock(), threading.RLock())

    def handshake(self) -> dict[str, Any]:
        """What Storm sends first, answered as pystorm answers it."""
        message: dict[str, Any] = self.pipe.read_message()
        self.pipe.send_message({"pid": os.getpid()})
        return message

    def ask(self, message: dict[str, Any]) -> Any:
        """What Storm answers a message with."""
        self.pipe.send_message(message)
        return self.pipe.read_message()

    def end(self, *, close: bool = True) -> tuple[int, str]:
        """Close the pipe to it; its exit code and what it said."""
        if close:
            self.stdin.close()
        self.process.stdin = None
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said.decode()


class _Whole:
    """A raw pipe whose `write` writes everything, as the standard output of a component does."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.raw.write(view) :]

    def flush(self) -> None:
        self.raw.flush()


@pytest.fixture
def storm(java: Path) -> Iterator[Callable[..., Storm]]:
    started: list[Storm] = []

    def start(*settings: str, **options: Any) -> Storm:
        started.append(Storm(java, *settings, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


@pytest.fixture
def connected(storm: Callable[..., Storm]) -> Storm:
    one = storm()
    one.handshake()
    return one


SEEN = ["command", "id", "msg", "anchors", "stream", "task", "need_task_ids", "name", "params", "level", "tuple", "kinds"]


def seen(storm: Storm, message: dict[str, Any]) -> dict[str, Any]:
    """What Storm gets to see of a message."""
    return dict(zip(SEEN, storm.ask(message)["tuple"], strict=True))


def same(a: Any, b: Any) -> bool:
    """Equal in kind as well: True is not 1, and 1 is not 1.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def some_value(rng: random.Random, depth: int = 0) -> Any:
    """Any value of the protocol, those at the edges of an encoding more often than not."""
    kind = rng.randrange(6 if depth >= 5 else 8)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        edge = rng.choice([0, 1 << 5, 1 << 7, 1 << 8, 1 << 15, 1 << 16, 1 << 31, 1 << 32, (1 << 63) - 1])
        return rng.choice([edge, -edge, edge + 1, -edge - 1, rng.getrandbits(64), (1 << 64) - 1, -(1 << 63), 1 << 63])
    if kind == 2:
        return rng.choice([0.0, -0.0, 1.5, 1e308, 5e-324, float("inf"), float("-inf"), rng.gauss(0, 1e9)])
    length = rng.choice([0, 1, 31, 32, 255, 256, 65535, 65536]) if rng.random() < 0.1 else rng.randrange(40)
    if kind == 3:
        return "".join(rng.choice("aZ 0\n\0äß€漢\U0001f600") for _ in range(length))
    if kind in (4, 5):
        return rng.randbytes(length)
    length = rng.choice([0, 1, 15, 16, 17]) if rng.random() < 0.2 else rng.randrange(5)
    if kind == 6:
        return [some_value(rng, depth + 1) for _ in range(length)]
    return {f"{some_value(rng, 9)}"[:40]: some_value(rng, depth + 1) for _ in range(length)}


def test_any_value_comes_back_as_it_went(connected: Storm) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    for _ in range(1500):
        values = [some_value(rng) for _ in range(rng.randrange(4))]
        back = seen(connected, {"command": "emit", "tuple": values})["tuple"]
        assert same(back, values), (SEED, values, back)


def test_storm_sees_the_classes_that_its_own_serializer_gives(connected: Storm) -> None:
    values = [None, True, 1, -(1 << 63), (1 << 63) - 1, 1 << 63, 1.5, "text", b"bytes", [1], {"k": 1}]
    assert seen(connected, {"command": "emit", "tuple": values})["kinds"] == [
        *("null", "Boolean", "Long", "Long", "Long", "BigInteger", "Double", "String", "byte[]", "ArrayList", "HashMap")
    ]


def test_numbers_and_buffers_of_java_components_reach_python(connected: Storm) -> None:
    assert same(connected.ask({"command": "numbers"})["tuple"], [-1, 300, 70000, 5_000_000_000, 1.5, 2.25, (1 << 64) - 1])
    data = random.Random(SEED).randbytes(100_000)
    assert same(connected.ask({"command": "buffers", "tuple": [data]})["tuple"], [data, data, data[1:-1], data[1:-1]])


def test_the_handshake_is_the_one_of_storms_json_serializer(storm: Callable[..., Storm]) -> None:
    theirs = storm(kind=JSON)
    theirs.stdin.close()
    said = theirs.stdout.read()
    assert said is not None
    expected = json.loads(said.decode().removesuffix("end\n"))
    ours = storm()
    assert same(ours.handshake(), expected)
    assert expected["context"]["source->stream->grouping"] == {"live": {"default": {"type": "FIELDS", "fields": ["topic", "partition"]}}}
    code, errors = ours.end()
    assert f"pid {os.getpid()}" in errors


def test_pystorms_component_takes_the_handshake(storm: Callable[..., Storm]) -> None:
    one = storm()
    component = Component(input_stream=one.stdout, output_stream=one.stdin, rdb_signal=None, serializer="msgpack")
    conf, context = component.read_handshake()
    assert (one.pids / str(os.getpid())).is_file()
    assert (conf["topology.name"], context["componentid"], context["taskid"]) == ("harness", "rollups", 3)
    assert context["task->component"] == {"1": "__acker", "2": "live", "3": "rollups", "4": "rollups", "5": "sink"}


def test_a_heartbeat_is_one_to_pystorm_and_its_answer_is_to_storm(connected: Storm) -> None:
    beat = connected.ask({"command": "heartbeat"})
    assert beat == {"id": "-6917529027641081856", "comp": None, "stream": "__heartbeat", "task": -1, "tuple": []}
    assert seen(connected, {"command": "sync"})["command"] == "sync"


def test_every_kind_of_message(connected: Storm) -> None:
    plain = {"id": None, "msg": None, "anchors": None, "stream": "default", "task": 0, "need_task_ids": True, "name": None, "params": None}
    plain |= {"level": "INFO", "tuple": None, "kinds": None}
    sent = {
        "command": "emit",
        "tuple": ["a", b"b"],
        "id": "17",
        "anchors": ["x", "y"],
        "stream": "other",
        "task": 9,
        "need_task_ids": False,
    }
    assert seen(connected, sent) == plain | sent | {"kinds": ["String", "byte[]"]}
    assert seen(connected, {"command": "emit", "tuple": [], "anchors": "x"}) == plain | {
        "command": "emit",
        "tuple": [],
        "kinds": [],
        "anchors": ["x"],
    }
    for command in ("ack", "fail"):
        assert seen(connected, {"command": command, "id": "-42"}) == plain | {"command": command, "id": "-42"}
    for level, name in enumerate(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"]):
        assert seen(connected, {"command": "log", "msg": "said", "level": level}) == plain | {
            "command": "log",
            "msg": "said",
            "level": name,
        }
    assert seen(connected, {"command": "error", "msg": "Traceback ..."}) == plain | {"command": "error", "msg": "Traceback ..."}
    metric = {"command": "metrics", "name": "lag", "params": {"p0": 5, "p1": [1.5]}}
    assert seen(connected, metric) == plain | metric
    assert connected.ask({"command": "tasks"}) == [7, 8, 2_000_000_000]
    for identity in ("text", 17, b"\xff\0", [1, "a"], None):
        assert connected.ask({"command": "spout", "tuple": [identity]}) == {"command": "ack", "id": identity}


def test_sixty_four_mebibytes_in_one_tuple(connected: Storm) -> None:
    data = random.Random(SEED).randbytes(64 * MIB)
    assert connected.ask({"command": "emit", "tuple": [data, "end"]})["tuple"][10] == [data, "end"]
    assert connected.ask({"command": "emit", "tuple": ["small"]})["tuple"][10] == ["small"]


def test_tuples_of_a_mebibyte_pass_at_the_rate_of_the_pipe(connected: Storm) -> None:
    data, count = bytes(MIB), 400
    began = time.perf_counter()
    connected.pipe.send_message({"command": "take"})
    for _ in range(count):
        connected.pipe.send_message({"command": "emit", "tuple": [data]})
    assert connected.ask({"command": "end"})["tuple"] == [count, count * MIB]
    up = time.perf_counter() - began
    began = time.perf_counter()
    connected.pipe.send_message({"command": "give", "id": count, "task": MIB})
    assert sum(len(connected.pipe.read_message()["tuple"][0]) for _ in range(count)) == count * MIB
    down = time.perf_counter() - began
    print(f"to Storm {count / up:.0f} MiB/s, from Storm {count / down:.0f} MiB/s")
    assert min(count / up, count / down) > 50  # a busy machine; copying a byte at a time, or base64, would not reach it


@pytest.mark.parametrize("cut", [1, 2, 30, 5000, 70_000])
def test_a_stream_that_ends_in_a_message_is_no_output(connected: Storm, cut: int) -> None:
    message = connected.pipe.serialize_dict({"command": "emit", "tuple": ["x" * 40_000, b"y" * 60_000]})
    _Whole(connected.stdin).write(message[:cut])
    code, said = connected.end()
    assert code == 3 and "Pipe to subprocess seems to be broken! It ended in a message" in said


def test_a_stream_that_ends_between_messages_is_no_output(connected: Storm) -> None:
    assert seen(connected, {"command": "sync"})
    code, said = connected.end()
    assert code == 3 and "Pipe to subprocess seems to be broken! No output read." in said


def test_pystorm_learns_that_storm_went_away(connected: Storm) -> None:
    connected.pipe.send_message({"command": "exit"})
    with pytest.raises(StormWentAwayError):
        connected.pipe.read_message()


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xc6\x7f\xff\xff\xff",  # 2 GiB - 1 of bytes
        b"\xc6\xff\xff\xff\xff",  # 4 GiB - 1, more than a Java array holds
        b"\xdb\x7f\xff\xff\xff",  # text
        b"\xdd\x7f\xff\xff\xff",  # a list
        b"\xdf\x7f\xff\xff\xff",  # a map
        b"\x81\xa5tuple\x92\xc6\x05\xf5\xe1\x00" + bytes(100_000_000) + b"\xc6\x05\xf5\xe1\x00",  # twice what fits once
        b"\x91" * 600,
        b"\xdc\xff\xff" * 500,
    ],
    ids=["bytes", "unsigned", "text", "list", "map", "sum", "deep", "deep and wide"],
)
def test_a_message_that_announces_too_much_is_refused_before_it_is_allocated(storm: Callable[..., Storm], hostile: bytes) -> None:
    one = storm("penstock.multilang.max.frame.bytes=104857600", heap="256m")
    one.handshake()
    try:
        _Whole(one.stdin).write(hostile)
    except BrokenPipeError:
        pass  # it has seen enough
    code, said = one.end(close=False)
    assert code == 4, said
    assert "max.frame.bytes" in said or "nest deeper than" in said or "no MessagePack" in said
    assert int(said.split("heap ")[1].split()[0]) <= 256


def test_the_limit_is_a_setting_in_both_directions(storm: Callable[..., Storm]) -> None:
    small = storm("penstock.multilang.max.frame.bytes=100000")
    small.handshake()
    assert small.ask({"command": "emit", "tuple": [bytes(90_000)]})["tuple"][10] == [bytes(90_000)]
    small.pipe.send_message({"command": "emit", "tuple": [bytes(100_001)]})
    code, said = small.end(close=False)
    assert code == 4 and "would take more than the 100000 bytes of penstock.multilang.max.frame.bytes" in said
    other = storm("penstock.multilang.max.frame.bytes=100000")
    other.handshake()
    other.pipe.send_message({"command": "huge", "task": 100_001})
    code, said = other.end(close=False)
    assert code == 4 and "is larger than the 100000 of penstock.multilang.max.frame.bytes" in said
    wrong = storm("penstock.multilang.max.frame.bytes=0")
    code, said = wrong.end(close=False)
    assert code == 4 and "is 0: it is a number of bytes above 0" in said


def test_a_value_of_another_class_is_refused_by_name(connected: Storm) -> None:
    connected.pipe.send_message({"command": "foreign"})
    code, said = connected.end(close=False)
    assert code == 4 and "java.lang.StringBuilder, which the multilang protocol has no value for" in said


@pytest.mark.parametrize(
    "sent, says",
    [
        (b"\x81\xa7command\x01", "'command' is Long 1, not String"),
        (b"\x82\xa7command\xa4emit\xa5tuple\xa1x", "'tuple' is String x, not List"),
        (b"\x82\xa7command\xa4emit\xa7anchors\x91\x01", "'anchors' is Long 1"),
        (b"\x81\xa1k\xd4\x05\x00", "extension type 5"),
        (b"\x81\xc4\x01k\x01", "a key that is no text, but 1 bytes"),
        (b"\x81\xa1k\xc1", "no MessagePack"),
    ],
    ids=["command", "tuple", "anchors", "extension", "key", "corrupt"],
)
def test_a_message_that_makes_no_sense_is_told_by_what_is_wrong_with_it(connected: Storm, sent: bytes, says: str) -> None:
    connected.stdin.write(sent)
    code, said = connected.end()
    assert code == 4 and says in said


def test_something_printed_into_the_pipe_is_shown(connected: Storm) -> None:
    connected.stdin.write(b"DEBUG: connecting\n")
    code, said = connected.end()
    assert code == 4 and "print to its standard output" in said and "DEBUG: connecting" in said


def test_keys_that_are_no_text_become_text_as_in_json(connected: Storm) -> None:
    assert seen(connected, {"command": "emit", "tuple": [{7: "seven", -1: "one", None: "none"}]})["tuple"] == [
        {"7": "seven", "-1": "one", "null": "none"}
    ]


def test_the_jar_in_the_package_is_what_the_sources_give(tmp_path: Path) -> None:
    version = subprocess.run([serializer.javac(), "-version"], capture_output=True, text=True).stdout.split()[1]
    made = serializer.build(tmp_path / "serializer.jar")
    with zipfile.ZipFile(made) as new, zipfile.ZipFile(CLASSES) as old:
        assert new.namelist() == old.namelist()
        if version.startswith("17."):  # what it was made with; another compiler may write other bytes for the same sources
            different = [name for name in new.namelist() if new.read(name) != old.read(name)]
            assert different == [], "src/jvm has changed: python -m penstock.storm.serializer"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of this Python with a project in it, packed, put into a jar and extracted."""
    folder = tmp_path_factory.mktemp("packed")
    project = folder / "shop"
    (project / "shop_lib").mkdir(parents=True)
    (project / "shop_lib" / "alerts.py").write_text(
        "import pyarrow.compute, shop_lib, requests\nfrom penstock import BatchBolt\n\n\nclass Alerts(BatchBolt):\n    pass\n"
    )
    (project / "requirements.txt").write_text("penstock\nrequests  # which a worker has no other use for\n")
    began = time.perf_counter()
    made = environment.pack(project, folder / "environment")
    archive = jar.build(folder / "shop.jar", project=project, environment=made)
    print(f"packed in {time.perf_counter() - began:.0f} s, {archive.stat().st_size / MIB:.0f} MiB")
    with zipfile.ZipFile(archive) as whole:
        whole.extractall(folder / "worker", [name for name in whole.namelist() if name.startswith("resources/")])
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "bare")], check=True)
    return folder


@pytest.mark.parametrize(
    "component",
    [
        "penstock.spouts.kafka.KafkaSpout",
        "penstock.bolts.rollup.RollupBolt",
        "penstock.bolts.archive.ArchiveBolt",
        "shop_lib.alerts.Alerts",
    ],
)
def test_a_packed_component_starts_in_a_python_that_has_nothing(packed: Path, component: str) -> None:
    command = environment.command(str(packed / "bare" / "bin" / "python3"), True, component)
    resources, pids = packed / "worker" / "resources", packed / "pids"
    pids.mkdir(exist_ok=True)
    started = subprocess.Popen(
        command, cwd=resources, env={"PATH": os.defpath}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    pipe = MsgpackSerializer(started.stdout, started.stdin, threading.RLock(), threading.RLock())
    pipe.send_message({"pidDir": str(pids), "conf": {"topology.name": "shop"}, "context": {"taskid": 3, "componentid": "live"}})
    assert pipe.read_message() == {"pid": started.pid}
    assert pipe.read_message()["command"] == "log"
    _, said = started.communicate(timeout=60)
    assert "penstock.component" in said.decode()  # the setting that it looked for first, and that a real topology has


def test_a_packed_environment_has_the_clients_and_compiled_kernels_and_no_command_line(packed: Path) -> None:
    resources = packed / "worker" / "resources"
    script = "import penstock_run, kafka, happybase, requests, urllib3, penstock.kernels as k; print(k.backend, k.__file__)"
    found = subprocess.run([packed / "bare" / "bin" / "python3", "-c", script], cwd=resources, capture_output=True, text=True)
    assert found.stdout.split() == ["compiled", str(resources / "site-packages" / "penstock" / "kernels" / "__init__.py")], found.stderr
    names = json.loads((resources / "penstock-environment.json").read_text())["packages"]
    assert not {"duckdb", "paramiko", "cryptography", "setuptools", "cython"} & set(names)
    assert not [path for path in (resources / "site-packages").rglob("direct_url.json")]


def test_a_packed_environment_reaches_s3_without_what_boto3_knows_of_other_services(packed: Path, s3: dict[str, Any]) -> None:
    resources = packed / "worker" / "resources"
    script = (
        "import json, sys, penstock_run; from penstock.archive.s3 import S3Archive\n"
        "archive = S3Archive(json.loads(sys.argv[1])); archive.write('ads/a', b'x' * 40_000_000); print(len(archive.read('ads/a')))"
    )
    found = subprocess.run(
        [packed / "bare" / "bin" / "python3", "-c", script, json.dumps(s3)], cwd=resources, capture_output=True, text=True, timeout=60
    )
    assert found.stdout.strip() == "40000000", found.stderr
    services = {path.name for path in (resources / "site-packages" / "botocore" / "data").iterdir() if path.is_dir()}
    assert {"s3", "sts"} <= services <= environment.AWS_SERVICES
