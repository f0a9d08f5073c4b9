"""What a person at a terminal sees while a tree is made: a bar, and the log above it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..kmeans import tree

logger = logging.getLogger(__name__)
console = Console(stderr=True)  # the log must write to the bar's own console


@contextmanager
def progress_bar(specs: Sequence[tree.LevelSpec]) -> Iterator[Callable[[int, tree.Progress], None]]:
    """Show how far a tree has come, where standard error is a terminal and the log is not turned down.

    Args:
        specs: Its levels.

    Yields:
        What to call with the level and its progress, as `tree.build` does.
    """
    if not (console.is_terminal and logger.isEnabledFor(logging.INFO)):
        yield lambda level, progress: None
        return
    fits = [1 + spec.rounds for spec in specs]
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total} fits")
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=sum(fits))

        def show(level: int, progress: tree.Progress) -> None:
            state = progress.state
            where = f", batch {state.batch}, move {state.n_iter}" if state else ""
            text = f"level {level} of {len(specs)}, round {min(progress.round, specs[level - 1].rounds)}{where}"
            bar.update(task, description=text, completed=sum(fits[: level - 1]) + progress.round)

        yield show
