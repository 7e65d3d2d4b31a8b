"""Progress of commands whose length is known: a bar on a terminal, a line every tenth elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol, TypeVar

import click

T = TypeVar("T")
_QUIET_SECONDS = 2.0
_STEP_SECONDS = 0.1


class ProgressCallback(Protocol):
    """Takes how much is done of how much."""

    def __call__(self, done: int, total: int, /) -> None: ...


@contextmanager
def progress_bar(label: str) -> Iterator[ProgressCallback]:
    """Gives a function that is told the progress; everything goes to stderr, nothing where it is never told."""
    if not sys.stderr.isatty():
        yield _plain(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    shown = progress.add_task(label)

    def tell(done: int, total: int, /) -> None:
        progress.start()
        progress.update(shown, completed=done, total=total)

    try:
        yield tell
    finally:
        progress.stop()


def _plain(label: str) -> ProgressCallback:
    """Tell each tenth that is passed, but nothing of work that is done at once."""
    start, told = monotonic(), 0

    def tell(done: int, total: int, /) -> None:
        nonlocal told
        tenth = 10 * done // max(total, 1)
        if tenth > told and (told or monotonic() - start > _QUIET_SECONDS):
            click.echo(f"{label}: {10 * tenth} %", err=True)
            told = tenth

    return tell


def with_progress(label: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The items, with their progress shown."""
    shown = monotonic()
    with progress_bar(label) as tell:
        for done, item in enumerate(items, 1):
            yield item
            if done == total or monotonic() - shown > _STEP_SECONDS:
                shown = monotonic()
                tell(done, total)
