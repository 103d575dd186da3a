"""The sender against the real server, through a proxy that loses answers, and with a server that comes and goes."""

from __future__ import annotations

import contextlib
import decimal
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reception_world import contents, deployment, event, free_port, key, serving

from penstock.errors import ConfigurationError, UnavailableError
from penstock.sender import RefusedError, Sender, SpoolFullError
from penstock.sender.spool import DiskSpool
from penstock.sender.transport import retry_after, understood

FAST: dict[str, Any] = {"backoff": (0.01, 0.1), "linger": 0.02}


@contextlib.contextmanager
def losing_answers(url: str) -> Iterator[tuple[str, list[int]]]:
    """A proxy that hands a request on and, every other time, drops the connection instead of the answer. Its address, and how many it dropped."""
    host, port = url.removeprefix("http://").split(":")
    dropped = [0]
    listening = socket.create_server(("127.0.0.1", 0))

    def one(client: socket.socket, number: int) -> None:
        with client, socket.create_connection((host, int(port))) as server:
            threading.Thread(target=forward, args=(client, server), daemon=True).start()
            while data := server.recv(1 << 16):
                if number % 2 == 0:
                    dropped[0] += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)

    def forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        number = 0
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=one, args=(client, number), daemon=True).start()
                number += 1

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", dropped
    finally:
        listening.close()


@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
def test_events_arrive_once_though_answers_are_lost(tmp_path: Path, spooled: bool, compress: str) -> None:
    with deployment(tmp_path / "data") as made, serving(made, timeout_keep_alive=1) as url, losing_answers(url) as (proxy, dropped):
        spool = tmp_path / "spool" if spooled else None
        with Sender(proxy, "clicks", key(made), spool=spool, batch_events=10, compress=compress, **FAST) as sender:
            for number in range(100):
                sender.send(event(number, price=decimal.Decimal("1.5")))
            sender.flush(60)
            assert (sender.accepted, sender.rejected, sender.pending) == (100, 0, 0)
        assert dropped[0] > 0
        assert sorted(record.json["event_id"] for record in contents(made.log, "clicks")) == sorted(f"e{n}" for n in range(100))


def test_a_spool_outlives_the_sender_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    with deployment(tmp_path / "data") as made:
        token, port = key(made), free_port()
        first = Sender(f"http://127.0.0.1:{port}", "clicks", token, spool=tmp_path / "spool", batch_events=3, sync="event", **FAST)
        for number in range(8):
            first.send(event(number))
        with pytest.raises(ConfigurationError, match="another sender's"):
            Sender("http://127.0.0.1:1", "clicks", token, spool=tmp_path / "spool")
        with pytest.raises(UnavailableError, match="not answered for"):
            first.flush(0.05)
        first.send(event(8))
        first.close(0.05)
        spool = DiskSpool(tmp_path / "spool", "none")
        spool.add(b'{"ts": 1}\n')
        assert spool.open is not None and spool.open.path is not None
        torn = spool.open.path
        spool.close()
        torn.write_bytes(torn.read_bytes() + b'{"ts": 2, "ev')
        with serving(made, **{}) as url, Sender(url, "clicks", token, spool=tmp_path / "spool", **FAST) as second:
            second.flush(60)
            assert (second.accepted, second.rejected) == (9, 1)
        assert sorted(record.json["event_id"] for record in contents(made.log, "clicks")) == [f"e{number}" for number in range(9)]
        assert [name for name in os.listdir(tmp_path / "spool") if name not in ("lock", "refused")] == []


def test_a_full_spool_raises_or_drops(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    sender = Sender(url, "clicks", "pk", spool_bytes=200, **FAST)
    with pytest.raises(SpoolFullError, match="wait to be sent"):
        for number in range(10):
            sender.send(event(number))
    with pytest.raises(UnavailableError):
        sender.close(0.05)
    dropping = Sender(url, "clicks", "pk", spool_bytes=200, when_full="drop", **FAST)
    for number in range(10):
        dropping.send(event(number))
    assert 0 < dropping.dropped < 10 and dropping.dropped + dropping.pending == 10
    with pytest.raises(UnavailableError):
        dropping.close(0.05)


def test_what_is_rejected_is_told_and_what_is_refused_is_kept(tmp_path: Path) -> None:
    told: list[tuple[bytes, str]] = []
    with deployment(tmp_path / "data", reception={"max_events": 5}) as made, serving(made) as url:
        token = key(made)
        with Sender(url, "clicks", token, spool=tmp_path / "one", on_reject=lambda *one: told.append(one), **FAST) as sender:
            sender.send(event(1))
            sender.send(b'{"ts": 1}')
            sender.flush(60)
            assert (sender.accepted, sender.rejected) == (1, 1)
        assert told == [(b'{"ts": 1}', "field 'event_id' is missing")]
        sender = Sender(url, "clicks", token, spool=tmp_path / "two", batch_events=6, linger=60, backoff=(0.01, 0.1))
        for number in range(6):
            sender.send(event(number))
        with pytest.raises(RefusedError, match="6 events"):
            sender.flush(60)
        sender.close()
        [kept] = (tmp_path / "two" / "refused").glob("*.jsonl")
        assert kept.read_bytes().count(b"\n") == 6 and "more than 5 events" in kept.with_suffix(".reason").read_text()


def test_a_batch_that_is_too_old_to_be_known_again_is_not_sent_twice(tmp_path: Path) -> None:
    with deployment(tmp_path / "data") as made:
        token = key(made)
        first = Sender(f"http://127.0.0.1:{free_port()}", "clicks", token, spool=tmp_path / "spool", **FAST)
        first.send(event(1))
        with pytest.raises(UnavailableError):
            first.flush(0.5)
        first.close(0.01)
        [tried] = (tmp_path / "spool").glob("*.tried")
        os.utime(tried, (time.time() - 100_000,) * 2)
        with serving(made) as url:
            second = Sender(url, "clicks", token, spool=tmp_path / "spool", **FAST)
            with pytest.raises(RefusedError, match="so long ago"):
                second.flush(60)
            second.close()
        assert contents(made.log, "clicks") == []


def test_a_key_that_is_mended_lets_what_waits_go_on(tmp_path: Path) -> None:
    with deployment(tmp_path / "data") as made, serving(made) as url:
        sender = Sender(url, "clicks", key(made, "packed"), spool=tmp_path / "spool", **FAST)
        sender.send(event(1))
        with pytest.raises(UnavailableError, match="may not write that dataset"):
            sender.flush(1)
        sender.close(0.01)
        with Sender(url, "clicks", key(made), spool=tmp_path / "spool", **FAST) as mended:
            mended.flush(60)
        assert [record.json["event_id"] for record in contents(made.log, "clicks")] == ["e1"]


def test_what_is_no_event_or_no_server_is_said_at_once(tmp_path: Path) -> None:
    for wrong in ({"url": "nowhere"}, {"compress": "rar"}, {"when_full": "panic"}, {"key": ""}, {"sync": "often", "spool": tmp_path}):
        with pytest.raises(ConfigurationError) as caught:
            Sender(**{"url": "http://127.0.0.1:1", "dataset": "clicks", "key": "pk", **wrong})
        assert caught.value.hint
    sender = Sender("http://127.0.0.1:1", "clicks", "pk", **FAST)
    for event_ in (b"no", b'{"a":1}\n{"b":2}', {"a": float("nan")}, {"a": object()}):
        with pytest.raises(ConfigurationError):
            sender.send(event_)
    sender.close()
    with pytest.raises(ConfigurationError, match="closed"):
        sender.send({"a": 1})


def test_what_answers_mean() -> None:
    assert [understood(status, {}, b"{}").outcome for status in (200, 302, 400, 401, 404, 409, 413, 422, 429, 500, 503)] == [
        *("mend", "mend", "refused", "mend", "mend", "again", "refused", "refused", "again", "again", "again")
    ]
    assert understood(503, {"Retry-After": "7"}, b"not json").wait == 7
    assert retry_after("soon") == 0 and retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0 and retry_after(None) == 0
