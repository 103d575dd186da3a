"""A proxy before an S3 that answers as S3 does on a bad day: real HTTP, with real errors in it."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("slow down", "internal error", "refused", "answer lost", "answer cut off")
_XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message></Error>"


class FaultyS3:
    """`share` of the requests go wrong, by a seed. While `down` is above 0, each request takes one off it and is refused.

    faults: what went wrong, and how often. endpoint: where clients go.
    """

    def __init__(self, endpoint: str, share: float, seed: int) -> None:
        self.target, self.share, self.down = urlsplit(endpoint).netloc, share, 0
        self.chance, self.lock, self.faults = random.Random(seed), threading.Lock(), Counter[str]()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def fate(self) -> str:
        """What becomes of the next request; "" if it is served."""
        with self.lock:
            if self.down > 0:
                self.down -= 1
                fault = "down"
            else:
                fault = self.chance.choice(FAULTS) if self.chance.random() < self.share else ""
            self.faults[fault] += 1
            return fault

    def __enter__(self) -> FaultyS3:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def _handler(proxy: FaultyS3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.fate()
            if fault in ("refused", "down"):
                return self.hang_up()
            if fault in ("slow down", "internal error"):
                code, status = ("SlowDown", 503) if fault == "slow down" else ("InternalError", 500)
                return self.answer(status, [("Content-Type", "application/xml")], _XML.format(code, "so it goes").encode())
            status, headers, data = self.forward(body)
            if fault == "answer lost":
                return self.hang_up()
            self.answer(status, headers, data, cut=fault == "answer cut off")

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            with contextlib.closing(http.client.HTTPConnection(proxy.target, timeout=60)) as connection:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection")}
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()

        def answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                    self.send_header(name, value)
            length = dict((name.lower(), value) for name, value in headers).get("content-length")
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.hang_up()

        def hang_up(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: Any) -> None:
            """Not to be seen."""

    return Handler


@contextlib.contextmanager
def faulty(settings: dict[str, Any], *, share: float, seed: int) -> Iterator[tuple[FaultyS3, dict[str, Any]]]:
    """A proxy before the store of some settings, and the settings that lead through it."""
    with FaultyS3(settings["endpoint"], share, seed) as proxy:
        yield proxy, {**settings, "endpoint": proxy.endpoint}
