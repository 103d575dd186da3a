"""`penstock send`: events of files, or of another program, to a server."""

from __future__ import annotations

import contextlib
import json
import logging
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Iterator

import click

from penstock.cli.base import FAILED, INTERRUPTED, OK, command, say
from penstock.cli.output import Meter, meter, number, pairs
from penstock.errors import ConfigurationError, PenstockError, UnavailableError, UsageError

if TYPE_CHECKING:
    from penstock.sender import Sender

MEMORY = 32 << 20  # bytes that wait where there is no spool
LOOK = 0.1  # seconds between two looks at how far the sender is
STALLED = 3.0  # seconds without an answer after which it is said why
LAST = 2.0  # seconds that what waits still has once Ctrl-C was pressed


@command(
    "send",
    [
        ("a file, one event a line; the key is in $PENSTOCK_KEY", "penstock send ads events.jsonl --url https://analytics.example"),
        (
            "what another program writes, for as long as it does, through outages of the server and of this machine",
            "shop-events | penstock send ads --url https://analytics.example --key file:/etc/shop/key --spool /var/spool/shop",
        ),
        ("keep what the server rejects", "penstock send ads events.jsonl.gz --url http://127.0.0.1:8080 --rejected rejected.jsonl"),
    ],
    short_help="Post events to a server.",
)
@click.argument("dataset")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--url", required=True, metavar="URL", help="Where `penstock serve` listens; SSL_CERT_FILE names authorities of your own.")
@click.option(
    "--key",
    default="env:PENSTOCK_KEY",
    show_default=True,
    metavar="env:NAME|file:PATH",
    help="Where the access key is; it must be one that may write the dataset.",
)
@click.option("--spool", type=click.Path(file_okay=False, path_type=Path), help="A folder that keeps what is not answered for yet.")
@click.option("--rejected", metavar="FILE", help="Where rejected events go, as JSON Lines; else to standard error.")
@click.option("--timeout", metavar="DURATION", help="Give up after so long without an answer, such as 5m; else never.")
def send(dataset: str, files: tuple[str, ...], url: str, key: str, spool: Path | None, rejected: str | None, timeout: str | None) -> int:
    """Post the events of files, or of standard input, to DATASET of a running server: JSON Lines, plain or compressed.

    Each event is durable in the server's log, once, or rejected with the reason, when the command ends with 0 or 1; it is 1 if any was rejected. An outage is
    waited out. Ctrl-C stops: with --spool, what was read and is not answered for is sent by the next `penstock send` with that folder.
    """
    from penstock.model.units import SECOND, duration
    from penstock.sender import Sender

    patience = None if timeout is None else duration(timeout, "--timeout") / SECOND
    secret = key_of(key)
    if not files and sys.stdin.isatty():
        raise click.UsageError("name FILEs, or pipe events into it")
    for file in files:
        if file != "-" and not Path(file).exists():
            raise UsageError(f"there is no file {file}", hint="name files of JSON Lines, or - for standard input")
    with contextlib.ExitStack() as stack:
        shown = stack.enter_context(meter())
        rejects = stack.enter_context(Rejects(rejected, shown))
        stop = stack.enter_context(_stoppable())
        stack.enter_context(_quiet())
        limits: dict[str, Any] = {} if spool else {"spool_bytes": MEMORY}
        sender = Sender(url, dataset, secret, spool=spool, on_reject=rejects.write, backoff=(0.1, 10.0), **limits)
        job = Job(sender, rejects, shown, stop, patience)
        try:
            for file in files or ("-",):
                job.read(file)
            job.settle()
        except (KeyboardInterrupt, GaveUp, UsageError) as ended:
            left = _end(sender, spool)
            say(f"stopped at {job.place}: {number(sender.accepted)} events are in the log, {number(rejects.count)} were rejected{left}")
            if isinstance(ended, PenstockError):
                raise
            return INTERRUPTED
        _end(sender, spool)
    kept = sender.refused if spool else 0  # without a spool they are among the rejected
    pairs(
        [("dataset", dataset), ("accepted", number(sender.accepted)), ("rejected", number(rejects.count))]
        + ([("refused", f"{number(kept)}: {spool}/refused has them, and why")] if kept else [])
    )
    return FAILED if rejects.count or kept else OK


def key_of(reference: str) -> str:
    """The key that a reference stands for. Raises UsageError, also for a key itself: everybody on the machine sees a command line."""
    from penstock.secrets import resolve

    kind, colon, place = reference.partition(":")
    if kind not in ("env", "file") or not place:
        raise UsageError("--key says where the key is, and is not the key itself", hint="--key env:NAME, or file:PATH")
    found = str(resolve({kind: place})).strip()
    if not found:
        raise UsageError(f"there is no key in {place}", hint="make one: penstock serve keys create --name ME --write --dataset NAME")
    return found


def _end(sender: Sender, spool: Path | None) -> str:
    """Close the sender; what to say of events that are not answered for."""
    from penstock.sender import RefusedError

    with contextlib.suppress(UnavailableError, RefusedError):  # what they would say is said of the numbers
        sender.close(LAST)
    if not sender.pending:
        return ""
    if spool is None:
        return f"; {number(sender.pending)} that were read are not answered for, and may be in the log or not"
    return f"; {number(sender.pending)} wait in {spool} for the next `penstock send`"


class GaveUp(PenstockError):
    """The server does not take what it is sent."""


class Rejects:
    """Where rejected events are written, each with the reason. Called by the sender's thread, and by ours for what is no event."""

    def __init__(self, path: str | None, shown: Meter) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self._shown, self._file = shown, None if path is None else self._opened(path)

    @staticmethod
    def _opened(path: str) -> IO[str]:
        try:
            return open(path, "a", encoding="utf-8")
        except OSError as problem:
            raise ConfigurationError(f"--rejected: {path} cannot be written: {problem.strerror}", hint="name a file of yours") from None

    def write(self, line: bytes, why: str) -> None:
        """Write one. What is no JSON is kept as text."""
        try:
            json.loads(line, parse_constant=_no_constant)
            what = f'"event": {line.decode()}'  # as it came: a number is not to come out as another
        except (ValueError, RecursionError):
            what = f'"line": {json.dumps(line.decode(errors="replace"), ensure_ascii=False)}'
        text = f'{{"detail": {json.dumps(why, ensure_ascii=False)}, {what}}}'
        with self._lock:
            self.count += 1
            if self._file is None:
                self._shown.say(text)
            else:
                self._file.write(text + "\n")

    def __enter__(self) -> Rejects:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


class Stop:
    """Ctrl-C and SIGTERM: the first is noticed between two events, so that none is half in the spool; a second one interrupts whatever it is."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, which: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def _stoppable() -> Iterator[Stop]:
    stop = Stop()
    before = {which: signal.signal(which, stop) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The sender's own log says batch by batch what is shown here."""
    log = logging.getLogger("penstock.sender")
    before, log.propagate, handler = log.propagate, False, logging.NullHandler()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.propagate = before
        log.removeHandler(handler)


class Job:
    """From inputs to the sender. patience: seconds without an answer after which it gives up. Methods raise KeyboardInterrupt and GaveUp."""

    def __init__(self, sender: Sender, rejects: Rejects, shown: Meter, stop: Stop, patience: float | None) -> None:
        self.sender, self.rejects, self.shown, self.stop, self.patience = sender, rejects, shown, stop, patience
        self.place = "the beginning"
        self._whole = False  # all is read
        self._answered, self._since = 0, time.monotonic()

    def read(self, file: str) -> None:
        """Send all events of a file, or of standard input."""
        from penstock.log.sources import STDIN, Source

        with Source(file) as source:
            line, rest = 0, b""
            while True:
                while file == STDIN and not _readable():
                    self.check()
                data = source.read()
                parts = (rest + data).split(b"\n")
                rest = parts.pop()
                for part in parts if data or not rest else [rest]:  # the last line may have no end
                    line += 1
                    self.place = f"line {line:,} of {source.name}"
                    self._put(part.strip())
                self.check()
                if not data:
                    return

    def _put(self, event: bytes) -> None:
        from penstock.sender import SpoolFullError

        if self.stop.asked:
            raise KeyboardInterrupt
        if not event:
            return
        if not event.startswith(b"{") or b"\r" in event:
            self.rejects.write(event, "it is not the JSON of one object on one line")
            return
        while True:
            try:
                return self.sender.send(event)
            except SpoolFullError:
                time.sleep(LOOK)
                self.check()
            except OSError as problem:
                raise GaveUp(f"the spool takes no more: {problem.strerror}", hint="make room, and send the rest") from None

    def settle(self) -> None:
        """Wait until all is answered for."""
        from penstock.sender import RefusedError

        self._whole = True
        while True:
            with contextlib.suppress(UnavailableError, RefusedError):
                self.sender.flush(LOOK)
            if not self.sender.pending:
                return
            self.check()

    def check(self) -> None:
        """Show how far it is; whether to go on."""
        if self.stop.asked:
            raise KeyboardInterrupt
        sender, now = self.sender, time.monotonic()
        answered, pending = sender.accepted + sender.rejected + sender.refused, sender.pending
        if answered != self._answered or not pending:
            self._answered, self._since = answered, now
        if sender.stuck and not answered:  # later it may be a proxy's, while the server is renewed
            raise GaveUp(f"the server takes nothing: {sender.last_error}", hint="does --url lead to it, and may --key write that dataset?")
        if self.patience is not None and now - self._since > self.patience:
            raise GaveUp(f"the server does not answer: {sender.last_error or 'not a word'}", hint="is `penstock serve` running there?")
        why = f", waiting: {sender.last_error}" if sender.last_error and now - self._since > STALLED else ""
        detail = f"{self.rejects.count:,} rejected, {pending:,} on their way{why}"
        self.shown.update("send", answered, answered + pending if self._whole else None, detail=detail)


def _readable() -> bool:
    """Whether standard input has something, or has ended; waits a little for it."""
    return bool(select.select([sys.stdin], [], [], LOOK)[0])
