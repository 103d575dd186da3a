"""`penstock demo`: all of it, once."""

from __future__ import annotations

import os
import sys

import click

from penstock.cli.base import OK, command, notice_kernels, number_of, open_deployment, say
from penstock.errors import UsageError

FOLDER = "local:demo-data"


@command(
    "demo",
    [
        ("a million ad events: rolled up, looked up, loaded, and checked number by number", "penstock demo"),
        ("ten times as many, in two processes", "penstock demo --events 10000000 --workers 2"),
        ("the traffic of one's own site", "penstock demo --traffic /var/log/nginx/access.log"),
        ("the numbers alone, without the dashboard at the end", "penstock demo --no-serve"),
    ],
    short_help="See all of it, on made-up ads or real traffic.",
)
@click.option("--events", type=number_of(1), default=1_000_000, show_default=True, help="How many ad events are made up.")
@click.option("--traffic", metavar="FILE", help="A web server's access log, or page views as JSON Lines, instead of made-up ads.")
@click.option("--workers", type=number_of(1), default=1, show_default=True, metavar="N", help="Processes that run the topology.")
@click.option("--keep", is_flag=True, help="Go on with what an earlier demo left, and add to it, instead of beginning anew.")
@click.option(
    "--on",
    default=FOLDER,
    show_default=True,
    metavar="NAME|local:DIR",
    help="Where. The data stays there until the next demo, which deletes it.",
)
@click.option(
    "--serve/--no-serve",
    default=None,
    help="Go on with live traffic and the dashboard until Ctrl-C.  [default: on a terminal, of the made-up ads]",
)
def demo(events: int, traffic: str | None, workers: int, keep: bool, on: str, serve: bool | None) -> int:
    """Generate a day of ad events, run a topology over it, look numbers up, load the hours into the warehouse, ask it in SQL, and reconcile.

    Reconciling computes the same numbers from the raw log with DuckDB and compares them one by one. The exit code is 1 if any differs. Then the dashboard
    is open, and live traffic flows in.
    """
    from penstock.cli.serve import need_extra
    from penstock.demo import Scene, fresh, play, went_live
    from penstock.demo.ads import Ads
    from penstock.demo.traffic import Traffic
    from penstock.log.sources import Source, format_of

    if traffic is not None:
        with Source(traffic):  # a mistake in its name is found before an earlier demo is deleted
            format_of(traffic)
    if serve:
        if traffic is not None:
            raise UsageError("live traffic is made up for the ads alone", hint="leave out --serve, or --traffic")
        need_extra()
    notice_kernels()
    scene: Scene = Traffic(traffic, None) if traffic is not None else Ads(events)
    deployment = open_deployment(on, must_exist=False)
    with fresh(deployment, keep):
        code = play(scene, deployment, workers=workers)
        if code != OK or traffic is not None or not (watched() if serve is None else serve):
            return code
        from penstock.demo.serving import serve_demo

        try:
            need_extra()
        except UsageError as problem:
            say(f"the dashboard is left out: {problem.message} ({problem.hint})")
            return code
        went_live(deployment)
        with open_deployment(on) as served:
            return serve_demo(served, scene.topology, ("advertiser", 1001), Ads.day)


def watched() -> bool:
    """Whether somebody sits at a terminal, and can press Ctrl-C."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("CI", "").lower() not in ("1", "true")
