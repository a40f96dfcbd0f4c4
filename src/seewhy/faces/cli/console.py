"""What the commands share: exit codes, where words go, progress, JSON."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import typer

DONE, BLOCKED, UNUSABLE, SKIPPED, FAULT, INTERRUPTED = 0, 1, 2, 3, 4, 130


class Step(Protocol):
    """Draws progress: what is being done, steps done, steps in all."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Draw this state."""


def say(text: str) -> None:
    """A line for the person, on stderr: stdout carries the result only."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # this is the one place that talks


def result(text: str) -> None:
    """A line of the result, on stdout."""
    typer.echo(text)


def result_json(value: Any) -> None:
    """The result as JSON, on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


@contextmanager
def progress_bar() -> Iterator[Step]:
    """A bar on stderr with time left; silent where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def step(what: str, done: int, total: int) -> None:
            progress.update(task, description=_plain(what), completed=done, total=total)

        yield step


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, as wide as the terminal; plain aligned text where stdout is not one."""
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=200)
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*map(_plain, row))
    console.print(grid)


def _plain(text: str) -> str:
    """A text that rich must not read as markup: a file may be called [red].jpg."""
    from rich.markup import escape

    return escape(text)
