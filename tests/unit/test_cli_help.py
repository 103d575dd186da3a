"""Every command explains itself, its examples parse, and docs/cli.md says what the commands say."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from penstock.cli import COMMANDS, cli
from penstock.cli.reference import reference

ROOT = Path(__file__).resolve().parents[2]


def leaves(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The commands within one that do something, by their words: ("storm", "list")."""
    if isinstance(command, click.Group):
        for verb, inner in command.commands.items():
            yield from leaves(inner, (*words, verb))
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield words, command


LEAVES = {words: command for one in COMMANDS for words, command in leaves(one, (one.name or "",))}


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_and_option_has_help(words: tuple[str, ...]) -> None:
    command = LEAVES[words]
    assert command.help and command.short_help
    assert command.examples  # type: ignore[attr-defined]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{command.name} {parameter.opts[0]}"
            assert parameter.help.rstrip(" ]").endswith((".", ":DIR")) or "[default" in parameter.help or ":" in parameter.help, (
                parameter.help
            )


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_example_parses(words: tuple[str, ...]) -> None:
    command, own = LEAVES[words], 0
    for _, line in command.examples:  # type: ignore[attr-defined]
        said = shlex.split(line.partition("|")[2] or line)
        if said[0] == "penstock":
            assert tuple(said[1 : 1 + len(words)]) == words
            command.make_context(command.name, said[1 + len(words) :], parent=click.Context(cli, **cli.context_settings))
            own += 1
    assert own


def test_the_documentation_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run: python -m penstock.cli.reference > docs/cli.md"


def test_help_loads_no_store_and_no_kernel() -> None:
    code = (
        "import sys\nfrom penstock.cli import execute\nexecute(['--help'])\nexecute(['run', '--help'])\n"
        "print([name for name in ('numpy', 'pyarrow', 'duckdb', 'streamparse', 'rich', 'penstock.kernels') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Exit codes:" in done.stdout and "Examples:" in done.stdout
