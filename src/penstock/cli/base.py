"""What all commands share: exit codes, options, how a deployment and a topology are found, how errors are said."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
import traceback
from typing import TYPE_CHECKING, Any, Callable, Sequence, TypeVar

import click

from penstock.errors import DeclarationError, NotFoundError, PenstockError, UsageError

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.model import Rollup, Schema
    from penstock.topology import Topology

OK, FAILED, USAGE, LAGGING, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes
DEFAULT_ON = "local:penstock-data"
TRACEBACK = "PENSTOCK_TRACEBACK"

Command = TypeVar("Command", bound=Callable[..., Any])


# Each command says it itself: click keeps the option that it made for the first context, whatever the next one says.
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class ExampleCommand(click.Command):
    """A command whose help ends with examples. Make one with `command`."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, a line of explanation above each."""
        if self.examples:
            with formatter.section("Examples"):
                for index, (what, line) in enumerate(self.examples):
                    formatter.write(("\n" if index else "") + f"  # {what}\n  $ {line}\n")
        super().format_epilog(ctx, formatter)


def command(name: str, examples: Sequence[tuple[str, str]], **attributes: Any) -> Callable[[Callable[..., Any]], ExampleCommand]:
    """A command called `name`, with examples: (what it does, the command line)."""
    return click.command(name, cls=ExampleCommand, examples=examples, context_settings=HELP, **attributes)


def on_option(function: Command) -> Command:
    """--on, for the commands that touch a deployment."""
    return click.option(
        "--on",
        default=DEFAULT_ON,
        envvar="PENSTOCK_ON",
        show_default=True,
        show_envvar=True,
        metavar="NAME|local:DIR",
        help="Where: a folder of this machine, or a deployment that penstock.toml names.",
    )(function)


def topology_argument(function: Command) -> Command:
    """TOPOLOGY: a module or a file."""
    return click.argument("topology")(function)


def json_option(function: Command) -> Command:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def open_deployment(on: str, *, must_exist: bool = True) -> Deployment:
    """The deployment called `on`. must_exist: refuse one in which nothing was ever written, rather than answer as if it were empty."""
    from penstock.deployment import Deployment

    deployment = Deployment.named(on)
    if must_exist and not deployment.exists():
        raise NotFoundError(
            f"{on}: nothing was ever written there ({deployment.directory})",
            hint="`penstock produce` and `penstock run` fill it; --on names another one",
        )
    return deployment


def load(topology: str) -> type[Topology]:
    """The topology of a module or file. An error inside it is the user's: it is said with the line that raised it."""
    from penstock.topology import load_topology

    try:
        return load_topology(topology)
    except PenstockError:
        raise
    except Exception as problem:
        raise DeclarationError(
            f"{topology} cannot be imported: {type(problem).__name__}: {problem}", hint=f"raised at {place_of(problem)}"
        ) from problem


def rollups_of(topology: type[Topology]) -> list[Rollup]:
    """All roll-ups of a topology's bolts. Not through the class's own attributes: a component may be called as one of its methods."""
    from penstock.model import Rollup

    return [Rollup.from_json(data) for definition in topology.definitions.values() for data in definition.rollups]


def schemas_of(topology: type[Topology]) -> list[Schema]:
    """The schemas that a topology's spouts read, each once."""
    from penstock.model import Schema

    found = [Schema.from_json(definition.schema) for definition in topology.definitions.values()]
    return list({schema.name: schema for schema in found}.values())


def place_of(problem: BaseException) -> str:
    """File and line that raised an exception: the innermost of the user's own code if it went through any, else of Penstock's."""
    if isinstance(problem, SyntaxError) and problem.filename:
        return f"{problem.filename}:{problem.lineno}"
    frames = traceback.extract_tb(problem.__traceback__)
    library = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), "<")
    ours = tuple(
        os.path.realpath(path)
        for name in ("penstock", "penstock.bolts", "penstock.spouts")
        if name in sys.modules
        for path in sys.modules[name].__path__
    )
    own = [frame for frame in frames if os.path.realpath(frame.filename).startswith(ours)]
    users = [frame for frame in frames if not frame.filename.startswith(library) and frame not in own]
    chosen = (users or own or list(frames))[-1:]
    return f"{chosen[0].filename}:{chosen[0].lineno}" if chosen else "an unknown place"


def say(text: str = "") -> None:
    """A line to standard error: what is not the answer itself."""
    click.echo(text, err=True)


def report(problem: PenstockError) -> int:
    """Say an error, and the exit code that it stands for."""
    say(f"{click.style('error:', fg='red', bold=True)} {problem.message}")
    for line in (problem.hint or "").splitlines():
        say(f"  {line}")
    return USAGE if isinstance(problem, UsageError) else FAILED


def report_bug(problem: BaseException) -> int:
    """Say that something happened that should not have."""
    say(
        f"{click.style('error:', fg='red', bold=True)} this is a bug in Penstock: {type(problem).__name__}: {problem} (at {place_of(problem)})"
    )
    say(f"  run it again with {TRACEBACK}=1 for the traceback, and report that")
    return FAILED


def guarded(run: Callable[[], int]) -> int:
    """Run a command line and turn whatever happens into an exit code, without a traceback unless PENSTOCK_TRACEBACK is set."""
    tracing = bool(os.environ.get(TRACEBACK))
    try:
        code = run()
        sys.stdout.flush()
        return code
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as mistake:
        mistake.show()
        return mistake.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return FAILED
    except PenstockError as problem:
        if tracing:
            traceback.print_exc()
        return report(problem)
    except Exception as problem:  # whatever it is, the user gets one line
        if tracing:
            traceback.print_exc()
        return report_bug(problem)


def _forget_output() -> None:
    """Nobody reads any more: what is left in the buffer must not raise again when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def number_of(minimum: int) -> click.IntRange:
    """A whole number that may be written 1_000_000 or 1,000,000."""
    return _Number(min=minimum)


class _Number(click.IntRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        plain: Any = value.replace(",", "").replace("_", "") if isinstance(value, str) else value
        return super().convert(plain, param, ctx)


@functools.lru_cache(maxsize=1)
def notice_kernels() -> None:
    """Say it if the plain-Python reference runs where the compiled kernels should."""
    from penstock.kernels import backend

    if backend != "compiled":
        why = (
            "PENSTOCK_KERNELS asks for it"
            if os.environ.get("PENSTOCK_KERNELS")
            else "no compiled ones were found: install a C compiler, then penstock again"
        )
        say(
            click.style(f"NOTICE: the {backend} kernels run, about 100 times slower than the compiled ones ({why})", fg="yellow", bold=True)
        )
