"""What a run shows while it samples: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import TextIO

from harness.records import PredictionRecord

_LIVE_SECONDS = 0.25
PLAIN_SECONDS = 30.0
_RATE_SECONDS = 60.0


@dataclass
class Tally:
    """The predictions of one model so far."""

    model: str
    total: int
    done: int = 0
    """With those of earlier sessions of the run."""
    answered: int = 0
    """Those of this session."""
    exact: int = 0
    known: int = 0
    """Predictions of this session whose right answer is known, and how many are exactly it."""
    failures: Counter[str] = field(default_factory=Counter)
    tokens: int = 0

    def add(self, record: PredictionRecord, exact: bool | None) -> None:
        """Count a prediction; ``exact`` is None where the answer is not known."""
        self.done += 1
        self.answered += 1
        self.known += exact is not None
        self.exact += bool(exact)
        self.tokens += record.n_tokens or 0
        if record.outcome != "grid":
            self.failures[record.outcome] += 1


class Board:
    """The state of a run as it is shown."""

    def __init__(self, tallies: Iterable[Tally]) -> None:
        self.tallies = {tally.model: tally for tally in tallies}
        self.in_flight: Callable[[], int] = lambda: 0
        self.seconds_left: Callable[[], float | None] = lambda: None
        """Until waiting for a server ends; None while one answers."""
        self._samples: deque[tuple[float, int]] = deque([(monotonic(), 0)])

    def rate(self) -> float:
        """Predictions a second over the last minute."""
        now, answered = monotonic(), sum(tally.answered for tally in self.tallies.values())
        if now - self._samples[-1][0] > 1.0:
            self._samples.append((now, answered))
        while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_SECONDS:
            self._samples.popleft()
        start, before = self._samples[0]
        return (answered - before) / max(now - start, 1e-3)

    def status(self) -> str:
        """The whole run on one line."""
        left = self.seconds_left()
        if left is not None:
            return f"no server answers; giving up in {_clock(max(left, 0.0))}"
        rate = self.rate()
        todo = sum(tally.total - tally.done for tally in self.tallies.values())
        eta = _clock(todo / rate) if rate > 0 else "unknown"
        return f"{rate:.1f} predictions/s, {self.in_flight()} requests in flight, {eta} left"


def progress(tally: Tally) -> str:
    """One model's state in words."""
    parts = [f"{tally.done}/{tally.total}"]
    if tally.known:
        parts.append(f"{100 * tally.exact / tally.known:.1f} % exact so far")
    parts += [f"{count} {kind}" for kind, count in sorted(tally.failures.items())]
    return ", ".join(parts)


class Display:
    """Shows a board until it is stopped; ``notice`` prints a line above it.

    Args:
        plain_seconds: how often a line is printed where the stream is not a terminal.
    """

    def __init__(self, stream: TextIO | None = None, plain_seconds: float = PLAIN_SECONDS) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._plain_seconds = plain_seconds
        self._print: Callable[[str], None] = self._line

    def notice(self, text: str) -> None:
        """Print a line that stays."""
        self._print(text)

    async def show(self, board: Board) -> None:
        """Run until cancelled."""
        if self._stream.isatty():
            await self._show_live(board)
        while True:
            await asyncio.sleep(self._plain_seconds)
            for tally in board.tallies.values():
                if 0 < tally.done < tally.total:
                    self._line(f"{tally.model}: {progress(tally)}")
            self._line(board.status())

    async def _show_live(self, board: Board) -> None:
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


def _table(board: Board):  # type: ignore[no-untyped-def]
    """A bar a model and the status below."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    for tally in board.tallies.values():
        table.add_row(tally.model, ProgressBar(total=tally.total, completed=tally.done, width=24), progress(tally))
    return Group(table, board.status())


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
