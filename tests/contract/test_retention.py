"""What retention removes of an archive, what it leaves alone, and that nothing is lost if it stops at any call."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from archives import SHARD, STORES, H, opened

from penstock.archive import Archive, Entry
from penstock.archive.memory import MemoryArchive, visible
from penstock.archive.retention import Kept, Removed, Rules, Writers, prune
from penstock.model.units import DAY, HOUR, hour_text

OWNER, OTHER = "a" * 32, "b" * 32
LATER = time.time_ns() // 1000 + 2 * DAY  # when all that a test writes is settled
GENERATION = SHARD.partition("-")[0]


@pytest.fixture(params=list(STORES))
def archive(request: pytest.FixtureRequest) -> Iterator[Archive]:
    """An empty archive."""
    with opened(request) as store:
        yield store


class Warehouse:
    """What was loaded: whole hours, and paths that the last manifest names."""

    def __init__(self, *hours: int, names: frozenset[str] = frozenset()) -> None:
        self.hours, self.named = hours, names

    def whole(self, hour: int, shown: list[Entry]) -> bool:
        return hour in self.hours

    def names(self, hour: int, shown: list[Entry], covered: Entry) -> bool:
        return covered.path in self.named


def stored(archive: Any, first: int, end: int, *, hour: int = H, owner: str = OWNER, merged: bool = False, indexed: bool = True) -> Entry:
    """A file as a bolt writes it, or a merge."""
    last = f"merged-{first:016x}" if merged else owner
    path = f"ads/hour={hour_text(hour)}/{SHARD}-{first}-{end}-{last}.parquet"
    archive.write(path, b"x" * (end - first))
    made = Entry("ads", hour, path, SHARD, first, end, end - first, end - first, "")
    if indexed:
        archive.add([made])
    return made


def run(archive: Any, *, writers: Writers | None = None, loaded: Warehouse | None = None, **rules: Any) -> list[Removed | Kept]:
    rules = {"now": LATER, **rules}
    return list(prune(archive, "ads", Rules(**rules), writers or Writers({SHARD: (OWNER, 1000)}), loaded or Warehouse()))


def paths(archive: Any) -> set[str]:
    return {file.path for file in archive.files("ads")}


def test_old_hours_go_when_they_are_loaded(archive: Archive) -> None:
    hours = [H + n * HOUR for n in range(4)]
    made = [stored(archive, n, n + 2, hour=hour) for n, hour in enumerate(hours)]
    found = run(archive, before=H + 3 * HOUR, loaded=Warehouse(hours[0], hours[2], hours[3]))
    assert found == [
        Removed("ads", hours[0], "old", 1, 2),
        Kept("ads", hours[1], "not loaded", 1, 2),
        Removed("ads", hours[2], "old", 1, 2),
    ]
    assert archive.hours("ads") == [hours[1], hours[3]]
    assert paths(archive) == {made[1].path, made[3].path}
    assert run(archive, before=H + 3 * HOUR, unloaded=True) == [Removed("ads", hours[1], "old", 1, 2)]
    assert archive.hours("ads") == [hours[3]] and paths(archive) == {made[3].path}


def test_without_an_age_no_hour_is_old(archive: Archive) -> None:
    stored(archive, 0, 2)
    assert run(archive, loaded=Warehouse(H)) == []
    assert run(archive, loaded=Warehouse(H), before=H + HOUR - 1) == []
    assert len(archive.entries("ads", H)) == 1


def test_a_dry_run_says_the_same_and_removes_nothing(archive: Archive) -> None:
    for n in range(3):
        stored(archive, n, n + 1)
    stored(archive, 0, 3, merged=True)
    stored(archive, 0, 9, owner=OTHER, indexed=False)
    stored(archive, 3, 4, hour=H - HOUR)
    before = paths(archive)
    said = run(archive, before=H, loaded=Warehouse(H - HOUR), dry_run=True)
    assert paths(archive) == before and len(archive.index("ads", H)) == 4
    assert run(archive, before=H, loaded=Warehouse(H - HOUR)) == said
    assert [(one.hour, one.reason, one.files, one.bytes) for one in said if isinstance(one, Removed)] == [
        (H - HOUR, "old", 1, 1),
        (H, "merged", 3, 3),
        (H, "orphan", 1, 9),
    ]


def test_what_a_merge_covers_goes_and_readers_see_the_same(archive: Archive) -> None:
    for n in range(5):
        stored(archive, n, n + 1)
    stored(archive, 0, 3, merged=True)
    stored(archive, 2, 5, merged=True)  # made at once with the other: left out, and 3 and 4 count
    before = archive.entries("ads", H)
    assert run(archive) == [Removed("ads", H, "merged", 4, 6)]
    assert archive.entries("ads", H) == before and len(archive.index("ads", H)) == len(before)
    assert paths(archive) == {entry.path for entry in before}
    assert run(archive) == []


def test_what_a_loaded_manifest_names_stays_after_a_merge(archive: Archive) -> None:
    made = [stored(archive, n, n + 1) for n in range(3)]
    stored(archive, 0, 3, merged=True)
    assert run(archive, loaded=Warehouse(names=frozenset({made[1].path}))) == [Removed("ads", H, "merged", 2, 2)]
    assert made[1].path in paths(archive) and made[1] in archive.index("ads", H)


@pytest.mark.parametrize("size", [None, 2])
def test_what_a_file_covers_that_is_gone_or_cut_off_stays(archive: Archive, size: int | None) -> None:
    made = [stored(archive, n, n + 1) for n in range(3)]
    covering = stored(archive, 0, 3, merged=True)
    archive.remove([covering.path])
    if size is not None:
        archive.write(covering.path, b"x" * size)
    assert run(archive) == []
    assert {entry.path for entry in made} <= paths(archive)


def test_orphans_go_only_when_nobody_can_index_them_any_more(archive: Archive) -> None:
    writers = Writers({SHARD: (OWNER, 20)}, frozenset({f"ads/hour={hour_text(H)}/{SHARD}-10-15-{OWNER}.parquet"}))
    kept = [
        stored(archive, 20, 30, indexed=False),  # the owner may be about to commit it
        stored(archive, 10, 15, indexed=False),  # listed by the control cell, to be indexed by whoever owns the shard
        stored(archive, 0, 5),
    ]
    gone = [
        stored(archive, 5, 20, indexed=False),  # what the owner has committed, and did not list
        stored(archive, 20, 31, owner=OTHER, indexed=False),  # of an owner that lost the shard
        stored(archive, 0, 5, merged=True, indexed=False),  # of a merge that ended in between
    ]
    assert run(archive, writers=writers) == [Removed("ads", H, "orphan", 3, 31)]
    assert paths(archive) == {entry.path for entry in kept}
    assert not paths(archive) & {entry.path for entry in gone}


def test_files_that_no_control_cell_knows_of_stay_and_are_told(archive: Archive) -> None:
    archive.write(f"ads/hour={hour_text(H)}/a-file-of-mine.parquet", b"123")
    archive.write("ads/elsewhere/b.parquet", b"45")
    stored(archive, 0, 5, indexed=False)
    assert sorted(run(archive, writers=Writers()), key=lambda one: one.bytes) == [
        Kept("ads", None, "unknown", 1, 2),
        Kept("ads", H, "unknown", 2, 8),
    ]
    assert len(paths(archive)) == 3


def test_an_hour_that_a_control_cell_lists_stays(archive: Archive) -> None:
    made = stored(archive, 0, 5)
    stored(archive, 5, 9)
    listed = Writers({SHARD: (OWNER, 9)}, frozenset({made.path}))
    assert run(archive, writers=listed, before=H + HOUR, unloaded=True) == [Kept("ads", H, "in use", 2, 9)]
    assert len(archive.entries("ads", H)) == 2


@pytest.mark.parametrize("archive", [name for name in STORES if name != "memory"], indirect=True)
def test_files_that_were_just_written_stay(archive: Archive) -> None:
    for n in range(3):
        stored(archive, n, n + 1)
    stored(archive, 0, 3, merged=True)
    stored(archive, 0, 9, owner=OTHER, indexed=False)
    before, now = paths(archive), time.time_ns() // 1000 + HOUR // 60
    assert run(archive, now=now, before=H + HOUR, unloaded=True) == [Kept("ads", H, "in use", 4, 6)]
    assert run(archive, now=now) == []
    assert paths(archive) == before
    assert [one.bytes for one in run(archive, now=now, settled=0)] == [3, 9]


class Stops(Exception):
    """The process that prunes is no more."""


@pytest.mark.parametrize("calls", range(9))
def test_one_that_stops_at_any_call_is_ended_by_the_next(archive: Archive, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        stored(archive, n, n + 1)
        stored(archive, n, n + 1, hour=H - HOUR)
    stored(archive, 0, 3, merged=True)
    stored(archive, 0, 9, owner=OTHER, indexed=False)
    shown = archive.entries("ads", H)
    left = iter(range(calls))

    def one_by_one(real: Any, items: list[Any]) -> None:
        for item in items:
            if next(left, None) is None:
                raise Stops
            real([item])

    for name in ("drop", "remove"):
        monkeypatch.setattr(archive, name, functools.partial(one_by_one, getattr(archive, name)))
    with pytest.raises(Stops):
        run(archive, before=H, unloaded=True)
    monkeypatch.undo()
    assert archive.entries("ads", H) == shown
    for entry in [*archive.index("ads", H), *archive.index("ads", H - HOUR)]:
        assert archive.read(entry.path), "an entry never names a file that has gone"
    run(archive, before=H, unloaded=True)
    assert archive.hours("ads") == [H] and archive.entries("ads", H) == shown and len(archive.index("ads", H)) == 1
    assert paths(archive) == {entry.path for entry in shown}


def test_a_directory_that_was_emptied_is_written_to_again(archive: Archive) -> None:
    """By the same process, which knows that the directory was there; and by another one."""
    for _ in range(2):
        stored(archive, 0, 5)
        run(archive, before=H + HOUR, unloaded=True)
        assert archive.hours("ads") == [] and paths(archive) == set()
    archive.drop([stored(archive, 0, 5, indexed=False)])
    archive.remove([f"ads/hour={hour_text(H)}/nothing"])


@pytest.mark.parametrize("seed", range(60))
def test_whatever_lies_in_an_archive_readers_see_the_same_rows_after(seed: int) -> None:
    """Random flushes, merges, orphans and hours; the oracle is what a reader saw before, and which offsets lie in old hours."""
    chance = random.Random(seed)
    archive = MemoryArchive()
    at, written = 0, []
    for _ in range(chance.randrange(20)):
        size = chance.randrange(1, 4)
        written.append(stored(archive, at, at + size, hour=H + chance.randrange(3) * HOUR, owner=chance.choice([OWNER, OTHER])))
        at += size + chance.choice([0, 0, 3])
    for _ in range(chance.randrange(6)):
        if written:
            first = chance.choice(written)
            run_ = [e for e in visible(archive.index("ads", first.hour)) if e.first >= first.first][: chance.randrange(2, 5)]
            touching = all(a.next == b.first for a, b in zip(run_, run_[1:]))
            if len(run_) > 1 and touching:
                stored(archive, run_[0].first, run_[-1].next, hour=first.hour, merged=True)
        stored(archive, chance.randrange(30), 40 + chance.randrange(9), owner=OTHER, indexed=False)
    shown = {hour: archive.entries("ads", hour) for hour in archive.hours("ads")}
    old = chance.choice([None, H + HOUR, H + 2 * HOUR])
    loaded = Warehouse(*chance.sample(sorted(shown), chance.randrange(len(shown) + 1)))
    run(archive, before=old, loaded=loaded)
    gone = {hour for hour in shown if old is not None and hour + HOUR <= old and hour in loaded.hours}
    assert {hour: archive.entries("ads", hour) for hour in archive.hours("ads")} == {h: e for h, e in shown.items() if h not in gone}
    named = {entry.path for hour in archive.hours("ads") for entry in archive.index("ads", hour)}
    assert all(archive.read(path) for path in named)
    assert {path for path in paths(archive) if OTHER not in path or path in named} == named
