"""`penstock new`: a project of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.cli.base import command


@command(
    "new",
    [("a project in ./shop, which runs as it is", "penstock new shop"), ("somewhere else", "penstock new shop --into ~/projects")],
    short_help="Make a project of your own.",
)
@click.argument("name")
@click.option(
    "--into", type=click.Path(file_okay=False), default=".", show_default=True, help="The folder in which the project's own is made."
)
def new(name: str, into: str) -> int:
    """Make a project called NAME: a topology with a roll-up, a derived column and a bolt of its own, sample events and a test.

    It runs as it is; change it from there. Nothing that is there already is overwritten.
    """
    from penstock.scaffold import create

    made = create(name, Path(into))
    topology = f"topologies/{made.module}.py"
    click.echo(f"{made.folder} has {len(made.files)} files. Try it:\n")
    for line in (
        f"cd {made.folder}",
        f"penstock produce {topology} sample.jsonl",
        f"penstock run {topology} --until-caught-up",
        f"penstock query {made.module}_visits --entity /shop --from 2026-03-02 --to 2026-03-03 --interval 1h",
    ):
        click.echo(f"  {line}")
    return 0
