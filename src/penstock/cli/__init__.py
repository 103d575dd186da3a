"""The command line: `penstock`.

A module a command, which imports what it works with only when it runs: `penstock --help` needs no store and answers at once.
"""

from __future__ import annotations

import sys
from typing import Any, Sequence

import click

from penstock.cli import archive, check, demo, export, new, produce, publish, query, run, send, serve, sql, stack, status, storm, submit
from penstock.cli.base import HELP, guarded

COMMANDS = (
    new.new,
    check.check,
    produce.produce,
    run.run,
    status.status,
    query.query,
    serve.serve,
    send.send,
    export.export,
    archive.archive,
    sql.sql,
    publish.publish,
    submit.submit,
    storm.storm,
    stack.stack,
    demo.demo,
)


class Commands(click.Group):
    """The group of all commands, in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of COMMANDS."""
        return [one.name or "" for one in COMMANDS]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What the exit codes mean."""
        with formatter.section("Exit codes"):
            formatter.write_dl(
                [
                    ("0", "It worked."),
                    ("1", "It failed."),
                    ("2", "The command, a declaration or a path is wrong: the message says how to mend it."),
                    ("3", "`status --fail-lag`, `--fail-export-lag`: something lags further behind."),
                    ("130", "Interrupted, and stopped cleanly."),
                ]
            )
        with formatter.section("Environment"):
            formatter.write_dl(
                [
                    ("PENSTOCK_ON", "What --on is where it is not given."),
                    ("PENSTOCK_CONFIG", "The penstock.toml to use; else the nearest one, from here upwards."),
                    ("PENSTOCK_STACK", "Where `penstock stack` keeps what it runs; else .penstock-stack."),
                    ("PENSTOCK_STACK_CACHE", "Where its servers' jars are kept; else ~/.cache/penstock/stack."),
                    ("PENSTOCK_TRACEBACK", "1: show the traceback of an error."),
                    ("PENSTOCK_KERNELS", "reference: run the slow plain-Python kernels."),
                ]
            )


@click.group(cls=Commands, context_settings=HELP)
@click.version_option(package_name="penstock", message="penstock %(version)s")
def cli() -> None:
    """Real-time analytics on event streams: declare a roll-up once, and every event is counted exactly once.

    TOPOLOGY is a Python file or the name of a module; module:Class where there are several in it.
    """


for _command in COMMANDS:
    cli.add_command(_command)


def execute(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""

    def run_cli() -> int:
        answer: Any = cli.main(args=list(arguments), prog_name="penstock", standalone_mode=False)
        return answer if isinstance(answer, int) else 0

    return guarded(run_cli)


def main() -> None:
    """The console script."""
    sys.exit(execute(sys.argv[1:]))
