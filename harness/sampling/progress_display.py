"""Show the progress of a run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TextIO

from harness.core.deadline import Deadline
from harness.core.terminal import can_redraw
from harness.voting.live_tally import ModelTally

_LIVE_SECONDS = 0.25
"""Between updates on a terminal."""
PLAIN_SECONDS = 30.0
_RATE_SECONDS = 60.0
"""Period over which rates are measured."""


class ProgressBoard:
    """The counts and rates of a run, as text for the display.

    Args:
        noun: what the tallies count.

    Attributes:
        noun: as the argument.
        tallies: the counts of each model, by name.
        in_flight: returns a model's completions in flight.
        seconds_left: returns the seconds until the run gives up waiting for a server; None while one answers.
        deadline: after which nothing is requested; None without one.
    """

    def __init__(self, tallies: Iterable[ModelTally], noun: str = "predictions") -> None:
        self.noun = noun
        self.tallies = {tally.model: tally for tally in tallies}
        self.in_flight: Callable[[str], int] = lambda model: 0
        self.seconds_left: Callable[[], float | None] = lambda: None
        self.deadline: Deadline | None = None
        self._rates = {model: _RateMeter() for model in self.tallies}

    @property
    def complete(self) -> bool:
        """Whether every requested prediction is there."""
        return all(tally.done == tally.total for tally in self.tallies.values())

    def status(self) -> str:
        """Return the state of the whole run on one line."""
        in_flight = sum(self.in_flight(model) for model in self.tallies)
        open_count = sum(tally.total - tally.done for tally in self.tallies.values())
        until = None if self.deadline is None else self.deadline.seconds_left
        if until is not None and until <= 0:
            total = sum(tally.total for tally in self.tallies.values())
            return f"missing by the deadline: {open_count} of {total} {self.noun}, {in_flight} of them in flight"
        ending = "" if until is None else f", deadline in {_clock(until)}"
        left = self.seconds_left()
        if left is not None:
            return f"no server answers; giving up in {_clock(max(left, 0.0))}{ending}"
        rate = sum(self.rate(model) for model in self.tallies)
        eta = _clock(open_count / rate) if rate > 0 else "unknown time"
        return f"{rate:.1f} {self.noun}/s, {in_flight} in flight, {eta} left{ending}"

    def rate(self, model: str) -> float:
        """Return a model's predictions or views per second over the last minute."""
        return self._rates[model].rate(self.tallies[model].answered)

    def cells(self, model: str) -> dict[str, str]:
        """Return the cells of a model's row by column name; "" for what is not known or not applicable.

        vote_2 covers the test outputs that have predictions.
        """
        tally = self.tallies[model]
        vote = tally.vote_2()
        rate, in_flight = self.rate(model), self.in_flight(model)
        busy = tally.done < tally.total and (in_flight > 0 or rate > 0)
        return {
            "done": f"{tally.done}/{tally.total}",
            "vote_2": "" if vote is None else f"{100 * vote:.1f} %",
            "rate": f"{rate:.1f}/s" if busy else "",
            "in flight": f"{in_flight}" if busy else "",
            "left": _clock((tally.total - tally.done) / rate) if busy and rate > 0 else "",
            "failures": ", ".join(f"{count} {kind}" for kind, count in sorted(tally.failures.items())),
        }


class _RateMeter:
    """Measures the rate of a growing count over the last minute."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque([(monotonic(), 0)])

    def rate(self, answered: int) -> float:
        """Return the growth per second; ``answered`` is the count now."""
        now = monotonic()
        if now - self._samples[-1][0] > 1.0:
            self._samples.append((now, answered))
        while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_SECONDS:
            self._samples.popleft()
        start, before = self._samples[0]
        return (answered - before) / max(now - start, 1e-3)


class Display:
    """Shows a board until it is cancelled; lines of ``notice`` stay above it.

    Args:
        stream: where to write; None for stderr.
        plain_seconds: seconds between lines if the stream is not a terminal.
    """

    def __init__(self, stream: TextIO | None = None, plain_seconds: float = PLAIN_SECONDS) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._plain_seconds = plain_seconds
        self._print: Callable[[str], None] = self._line

    def notice(self, text: str) -> None:
        """Print a line that stays above the live table."""
        self._print(text)

    async def show(self, board: ProgressBoard) -> None:
        """Show the board; runs until cancelled."""
        if can_redraw(self._stream):
            await self._show_live(board)
        shown = dict.fromkeys(board.tallies, 0)
        while True:
            await asyncio.sleep(self._plain_seconds)
            for model, tally in board.tallies.items():
                if tally.answered > shown[model]:
                    shown[model] = tally.answered
                    cells = (f"{name} {cell}" for name, cell in board.cells(model).items() if cell)
                    self._line(f"{model}: {', '.join(cells)}")
            self._line(board.status())

    async def _show_live(self, board: ProgressBoard) -> None:
        """Show the board as a live table; runs until cancelled."""
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream)
        with Live(_table(board), console=console, auto_refresh=False) as live:
            self._print = lambda text: console.print(text, markup=False, highlight=False)
            try:
                while True:
                    await asyncio.sleep(_LIVE_SECONDS)
                    live.update(_table(board), refresh=True)
            finally:
                live.update(_table(board), refresh=True)
                self._print = self._line

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def _table(board: ProgressBoard):  # type: ignore[no-untyped-def]
    """Return a rich table with one row per model, and the status line below."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("model", "", *next(iter(board.cells(model) for model in board.tallies), ())):
        table.add_column(name, no_wrap=name not in ("model", "failures"))
    for model, tally in board.tallies.items():
        bar = ProgressBar(total=tally.total, completed=tally.done, width=8)
        table.add_row(model, bar, *board.cells(model).values())
    return Group(table, Text(board.status()))


def _clock(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
