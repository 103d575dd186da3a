"""The query API in this process: answers against the events themselves, keys, forms, problems, and that no key sees what is not its own."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import random
import time
from collections.abc import Iterator
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from serve_world import BEGIN, DAY, HOUR, OURS, SECRET_COST, SECRET_COUNTRY, THEIRS, Served, expected, iso

from penstock.serve.access import COOKIE

SECOND = 1_000_000
DAYS = {"start": iso(BEGIN), "end": iso(BEGIN + 5 * DAY)}
QUERY = "/v1/rollups/by_site/query"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("served"), rate=1_000_000_000)
    yield made
    made.close()


@pytest.fixture(scope="module")
def ours(served: Served) -> Iterator[TestClient]:
    with served.client(served.key(OURS)) as client:
        yield client


def problem(response: Any, status: int) -> dict[str, Any]:
    """The problem that a response is, checked to be one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    data: dict[str, Any] = response.json()
    assert data["status"] == status and data["type"].startswith("urn:penstock:problem:") and data["detail"]
    return data


def exact(text: str) -> Any:
    return json.loads(text, parse_float=D)


# Answers.


def test_the_numbers_are_those_of_the_events(served: Served, ours: TestClient) -> None:
    response = ours.get(QUERY, params={**DAYS, "interval": "1h", "by": "country"})
    assert response.status_code == 200
    wanted = expected(served.world.counted, OURS, BEGIN, BEGIN + 5 * DAY, HOUR, ("country",))
    rows = exact(response.text)["rows"]
    assert {(row["time"], row["country"]) for row in rows} == set(wanted)
    for row in rows:
        one = wanted[row["time"], row["country"]]
        assert {name: row[name] for name in ("views", "clicks", "spend", "cheapest", "dearest", "last")} == {
            name: one[name] for name in ("views", "clicks", "spend", "cheapest", "dearest", "last")
        }
        assert row["users"] == one["users"][1]


def test_get_and_post_and_every_form_say_the_same(ours: TestClient) -> None:
    asked = {
        **DAYS,
        "interval": "1d",
        "measures": ["views", "spend", "rate=clicks/views"],
        "by": ["country"],
        "where": {"country": ["DE", "FR"]},
    }
    posted = ours.post(QUERY, json=asked)
    got = ours.get(
        QUERY,
        params={
            **DAYS,
            "interval": "1d",
            "measures": "views,spend,rate=clicks/views",
            "by": "country",
            "where": json.dumps(asked["where"]),
        },
    )
    assert posted.status_code == 200 and posted.text == got.text
    rows = exact(got.text)["rows"]
    read = list(csv.DictReader(io.StringIO(ours.post(QUERY, json=asked, headers={"Accept": "text/csv"}).text)))
    assert [{**row, "views": str(row["views"]), "spend": str(row["spend"]), "rate": str(row["rate"])} for row in rows] == read
    arrow = ours.post(f"{QUERY}?format=arrow", json=asked)
    assert arrow.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table.column("spend").to_pylist() == [row["spend"] for row in rows]
    assert table.column("views").to_pylist() == [row["views"] for row in rows]


def test_an_answer_says_how_far_it_can_be_trusted(ours: TestClient) -> None:
    response = ours.get(QUERY, params={**DAYS, "totals": "true", "compare": "previous_period", "timezone": "Europe/Berlin"})
    data = response.json()
    assert data["as_of"] == response.headers["penstock-as-of"] and data["as_of"].endswith("+01:00")
    assert response.headers["penstock-complete"] == ("true" if data["complete"] else "false")
    assert data["errors"]["users"] > 0 and f"users={data['errors']['users']:.6f}" in response.headers["penstock-errors"]
    assert data["previous"]["compare"] == "previous_period" and data["totals"]["views"] == data["rows"][0]["views"]


def test_an_answer_that_the_client_has_is_not_sent_again_until_something_is_committed(tmp_path: Path) -> None:
    served = Served(tmp_path, 400, lag="0s")
    with served.client(served.key(OURS)) as client:
        asked = {**DAYS, "interval": "1d"}
        first = client.get(QUERY, params=asked)
        tag = first.headers["etag"]
        again = client.get(QUERY, params=asked, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(QUERY, params={**asked, "format": "csv"}, headers={"If-None-Match": tag}).status_code == 200
        assert client.get(QUERY, params={**asked, "by": "country"}, headers={"If-None-Match": tag}).status_code == 200
        served.add()
        later = client.get(QUERY, params=asked, headers={"If-None-Match": tag})
        assert later.status_code == 200 and later.headers["etag"] != tag
        assert later.json()["as_of"] > first.json()["as_of"]
    served.close()


def test_what_can_be_asked_is_listed(served: Served, ours: TestClient) -> None:
    [found] = ours.get("/v1/rollups").json()["rollups"]
    assert found["entity"] == {"field": "site", "type": "string"}
    assert {"name": "ctr", "kind": "ratio"} in found["measures"] and {"by": ["country"], "keep": {"1h": "90d", "1d": "5y"}} in found[
        "breakdowns"
    ]
    for scope in ({"rollups": ("other",)},):
        with served.client(served.key(scope=scope)) as client:
            assert client.get("/v1/rollups").json() == {"rollups": []}
    stranger = served.service.keys.create("x", dataclasses.replace(served.service.keys.list()[0].scope, entities={"advertiser": ("1",)}))[0]
    with served.client(stranger) as client:
        assert client.get("/v1/rollups").json() == {"rollups": []}
        problem(client.get(QUERY, params=DAYS), 403)


def test_what_is_trending_is_answered(ours: TestClient) -> None:
    response = ours.get(
        "/v1/rollups/by_site/trending",
        params={"measure": "views", "by": "country", "start": iso(BEGIN + 2 * DAY), "end": iso(BEGIN + 4 * DAY)},
    )
    assert response.status_code == 200 and set(response.json()) == {"rollup", "trends"}
    assert (
        problem(ours.get("/v1/rollups/by_site/trending", params={"measure": "spend", "by": "country", **DAYS}), 422)["parameter"]
        == "measures"
    )


# Mistakes.


@pytest.mark.parametrize(
    "changed, parameter",
    [
        ({"intervall": "1h"}, "intervall"),
        ({"interval": "soon"}, "interval"),
        ({"start": "soon"}, "start"),
        ({"end": DAYS["start"]}, "end"),
        ({"measures": "vews"}, "measures"),
        ({"by": "planet"}, "by"),
        ({"where": "planet=Mars"}, "where"),
        ({"where": "{"}, "where"),
        ({"order": "-planet"}, "order"),
        ({"limit": "0"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"compare": "never"}, "compare"),
        ({"format": "xml"}, "format"),
        ({"range": "last_century"}, "range"),
        ({"now": "soon"}, "now"),
    ],
)
def test_a_mistake_names_its_parameter_and_the_fix(ours: TestClient, changed: dict[str, str], parameter: str) -> None:
    said = problem(ours.get(QUERY, params={**DAYS, **changed}), 422)
    assert said["parameter"] == parameter and said["hint"]


def test_what_is_not_there_cannot_be_done_or_is_too_large_is_a_problem(ours: TestClient) -> None:
    problem(ours.get("/v1/nothing"), 404)
    assert "there is no roll-up" in problem(ours.get("/v1/rollups/other/query", params=DAYS), 404)["detail"]
    assert problem(ours.get("/v1/rollups/by_site"), 404)
    assert ours.put(QUERY).headers["allow"] and problem(ours.put(QUERY), 405)
    problem(ours.get(QUERY, params=DAYS, headers={"Accept": "text/html"}), 406)
    problem(ours.post(QUERY, content=b"{", headers={"Content-Type": "application/json"}), 400)
    problem(ours.post(QUERY, content=b'{"entity": "\\ud800"}', headers={"Content-Type": "application/json"}), 422)
    problem(ours.post(QUERY, content=b"x" * 70_000, headers={"Content-Type": "application/json"}), 413)
    problem(ours.post(QUERY, content=(b"x" * 10_000 for _ in range(7)), headers={"Content-Type": "application/json"}), 413)
    problem(ours.get(QUERY, params={"entity": "x" * 17_000}), 414)


@pytest.mark.parametrize(
    "path",
    ["/health", "/", "/dashboard", "/dashboard/assets/app.js", "/docs", "/docs/assets/swagger-ui.css", "/openapi.json"]
    + [
        "/v1/me",
        "/v1/rollups",
        QUERY,
        "/v1/rollups/other/query",
        "/v1/saved",
        "/v1/saved/live",
        "/v1/nothing",
        "/v1/tokens",
        "/v1/events/x",
    ],
)
def test_head_has_the_headers_of_get_and_no_body(ours: TestClient, path: str) -> None:
    params = DAYS if path == QUERY else {}
    for coding in ("identity", "gzip"):
        asked: dict[str, Any] = {"params": params, "headers": {"Accept-Encoding": coding}, "follow_redirects": False}
        got, head = ours.get(path, **asked), ours.head(path, **asked)
        assert (head.status_code, head.content, head.headers) == (got.status_code, b"", got.headers)
    tag = got.headers.get("etag")
    if tag is not None:
        known: dict[str, Any] = {"params": params, "headers": {"If-None-Match": tag, "Accept-Encoding": "gzip"}}
        assert ours.head(path, **known).status_code == ours.get(path, **known).status_code
        assert ours.head(path, params=params, headers={"Range": "bytes=0-3"}).status_code == 200


def test_head_neither_opens_a_stream_nor_writes(ours: TestClient) -> None:
    for path in ("/v1/rollups/by_site/live", "/v1/events/visits/pixel.gif"):
        refused = ours.head(path)
        assert (refused.status_code, refused.content) == (405, b"") and "HEAD" not in refused.headers["allow"]


def test_what_an_address_takes_is_listed_in_full(ours: TestClient) -> None:
    for method, path, allowed in (
        ("PUT", QUERY, "GET, HEAD, POST"),
        ("POST", "/v1/saved/x", "GET, HEAD, PUT, DELETE"),
        ("GET", "/v1/tokens", "POST"),
        ("POST", "/dashboard/assets/app.js", "GET, HEAD"),
        ("POST", "/v1/rollups/by_site/live", "GET"),
        ("PUT", "/v1/events/visits/pixel.gif", "GET, OPTIONS"),
    ):
        response = ours.request(method, path)
        assert problem(response, 405) and response.headers["allow"] == allowed


def test_more_rows_than_the_deployment_allows_are_refused(tmp_path: Path) -> None:
    served = Served(tmp_path, 200, max_rows=100)
    with served.client(served.key()) as client:
        said = problem(client.get(QUERY, params={**DAYS, "entity": OURS, "interval": "1h"}), 422)
        assert "100" in said["detail"] + said["hint"]
        assert client.get(QUERY, params={**DAYS, "entity": OURS, "interval": "2h"}).status_code == 200
    served.close()


def test_a_table_that_does_not_answer_is_503_with_when_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.errors import UnavailableError

    served = Served(tmp_path, 200)
    with served.client(served.key(OURS)) as client:
        assert client.get("/ready").status_code == 200

        def down(*_: Any, **__: Any) -> Any:
            raise UnavailableError("secret-host:9090 does not answer")

        for call in ("get", "rows", "scan", "tables"):
            monkeypatch.setattr(served.deployment.table, call, down)
        for path in ("/ready", QUERY):
            response = client.get(path, params=DAYS if path == QUERY else {})
            assert problem(response, 503) and response.headers["retry-after"] and "secret-host" not in response.text
        assert client.get("/health").status_code == 200
    served.close()


# Keys.


def test_without_a_key_that_is_valid_nothing_is_answered(served: Served, ours: TestClient) -> None:
    with served.client() as client:
        key = served.key(OURS)
        for headers in (
            {},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": f"Basic {key}"},
            {"Authorization": f"Bearer {key[:-1]}x"},
            {"Cookie": f"{COOKIE}=x"},
        ):
            for path in ("/v1/me", "/v1/rollups", QUERY, "/v1/rollups/by_site/live", "/v1/saved"):
                response = client.get(path, params=DAYS if path == QUERY else {}, headers=headers)
                assert problem(response, 401) and response.headers["www-authenticate"].startswith("Bearer")
        assert client.get(f"/v1/me?key={key}").status_code == 401


def test_a_key_sees_its_own_entity_and_no_other(served: Served, ours: TestClient) -> None:
    own = ours.get(QUERY, params={**DAYS, "entity": OURS})
    assert own.status_code == 200 and own.json() == ours.get(QUERY, params=DAYS).json()
    for entity in (THEIRS, "nobody", OURS.upper(), f"{OURS} ", f"{OURS}\0"):
        assert problem(ours.get(QUERY, params={**DAYS, "entity": entity}), 403)["parameter"] == "entity"
    with served.client(served.key(OURS, THEIRS)) as both:
        assert problem(both.get(QUERY, params=DAYS), 422)["parameter"] == "entity"
        assert both.get(QUERY, params={**DAYS, "entity": THEIRS}).json()["entity"] == THEIRS
    with served.client(served.key()) as everything:
        assert problem(everything.get(QUERY, params=DAYS), 422)["parameter"] == "entity"
        assert everything.get(QUERY, params={**DAYS, "entity": THEIRS, "by": "country"}).json()["rows"][0]["country"] == SECRET_COUNTRY


def test_a_key_does_no_more_than_it_may(served: Served) -> None:
    with served.client(served.key(actions=("write",))) as writer:
        problem(writer.get(QUERY, params={**DAYS, "entity": OURS}), 403)
        problem(writer.get("/v1/rollups"), 403)
        assert writer.get("/v1/me").json()["scope"] == {"actions": ["write"]}
    with served.client(served.key(OURS, scope={"rollups": ("other",)})) as other:
        for name in ("by_site", "nothing"):
            problem(other.get(f"/v1/rollups/{name}/query", params=DAYS), 403)


def test_keys_end_when_they_are_revoked_or_expire(tmp_path: Path) -> None:
    served = Served(tmp_path, 200)
    revoked, expiring = served.key(OURS), served.key(OURS, expires=served.deployment.clock + 60 * SECOND)
    with served.client(revoked) as client, served.client(expiring) as other:
        token = client.post("/v1/tokens", json={}).json()["token"]
        assert client.get(QUERY, params=DAYS).status_code == other.get(QUERY, params=DAYS).status_code == 200
        served.service.keys.revoke(revoked.split("_")[1])
        assert "revoked" in problem(client.get(QUERY, params=DAYS), 401)["detail"]
        problem(client.get(QUERY, params=DAYS, headers={"Authorization": f"Bearer {token}"}), 401)
        served.deployment.clock += 60 * SECOND
        assert "expired" in problem(other.get(QUERY, params=DAYS), 401)["detail"]
    served.close()


def test_a_key_that_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    served = Served(tmp_path, 200)
    with served.client(served.key(OURS, rate=20)) as client:
        answers = [client.get("/v1/me") for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert problem(answers[2], 429)["hint"] and int(answers[2].headers["retry-after"]) in (1, 2, 3)
    served.close()


def test_the_least_audience_is_the_greatest_of_deployment_key_token_and_question(tmp_path: Path) -> None:
    served = Served(tmp_path, 600, minimum_audience=2)
    with served.client(served.key(OURS)) as client, served.client(served.key(OURS, minimum_audience=1000)) as strict:
        assert client.get(QUERY, params=DAYS).json()["minimum_audience"] == 2
        assert client.get(QUERY, params={**DAYS, "minimum_audience": 1}).json()["minimum_audience"] == 2
        hidden = strict.get(QUERY, params={**DAYS, "by": "country", "minimum_audience": 1}).json()
        assert hidden["minimum_audience"] == 1000 and hidden["suppressed"]
        assert all(row["users"] is None for row in hidden["rows"])
        token = client.post("/v1/tokens", json={"minimum_audience": 1000}).json()["token"]
        assert client.get(QUERY, params=DAYS, headers={"Authorization": f"Bearer {token}"}).json()["minimum_audience"] == 1000
    served.close()


# Tokens and sessions.


def test_a_token_reaches_less_and_ends_sooner(served: Served) -> None:
    with served.client(served.key(OURS, THEIRS)) as client:
        made = client.post("/v1/tokens", json={"scope": {"entities": {"site": [OURS]}}, "lifetime": "10m"}).json()
        assert made["expires"] == iso(served.deployment.clock + 600 * SECOND)
        bearer = {"Authorization": f"Bearer {made['token']}"}
        assert client.get("/v1/me", headers=bearer).json()["scope"] == {"actions": ["read"], "entities": {"site": [OURS]}}
        assert client.get(QUERY, params=DAYS, headers=bearer).json()["entity"] == OURS
        problem(client.get(QUERY, params={**DAYS, "entity": THEIRS}, headers=bearer), 403)
        problem(client.post("/v1/tokens", json={}, headers=bearer), 403)
        problem(client.put("/v1/saved/x", json={"rollup": "by_site", **DAYS}, headers=bearer), 403)
        for body in (
            {"scope": {"entities": {"site": ["nobody"]}}},
            {"scope": {"entities": {"page": ["x"]}}},
            {"lifetime": "2h"},
            {"lifetime": "0s"},
            {"lifetime": "1y"},
            {"scope": {"x": 1}},
        ):
            problem(client.post("/v1/tokens", json=body), 422)


def test_a_browser_signs_in_with_a_key_and_out_again(served: Served) -> None:
    key = served.key(OURS)
    with served.client(base_url="https://penstock.example") as browser:
        response = browser.post("/v1/session", headers={"Authorization": f"Bearer {key}"})
        said = response.headers["set-cookie"]
        assert response.json()["scope"]["entities"] == {"site": [OURS]} and key not in said
        assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(said.split("; "))
        assert browser.get(QUERY, params=DAYS).json()["entity"] == OURS
        assert browser.get("/v1/me").json()["via"] == "session"
        problem(browser.post(QUERY, json=DAYS), 401)  # a page of another site may have sent it
        assert browser.post(QUERY, json=DAYS, headers={"Origin": "https://penstock.example"}).status_code == 200
        problem(browser.post(QUERY, json=DAYS, headers={"Origin": "https://evil.example"}), 401)
        assert browser.delete("/v1/session").status_code == 204
        problem(browser.get(QUERY, params=DAYS), 401)


def test_a_session_lives_no_longer_than_the_token_that_began_it(served: Served) -> None:
    with served.client(served.key(OURS)) as client:
        token = client.post("/v1/tokens", json={"lifetime": "5m"}).json()["token"]
        client.headers.pop("Authorization")
        begun = client.post("/v1/session", headers={"Authorization": f"Bearer {token}"})
        assert "Max-Age=300" in begun.headers["set-cookie"] and "Secure" not in begun.headers["set-cookie"]


# Saved queries.


def test_a_saved_query_is_answered_at_once_and_kept_up_to_date(tmp_path: Path) -> None:
    served = Served(tmp_path, 400, refresh="1s")
    with served.client(served.key(OURS)) as client, served.client(served.key(OURS)) as other:
        asked = {"rollup": "by_site", **DAYS, "interval": "1d"}
        assert client.put("/v1/saved/week", json=asked).json()["query"]["entity"] == OURS
        assert client.get("/v1/saved").json()["saved"] == [client.get("/v1/saved/week").json()]
        first = client.get("/v1/saved/week/answer")
        assert first.json()["rows"] == client.get(QUERY, params={**DAYS, "interval": "1d"}).json()["rows"]
        assert client.get("/v1/saved/week/answer", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        served.add()
        for _ in range(300):
            time.sleep(0.2)  # within the key's rate
            later = client.get("/v1/saved/week/answer")
            if later.headers["etag"] != first.headers["etag"]:
                break
        else:
            pytest.fail("it was never refreshed")
        assert later.json()["as_of"] > first.json()["as_of"]
        problem(other.get("/v1/saved/week/answer"), 404)
        assert other.get("/v1/saved").json() == {"saved": []}
        problem(client.put("/v1/saved/week", json={**asked, "entity": THEIRS}), 403)
        problem(client.put("/v1/saved/week", json={**asked, "by": ["planet"]}), 422)
        assert client.delete("/v1/saved/week").status_code == 204
        problem(client.get("/v1/saved/week/answer"), 404)
    served.close()


# What is said of it all.


def test_the_audit_log_says_who_asked_for_what_and_never_the_key(tmp_path: Path) -> None:
    served = Served(tmp_path, 200)
    log = tmp_path / "serve" / "audit.jsonl"
    with served.client(served.key(OURS)) as client:
        key = client.headers["Authorization"].removeprefix("Bearer ")
        token = client.post("/v1/tokens", json={}).json()["token"]
        client.get(QUERY, params=DAYS)
        client.get(QUERY, params={**DAYS, "entity": THEIRS})
        log.rename(tmp_path / "rotated")
        client.get(QUERY, params={**DAYS, "interval": "x"})
        client.get("/v1/me", headers={"Authorization": "Bearer wrong"})
    lines = [json.loads(line) for path in (tmp_path / "rotated", log) for line in path.read_text().splitlines()]
    said = [(line["action"], line.get("entity"), line["outcome"]) for line in lines]
    assert said == [
        ("token", None, "ok"),
        ("query", OURS, "ok"),
        ("query", THEIRS, "forbidden"),
        ("query", OURS, "invalid"),
        ("enter", None, "unauthorized"),
    ]
    assert {line.get("key") for line in lines} == {key.split("_")[1], None}
    both = (tmp_path / "rotated").read_text() + log.read_text()
    assert key not in both and key.split("_", 2)[2] not in both and token not in both
    served.close()


def test_pages_and_answers_carry_what_keeps_a_browser_from_harm(served: Served, ours: TestClient) -> None:
    page = ours.get("/docs")
    assert "default-src 'self'" in page.headers["content-security-policy"] and "http" not in page.text.replace("<!doctype", "")
    for path in ("/docs", "/v1/me", "/nothing"):
        headers = ours.get(path).headers
        assert (
            headers["x-content-type-options"] == "nosniff"
            and headers["x-frame-options"] == "DENY"
            and "access-control-allow-origin" not in headers
        )
    assets = [ours.get(f"/docs/{name}") for name in ("assets/swagger-ui-bundle.js", "assets/swagger-ui.css", "start.js")]
    assert [one.status_code for one in assets] == [200, 200, 200]
    assert ours.get("/openapi.json").json()["openapi"].startswith("3.1")


def test_other_origins_are_let_in_by_name_alone(tmp_path: Path) -> None:
    served = Served(tmp_path, 200, origins=["https://shop.example"])
    with served.client(served.key(OURS)) as client:
        let = client.get("/v1/me", headers={"Origin": "https://shop.example"})
        assert (
            let.headers["access-control-allow-origin"] == "https://shop.example" and "access-control-allow-credentials" not in let.headers
        )
        assert "access-control-allow-origin" not in client.get("/v1/me", headers={"Origin": "https://evil.example"}).headers
    served.close()


# Never a byte of another's.


# What is to be found nowhere, and its bytes; the last as Arrow holds it.
SECRETS = {one: one.encode() for one in (SECRET_COUNTRY, THEIRS, SECRET_COST)}
SECRETS["the cost in Arrow"] = int(SECRET_COST.replace(".", "")).to_bytes(16, "little")


def question(rng: random.Random) -> dict[str, Any]:
    """A random question, right or wrong."""
    start = BEGIN + rng.randrange(-2, 6) * DAY + rng.choice((0, 0, 0, 0, 0, HOUR, 7))
    asked: dict[str, Any] = {
        "start": rng.choice((iso(start), start, iso(start), start, "-24h", "last week")),
        "end": rng.choice((iso(start + rng.choice((0, 1, 1, 2, 3, 5)) * DAY), "now")),
    }
    choices: dict[str, list[Any]] = {
        "entity": [THEIRS, OURS, f"{OURS}\0{THEIRS}", f"{THEIRS}\0", "", "%", "*", 1, True, None, [THEIRS], {"in": [THEIRS]}],
        "range": ["today", "last_7d", "this_month"],
        "timezone": ["Europe/Berlin", "UTC", "Asia/Kolkata", "../etc/passwd"],
        "interval": ["1m", "1h", "1d", "1w", "1mo", "7m", "0s"],
        "measures": [["views"], ["users", "ctr"], ["x=clicks/views"], [THEIRS], ["dearest", "cheapest", "last"]],
        "by": [["country"], ["country", "status"], ["status"], ["site"], []],
        "where": [
            {"country": SECRET_COUNTRY},
            {"site": THEIRS},
            {"country": {"ne": "DE"}},
            {"not": {"country": "DE"}},
            {"any": [{"country": "DE"}, {"status": 404}]},
            {"status": {"ge": 400}},
        ],
        "order": ["-views", "country", "-dearest"],
        "limit": [1, 10, 0],
        "offset": [0, 1, 5],
        "top": [1, 3],
        "other": [True],
        "totals": [True],
        "compare": ["previous_period", "previous_day", "previous_year"],
        "minimum_audience": [1, 50],
        "max_rows": [10**9],
        "now": [iso(BEGIN + 5 * DAY)],
        "key": ["x"],
    }
    much = rng.choice((0.04, 0.12, 0.3))  # few of those that say much are right
    for name, values in choices.items():
        if rng.random() < much:
            asked[name] = rng.choice(values)
    return asked


def test_no_question_with_a_key_of_one_entity_shows_anything_of_another(served: Served) -> None:
    """PENSTOCK_FUZZ questions (100,000 by hand). What the other entity alone has is in no answer that the question did not say itself."""
    count, seed = int(os.environ.get("PENSTOCK_FUZZ", "3000")), int(os.environ.get("PENSTOCK_FUZZ_SEED", "7"))
    rng, seen = random.Random(seed), {200: 0, 403: 0, 422: 0}
    with served.client(served.key()) as everything:
        leak = everything.post(QUERY, json={**DAYS, "entity": THEIRS, "by": ["country"]}).text
        assert all(secret in leak for secret in (SECRET_COUNTRY, THEIRS, SECRET_COST))  # what is looked for is there to be found
    with served.client(served.key(OURS)) as client:
        token = client.post("/v1/tokens", json={"lifetime": "1h"}).json()["token"]
        for number in range(count):
            asked = question(rng)
            headers = {"Authorization": f"Bearer {token}"} if number % 3 == 0 else {}
            path = rng.choice(
                (
                    QUERY,
                    QUERY,
                    QUERY,
                    f"{QUERY}?format=csv",
                    f"{QUERY}?format=arrow",
                    f"/v1/rollups/{rng.choice((THEIRS, 'by_site/../by_site'))}/query",
                )
            )
            if number % 4 == 1:
                flat = {
                    name: json.dumps(value) if isinstance(value, (dict, bool)) else value
                    for name, value in asked.items()
                    if value is not None
                }
                response = client.get(path.partition("?")[0], params=flat, headers=headers)
            elif number % 50 == 2:
                response = client.get(
                    "/v1/rollups/by_site/trending",
                    params={"measure": "users", "by": "country", **DAYS, "entity": str(asked.get("entity", ""))},
                    headers=headers,
                )
            else:
                response = client.post(path, json=asked, headers=headers)
            seen[response.status_code] = seen.get(response.status_code, 0) + 1
            assert response.status_code < 500, (asked, response.text)
            echoed = path + json.dumps(asked, ensure_ascii=False)
            for secret, form in SECRETS.items():
                if form in response.content:
                    assert response.status_code != 200 and secret in echoed, (asked, response.text)
            if response.status_code == 200 and response.headers["content-type"] == "application/json" and "entity" in response.json():
                assert response.json()["entity"] == OURS
    assert seen[200] > count / 20 and seen[403] > count / 20 and seen[422] > count / 20, seen
