"""Show progress on stderr: a bar on a terminal, elsewhere a line for every 10 %."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

from harness.core.terminal import can_redraw

if TYPE_CHECKING:
    from harness.data.dataset import Dataset

T = TypeVar("T")
_QUIET_SECONDS = 2.0
_STEP_SECONDS = 0.1


class ProgressCallback(Protocol):
    """A function that is called with the number of finished steps and the total."""

    def __call__(self, done: int, total: int, /) -> None: ...


@contextmanager
def progress_bar(label: str) -> Iterator[ProgressCallback]:
    """Yield a function that shows progress; nothing is printed before its first call.

    Args:
        label: names the work.
    """
    if not can_redraw(sys.stderr):
        yield _plain(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    task = progress.add_task(label)

    def update(done: int, total: int, /) -> None:
        progress.start()
        progress.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        progress.stop()


def _plain(label: str) -> ProgressCallback:
    """Return a function that prints a line for every 10 % of the work, but nothing in the first ``_QUIET_SECONDS``."""
    start, printed = monotonic(), 0

    def update(done: int, total: int, /) -> None:
        nonlocal printed
        tenth = 10 * done // max(total, 1)
        if tenth > printed and (printed or monotonic() - start > _QUIET_SECONDS):
            click.echo(f"{label}: {10 * tenth} %", err=True)
            printed = tenth

    return update


def with_progress(label: str, items: Iterable[T], total: int) -> Iterator[T]:
    """Yield the items and show how many of ``total`` have been processed."""
    updated = monotonic()
    with progress_bar(label) as update:
        for done, item in enumerate(items, 1):
            yield item
            if done == total or monotonic() - updated > _STEP_SECONDS:
                updated = monotonic()
                update(done, total)


def open_with_progress(spec: str, strict: bool) -> Dataset:
    """Open a dataset; show progress while its file is indexed, which happens once.

    Args:
        strict: raise an error for a damaged line instead of printing a warning.
    """
    from harness.data.spec import open_dataset

    with progress_bar(f"indexing {spec}") as progress:
        return open_dataset(spec, strict=strict, progress=progress)
