"""One connection to a server, by the standard library, and what its answers mean for who sends."""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import http.client
import json
import ssl
import urllib.parse
from typing import Any, Callable, Mapping

import cramjam

import penstock
from penstock.errors import ConfigurationError

CODINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "none": lambda body: body,
    "gzip": lambda body: bytes(cramjam.gzip.compress(body)),
    "zstd": lambda body: bytes(cramjam.zstd.compress(body)),
}
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}  # worth another try as it is
MENDED = {401, 403, 404}  # worth another try once somebody has mended a key, a name or the server


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of a batch. outcome: "taken", "again", "mend" (again, once somebody did something) or "refused". wait: seconds that the server asks for."""

    outcome: str
    detail: str = ""
    wait: float = 0.0
    accepted: int = 0
    rejected: tuple[Mapping[str, Any], ...] = ()


class Transport:
    """Posts to one server. Raises ConfigurationError for an address that is none. Not for several threads at a time.

    timeout: seconds for a connection and for an answer. coding: "zstd", "gzip" or "none". context: of TLS; the system's certificates unless given.
    """

    def __init__(self, url: str, *, timeout: float, coding: str, context: ssl.SSLContext | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"{url!r} is no address of a server", hint="write https://host or http://host:port")
        if coding not in CODINGS:
            raise ConfigurationError(f"compress={coding!r} is unknown", hint=f"use one of {', '.join(CODINGS)}")
        self._prefix, self._coding, self._timeout = parts.path.rstrip("/"), coding, timeout
        self._https, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._context = (context or ssl.create_default_context()) if self._https else None
        self._connection: http.client.HTTPConnection | None = None

    def post(self, dataset: str, key: str, name: str, body: bytes) -> Answer:
        """Send JSON Lines under an idempotency key. Never raises for what a network or a server does."""
        headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": name,
            "User-Agent": f"penstock-sender/{penstock.__version__}",
        }
        if self._coding != "none":
            headers["Content-Encoding"] = self._coding
        packed = CODINGS[self._coding](body)
        kept = self._connection is not None
        while True:
            try:
                status, answered, text = self._post(f"{self._prefix}/v1/events/{urllib.parse.quote(dataset)}", headers, packed)
                return understood(status, dict(answered), text)
            except (OSError, http.client.HTTPException) as problem:
                self.close()
                if not kept:
                    return Answer("again", f"{type(problem).__name__}: {problem}")
                kept = False  # the server may have ended a connection that was idle: at once, on a new one

    def _post(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        if self._connection is None:
            self._connection = (
                http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)
                if self._https
                else http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            )
        self._connection.request("POST", path, body, dict(headers))
        answer = self._connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def understood(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """What an answer means."""
    try:
        data = json.loads(body)
    except ValueError:
        data = None
    data = data if isinstance(data, dict) else {}
    named = {name.lower(): value for name, value in headers.items()}
    detail = str(data.get("detail", "")) or f"status {status}"
    rejected = tuple(one for one in data.get("rejected", ()) if isinstance(one, dict))
    if status == 200 and "accepted" in data:
        return Answer("taken", "", 0.0, int(data["accepted"]), rejected)
    if status == 422 and rejected:  # none of them fits, which is an answer for each
        return Answer("taken", detail, 0.0, int(data.get("accepted", 0)), rejected)
    if status in AGAIN:
        return Answer("again", detail, retry_after(named.get("retry-after")))
    if status in MENDED or 300 <= status < 400 or status == 200:
        return Answer("mend", detail if status != 200 else "what answers is no Penstock server", retry_after(named.get("retry-after")))
    return Answer("refused", detail)


def retry_after(value: str | None) -> float:
    """Seconds that a server asks to wait; 0 where it does not say."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return max(0.0, (moment - dt.datetime.now(dt.timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
