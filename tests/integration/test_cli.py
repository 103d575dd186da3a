"""The command line as a user runs it: real processes, real files, the numbers against plain Python's."""

from __future__ import annotations

import collections
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from penstock.demo.ads import Ads
from penstock.deployment import Deployment
from penstock.kernels import RollupPlan, decode_cell, split_row
from penstock.rollup.registry import Registry
from penstock.topologies.advertiser_analytics import by_advertiser

START = 1_431_820_800_000  # 2015-05-17T00:00Z, in milliseconds
PAGES = "penstock.topologies.page_analytics"


class Shell:
    """Runs `penstock` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PENSTOCK_ON": f"local:{folder / 'data'}"}
        self.environment.pop("PENSTOCK_TRACEBACK", None)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "penstock", *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            **options,
        )

    def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
        process = self.start(*arguments, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL)
        self.out, self.err = process.communicate(stdin, timeout=240)
        assert process.returncode == code, f"exit {process.returncode}\n{self.out}\n{self.err}"
        assert "\x1b" not in self.out + self.err, "colours in a pipe"
        return self.out


@pytest.fixture
def penstock(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def views(count: int, seed: int) -> list[dict[str, Any]]:
    print(f"seed {seed}")
    chance = random.Random(seed)
    return [
        {
            "ts": START + n * 86_400_000 // count,
            "ip": f"10.0.0.{chance.randrange(50)}",
            "method": "GET",
            "path": f"/{chance.randrange(12)}",
            "status": chance.choice([200, 200, 200, 404]),
            "bytes": chance.randrange(10_000),
        }
        for n in range(count)
    ]


def lines(events: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def counts(status: dict[str, Any], name: str) -> dict[str, int]:
    found: dict[str, int] = collections.Counter()
    for shard in status["shards"]:
        found[shard["bolt"]] += shard[name] or 0
    return found


def test_from_a_file_to_sql(penstock: Shell) -> None:
    made = views(4000, 11)
    (penstock.folder / "views.jsonl").write_text(lines(made[:3000]) + "{broken\n")
    assert "3,001" in penstock("produce", PAGES, "views.jsonl") and "1 (kept as they are" in penstock.out
    penstock("produce", PAGES, "-", stdin=lines(made[3000:]))
    penstock("status", code=0)
    assert "nothing ever ran here" in penstock.out
    assert penstock("run", PAGES, "--until-caught-up").count("4,001") == 2

    status = json.loads(penstock("status", "--json", "--fail-lag", "0"))
    for name, value in {"accepted": 4000, "rejected": 1, "late": 0, "skipped": 0, "lost": 0, "lag": 0}.items():
        assert set(counts(status, name).values()) == {value}, name
    assert all(shard["published"] and shard["caught_up_at"] for shard in status["shards"])

    for path in ("/0", "/7"):
        mine = [event for event in made if event["path"] == path]
        rows = json.loads(
            penstock(
                "query",
                "traffic",
                "--entity",
                path,
                "--from",
                "2015-05-17",
                "--to",
                "2015-05-18",
                "--interval",
                "6h",
                "--by",
                "status",
                "--where",
                "status=404",
                "--measures",
                "views,bytes,mean=bytes/views",
                "--format",
                "json",
            )
        )["rows"]
        wanted: dict[str, list[int]] = collections.defaultdict(list)
        for event in mine:
            if event["status"] == 404:
                wanted[f"2015-05-17T{(event['ts'] - START) // 21_600_000 * 6:02}:00:00Z"].append(event["bytes"])
        assert {row["time"]: (row["views"], row["bytes"]) for row in rows} == {at: (len(sizes), sum(sizes)) for at, sizes in wanted.items()}
    penstock("query", "traffic", "--entity", "/0", "--from", "2015-05-17", "--to", "2015-05-18", "--measures", "clicks", code=2)
    assert "it has views, bytes, visitors" in penstock.err

    loaded = penstock("export", PAGES, "--due").splitlines()
    assert len(loaded) == 24 and all(line.startswith("pages 2015-05-17T") and " loaded: " in line for line in loaded)
    assert penstock("export", PAGES, "--due") == "" and "no hour is due" in penstock.err and "pages_rejects" in penstock.err
    assert "unchanged" in penstock("export", PAGES, "--hour", "2015-05-17T10")
    found = list(
        csv.reader(
            io.StringIO(
                penstock("sql", "SELECT status, count(*) AS n, sum(bytes) AS b FROM pages GROUP BY ALL ORDER BY status", "--format", "csv")
            )
        )
    )
    assert found == [
        ["status", "n", "b"],
        *([str(s), str(sum(e["status"] == s for e in made)), str(sum(e["bytes"] for e in made if e["status"] == s))] for s in (200, 404)),
    ]
    assert json.loads(penstock("sql", "SELECT count(*) AS n, min(value) AS v FROM archive_pages_rejects", "--format", "json"))[0]["n"] == 1
    datasets = {one["dataset"]: one for one in json.loads(penstock("status", PAGES, "--json"))["datasets"]}
    assert (datasets["pages"]["hours_loaded"], datasets["pages"]["rows_loaded"], datasets["pages_rejects"]["rows_archived"]) == (
        24,
        4000,
        1,
    )

    penstock("produce", PAGES, "-", stdin=lines(views(50, 12)))
    penstock("status", "--fail-lag", "100", "--json")
    worst = json.loads(penstock.out)["worst_lag"]
    assert 0 < worst <= 50
    penstock("status", "--fail-lag", str(worst - 1), code=3)


def test_workers_count_what_one_process_counts_though_one_is_killed(penstock: Shell) -> None:
    penstock("produce", "advertiser_analytics", "--generate", "200000", "--seed", "5")
    run = penstock.start("run", "advertiser_analytics", "--until-caught-up", "--workers", "3")
    victim = None
    deadline = time.monotonic() + 60
    while victim is None and time.monotonic() < deadline and run.poll() is None:
        victim = next(iter(workers_of(run.pid)), None)
    assert victim is not None
    time.sleep(0.3)
    os.kill(victim, signal.SIGKILL)
    out, err = run.communicate(timeout=240)
    assert run.returncode == 0, err
    assert "ended (signal 9); it is started again" in err
    assert out.count("200,000") == 2  # summary() itself raises where the counts do not add up
    ours = json.loads(
        penstock(
            "query",
            "by_advertiser",
            "--entity",
            "1001",
            "--from",
            "2026-03-02",
            "--to",
            "2026-03-03",
            "--measures",
            "impressions,clicks,spend",
            "--format",
            "json",
        )
    )["rows"]
    penstock.environment["PENSTOCK_ON"] = f"local:{penstock.folder / 'other'}"
    penstock("produce", "advertiser_analytics", "--generate", "200000", "--seed", "5")
    penstock("run", "advertiser_analytics", "--until-caught-up")
    theirs = json.loads(
        penstock(
            "query",
            "by_advertiser",
            "--entity",
            "1001",
            "--from",
            "2026-03-02",
            "--to",
            "2026-03-03",
            "--measures",
            "impressions,clicks,spend",
            "--format",
            "json",
        )
    )["rows"]
    assert ours == theirs and ours[0]["impressions"] > 0


def test_workers_end_when_the_process_that_started_them_is_killed(penstock: Shell) -> None:
    penstock("produce", PAGES, "-", stdin=lines(views(500, 17)))
    run = penstock.start("run", PAGES, "--workers", "2")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        len(workers_of(run.pid)) == 2 and counts(json.loads(penstock("status", "--json")), "committed").get("page_analytics.rollups")
    ):
        time.sleep(0.1)
    workers = workers_of(run.pid)
    assert len(workers) == 2
    run.kill()
    run.wait()
    while time.monotonic() < deadline and any(alive(pid) for pid in workers):
        time.sleep(0.1)
    assert not [pid for pid in workers if alive(pid)]
    assert set(counts(json.loads(penstock("status", "--json")), "committed").values()) == {500}, "they drain: what was taken is durable"


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers_of(parent: int) -> list[int]:
    """The worker processes of a run, without the resource tracker that multiprocessing starts beside them."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(place.read_text().rpartition(")")[2].split()[1]) == parent and b"spawn_main" in (place.parent / "cmdline").read_bytes():
                found.append(int(place.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_makes_durable_what_was_taken_and_the_next_run_goes_on(penstock: Shell, workers: str) -> None:
    penstock("produce", PAGES, "-", stdin=lines(views(2000, 13)))
    run = penstock.start("run", PAGES, "--workers", workers, start_new_session=True)
    for _ in range(600):  # until the roll-ups are durable (every 5 s), and the archive is not (every 30 s)
        time.sleep(0.1)
        if counts(json.loads(penstock("status", "--json")), "committed").get("page_analytics.rollups"):
            break
    assert not counts(json.loads(penstock.out), "committed")["page_analytics.archive"]
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: to all of them
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "stopping: making durable" in err and out.count("2,000") == 4 and "Traceback" not in err
    penstock("produce", PAGES, "-", stdin=lines(views(500, 14)))
    assert penstock("run", PAGES, "--until-caught-up").count("2,500") == 4


def test_a_second_ctrl_c_does_not_wait(penstock: Shell) -> None:
    (penstock.folder / "slow.py").write_text(
        "import time\nfrom penstock import BatchBolt, Int, KafkaSpout, Schema, Timestamp, Topology\n"
        "things = Schema('things', time='ts', fields={'ts': Timestamp('ms'), 'n': Int()})\n"
        "class Slow(BatchBolt):\n    def process(self, batch, context):\n        open('flushing', 'w').close()\n"
        "    def flush(self, context):\n        time.sleep(60)\n"
        "class SlowThings(Topology):\n    live = KafkaSpout.spec(things)\n    work = Slow.spec(live, flush='1s')\n"
    )
    penstock("produce", "slow.py", "-", stdin='{"ts": 1, "n": 1}\n')
    run = penstock.start("run", "slow.py")
    deadline = time.monotonic() + 60
    while not (penstock.folder / "flushing").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(1)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=10)
    assert run.returncode == 130 and "stopping: making durable" in err and "stopped at once" in err


def test_produce_says_what_is_durable_when_interrupted(penstock: Shell) -> None:
    feed = penstock.start("produce", PAGES, "-", stdin=subprocess.PIPE)
    assert feed.stdin is not None
    feed.stdin.write(lines(views(100, 15)))
    feed.stdin.flush()
    time.sleep(3)
    feed.stdin.write(lines(views(100, 16)))
    feed.stdin.flush()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ends(penstock):
        time.sleep(0.1)
    feed.send_signal(signal.SIGINT)
    err = feed.communicate(timeout=30)[1]
    assert feed.returncode == 130 and f"the {ends(penstock)} records that topic pages has now are durable" in err


def ends(penstock: Shell) -> int:
    with Deployment.named(penstock.environment["PENSTOCK_ON"]) as deployment:
        return sum(deployment.log.end("pages", p) for p in range(4)) if "pages" in deployment.log.topics() else 0


def test_a_component_that_keeps_raising_ends_the_run_and_names_the_line(penstock: Shell) -> None:
    (penstock.folder / "failing.py").write_text(
        "from penstock import BatchBolt, Int, KafkaSpout, Schema, Timestamp, Topology\n"
        "things = Schema('things', time='ts', fields={'ts': Timestamp('ms'), 'n': Int()})\n"
        "class Fails(BatchBolt):\n    def process(self, batch, context):\n        raise RuntimeError('no more')\n"
        "class Failing(Topology):\n    live = KafkaSpout.spec(things)\n    work = Fails.spec(live)\n"
    )
    penstock("produce", "failing.py", "-", stdin='{"ts": 1, "n": 1}\n')
    penstock("run", "failing.py", "--until-caught-up", code=1)
    assert "RuntimeError: no more" in penstock.err and "failing.py:5" in penstock.err.splitlines()[-1]
    penstock("run", "failing.py", "--until-caught-up", "--workers", "2", code=1)
    assert "error: worker" in penstock.err and "no more" in penstock.err.splitlines()[-1]


def test_a_changed_definition_is_published_when_one_says_so(penstock: Shell) -> None:
    text = (
        "from penstock import By, Count, Int, KafkaSpout, Max, Rollup, RollupBolt, Schema, Timestamp, Topology\n"
        "things = Schema('things', time='ts', fields={'ts': Timestamp('ms'), 'n': Int()})\n"
        "by_n = Rollup('by_n', of=things, entity='n', measures={'things': Count()EXTRA}, by=[By(keep={'1h': '90d'})])\n"
        "class Things(Topology):\n    live = KafkaSpout.spec(things)\n    rollups = RollupBolt.spec(live, [by_n])\n"
    )
    file = penstock.folder / "things.py"
    file.write_text(text.replace("EXTRA", ""))
    penstock("produce", "things.py", "-", stdin="".join(f'{{"ts": {START + n}, "n": 1}}\n' for n in range(10)))
    penstock("run", "things.py", "--until-caught-up")
    file.write_text(text.replace("EXTRA", ", 'newest': Max('ts')"))
    penstock("run", "things.py", "--until-caught-up", code=2)
    assert "--from" in penstock.err
    penstock("run", "things.py", "--until-caught-up", "--from", "earliest")
    listed = penstock("publish", "things.rollups").splitlines()
    assert len(listed) == 4 and sum("served" in line for line in listed) == 1
    ask = ("query", "by_n", "--entity", "1", "--from", "2015-05-17", "--to", "2015-05-18", "--format", "csv")
    assert penstock(*ask) == "things\n10\n"
    assert "is served from now on" in penstock("publish", "things.py")
    assert penstock(*ask).splitlines()[0] == "things,newest"
    assert "is served already" in penstock("publish", "things.py")
    penstock("publish", "things.rollups", "f" * 16, code=2)


def test_nobody_reads_to_the_end(penstock: Shell) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = penstock.start("check", PAGES, stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 1


def test_the_demo_reconciles_and_says_so(penstock: Shell) -> None:
    out = penstock("demo", "--events", "30000", "--on", f"local:{penstock.folder / 'demo'}")
    assert "All numbers agree." in out and "DIFFERS" not in out and "advertiser 1001, hour by hour" in out
    assert out.count(" OK") >= 14


def test_reconciling_finds_a_cell_and_a_row_that_are_wrong(penstock: Shell) -> None:
    penstock("demo", "--events", "3000", "--on", "local:demo")
    with Deployment.named(f"local:{penstock.folder / 'demo'}") as deployment:
        registry = Registry(deployment.table)
        definitions = [registry.definition(bolt, registry.published(bolt)) for bolt in registry.bolts()]
        assert not [check for check in Ads(3000).reconcile(deployment, definitions) if check.differences]
        with duckdb.connect(str(deployment.directory / "warehouse" / "warehouse.duckdb")) as connection:
            connection.execute("DELETE FROM ads WHERE event_id = (SELECT min(event_id) FROM ads)")
        cells = [(row, column, value) for row, columns in deployment.table.scan("by_advertiser_1m") for column, value in columns.items()]
        first = cells[0]
        plan = RollupPlan(by_advertiser)
        other = next(
            cell
            for cell in cells
            if split_row(plan, 0, cell[0])[0] != split_row(plan, 0, first[0])[0]
            and decode_cell(plan, cell[2])[:5] != decode_cell(plan, first[2])[:5]
        )
        deployment.table.put("by_advertiser_1m", [(*first[:2], other[2]), (*other[:2], first[2])], deployment.now() + 1_000_000)
        wrong = {check.what for check in Ads(3000).reconcile(deployment, definitions) if check.differences}
    assert (
        any("advertisers' totals" in what for what in wrong)
        and any("by hour" in what for what in wrong)
        and not any("by country" in what for what in wrong)
    )
    assert "warehouse: ads, rows and different offsets" in wrong and not any("rollups:" in what for what in wrong)
