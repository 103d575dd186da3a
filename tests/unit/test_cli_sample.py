"""What `penstock check` says of a sample, against sets in plain Python."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from penstock import By, Count, Enum, Int, Rollup, Schema, String, Timestamp, Uniques
from penstock.cli import execute
from penstock.cli.sample import chunks_of_file, measure
from penstock.errors import UsageError

HOUR, DAY = 3_600_000, 86_400_000
START = 1_700_000_000_000 // DAY * DAY

schema = Schema(
    "clicks", time="ts", lateness="1d", fields={"ts": Timestamp("ms"), "site": String(), "kind": Enum("view", "click"), "user": Int()}
)
by_site = Rollup(
    "by_site",
    of=schema,
    entity="site",
    measures={"clicks": Count(where={"kind": "click"}), "users": Uniques("user", where={"kind": "click"})},
    by=[By(keep={"1h": "90d", "1d": "5y"}), By("kind", keep={"1d": "5y"})],
)


def events(count: int, seed: int = 3) -> list[dict[str, object]]:
    chance = random.Random(seed)
    return [
        {
            "ts": START + chance.randrange(2 * DAY) if n else START + 2 * DAY,
            "site": f"s{chance.randrange(20)}",
            "kind": chance.choice(["view", "click"]),
            "user": chance.randrange(9),
        }
        for n in range(count)
    ]


def written(folder: Path, lines: list[str]) -> str:
    file = folder / "sample.jsonl"
    file.write_text("".join(line + "\n" for line in lines))
    return str(file)


def test_cells_are_counted_as_the_stream_would_write_them(tmp_path: Path) -> None:
    made = events(3000)
    path = written(tmp_path, [*map(json.dumps, made), "not json", '{"ts": 1}', '{"ts": 1}'])
    found = measure(schema, [(by_site, 1.0)], chunks_of_file(schema, path, None, 10_000), rate=100.0)
    watermark, counted, late = 0, [], 0
    for event in made:
        late += event["ts"] < watermark - DAY  # type: ignore[operator]
        if event["ts"] >= watermark - DAY:  # type: ignore[operator]
            counted.append(event)
        watermark = max(watermark, event["ts"])  # type: ignore[call-overload]
    assert (found.events, found.accepted, found.late, found.rejected) == (3003, len(counted), late, 3) and late > 100
    assert found.reasons == {"field 'site' is missing": 2, "the record is not a well-formed object": 1}
    clicks = [event for event in counted if event["kind"] == "click"]
    cells = {(one.by, one.granularity): one for one in found.rollups[0].cells}
    assert cells[(), "1h"].cells == len({(event["site"], event["ts"] // HOUR) for event in clicks})  # type: ignore[operator]
    assert cells[(), "1d"].cells == len({(event["site"], event["ts"] // DAY) for event in clicks})  # type: ignore[operator]
    assert cells[("kind",), "1d"].cells == cells[(), "1d"].cells
    assert [one.folded for one in found.rollups[0].cells] == [False, True, False]
    sites = {f"s{n}": sum(event["site"] == f"s{n}" for event in counted) for n in range(20)}
    assert found.rollups[0].entities == 20 and found.rollups[0].hot[0][1] == max(sites.values())


def test_a_flush_writes_what_its_own_events_touch(tmp_path: Path) -> None:
    made = [{"ts": START + n, "site": f"s{n % 4}", "kind": "click", "user": n} for n in range(1000)]
    found = measure(schema, [(by_site, 2.0)], chunks_of_file(schema, written(tmp_path, [*map(json.dumps, made)]), None, 10_000), rate=50.0)
    assert (found.rollups[0].flush_events, found.rollups[0].per_flush) == (100, 8.0)  # 4 sites in 2 breakdowns, whichever 100 events


def test_no_more_events_than_asked_for_and_none_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, [*map(json.dumps, events(500))])
    assert measure(schema, [(by_site, 1.0)], chunks_of_file(schema, path, None, 70)).events == 70
    with pytest.raises(UsageError, match="no records"):
        measure(schema, [(by_site, 1.0)], iter(()))


def test_the_declaration_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute(["check", "penstock.topologies.page_analytics", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["topology"] == "page_analytics" and [one["bolt"] for one in found["bolts"]] == [
        "page_analytics.rollups",
        "page_analytics.archive",
    ]
    assert found["rollups"][0]["tables"] == {"traffic_1m": "15d", "traffic_1h": "98d", "traffic_1d": "1833d"} and found["samples"] == []
    assert execute(["check", "penstock.topologies.page_analytics"]) == 0
    assert "traffic_1m" in capsys.readouterr().out and not list(tmp_path.iterdir())
