"""Reception on the real server: the forms, answers, stamps, limits, keys, idempotency, the pixel and what a browser's page needs."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest
import zstandard

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reception_world import contents, deployment, event, key, serving

from penstock.deployment import Deployment
from penstock.errors import UnavailableError


class World:
    """A served deployment and a client with a key."""

    def __init__(self, made: Deployment, url: str) -> None:
        self.made, self.url = made, url
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key(made)}"})

    def post(self, events: Any, dataset: str = "clicks", **headers: str) -> httpx.Response:
        return self.client.post(
            f"/v1/events/{dataset}", content=json.dumps(events), headers={"Content-Type": "application/json", **headers}
        )

    def ids(self, dataset: str = "clicks") -> list[str]:
        return sorted(record.json["event_id"] for record in contents(self.made.log, dataset))


@contextlib.contextmanager
def world_of(folder: Path, **reception: Any) -> Iterator[World]:
    with deployment(folder, reception=reception) as made, serving(made) as url:
        world = World(made, url)
        with world.client:
            yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_of(tmp_path) as made:
        yield made


def test_events_are_in_the_log_as_they_were_sent_when_the_answer_comes(world: World) -> None:
    body = b'[{"ts": %d, "event_id":"a", "shop_id": 3, "price": 0.10,"more":{"x":[1,2]}} ,\n {"ts":%d,"event_id":"b","shop_id":4}]'
    now = int(time.time() * 1000)
    answer = world.client.post("/v1/events/clicks", content=body % (now, now), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200 and answer.json() == {"events": 2, "accepted": 2, "rejected": []}
    found = sorted(contents(world.made.log, "clicks"), key=lambda record: record.value)
    assert [record.value for record in found] == [
        b'{"ts": %d, "event_id":"a", "shop_id": 3, "price": 0.10,"more":{"x":[1,2]}}' % now,
        b'{"ts":%d,"event_id":"b","shop_id":4}' % now,
    ]
    assert [record.key for record in found] == [b"3", b"4"]
    assert all(abs(record.timestamp - now * 1000) < 60_000_000 for record in found)


def test_each_event_is_answered_for(world: World) -> None:
    events = [event(1), event(2, kind="nothing"), {"ts": 1}, event(3), 7, event(4, ts=int(time.time() * 1000) + 10 * 3_600_000)]
    answer = world.post(events)
    assert answer.status_code == 200
    assert answer.json() == {
        "events": 6,
        "accepted": 2,
        "rejected": [
            {"index": 1, "field": "kind", "reason": "not_in_enum", "detail": "field 'kind' is not one of the allowed values"},
            {"index": 2, "field": "event_id", "reason": "missing", "detail": "field 'event_id' is missing"},
            {"index": 4, "field": None, "reason": "malformed", "detail": "the record is not a well-formed object"},
            {"index": 5, "field": "ts", "reason": "future", "detail": "field 'ts' claims to come from the future"},
        ],
    }
    assert world.ids() == ["e1", "e3"]
    none = world.post([{"ts": 1}])
    assert none.status_code == 422 and none.headers["content-type"] == "application/problem+json"
    assert none.json()["rejected"][0]["field"] == "event_id" and none.json()["accepted"] == 0


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["object", "array", "lines", "text", "msgpack-map", "msgpack-array", "msgpack-stream"])
@pytest.mark.parametrize("dataset", ["clicks", "packed"])
def test_every_form_and_coding(world: World, form: str, coding: str, dataset: str) -> None:
    events = [{**event(number), "n": number, "price": "1.5"} for number in range(1 if form in ("object", "msgpack-map") else 5)]
    body, media = {
        "object": (json.dumps(events[0]).encode(), "application/json"),
        "array": (json.dumps(events).encode(), "application/json; charset=utf-8"),
        "lines": (b"\n".join(json.dumps(one).encode() for one in events), "application/x-ndjson"),
        "text": (json.dumps(events).encode(), "text/plain;charset=UTF-8"),
        "msgpack-map": (msgpack.packb(events[0]), "application/msgpack"),
        "msgpack-array": (msgpack.packb(events), "application/x-msgpack"),
        "msgpack-stream": (b"".join(msgpack.packb(one) for one in events), "application/msgpack"),
    }[form]
    packed = {"identity": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[coding](body)
    headers = {"Content-Type": media, "Content-Encoding": coding}
    answer = world.client.post(f"/v1/events/{dataset}", content=packed, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == len(events)
    read = msgpack.unpackb if dataset == "packed" else json.loads
    assert sorted((read(one.value) for one in contents(world.made.log, dataset)), key=lambda one: one["event_id"]) == events


def test_a_request_that_is_sent_again_is_taken_once(world: World) -> None:
    name = str(uuid.uuid4())
    first = world.post([event(1), event(2, kind="no")], **{"Idempotency-Key": name})
    again = world.post([{**event(1), "ts": 0}], **{"Idempotency-Key": name})
    assert again.status_code == 422 and again.json()["parameter"] == "Idempotency-Key"
    body = json.dumps([event(3), event(4, kind="no")])
    send = {"Idempotency-Key": f'"{name}2"', "Content-Type": "application/json"}
    answers = [world.client.post("/v1/events/clicks", content=body, headers=send) for _ in range(3)]
    assert first.status_code == 200 and [one.json() for one in answers] == [answers[0].json()] * 3
    assert [one.headers.get("idempotency-replayed") for one in answers] == [None, "true", "true"]
    assert world.ids() == ["e1", "e3"]


def test_a_request_is_remembered_by_another_server_and_after_a_restart(tmp_path: Path) -> None:
    body, headers = json.dumps([event(1)]), {"Idempotency-Key": "k", "Content-Type": "application/json"}
    with deployment(tmp_path) as made:
        headers["Authorization"] = f"Bearer {key(made)}"
        with serving(made) as one, serving(made) as other:
            for url in (one, other, one):
                until = time.monotonic() + 30
                while (answer := httpx.post(f"{url}/v1/events/clicks", content=body, headers=headers)).status_code == 409:
                    assert time.monotonic() < until and 1 <= int(answer.headers["retry-after"]) <= 5
                    time.sleep(0.02)  # the first one has answered, but not written it down yet
                assert answer.json()["accepted"] == 1
        with serving(made) as url:
            assert httpx.post(f"{url}/v1/events/clicks", content=body, headers=headers).headers["idempotency-replayed"] == "true"
        assert len(contents(made.log, "clicks")) == 1


def test_two_keys_may_use_the_same_idempotency_key(world: World) -> None:
    for token in (key(world.made), key(world.made)):
        world.client.headers["Authorization"] = f"Bearer {token}"
        assert world.post([event(1)], **{"Idempotency-Key": "same"}).json()["accepted"] == 1
    assert world.ids() == ["e1", "e1"]


@pytest.mark.parametrize(
    "headers, body, status, parameter",
    [
        ({"Content-Type": "application/xml"}, b"<a/>", 415, "Content-Type"),
        ({"Content-Encoding": "br"}, b"{}", 415, "Content-Encoding"),
        ({"Content-Encoding": "gzip"}, b"no gzip", 400, "body"),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"[" + b" " * 200_000), 413, "body"),
        ({"Content-Encoding": "zstd"}, zstandard.compress(b"[" + b" " * 200_000), 413, "body"),
        ({}, b"x" * 60_000, 413, "body"),
        ({}, b"", 400, "body"),
        ({}, b"[]", 400, "body"),
        ({}, b'"text"', 400, "body"),
        ({}, b'[{"a":1}', 400, "body"),
        ({}, b"[" + b"{}," * 100 + b"{}]", 413, "body"),
        ({"Content-Type": "application/msgpack"}, b"\xdd\xff\xff\xff\xff", 413, "body"),
        ({"Content-Type": "application/msgpack"}, b"\x93\x80", 400, "body"),
        ({"Content-Type": "application/msgpack"}, b"\xc1", 400, "body"),
        ({"Content-Type": "application/x-ndjson"}, b"{}\n" * 101, 413, "body"),
        ({"Idempotency-Key": ""}, b"{}", 400, "Idempotency-Key"),
        ({"Idempotency-Key": "x" * 256}, b"{}", 400, "Idempotency-Key"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_fix(
    tmp_path: Path, headers: dict[str, str], body: bytes, status: int, parameter: str
) -> None:
    with world_of(tmp_path, max_body=50_000, max_inflated=100_000, max_events=100, max_event=1000) as world:
        answer = world.client.post("/v1/events/clicks", content=body, headers={"Content-Type": "application/json", **headers})
        assert (answer.status_code, answer.json()["parameter"]) == (status, parameter), answer.text
        assert answer.json()["hint"] and answer.headers["content-type"] == "application/problem+json"
        assert contents(world.made.log, "clicks") == []


def test_depth_and_size_of_an_event_are_limited(tmp_path: Path) -> None:
    with world_of(tmp_path, max_event=1000) as world:
        deep: Any = 1
        for _ in range(40):
            deep = [deep]
        answer = world.post([event(1, deep=deep), event(2, text="x" * 1000), event(3)]).json()
        assert [(one["index"], one["reason"]) for one in answer["rejected"]] == [(0, "too_deep"), (1, "too_long")]
        assert world.ids() == ["e3"]


def test_a_key_may_write_what_it_may_and_nothing_else(world: World) -> None:
    def post(token: str, dataset: str, events: Any) -> httpx.Response:
        world.client.headers["Authorization"] = f"Bearer {token}"
        return world.post(events, dataset)

    assert world.client.post("/v1/events/clicks", headers={"Authorization": ""}).status_code == 401
    assert post("pk_000000000000_" + "x" * 43, "clicks", [event(1)]).status_code == 401
    one = key(world.made, "packed")
    assert post(one, "clicks", [event(1)]).status_code == 403
    assert post(one, "nothing", [event(1)]).status_code == 403
    missing = post(key(world.made), "click", [event(1)])
    assert missing.status_code == 404 and "clicks" in missing.json()["hint"]
    narrow = key(world.made, entities={"shop": ["3", "5"]})
    answer = post(narrow, "clicks", [event(number, shop_id=number) for number in range(6)]).json()
    assert answer["accepted"] == 2 and {(one["index"], one["field"], one["reason"]) for one in answer["rejected"]} == {
        (number, "shop", "forbidden") for number in (0, 1, 2, 4)
    }
    assert world.ids() == ["e3", "e5"]
    assert post(key(world.made, entities={"advertiser": ["3"]}), "clicks", [event(9)]).status_code == 403


def test_events_are_stamped_where_they_lack_something(tmp_path: Path) -> None:
    stamp = {"clicks": {"id": "event_id", "received": "received", "ip": "ip", "user_agent": "user_agent"}}
    with world_of(tmp_path, stamp=stamp, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"]) as world:
        headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.1.2.3", "User-Agent": "Browser/" + "x" * 100}
        now = int(time.time() * 1000)
        bare, null = {"ts": now, "shop_id": 1}, {"ts": now, "shop_id": 1, "event_id": None, "ip": "192.0.2.1"}
        whole = {**event(1), "ip": "192.0.2.1", "user_agent": "u", "received": 5}
        assert world.post([bare, null, whole], **headers).json()["accepted"] == 3
        found = sorted((record.json for record in contents(world.made.log, "clicks")), key=len)
        first, second, third = (
            next(one for one in found if test(one))
            for test in (
                lambda one: one.get("ip") == "203.0.113.9",
                lambda one: one.get("ip") == "192.0.2.1" and one["event_id"] != "e1",
                lambda one: one["event_id"] == "e1",
            )
        )
        assert third == whole
        assert first["user_agent"] == ("Browser/" + "x" * 100)[:64] and abs(first["received"] - now) < 60_000
        assert len({first["event_id"], second["event_id"]}) == 2 and len(first["event_id"]) == 32


def test_a_proxy_that_is_not_trusted_is_not_believed(tmp_path: Path) -> None:
    with world_of(tmp_path, stamp={"clicks": {"ip": "ip"}}) as world:
        world.post([event(1)], **{"X-Forwarded-For": "6.6.6.6"})
        assert contents(world.made.log, "clicks")[0].json["ip"] == "127.0.0.1"


def test_the_pixel_and_what_a_page_needs(tmp_path: Path) -> None:
    with (
        deployment(tmp_path, origins=["https://other.example"], reception={"origins": ["https://shop.example"]}) as made,
        serving(made) as url,
    ):
        world = World(made, url)
        token = key(world.made, "clicks")
        del world.client.headers["Authorization"]
        data = base64.urlsafe_b64encode(json.dumps(event(1)).encode()).decode().rstrip("=")
        answer = world.client.get("/v1/events/clicks/pixel.gif", params={"data": data, "key": token})
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/gif" and answer.content[:6] == b"GIF89a"
        assert answer.headers["cache-control"] == "no-store" and answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert world.client.get("/v1/events/clicks/pixel.gif", params={"data": "%%", "key": token}).status_code == 400
        assert world.client.get("/v1/events/clicks/pixel.gif", params={"data": data}).status_code == 401
        wrong = base64.urlsafe_b64encode(b"{}").decode()
        assert world.client.get("/v1/events/clicks/pixel.gif", params={"data": wrong, "key": token}).status_code == 422
        page = {"Origin": "https://shop.example"}
        asked = world.client.options("/v1/events/clicks", headers={**page, "Access-Control-Request-Method": "POST"})
        assert asked.status_code == 204 and asked.headers["access-control-allow-origin"] == "https://shop.example"
        assert "Idempotency-Key" in asked.headers["access-control-allow-headers"]
        beacon = {**page, "Content-Type": "text/plain;charset=UTF-8"}
        sent = world.client.post("/v1/events/clicks", params={"key": token}, content=json.dumps([event(2)]), headers=beacon)
        assert sent.status_code == 200 and sent.headers["access-control-allow-origin"] == "https://shop.example"
        bad = world.client.post("/v1/events/clicks", params={"key": token}, content=b"no", headers=beacon)
        assert bad.status_code == 400 and bad.headers["access-control-allow-origin"] == "https://shop.example"
        other = world.client.options(
            "/v1/events/clicks", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        )
        assert other.status_code == 403 and "access-control-allow-origin" not in other.headers
        assert world.ids() == ["e1", "e2"]


def test_a_key_that_sends_too_much_is_told_to_wait(tmp_path: Path) -> None:
    with world_of(tmp_path, rate=600) as world:
        assert world.post([event(number) for number in range(60)]).status_code == 200
        answer = world.post([event(number) for number in range(60)])
        assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 7
        assert len(world.ids()) == 60


def test_a_log_that_does_not_answer_is_a_503_and_what_was_kept_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with world_of(tmp_path, patience="1s", queue=1000) as world:
        append, down = world.made.log.append, True

        def failing(*arguments: Any) -> int:
            if down:
                raise UnavailableError("no room on the disk")
            return append(*arguments)

        monkeypatch.setattr(world.made.log, "append", failing)
        body, headers = json.dumps([event(1)] * 20), {"Idempotency-Key": "k", "Content-Type": "application/json"}
        answer = world.client.post("/v1/events/clicks", content=body, headers=headers)
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert world.post([event(2)]).status_code == 503  # more waits than may
        down = False
        while (answer := world.client.post("/v1/events/clicks", content=body, headers=headers)).status_code == 503:
            time.sleep(0.1)
        assert answer.status_code == 200 and answer.json()["accepted"] == 20
        assert world.ids() == ["e1"] * 20


def test_it_is_in_the_document(world: World) -> None:
    document = world.client.get("/openapi.json")
    if document.status_code == 404:  # the docs are a part of their own
        from penstock.serve.app import create_app
        from penstock.serve.reception import add_reception
        from penstock.serve.service import Service

        described = create_app(Service(world.made), (add_reception,)).openapi()
    else:
        described = document.json()
    assert set(described["paths"]["/v1/events/{dataset}"]["post"]["responses"]) >= {"200", "400", "409", "413", "415", "422", "429", "503"}
    assert "get" in described["paths"]["/v1/events/{dataset}/pixel.gif"]
