"""Show all trainings on a cluster at once: a table on a terminal, a line per change elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import click

from harness.cli.workflows.cluster.node import Outcome
from harness.core.terminal import can_redraw

_ROWS = 20
"""Running trainings that a terminal shows; the others are counted."""


class State(Protocol):
    """What is known of a training that has not ended."""

    starts: int
    node: str
    line: str

    def read(self) -> None:
        """Bring it up to date."""


class Board:
    """Counts trainings that are done, running, failed and waiting, with the nodes and last lines of those running.

    Args:
        names: of all trainings.
        noun: what one is, such as ``adapter``.
    """

    def __init__(self, names: list[str], noun: str) -> None:
        self._waiting = dict.fromkeys(names)
        self._total, self._noun = len(names), noun
        self._starts: dict[str, int] = {}
        self._done = self._failed = 0
        self._live: Any = None

    def __enter__(self) -> Self:
        if can_redraw(sys.stderr):
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, states: Mapping[str, State]) -> None:
        """Show the state of the trainings that have not ended."""
        running = []
        for name in self._waiting:
            state = states[name]
            state.read()
            if state.starts > self._starts.get(name, 0):
                again = " again; the node before was lost" if self._starts.get(name) else ""
                self._print(f"training {name} on {state.node}{again}")
                self._starts[name] = state.starts
            if state.starts:
                running.append(name)
        if self._live is not None:
            self._live.update(self._table(running, states))

    def end(self, name: str, outcome: Outcome, states: Mapping[str, State]) -> None:
        """Count a training that has ended, and show how."""
        self.show(states)
        del self._waiting[name]
        where = f" on {outcome.node}" if outcome.node else ""
        if outcome.status == 0:
            self._done += 1
            self._print(f"trained {name}{where} ({self._done} of {self._total})")
        else:
            self._failed += 1
            self._print(f"failed {name}{where}: {outcome.message}")

    def counts(self, running: int) -> str:
        """Return the counts as one line."""
        waiting = len(self._waiting) - running
        return f"{self._noun}s: {self._done} done, {running} running, {self._failed} failed, {waiting} waiting"

    def _table(self, running: list[str], states: Mapping[str, State]) -> Any:
        """Return the counts above a row per running training."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False)
        for name in running[:_ROWS]:
            state = states[name]
            table.add_row(Text(name), Text(state.node), Text(state.line, overflow="ellipsis", no_wrap=True))
        return Group(Text(self.counts(len(running))), table)

    def _print(self, text: str) -> None:
        """Print a line, above the table where there is one."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            click.echo(text, err=True)
