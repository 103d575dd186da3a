"""What every archive does: whole files, an index in which each record counts once, and merges that change no row."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import SHARD, STORES, H, archived, entry, opened
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.archive import Archive, Entry
from penstock.archive.directory import DirectoryArchive
from penstock.archive.memory import MemoryArchive, visible
from penstock.archive.merge import merge_hour
from penstock.archive.s3 import S3Archive
from penstock.errors import ConfigurationError, CorruptionError, InternalError, NotFoundError
from penstock.model.units import HOUR


@pytest.fixture(params=list(STORES))
def archive(request: pytest.FixtureRequest) -> Iterator[Archive]:
    """An empty archive."""
    with opened(request) as store:
        yield store


def values_of(archive: Archive) -> list[int]:
    """The values that a reader of the hour finds, in the order of the index."""
    return [
        value for e in archive.entries("ads", H) for value in pq.read_table(pa.BufferReader(archive.read(e.path))).column("n").to_pylist()
    ]


def at(archive: Archive, path: str) -> bytes:
    """What another program finds at a file's location. Raises an error where it finds nothing."""
    location = archive.location(path)
    if not location.startswith("s3://"):
        return Path(location).read_bytes()
    assert isinstance(archive, S3Archive)
    bucket, _, key = location.removeprefix("s3://").partition("/")
    client = boto3.client("s3", "us-east-1", endpoint_url=archive.settings.endpoint, aws_access_key_id="a", aws_secret_access_key="b")
    try:
        return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    finally:
        client.close()


@pytest.mark.parametrize("size", [0, 1, 100_000, 40_000_000], ids=str)
def test_a_file_is_read_back_and_found_at_its_location(archive: Archive, size: int) -> None:
    path, data = "ads/hour=2015-05-17T10/a.parquet", random.Random(size).randbytes(size)
    archive.filesystem()  # before the file, too
    archive.write(path, data)
    archive.write(path, data)
    assert archive.read(path) == data
    assert at(archive, path) == data
    with archive.filesystem().open_input_file(path) as file:
        assert file.size() == size and file.read_at(100, size // 2) == data[size // 2 : size // 2 + 100]
        file.seek(0)
        assert file.read() == data


@pytest.mark.parametrize("size", [0, 100_000, 40_000_000], ids=str)
def test_a_file_goes_in_and_comes_out_without_being_held_in_memory(archive: Archive, tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    (tmp_path / "from").write_bytes(data)
    (tmp_path / "to").write_bytes(b"of another time, and longer than nothing")
    archive.upload("ads/a", tmp_path / "from")
    archive.download("ads/a", tmp_path / "to")
    assert archive.read("ads/a") == (tmp_path / "to").read_bytes() == data


def test_a_file_that_is_not_there_is_an_error_that_names_it(archive: Archive, tmp_path: Path) -> None:
    archive.write("ads/other", b"x")
    for call in (archive.read, lambda path: archive.download(path, tmp_path / "to"), lambda path: archive.read("ads")):
        with pytest.raises(NotFoundError, match="ads"):
            call("ads/none")
    with pytest.raises((OSError, botocore.exceptions.ClientError)):
        at(archive, "ads/none")
    with pytest.raises(OSError):
        archive.filesystem().open_input_file("ads/none")


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a/.hidden", "_index/ads/x", "a/_index/x", "a\\b", "a\x00b", "a\nb", "a/"],
)
def test_a_path_that_leaves_the_archive_is_refused(archive: Archive, path: str) -> None:
    for call in (
        lambda: archive.write(path, b"x"),
        lambda: archive.location(path),
        lambda: archive.add([dataclasses.replace(entry(0, 1), path=path)]),
    ):
        with pytest.raises(ConfigurationError):
            call()


def test_the_index_lists_datasets_hours_and_entries_in_order(archive: Archive) -> None:
    archive.write("ads/orphan", b"x")
    assert (archive.datasets(), archive.hours("ads"), archive.entries("ads", H)) == ([], [], [])
    entries = [
        entry(0, 5),
        entry(5, 20),
        entry(100, 105),
        entry(0, 9, shard="a.b_c-1"),
        entry(0, 7, hour=H - HOUR),
        entry(0, 7, hour=0),
        entry(3, 4, dataset="ads_late"),
    ]
    random.Random(3).shuffle(entries)
    archive.add(entries[:3])
    archive.add(entries[3:])
    assert archive.datasets() == ["ads", "ads_late"]
    assert archive.hours("ads") == [0, H - HOUR, H]
    assert archive.entries("ads", H) == [entry(0, 5), entry(5, 20), entry(100, 105), entry(0, 9, shard="a.b_c-1")]
    assert archive.entries("ads_late", H) == [entry(3, 4, dataset="ads_late")]


def test_an_entry_that_is_there_is_left_as_it_is(archive: Archive) -> None:
    archive.add([entry(0, 5, path="one"), entry(0, 5, path="two")])
    archive.add([entry(0, 5, path="three")])
    assert [e.path for e in archive.entries("ads", H)] == ["one"]


def test_covered_entries_are_hidden(archive: Archive) -> None:
    archive.add([entry(0, 5), entry(5, 9), entry(9, 12), entry(0, 9), entry(0, 5, shard="other-1")])
    assert archive.entries("ads", H) == [entry(0, 9), entry(9, 12), entry(0, 5, shard="other-1")]


def test_shards_with_long_names_are_kept_apart(archive: Archive) -> None:
    shards = [f"0123456789abcdef-{'t' * 249}-{'0' * 32}-{partition}" for partition in range(3)]  # Kafka's longest topic name
    archive.add([entry(0, 5, shard=shard, path=f"p{n}") for n, shard in enumerate(shards)])
    assert [e.shard for e in archive.entries("ads", H)] == shards


@pytest.mark.parametrize(
    "wrong",
    [
        entry(5, 5),
        entry(6, 5),
        entry(-1, 5),
        entry(0, 5, hour=H + 1),
        entry(0, 5, shard="a/b", path="p"),
        entry(0, 5, dataset="a/b", path="p"),
    ],
)
def test_an_entry_that_no_flush_makes_is_a_bug(archive: Archive, wrong: Entry) -> None:
    with pytest.raises(InternalError):
        archive.add([entry(7, 9), wrong])
    assert archive.entries("ads", H) == []


def test_merges_made_at_once_that_overlap_in_part_count_each_record_once() -> None:
    files = [entry(n, n + 1) for n in range(5)]
    for seed in range(20):
        listed = [*files, entry(0, 3), entry(2, 5)]
        random.Random(seed).shuffle(listed)
        assert [(e.first, e.next) for e in visible(listed)] == [(0, 3), (3, 4), (4, 5)]


def test_entries_that_overlap_with_nothing_behind_them_are_corruption() -> None:
    with pytest.raises(CorruptionError, match="offsets 5 to 15"):
        visible([entry(0, 10), entry(5, 15)])


@settings(max_examples=200, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 29), unique=True, max_size=12),
    merges=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), max_size=6),
    seed=st.integers(0, 99),
)
def test_whatever_merges_an_index_holds_each_offset_is_visible_once(cuts: list[int], merges: list[tuple[int, int]], seed: int) -> None:
    bounds = [0, *sorted(cuts), 30]
    entries = {(a, b) for a, b in itertools.pairwise(bounds)} | {
        (bounds[i], bounds[min(i + n, len(bounds) - 1)]) for i, n in merges if i < len(bounds) - 1
    }
    listed = [entry(a, b) for a, b in entries]
    random.Random(seed).shuffle(listed)
    assert [offset for e in visible(listed) for offset in range(e.first, e.next)] == list(range(30))


def test_merge_makes_one_covering_file_of_neighbours_and_keeps_the_order_of_rows(archive: Archive) -> None:
    for first, end, values in ((0, 10, [3, 1]), (10, 25, [2]), (25, 40, [9, 8])):
        archived(archive, first, end, values)
    archived(archive, 50, 60, [5])  # a gap before it
    archived(archive, 0, 60, [7], shard="other-1")
    merged = merge_hour(archive, "ads", H, target_bytes=1 << 20)
    assert [(e.first, e.next, e.rows) for e in merged] == [(0, 40, 5)]
    assert [(e.shard, e.first, e.next) for e in archive.entries("ads", H)] == [(SHARD, 0, 40), (SHARD, 50, 60), ("other-1", 0, 60)]
    assert values_of(archive) == [3, 1, 2, 9, 8, 5, 7]
    assert hashlib.sha256(archive.read(merged[0].path)).hexdigest() == merged[0].sha256
    assert merge_hour(archive, "ads", H, target_bytes=1 << 20) == []


def test_merge_leaves_named_and_large_files_alone(archive: Archive) -> None:
    entries = [archived(archive, n, n + 1, [n]) for n in range(4)] + [
        archived(archive, 4, 5, random.Random(1).choices(range(1 << 60), k=5000))
    ]
    entries += [archived(archive, n, n + 1, [n]) for n in (5, 6)]
    merged = merge_hour(archive, "ads", H, target_bytes=10_000, named={entries[1].path})
    assert [(e.first, e.next) for e in merged] == [(2, 4), (5, 7)]
    assert {entries[0].path, entries[1].path, entries[4].path} <= {e.path for e in archive.entries("ads", H)}


def test_merge_cuts_a_run_where_the_columns_change(archive: Archive) -> None:
    for n in range(4):
        archived(archive, n, n + 1, [n], names=("n",) if n < 2 else ("n", "added"))
    assert [(e.first, e.next) for e in merge_hour(archive, "ads", H, target_bytes=1 << 20)] == [(0, 2), (2, 4)]
    assert values_of(archive) == [0, 1, 2, 3]


def test_merge_refuses_a_file_that_is_not_what_its_entry_says() -> None:
    archive = MemoryArchive()
    good = archived(archive, 0, 1, [1])
    archive.write("bad", b"PAR1 but not for long")
    archive.add([entry(1, 2, path="bad", size=21, sha256=good.sha256)])
    with pytest.raises(CorruptionError, match="bad"):
        merge_hour(archive, "ads", H, target_bytes=1 << 20)
    assert len(archive.entries("ads", H)) == 2


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(st.tuples(st.lists(st.integers(-9, 9), min_size=1, max_size=5), st.integers(0, 1), st.integers(0, 2)), max_size=12),
    target=st.integers(300, 4000),
    named=st.sets(st.integers(0, 11)),
    again=st.integers(300, 8000),
)
def test_rows_before_a_merge_are_the_rows_after_it(
    files: list[tuple[list[int], int, int]], target: int, named: set[int], again: int
) -> None:
    archive = MemoryArchive()
    offsets, entries = [0, 0], []
    for values, shard, gap in files:
        first = offsets[shard] + max(0, gap - 1)
        offsets[shard] = first + 3
        entries.append(archived(archive, first, first + 3, values, shard=f"shard-{shard}"))
    kept = {e.path for n, e in enumerate(entries) if n in named}
    before = values_of(archive)
    merge_hour(archive, "ads", H, target_bytes=target, named=kept)
    merge_hour(archive, "ads", H, target_bytes=again, named=kept)
    assert Counter(values_of(archive)) == Counter(before)
    assert values_of(archive) == before, "and in the same order"
    assert kept <= {e.path for e in archive.entries("ads", H)}


@pytest.mark.parametrize("calls", range(3))
def test_a_merge_that_stops_at_any_step_changes_nothing_that_a_reader_sees(
    archive: Archive, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        archived(archive, n, n + 1, [n])
    made: list[str] = []
    for name in ("upload", "add"):
        real = getattr(archive, name)

        def stopping(*arguments: Any, real: Callable[..., None] = real, name: str = name) -> None:
            if len(made) == calls:
                raise KeyboardInterrupt
            made.append(name)
            real(*arguments)

        monkeypatch.setattr(archive, name, stopping)
    if calls < 2:
        with pytest.raises(KeyboardInterrupt):
            merge_hour(archive, "ads", H, target_bytes=1 << 20)
    else:
        merge_hour(archive, "ads", H, target_bytes=1 << 20)
    assert made == ["upload", "add"][:calls]
    assert values_of(archive) == [0, 1, 2]
    monkeypatch.undo()
    merge_hour(archive, "ads", H, target_bytes=1 << 20)
    assert values_of(archive) == [0, 1, 2] and len(archive.entries("ads", H)) == 1


def test_a_directory_archive_is_whole_after_a_write_that_fails_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = DirectoryArchive(tmp_path)
    archive.write("ads/a", b"whole")

    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(ConnectionError, match="No space left"):
        archive.write("ads/b", b"half")
    with pytest.raises(ConnectionError, match="No space left"):
        archive.add([entry(0, 1)])
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "ads").iterdir()) == ["a"]
    assert archive.entries("ads", H) == []
    archive.add([entry(0, 1)])
    assert archive.entries("ads", H) == [entry(0, 1)]


def test_files_are_synced_before_they_are_renamed_and_directories_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut cannot be staged here, but the order of the calls that make a file survive one can be seen."""
    archive = DirectoryArchive(tmp_path)
    archive.add([entry(0, 1)])
    steps: list[tuple[str, str]] = []
    sync, rename = os.fsync, os.rename

    def seen_sync(descriptor: int) -> None:
        steps.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def seen_rename(source: Any, target: Any) -> None:
        steps.append(("rename", str(source)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", seen_sync)
    monkeypatch.setattr(os, "rename", seen_rename)
    archive.add([entry(n, n + 1) for n in range(1, 21)])
    renamed = [path for step, path in steps if step == "rename"]
    assert len(renamed) == 20
    assert all(steps.index(("sync", path)) < steps.index(("rename", path)) for path in renamed)
    assert steps[-1] == ("sync", str(tmp_path / "_index" / "ads" / "hour=2015-05-17T10"))
    assert len(steps) == 41, "one sync a file and one for their directory"


def test_an_index_entry_that_does_not_parse_is_corruption_that_names_the_file(tmp_path: Path) -> None:
    archive = DirectoryArchive(tmp_path)
    archive.add([entry(0, 1)])
    place = next(tmp_path.glob("_index/ads/*/*.json"))
    place.write_text("{")
    with pytest.raises(CorruptionError, match=place.name):
        archive.entries("ads", H)


def test_a_path_that_is_a_file_is_refused_as_an_archive() -> None:
    with tempfile.NamedTemporaryFile() as file, pytest.raises(ConfigurationError):
        DirectoryArchive(file.name).write("ads/a", b"x")


def test_memory_refuses_other_bytes_for_a_path() -> None:
    archive = MemoryArchive()
    archive.write("a", b"1")
    with pytest.raises(InternalError, match="a was written before"):
        archive.write("a", b"2")
