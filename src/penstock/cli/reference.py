"""docs/cli.md: the commands' own help. `python -m penstock.cli.reference > docs/cli.md` writes it; a test fails when it is out of date."""

from __future__ import annotations

import sys

import click

WIDTH = 110


def reference() -> str:
    """The page: the help of `penstock`, then of each command."""
    from penstock.cli import cli

    parts = [
        "# Command line\n",
        "What `penstock --help` and `penstock COMMAND --help` print. Made by `python -m penstock.cli.reference > docs/cli.md`.\n",
    ]
    parts.append(_help(cli, "penstock", None))
    root = click.Context(cli, info_name="penstock", **cli.context_settings)
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        parts += _pages(command, [name], root)
    return "\n".join(parts)


def _pages(command: click.Command, words: list[str], parent: click.Context) -> list[str]:
    """The help of a command, and of all within it."""
    parts = [f"#{'#' * len(words)} penstock {' '.join(words)}\n", _help(command, words[-1], parent)]
    if isinstance(command, click.Group):
        inner = click.Context(command, info_name=words[-1], parent=parent)
        for verb in command.list_commands(inner):
            one = command.get_command(inner, verb)
            assert one is not None
            parts += _pages(one, [*words, verb], inner)
    return parts


def _help(command: click.Command, name: str, parent: click.Context | None) -> str:
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    return f"```\n{command.get_help(click.Context(command, info_name=name, parent=parent, **settings)).rstrip()}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
