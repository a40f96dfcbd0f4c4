"""Long work draws its progress: on a terminal or in a notebook, on stderr, nowhere else."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from seewhy.model import VisionModel

LONG = 200  # rows; fewer are done before a bar could be read


@contextmanager
def drawn_progress(model: VisionModel, title: str, forecast: Callable[[], int]) -> Iterator[None]:
    """Count the rows of `model` on a bar of at most `forecast()` rows; silent where nobody looks.

    The forecast is asked for with the first rows: by then the method has checked its parameters.
    """
    if model.on_rows is not None or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield
        return
    with ExitStack() as stack:
        advance: list[Callable[[int], None]] = []

        def on_rows(done: int) -> None:
            if not advance:
                advance.append(stack.enter_context(_bar(title, forecast())))
            advance[0](done)

        model.on_rows = on_rows
        try:
            yield
        finally:
            model.on_rows = None


@contextmanager
def _bar(title: str, rows: int) -> Iterator[Callable[[int], None]]:
    if rows < LONG:
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=rows)
        yield lambda done: bar.advance(task, done)
