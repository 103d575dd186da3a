"""How commands print: tables and bars for people at a terminal, plain lines for a pipe, and progress, which goes to standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Iterator, Sequence

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PLAIN_EVERY = 5.0  # seconds between lines of progress where there is no terminal
_WIDE = 100_000  # columns where there is no terminal to cut at


def console(*, err: bool = False) -> Console:
    """A rich console that prints neither colours nor cuts lines where its output is not a terminal."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(file=stream, highlight=False, emoji=False, soft_wrap=False, width=None if stream.isatty() else _WIDE)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None, right: Sequence[int] = ()) -> None:
    """Print a table to standard output. right: the columns that are aligned right, such as numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = console()
    made = Table(box=box.SIMPLE_HEAD if out.is_terminal else None, pad_edge=out.is_terminal, show_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        made.add_column(name, justify="right" if index in right else "left", no_wrap=not out.is_terminal, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    with out.capture() as captured:
        out.print(made)
    if title:
        heading(title)
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def heading(text: str) -> None:
    """A line above what belongs together."""
    click.echo(click.style(text, bold=True))


def good(text: str) -> Any:
    """Text in green, where there are colours."""
    from rich.text import Text

    return Text(text, style="green")


def bad(text: str) -> Any:
    """Text in red, where there are colours."""
    from rich.text import Text

    return Text(text, style="bold red")


def bar(value: float, largest: float, width: int = 24) -> str:
    """A bar of at most `width` characters, to an eighth of one."""
    eighths = round(width * 8 * value / largest) if largest > 0 and value > 0 else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def number(value: int | float | None) -> str:
    """A number with its thousands apart; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def size(count: float) -> str:
    """Bytes as people say them: "1.2 MB"."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise ValueError(f"{count} is no size")


class Meter:
    """Progress of one or more things on standard error: bars at a terminal, a line now and then elsewhere. Use `meter`."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}
        self._began: dict[str, tuple[float, float]] = {}
        self._said: dict[str, float] = {}

    def update(self, name: str, done: float, total: float | None, *, detail: str = "", unit: str = "events") -> None:
        """How far the thing called `name` is. detail: what else to say of it."""
        now = time.monotonic()
        at, first = self._began.setdefault(name, (now, done))
        rate = (done - first) / (now - at) if now - at > 0.3 else 0.0
        text = f"{size(done)}" if unit == "bytes" else f"{done:,.0f}"
        speed = f"{size(rate)}/s" if unit == "bytes" else f"{rate:,.0f} {unit}/s"
        if self._progress is not None:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=total, text="", detail="")
            self._progress.update(self._tasks[name], completed=done, total=total, text=f"{text}  {speed}", detail=detail)
        elif now - self._said.setdefault(name, now) >= PLAIN_EVERY:
            self._said[name] = now
            of = "" if total is None else f" of {size(total) if unit == 'bytes' else f'{total:,.0f}'}"
            click.echo(f"{name}: {text}{of} ({speed}){', ' + detail if detail else ''}", err=True)

    def say(self, text: str) -> None:
        """A line above the bars."""
        if self._progress is not None:
            self._progress.console.print(text, markup=False)
        else:
            click.echo(text, err=True)


@contextlib.contextmanager
def meter() -> Iterator[Meter]:
    """A meter for the while of the block."""
    if not sys.stderr.isatty():
        yield Meter(None)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    shown = Progress(
        TextColumn("{task.description}", style="bold"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
        console=console(err=True),
        transient=False,
    )
    with shown:
        yield Meter(shown)


def pairs(items: Sequence[tuple[str, Any]]) -> None:
    """Names and values, a line each, the values below one another."""
    width = max((len(name) for name, _ in items), default=0)
    for name, value in items:
        click.echo(f"{name.ljust(width)}  {value}")
