"""Bars for what takes a while, on a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress(
    title: str, total: int | None, *, is_shown: bool = True
) -> Iterator[Callable[[], None]]:
    """A bar on standard error, if that is a terminal. Yields what moves it by one frame.

    Args:
        title: what is done.
        total: number of frames, if it is known.
        is_shown: False if there shall be no bar.
    """
    if not (is_shown and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console  # only where there is a bar
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True, markup=False)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        task = bars.add_task(title, total=total)
        yield lambda: bars.advance(task)
