"""Reception without a server: bodies of every form, stamps, claims of several servers, what a record says of its request."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigurationError, UnavailableError
from penstock.kernels.encode import Slices, encode_batch
from penstock.log.local import LocalLog
from penstock.log.memory import MemoryLog
from penstock.model import Int, Schema, String, Timestamp
from penstock.serve.problems import Problem
from penstock.serve.reception import trace
from penstock.serve.reception.body import events_of, form_of, inflated
from penstock.serve.reception.claims import CLAIMS, SKEW, Claims, Receipt
from penstock.serve.reception.examine import Examiner, Part, Reject
from penstock.serve.reception.instance import Instance
from penstock.serve.reception.routes import client_address
from penstock.serve.reception.settings import ReceptionSettings
from penstock.serve.reception.stamps import Sent, append_json, append_msgpack
from penstock.table.memory import MemoryTable

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalar = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | text
value = st.recursive(scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6)
event = st.dictionaries(text, value, max_size=5)
events = st.lists(event, min_size=1, max_size=8)
FORMS: dict[str, Callable[[list[Any]], bytes]] = {
    "json": lambda found: json.dumps(found).encode(),
    "jsonl": lambda found: b"\r\n\n".join(json.dumps(one, ensure_ascii=False).encode() for one in found),
    "msgpack": lambda found: bytes(msgpack.packb(found)),
}


@given(
    found=events,
    form=st.sampled_from(sorted(FORMS)),
    format=st.sampled_from(["json", "msgpack"]),
    coding=st.sampled_from(["", "gzip", "zstd"]),
)
@settings(max_examples=300, deadline=None)
def test_the_events_of_a_body_are_those_that_were_written(found: list[Any], form: str, format: str, coding: str) -> None:
    body = {"": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[coding](FORMS[form](found))
    values = events_of(inflated(body, coding, 1 << 20), form, format, 100)
    read: Callable[[bytes], Any] = json.loads if format == "json" else msgpack.unpackb
    assert [read(values.get(row) or b"") for row in range(len(values))] == found


@given(
    body=st.binary(max_size=60),
    form=st.sampled_from(sorted(FORMS)),
    format=st.sampled_from(["json", "msgpack"]),
    coding=st.sampled_from(["", "gzip", "zstd"]),
)
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_events_or_a_problem(body: bytes, form: str, format: str, coding: str) -> None:
    try:
        values = events_of(inflated(body, coding, 1000), form, format, 10)
    except Problem as problem:
        assert problem.status in (400, 413)
        return
    assert 0 < len(values) <= 10


def test_a_body_that_would_be_large_is_never_made() -> None:
    bomb = b"\0" * (50 << 20)
    for coding, packed in (("gzip", gzip.compress(bomb)), ("zstd", zstandard.compress(bomb))):
        with pytest.raises(Problem) as caught:
            inflated(packed, coding, 1 << 20)
        assert caught.value.status == 413
    with pytest.raises(Problem) as caught:
        form_of("application/xml")
    assert caught.value.status == 415


@given(
    one=event, added=st.dictionaries(text, text | st.integers(0, 2**53), min_size=1, max_size=3), blank=st.sampled_from(["", " ", "\n\t"])
)
@settings(max_examples=300, deadline=None)
def test_what_is_appended_counts_and_the_rest_stays(one: dict[str, Any], added: dict[str, Any], blank: str) -> None:
    assert json.loads(append_json((json.dumps(one) + blank).encode(), added)) == {**one, **added}
    assert msgpack.unpackb(append_msgpack(msgpack.packb(one), added)) == {**one, **added}


@pytest.mark.parametrize("count", [0, 14, 15, 16, 65_534, 65_535, 65_536])
def test_a_map_may_outgrow_its_head(count: int) -> None:
    one = {str(number): number for number in range(count)}
    assert msgpack.unpackb(append_msgpack(msgpack.packb(one), {"a": 1, "b": 2})) == {**one, "a": 1, "b": 2}


SCHEMA = Schema(
    "e",
    time="ts",
    key="k",
    fields={"ts": Timestamp("ms"), "k": Int(nullable=True), "id": String(max_bytes=40), "at": Timestamp("iso8601", nullable=True)},
)


def test_several_requests_are_examined_at_once() -> None:
    examiner = Examiner(SCHEMA, {"id": "id", "received": "at"}, 200)
    now = 1_700_000_000_000_000
    one = Slices.of([b'{"ts":1,"k":1}', b'{"ts":1,"id":"mine","at":null}', b"no"])
    other = Slices.of(
        [b'{"ts":1700000000000,"k":2,"id":"x"}', b'{"ts":1800000000000,"id":"y"}', b'{"ts":1,"id":"z","more":"' + b"x" * 200 + b'"}']
    )
    made = examiner.examine([Part(one, Sent("a" * 24, now)), Part(other, Sent("b" * 24, now + 1), {"k": [2, 3]})])
    read = [made.values.get(row) for row in range(6)]
    assert (
        json.loads(read[0] or b"") == {"ts": 1, "k": 1, "id": "a" * 24 + "00000000", "at": "2023-11-14T22:13:20Z"}
        or json.loads(read[0] or b"")["id"] == "a" * 24 + "00000000"
    )
    assert json.loads(read[1] or b"")["id"] == "mine" and json.loads(read[1] or b"")["at"]
    assert [(reject.index, reject.field, reject.reason) for reject in examiner.rejects(made.reject[:3])] == [(2, None, "malformed")]
    assert [(reject.index, reject.field, reject.reason) for reject in examiner.rejects(made.reject[3:])] == [
        (1, "ts", "future"),
        (2, None, "too_long"),
    ]
    assert made.keys is not None and [made.keys.get(row) for row in range(4)] == [b"1", None, None, b"2"]
    assert made.timestamps.tolist() == [now] * 3 + [now + 1] * 3


@pytest.mark.parametrize("stamps", [{"id": "none"}, {"id": "k"}, {"received": "id"}])
def test_a_stamp_that_its_field_cannot_take_is_refused(stamps: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Examiner(SCHEMA, stamps, 100)
    assert caught.value.hint


def test_what_a_record_says_of_its_request_is_found_again() -> None:
    log = MemoryLog()
    log.create("t", 2)
    first, second, third = b"a" * 16, b"\0" * 16, b"c" * 16
    headers = trace.headers([first, None, second], [3, 2, 2])
    assert headers is not None and trace.headers([None], [2]) is None
    values = Slices.of([b"{}"] * 7)
    stamps = np.full(7, 5_000_000, np.int64)
    for partition, rows in ((0, [0, 3, 5]), (1, [2, 4, 6])):
        log.append("t", partition, [encode_batch(values, stamps, headers=headers, rows=np.array(rows))])
    assert trace.find(log, "t", [first, second, third], 5_000_000) == {first: {0, 2}, second: {0, 1}, third: set()}
    assert trace.find(log, "t", [first], 6_000_000) == {first: set()}


def test_what_a_killed_server_had_written_and_not_published_is_found(tmp_path: Path) -> None:
    digest, values, stamps = b"a" * 16, Slices.of([b"{}"] * 2), np.full(2, 5_000_000, np.int64)
    headers = trace.headers([digest], [2])
    writer, other, bounds = LocalLog(tmp_path), LocalLog(tmp_path), tmp_path / "t" / "0" / "bounds"
    with contextlib.closing(writer), contextlib.closing(other):
        writer.create("t", 1)
        assert other.end("t", 0) == 0
        before = bounds.read_bytes()
        writer.append("t", 0, [encode_batch(values, stamps, headers=headers)])
        bounds.write_bytes(before)  # as a kill between the write and its publication leaves it
        assert other.end("t", 0) == 0
        assert trace.find(other, "t", [digest], 5_000_000) == {digest: {0, 1}}


class Between(MemoryTable):
    """A table that lets something happen between the put of a claim and the look at its row."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[], None] = lambda: None

    def rows(self, table: str, rows: Any) -> Any:
        then, self.then = self.then, lambda: None
        then()
        return super().rows(table, rows)


class Servers:
    """Some servers at one table, with a clock."""

    def __init__(self, folder: Path, *, settle: int = 0) -> None:
        self.table, self.clock, self.folder, self.settle = Between(), 1_000_000_000, folder, settle
        self.instances: list[Instance] = []

    def now(self) -> int:
        return self.clock

    def new(self, folder: Path | None = None) -> Claims:
        self.instances.append(Instance(folder or self.folder, self.now, settle=self.settle))
        return Claims(self.table, self.instances[-1], self.now, window=10**12, lease=60_000_000)

    def begin(self, claims: Claims, digest: bytes = b"d" * 16, body: bytes = b"b") -> Any:
        [standing], _ = claims.begin([(digest, body, self.clock)])
        return standing


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path)


def test_a_request_is_owned_by_one_and_answered_by_all(servers: Servers) -> None:
    one, other = servers.new(), servers.new()
    standing = servers.begin(one)
    assert (standing.receipt, standing.mismatch, standing.busy, standing.since) == (None, False, 0.0, None)
    assert servers.begin(other).busy > 0
    receipt = Receipt(3, (Reject(1, "f", "missing", "field 'f' is missing"),))
    one.done(b"d" * 16, receipt)
    one.write()
    found = servers.begin(other).receipt
    assert (found.accepted, found.rejected, found.replayed) == (3, receipt.rejected, True)
    assert servers.begin(one, body=b"other").mismatch


def test_two_that_claim_at_the_same_moment_both_stand_back_and_then_one_goes_on(servers: Servers) -> None:
    one, other = servers.new(), servers.new()
    seen = []
    servers.table.then = lambda: seen.append(servers.begin(other))
    mine = servers.begin(one)
    assert mine.busy > 0 and seen[0].busy > 0
    one.write()
    other.write()
    again = servers.begin(one)
    assert again.busy == 0 and again.since is None


def test_what_a_dead_server_claimed_is_taken_over_by_one(servers: Servers) -> None:
    dead, one, other = servers.new(), servers.new(), servers.new()
    assert servers.begin(dead).since is None
    began = servers.clock
    assert servers.begin(one).busy > 0
    one.write()
    servers.instances[0].close()  # it is dead
    servers.clock += 5
    taken = servers.begin(one)
    assert taken.since is not None and taken.since <= began
    assert servers.begin(other).busy > 0  # the second owner lives
    other.write()
    servers.instances[1].close()  # and dies as well
    again = servers.begin(other)
    assert again.since is not None and again.since <= began


def test_of_two_that_take_over_one_wins(servers: Servers) -> None:
    dead, one = servers.new(), servers.new()
    servers.begin(dead)
    servers.instances[0].close()
    compare = servers.table.compare_and_set

    def late(table: str, row: bytes, column: bytes, expected: bytes | None, new: bytes) -> bool:
        compare(table, row, column, expected, b"another")
        return compare(table, row, column, expected, new)

    servers.table.compare_and_set = late  # type: ignore[method-assign]
    assert servers.begin(one).busy > 0


def test_a_server_elsewhere_is_waited_for_until_its_claim_has_ended(servers: Servers, tmp_path: Path) -> None:
    elsewhere, one = servers.new(tmp_path / "elsewhere"), servers.new(tmp_path / "here")
    servers.begin(elsewhere)
    servers.instances[0].close()  # which nobody can see from here
    servers.clock += 60_000_000
    assert servers.begin(one).busy == pytest.approx(SKEW / 1e6)
    one.write()
    servers.clock += SKEW
    assert servers.begin(one).since is not None


def test_what_was_on_its_way_when_a_server_died_may_arrive_first(tmp_path: Path) -> None:
    servers = Servers(tmp_path, settle=5_000_000)
    dead, one = servers.new(), servers.new()
    servers.begin(dead)
    servers.instances[0].close()
    assert servers.begin(one).busy == pytest.approx(5)
    one.write()
    servers.clock += 5_000_000
    assert servers.begin(one).since is not None


def test_what_is_given_up_is_looked_for_and_what_is_withdrawn_is_not(servers: Servers) -> None:
    one = servers.new()
    servers.begin(one, b"1" * 16)
    one.withdraw(b"1" * 16)
    one.write()
    assert servers.begin(one, b"1" * 16).since is None
    servers.begin(one, b"2" * 16)
    one.give_up(b"2" * 16)
    assert servers.begin(one, b"2" * 16).since is not None


def test_a_table_that_fails_leaves_nothing_in_our_hands(servers: Servers) -> None:
    one = servers.new()

    def fail() -> None:
        raise UnavailableError("gone")

    servers.table.then = fail
    with pytest.raises(UnavailableError):
        servers.begin(one)
    assert servers.begin(one).busy == 0
    one.done(b"d" * 16, Receipt(1))
    assert one.waiting
    one.write()
    assert not one.waiting and servers.table.rows(CLAIMS, [b"d" * 16])[0]


@pytest.mark.parametrize(
    "peer, forwarded, expected",
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.1"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.1", "10.0.0.2"], "203.0.113.1"),
        ("10.0.0.1", ["nonsense"], None),
        ("10.0.0.1", [], "10.0.0.1"),
        (None, ["203.0.113.1"], None),
    ],
)
def test_proxies_are_believed_as_far_as_they_are_trusted(peer: str | None, forwarded: list[str], expected: str | None) -> None:
    trusted = ReceptionSettings.of({"trusted_proxies": ["10.0.0.0/8"]}).trusted_proxies
    assert client_address(peer, forwarded, trusted) == expected


@pytest.mark.parametrize(
    "table",
    [
        {"max_bodi": 1},
        {"max_body": 0},
        {"max_body": True},
        {"window": "soon"},
        {"origins": "x"},
        {"trusted_proxies": ["x"]},
        {"stamp": {"a": {"b": "c"}}},
        {"stamp": 1},
    ],
)
def test_a_setting_that_cannot_work_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"serve\.reception") as caught:
        ReceptionSettings.of(table)
    assert caught.value.hint
