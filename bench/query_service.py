"""The services of `query-30d`: the same questions over HTTP, to `penstock serve` on HBase, and to what one writes by oneself over PostgreSQL's roll-up tables.

Each is a process of uvicorn on a core of its own; the client has the other one, and keeps its connection. What one writes by oneself is FastAPI with
asynchronous psycopg connections and orjson: it compares the key with a text and checks nothing else.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from penstock.deployment import Deployment
from penstock.model.units import iso

from bench.measure import ROOT, BenchError
from bench.query_sides import INTERVALS, MEASURES, MILLIONTHS, ROLLUP, TABLES, Numbers, Question, Side, told

SECRET = "Bearer a-key-that-is-compared"
_START = 60.0  # seconds that a service has to start


@contextlib.contextmanager
def penstock(deployment: Deployment, cpu: int | None) -> Iterator[Side]:
    """`penstock serve`, with a key that reaches every advertiser."""
    from penstock.serve.keys import KeyStore
    from penstock.serve.scope import Scope

    text, _ = KeyStore(lambda: deployment.table, deployment.now).create("bench", Scope(actions=("read",)))
    with _running("penstock", {"deployment": deployment.to_json()}, cpu) as port:
        yield _side(port, f"Bearer {text}", "/v1/rollups/by_advertiser/query", "entity")


@contextlib.contextmanager
def postgres(schema: str, cpu: int | None) -> Iterator[Side]:
    """What one writes by oneself."""
    with _running("postgres", {"schema": schema}, cpu) as port:
        yield _side(port, SECRET, "/query", "advertiser")


@contextlib.contextmanager
def _running(which: str, settings: dict[str, Any], cpu: int | None) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "bench.query_service", json.dumps({"which": which, "port": port, "cpu": cpu, **settings})]
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        until = time.monotonic() + _START
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > until:
                    raise BenchError(f"the {which} service did not start") from None
                time.sleep(0.05)
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def _side(port: int, key: str, path: str, entity: str) -> Side:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    measures = ",".join(MEASURES)

    def ask(one: Question) -> bytes:
        asked = {
            entity: one.advertiser,
            "start": iso(one.start),
            "end": iso(one.end),
            "interval": INTERVALS[one.width],
            "measures": measures,
        }
        connection.request("GET", f"{path}?{urllib.parse.urlencode(asked)}", headers={"Authorization": key})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise BenchError(f"{path} answered {answer.status}: {body.decode()}")
        return body

    def numbers(body: bytes) -> Numbers:
        rows = json.loads(body, parse_float=decimal.Decimal)["rows"]
        return [(row["impressions"], row["clicks"], round(decimal.Decimal(row["spend"]) * MILLIONTHS)) for row in rows]

    return Side(ask, numbers)


def _serve_penstock(data: dict[str, Any]) -> None:
    import uvicorn

    from penstock.serve.app import create_app
    from penstock.serve.service import Service

    with contextlib.closing(Deployment.from_json(data["deployment"])) as deployment:
        uvicorn.run(create_app(Service(deployment)), host="127.0.0.1", port=data["port"], log_level="warning", access_log=False)


def _serve_postgres(data: dict[str, Any]) -> None:
    import asyncio

    import orjson
    import psycopg
    import uvicorn
    from fastapi import FastAPI, Header, HTTPException, Response

    texts = {INTERVALS[width]: (width, ROLLUP.replace("{table}", table)) for width, table in TABLES.items()}
    idle: asyncio.Queue[Any] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        for _ in range(8):
            connection = await psycopg.AsyncConnection.connect(
                "", autocommit=True, prepare_threshold=1, options=f"-c search_path={data['schema']}"
            )
            idle.put_nowait(connection)
        yield

    app = FastAPI(lifespan=lifespan)

    async def query(advertiser: int, start: dt.datetime, end: dt.datetime, interval: str, measures: str, authorization: str) -> Response:
        if authorization != SECRET:
            raise HTTPException(401)
        width, text = texts[interval]
        one = Question(advertiser, round(start.timestamp() * 1e6), round(end.timestamp() * 1e6), width)
        connection = await idle.get()
        try:
            found = await (await connection.cursor(binary=True).execute(text, told(one))).fetchall()
        finally:
            idle.put_nowait(connection)
        names = ("time", *MEASURES)
        return Response(orjson.dumps({"rows": [dict(zip(names, row)) for row in found]}, default=str), media_type="application/json")

    query.__annotations__ = {
        "advertiser": int,
        "start": dt.datetime,
        "end": dt.datetime,
        "interval": str,
        "measures": str,
        "authorization": str,
    }
    query.__defaults__ = (Header(),)
    app.get("/query", response_model=None)(query)
    uvicorn.run(app, host="127.0.0.1", port=data["port"], log_level="warning", access_log=False)


if __name__ == "__main__":
    told_ = json.loads(sys.argv[1])
    if told_["cpu"] is not None:
        os.sched_setaffinity(0, {told_["cpu"]})
    (_serve_penstock if told_["which"] == "penstock" else _serve_postgres)(told_)
