"""`penstock send` against the real server: files and pipes, rejects, outages, and how it stops."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reception_world import contents, deployment, event, free_port, key, serving

from penstock.cli import execute
from penstock.deployment import Deployment

PATIENCE = 120  # seconds after which a test gives up


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A deployment whose key is in $PENSTOCK_KEY."""
    with deployment(tmp_path / "data") as found:
        monkeypatch.setenv("PENSTOCK_KEY", key(found))
        yield found


def lines(*numbers: int) -> bytes:
    return b"".join(json.dumps(event(number)).encode() + b"\n" for number in numbers)


def taken(made: Deployment) -> list[str]:
    return sorted((record.json["event_id"] for record in contents(made.log, "clicks")), key=lambda one: int(one[1:]))


def named(count: int) -> list[str]:
    return [f"e{number}" for number in range(count)]


def kept(spool: Path) -> int:
    """How many events a spool has, while its sender renames its files."""
    try:
        return sum(path.read_bytes().count(b"\n") for path in spool.glob("*-*.*"))
    except FileNotFoundError:
        return 0


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "PENSTOCK_TRACEBACK"}
    return subprocess.Popen(
        [sys.executable, "-m", "penstock", "send", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        **options,
    )


def test_files_and_pipes_are_sent_once(
    made: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(*range(3000)).rstrip(b"\n"))  # the last line has no end
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"\n" + lines(*range(3000, 3100)).replace(b"\n", b"\r\n")))
    (tmp_path / "key").write_text(key(made) + "\n")
    with serving(made) as url:
        assert execute(["send", "clicks", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl.gz"), "--url", url]) == 0
        assert capsys.readouterr().out.splitlines()[:3] == ["dataset   clicks", "accepted  3,100", "rejected  0"]
        process = start("clicks", "--url", f"{url}/", "--key", f"file:{tmp_path / 'key'}", stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(lines(3100))
        process.stdin.flush()
        deadline = time.monotonic() + PATIENCE
        while len(taken(made)) < 3101:  # it does not wait for the end of what is piped into it
            assert time.monotonic() < deadline
            time.sleep(0.1)
        out, err = process.communicate(lines(3101), timeout=PATIENCE)
        assert process.returncode == 0 and b"accepted  2" in out, err
    assert taken(made) == named(3102)


def test_what_is_rejected_is_written_with_the_reason(made: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = [b'{"ts": 1, "shop_id": 1.0}', b'{"ts": 1', b"[1]", b"nonsense \xff"]
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(0) + b"\n".join(wrong) + b"\n" + lines(1))
    with serving(made) as url:
        for _ in range(2):  # it is added to
            assert execute(["send", "clicks", str(file), "--url", url, "--rejected", str(tmp_path / "rejected.jsonl")]) == 1
        out, err = capsys.readouterr()
        assert "accepted  2" in out and "rejected  4" in out and err == ""
        found = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
        assert len(found) == 8 and all(one["detail"] for one in found)
        assert sorted(str(one.get("event", one.get("line"))) for one in found[:4]) == sorted(
            ["{'ts': 1, 'shop_id': 1.0}", '{"ts": 1', "[1]", "nonsense �"]
        )
        assert '"event": {"ts": 1, "shop_id": 1.0}' in (tmp_path / "rejected.jsonl").read_text()
        assert execute(["send", "clicks", str(file), "--url", url]) == 1
        said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert sorted(map(str, said)) == sorted(map(str, found[:4]))
    assert taken(made) == ["e0"] * 3 + ["e1"] * 3


def test_a_batch_that_is_refused_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(*range(8)))
    with deployment(tmp_path / "data", reception={"max_events": 5}) as made, serving(made) as url:
        monkeypatch.setenv("PENSTOCK_KEY", key(made))
        assert execute(["send", "clicks", str(file), "--url", url, "--rejected", str(tmp_path / "rejected.jsonl")]) == 1
        found = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
        assert [one["event"]["event_id"] for one in found] == named(8) and "more than 5 events" in found[0]["detail"]
        assert "rejected  8" in capsys.readouterr().out
        assert execute(["send", "clicks", str(file), "--url", url, "--spool", str(tmp_path / "spool")]) == 1
        assert f"refused   8: {tmp_path / 'spool'}/refused has them" in capsys.readouterr().out
        assert taken(made) == []


def test_what_cannot_work_is_said_and_does_not_hang(
    made: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(0))
    (tmp_path / "empty").write_text("\n")
    monkeypatch.setenv("OTHER_KEY", key(made, "packed"))
    with serving(made) as url:
        for arguments, code, said in (
            ([str(file), "--key", "env:OTHER_KEY"], 1, "may not write that dataset"),
            ([str(file), "--key", os.environ["PENSTOCK_KEY"]], 2, "says where the key is"),
            ([str(file), "--key", "env:NO_SUCH_KEY"], 2, "NO_SUCH_KEY is not set"),
            ([str(file), "--key", f"file:{tmp_path / 'empty'}"], 2, "there is no key in"),
            ([str(tmp_path / "missing.jsonl")], 2, "there is no file"),
            ([str(file), "--rejected", str(tmp_path)], 2, "cannot be written"),
            ([str(file), "--timeout", "soon"], 2, "--timeout"),
        ):
            assert execute(["send", "clicks", *arguments, "--url", url]) == code
            err = capsys.readouterr().err
            assert said in err and os.environ["PENSTOCK_KEY"] not in err
        assert execute(["send", "nothing", str(file), "--url", url]) == 1
    assert execute(["send", "clicks", str(file), "--url", f"http://127.0.0.1:{free_port()}", "--timeout", "1s"]) == 1
    err = capsys.readouterr().err
    assert "does not answer" in err and "1 that were read are not answered for" in err
    assert execute(["send", "clicks", str(file), "--url", "nowhere"]) == 2
    assert taken(made) == []


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_after_ctrl_c_the_spool_has_what_was_read(
    made: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str], which: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    process = start("clicks", "--url", f"http://127.0.0.1:{free_port()}", "--spool", str(spool), stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write(lines(*range(2500)))
    process.stdin.flush()
    deadline = time.monotonic() + PATIENCE
    while kept(spool) < 2500:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(which)
    _, err = process.communicate(timeout=PATIENCE)
    said = err.decode()
    assert process.returncode == 130 and "Traceback" not in said
    assert "stopped at line 2,500 of standard input: 0 events are in the log" in said and f"2,500 wait in {spool}" in said
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(open(os.devnull, "rb")))
    with serving(made) as url:
        assert execute(["send", "clicks", "--url", url, "--spool", str(spool)]) == 0
        assert "accepted  2,500" in capsys.readouterr().out
    assert taken(made) == named(2500)
