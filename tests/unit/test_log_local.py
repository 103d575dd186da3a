"""What only a log on a disk can get wrong: torn tails, killed appenders, readers beside them, damaged files, full disks, several processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigurationError, CorruptionError, NotFoundError, UnavailableError
from penstock.kernels import read_batches
from penstock.kernels.encode import encode_list
from penstock.log.bounds import Bounds
from penstock.log.local import LocalLog
from penstock.log.partition import Partition

FAR = 1 << 40


def batch(*values: bytes, base_offset: int = 0) -> bytes:
    return encode_list(list(values), [1_000_000_000_000] * len(values), base_offset=base_offset)


def segment(root: Path, first: int = 0) -> Path:
    return root / "t" / "0" / f"{first:020d}.log"


def values(log: LocalLog, offset: int = 0) -> list[bytes | None]:
    out: list[bytes | None] = []
    while (chunk := log.read("t", 0, offset, 1 << 20, FAR)) is not None:
        found = read_batches(chunk.data)
        assert found.offsets.tolist() == list(range(int(found.offsets[0]), chunk.next))
        out += [found.value(row) for row in range(len(found)) if found.offsets[row] >= offset]
        offset = chunk.next
    return out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A log with topic t: two durable records in one batch."""
    with LocalLog(tmp_path) as log:
        log.create("t", 1)
        log.append("t", 0, [batch(b"a", b"b")])
    return tmp_path


def test_a_tail_torn_at_any_byte_is_cut_and_what_was_durable_stays(root: Path) -> None:
    torn = batch(b"c", b"d", base_offset=2)
    good = segment(root).read_bytes()
    for cut in range(len(torn)):
        segment(root).write_bytes(good + torn[:cut])  # killed in the middle of a write, nothing published
        with LocalLog(root) as log:
            assert log.end("t", 0) == 2 and values(log) == [b"a", b"b"]
            assert segment(root).stat().st_size == len(good) + cut, "who only reads cuts nothing"
            assert log.append("t", 0, [batch(b"e")]) == 2
            assert values(log) == [b"a", b"b", b"e"]
        segment(root).write_bytes(good)
        (root / "t" / "0" / "bounds").write_bytes(b"")  # start over: the bounds are found from the segments
    with LocalLog(root) as log:
        assert values(log) == [b"a", b"b"]


def test_a_tail_with_any_byte_flipped_is_cut(root: Path) -> None:
    tail = batch(b"c", b"d", base_offset=2)
    good, bounds = segment(root).read_bytes(), (root / "t" / "0" / "bounds").read_bytes()
    rng = random.Random(7)
    for at in range(len(tail)):
        if 12 <= at < 16:
            continue  # the leader epoch, which no checksum covers and nobody reads
        bad = bytearray(tail)
        bad[at] ^= 1 << rng.randrange(8)
        segment(root).write_bytes(good + bytes(bad) + batch(b"z", base_offset=4))
        (root / "t" / "0" / "bounds").write_bytes(bounds)
        with LocalLog(root) as log:
            assert log.append("t", 0, [batch(b"e")]) == 2, f"byte {at}"
            assert values(log) == [b"a", b"b", b"e"]


def test_a_tail_that_is_whole_is_kept_by_whoever_comes_first(root: Path) -> None:
    """Its write was done but its appender was killed before it could publish: nobody was told, and nothing is wrong with it."""
    with open(segment(root), "ab") as file:
        file.write(batch(b"c", base_offset=2) + batch(b"d", base_offset=3)[:-1])
    with LocalLog(root) as log:
        assert values(log) == [b"a", b"b", b"c"]
        assert log.append("t", 0, [batch(b"e")]) == 3
        assert values(log) == [b"a", b"b", b"c", b"e"]


def test_bounds_that_a_power_loss_left_behind_catch_up(tmp_path: Path) -> None:
    """The segment is synced and `bounds` is not: after a power loss it may be any older one."""
    with LocalLog(tmp_path, segment_bytes=200) as log:
        log.create("t", 1)
        older = [(tmp_path / "t" / "0" / "bounds").read_bytes()]
        for i in range(12):
            log.append("t", 0, [batch(b"%d" % i)])
            older.append((tmp_path / "t" / "0" / "bounds").read_bytes())
    assert len(list((tmp_path / "t" / "0").glob("*.log"))) > 3
    for published in (*older, b"", b"garbage" * 6):
        (tmp_path / "t" / "0" / "bounds").write_bytes(published)
        with LocalLog(tmp_path, segment_bytes=200) as log:
            assert log.end("t", 0) == 12 and values(log) == [b"%d" % i for i in range(12)]


def test_an_open_reader_catches_up_with_bounds_that_fell_behind(root: Path) -> None:
    with LocalLog(root) as reader:
        assert reader.end("t", 0) == 2
        with LocalLog(root) as log:
            log.append("t", 0, [batch(b"c")])
        (root / "t" / "0" / "bounds").write_bytes(b"x" * 44)
        assert reader.end("t", 0) == 3 and values(reader) == [b"a", b"b", b"c"]


def test_durable_bytes_that_are_gone_are_an_error_and_not_a_shorter_log(root: Path) -> None:
    os.truncate(segment(root), segment(root).stat().st_size - 1)
    with pytest.raises(CorruptionError, match="were durable"), LocalLog(root) as log:
        log.append("t", 0, [batch(b"c")])


def test_damage_before_the_last_segment_is_an_error_and_not_a_cut(tmp_path: Path) -> None:
    with LocalLog(tmp_path, segment_bytes=1) as log:
        log.create("t", 1)
        for i in range(3):
            log.append("t", 0, [batch(b"%d" % i)])
    raw = bytearray(segment(tmp_path, 1).read_bytes())
    raw[-1] ^= 1
    segment(tmp_path, 1).write_bytes(bytes(raw))
    (tmp_path / "t" / "0" / "bounds").write_bytes(b"")
    with pytest.raises(CorruptionError, match="is damaged at byte 0"), LocalLog(tmp_path) as log:
        log.end("t", 0)


def test_a_damaged_header_is_an_error_that_names_file_and_byte(root: Path) -> None:
    raw = bytearray(segment(root).read_bytes())
    raw[16] = 9  # the magic number
    segment(root).write_bytes(bytes(raw))
    with pytest.raises(CorruptionError, match=r"00000000000000000000\.log.*byte 0"), LocalLog(root) as log:
        log.read("t", 0, 0, 100, 100)


def test_a_crash_between_a_new_segment_and_its_first_batch_is_recovered(root: Path) -> None:
    segment(root, 2).touch()
    with LocalLog(root) as log:
        assert values(log) == [b"a", b"b"] and log.append("t", 0, [batch(b"c")]) == 2
        assert values(log) == [b"a", b"b", b"c"]
    assert segment(root, 2).stat().st_size > 0


def test_segments_roll_and_reads_go_on_from_one_to_the_next(tmp_path: Path) -> None:
    with LocalLog(tmp_path, segment_bytes=1000) as log, LocalLog(tmp_path) as reader:
        log.create("t", 1)
        for i in range(100):
            log.append("t", 0, [batch(b"%d" % i * 20)])
            assert values(reader, i) == [b"%d" % i * 20], "a reader that is open sees new data, and new segments"
        assert len(list((tmp_path / "t" / "0").glob("*.log"))) > 8
        assert values(reader) == values(log) == [b"%d" % i * 20 for i in range(100)]
        assert log.truncate_before("t", 0, 50) == reader.start("t", 0)
        assert (chunk := reader.read("t", 0, 0, 1, 1)) is not None and chunk.lost == ((0, reader.start("t", 0)),)


def test_the_index_finds_every_offset_of_a_large_segment(tmp_path: Path) -> None:
    with LocalLog(tmp_path) as log:
        log.create("t", 1)
        sizes = [1 + i * 7 % 5 for i in range(3000)]
        rng = random.Random(3)
        log.append("t", 0, [encode_list([rng.randbytes(300)] * n, [i * 1_000_000] * n, codec="none") for i, n in enumerate(sizes)])
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    for i in rng.sample(range(3000), 200):
        with LocalLog(tmp_path) as log:  # one that has read nothing yet
            offset = starts[i] + rng.randrange(sizes[i])
            assert (chunk := log.read("t", 0, offset, 1, 1)) is not None
            assert (int.from_bytes(chunk.data[:8], "big"), chunk.next) == (starts[i], starts[i] + sizes[i])
            assert log.offset_at("t", 0, i * 1_000_000) == starts[i]


def test_a_write_that_fails_leaves_nothing_behind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = segment(root).read_bytes()
    real, calls = os.pwritev, [0]

    def full_disk(descriptor: int, pieces: list[Any], position: int) -> int:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, [memoryview(pieces[0])[:5]], position)  # a short write first

    with LocalLog(root) as log:
        monkeypatch.setattr(os, "pwritev", full_disk)
        with pytest.raises(UnavailableError, match="No space left") as caught:
            log.append("t", 0, [batch(b"c")])
        assert caught.value.hint == "make room on that disk" and segment(root).read_bytes() == before
        monkeypatch.undo()
        assert log.append("t", 0, [batch(b"c")]) == 2 and values(log) == [b"a", b"b", b"c"]


def test_short_writes_are_finished(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda descriptor, pieces, position: real(descriptor, [memoryview(pieces[0])[:7]], position))
    with LocalLog(root) as log:
        log.append("t", 0, [batch(b"c"), batch(b"d" * 100)])
        assert values(log) == [b"a", b"b", b"c", b"d" * 100]


def test_the_data_is_synced_before_it_is_published(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for name in ("pwritev", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (order.append(name), real(*a))[1])
    publish = Bounds.write
    monkeypatch.setattr(Bounds, "write", lambda self, descriptor: (order.append("publish"), publish(self, descriptor))[1])
    with LocalLog(root) as log:
        log.append("t", 0, [batch(b"c"), batch(b"d"), batch(b"e")])
    assert order == ["pwritev", "fdatasync", "publish"], "one sync for all that one call is given"


def test_what_is_written_and_not_yet_synced_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, seen = LocalLog(root), []
    assert reader.end("t", 0) == 2
    real = os.fdatasync

    def look_first(descriptor: int) -> None:
        seen.append((segment(root).stat().st_size, reader.end("t", 0), reader.read("t", 0, 2, 100, 100), LocalLog(root).end("t", 0)))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", look_first)
    with LocalLog(root) as log:
        log.append("t", 0, [batch(b"c")])
    assert [rest for _, *rest in seen] == [[2, None, 2]] and seen[0][0] == segment(root).stat().st_size
    assert values(reader) == [b"a", b"b", b"c"]


def test_an_append_waits_for_another_and_names_it_when_it_takes_too_long(root: Path) -> None:
    with LocalLog(root) as holder, LocalLog(root, lock_timeout=0.05) as log:
        with holder._partition("t", 0).locked():
            assert values(log) == [b"a", b"b"], "reading needs no lock"
            with pytest.raises(ConfigurationError, match=rf"appended to by process {os.getpid()}"):
                log.append("t", 0, [batch(b"c")])
        assert log.append("t", 0, [batch(b"c")]) == 2


def _append_many(root: str, name: int, count: int) -> None:
    with LocalLog(root) as log:
        for i in range(count):
            log.append("t", 0, [batch(b"%d-%d" % (name, i))])


def test_processes_that_append_to_one_partition_take_turns(root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(str(root), name, 40)) for name in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with LocalLog(root) as log:
        got = [value for value in values(log)[2:] if value]
    assert sorted(got) == sorted(b"%d-%d" % (name, i) for name in range(3) for i in range(40))
    for name in range(3):
        assert [value for value in got if value.startswith(b"%d-" % name)] == [b"%d-%d" % (name, i) for i in range(40)]


def test_an_open_log_notices_a_topic_created_anew_by_another_process(root: Path) -> None:
    with LocalLog(root) as log, LocalLog(root) as other:
        before = log.incarnation("t")
        assert values(log) == [b"a", b"b"]
        other.delete("t")
        with pytest.raises(NotFoundError):
            log.read("t", 0, 0, 1, 1)
        other.create("t", 3)
        assert log.incarnation("t") != before and log.partitions("t") == 3 and log.end("t", 0) == 0
        assert log.append("t", 2, [batch(b"x")]) == 0 and other.end("t", 2) == 1


def test_an_append_to_a_topic_that_is_deleted_meanwhile_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalLog(root) as log, LocalLog(root) as other:
        log.end("t", 0)
        real = Partition.locked

        def deleted_first(self: Partition) -> Any:
            monkeypatch.setattr(Partition, "locked", real)
            other.delete("t")
            return real(self)

        monkeypatch.setattr(Partition, "locked", deleted_first)
        with pytest.raises(NotFoundError, match="'t'"):
            log.append("t", 0, [batch(b"x")])


def test_files_that_are_not_topics_are_no_topics(root: Path) -> None:
    (root / "stray").mkdir()
    (root / ".new-1").mkdir()
    (root / "file").touch()
    with LocalLog(root) as log:
        assert log.topics() == ["t"]


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ConfigurationError, match="is not a directory"):
        LocalLog(tmp_path / "f")


APPENDER = """
import sys
from penstock.kernels.encode import encode_list
from penstock.log.local import LocalLog
log = LocalLog(sys.argv[1], segment_bytes=300_000)
while True:
    first = log.end("t", 0)
    sizes = [1 + (first + i) % 7 for i in range(1 + first % 5)]
    batches, at = [], first
    for size in sizes:
        batches.append(encode_list([b"%d" % (at + i) * 200 for i in range(size)], [0] * size, codec="none"))
        at += size
    assert log.append("t", 0, batches) == first
    sys.stdout.write(f"{at}\\n")
    sys.stdout.flush()
"""


def test_kill_9_of_an_appender_loses_nothing_acknowledged_and_invents_nothing(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    with LocalLog(tmp_path, segment_bytes=300_000) as log:
        log.create("t", 1)
        for _ in range(6):
            process = subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path)], stdout=subprocess.PIPE)
            assert process.stdout is not None and process.stdout.readline()
            deadline = time.monotonic() + rng.uniform(0.001, 0.08)
            while time.monotonic() < deadline:  # a reader beside it sees whole, correct records only
                end = log.end("t", 0)
                start = max(0, end - 20)
                tail = values(log, start)
                assert len(tail) >= end - start and tail == [b"%d" % i * 200 for i in range(start, start + len(tail))]
            process.send_signal(signal.SIGKILL)
            acknowledged = [int(line) for line in process.stdout.read().splitlines() if line]
            process.wait()
            process.stdout.close()
            assert log.append("t", 0, []) >= max(acknowledged, default=0)
            assert values(log) == [b"%d" % i * 200 for i in range(log.end("t", 0))]
