"""A command at a terminal of its own, as a person sits before it."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping

PATIENCE = 120.0  # seconds that a terminal may take to show something
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\x1b\][^\x07]*\x07")


def _take_terminal() -> None:
    """Make standard input the controlling terminal, so that Ctrl-C and a hang-up are signals; and none that is ignored, as whoever runs the tests may."""
    for which in (signal.SIGINT, signal.SIGHUP):
        signal.signal(which, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """`penstock ARGUMENTS`. environment: more of it than ours. process: the command; shown: what it has shown and `expect` has not passed."""

    def __init__(self, *arguments: str, columns: int, environment: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        ours = {name: value for name, value in os.environ.items() if name not in ("CI", "PENSTOCK_TRACEBACK")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**ours, "TERM": "xterm", "COLUMNS": str(columns), **environment},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self.shown, self._ended = "", False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, until: str | None = None) -> str:
        """All that is shown, once `until` is in it; without it, once the command has ended."""
        deadline = time.monotonic() + PATIENCE
        while until is None or until not in self.shown:
            assert time.monotonic() < deadline, f"{until!r} was not shown:\n{self.shown[-4000:]}"
            assert until is None or not self._ended, f"it ended before {until!r} was shown:\n{self.shown[-4000:]}"
            if self._ended:
                break
            self._take()
        return self.shown

    def expect(self, text: str) -> str:
        """What is shown before a text, which must come; both are passed."""
        self.read(text)
        before, _, self.shown = self.shown.partition(text)
        return before

    def _take(self) -> None:
        if not select.select([self._master], [], [], 0.2)[0]:
            return
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # nobody holds the other end any more
            data = b""
        self._ended = not data
        self.shown = ANSI.sub("", self.shown + self._decoder.decode(data))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def hang_up(self) -> None:
        """Close the terminal."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def end(self) -> None:
        """End the command, if it runs still, and all that it started; and close the terminal."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)
        self.hang_up()
