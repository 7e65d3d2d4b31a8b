"""Show training progress on stderr: a bar on a terminal, else plain lines."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from harness.core.terminal import can_redraw


class Progress:
    """A bar on a terminal, else one line every ``every`` steps.

    Shows the loss and, since this session started, tokens and samples per second, the share of padding and the time
    left.

    Args:
        total: number of training steps.
        shown: False prints nothing.
    """

    def __init__(self, total: int, every: int, shown: bool = True) -> None:
        self.total, self.every, self.shown = total, every, shown
        self._started, self._first = time.monotonic(), 0
        self._samples = self._tokens = self._places = 0
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self.shown and can_redraw(sys.stderr):
            from rich import progress
            from rich.console import Console

            columns = (
                progress.MofNCompleteColumn(),
                progress.BarColumn(24),
                progress.TextColumn("{task.fields[note]}"),
            )
            self._bar = progress.Progress(*columns, console=Console(stderr=True))
            self._bar.add_task("training", total=self.total, note="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start_at(self, step: int) -> None:
        """Start measuring: training starts or resumes after ``step``."""
        self._started, self._first = time.monotonic(), step
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def show_step(self, step: int, loss: float, *, samples: int, tokens: int, places: int) -> None:
        """Show a finished step.

        Args:
            tokens: tokens of the step without padding.
            places: tokens of the step with padding.
        """
        if not self.shown:
            return
        self._samples, self._tokens, self._places = (
            self._samples + samples,
            self._tokens + tokens,
            self._places + places,
        )
        seconds = max(1e-9, time.monotonic() - self._started)
        left = seconds / max(1, step - self._first) * (self.total - step)
        speed = f"{self._tokens / seconds:,.0f} tokens/s, {self._samples / seconds:.1f} samples/s"
        notes = (
            f"loss {loss:.4f}, {format_duration(left)} left",
            f"{speed}, {1 - self._tokens / self._places:.1%} padding",
        )
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, note="\n".join(notes))
        elif step % self.every == 0 or step == self.total:
            print(f"step {step}/{self.total}: {', '.join(notes)}", file=sys.stderr, flush=True)

    def print_note(self, text: str) -> None:
        """Print a line above the bar."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)


def format_duration(seconds: float) -> str:
    """Return seconds as M:SS, or H:MM:SS from one hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
