"""What a training run tells while it runs: log.jsonl with every step, and a progress bar or plain lines."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.core.errors import RunError

Line = Mapping[str, Any]
CHECKPOINTS_STAY = "The checkpoints up to here are whole: start the same command again"
"""What is left when a run failed for a reason outside, and what to do."""


class TrainingLog:
    """``log.jsonl``: one line a step, and one a validation. Lines after the step that is gone on from are dropped.

    Raises:
        RunError: a line cannot be written; the lines before it stay.
    """

    def __init__(self, path: Path, from_step: int = 0) -> None:
        self.path = path
        kept = [line for line in read_log(path) if line["step"] <= from_step]
        fresh = path.with_suffix(".tmp")
        try:
            fresh.write_text("".join(_text(line) for line in kept), encoding="utf-8")
            os.replace(fresh, path)
            # Unbuffered: what failed to be written must not be tried again when the file is closed.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._full(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def write(self, line: Line) -> None:
        """Append a line."""
        try:
            data = _text(line).encode()
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise self._full(error) from error

    def sync(self) -> None:
        """Bring all lines to the disk, so that a checkpoint never knows more steps than the log."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> RunError:
        return RunError(f"{self.path} cannot be written: {error.strerror}. Make room. {CHECKPOINTS_STAY}")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a torn last line is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _text(line: Line) -> str:
    """A line as JSON, which has no word for a number that is not finite (older versions wrote such norms): null."""
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
    return json.dumps(plain, allow_nan=False) + "\n"


class Progress:
    """A bar on a terminal, else a line every ``every`` steps.

    Both say the loss, and since the start of this session tokens and samples a second, the share of padding among the
    places of all passes, and the time that is left.
    """

    def __init__(self, total: int, every: int, shown: bool = True) -> None:
        self.total, self.every, self.shown = total, every, shown
        self._started, self._first = time.monotonic(), 0
        self._samples = self._tokens = self._places = 0
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self.shown and sys.stderr.isatty():
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

    def begin(self, step: int) -> None:
        """Training starts or goes on after ``step``."""
        self._started, self._first = time.monotonic(), step
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def step(self, step: int, loss: float, *, samples: int, tokens: int, places: int) -> None:
        """Step number ``step`` is done; its ``tokens`` are those of the ``places`` that are not padding."""
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
        notes = f"loss {loss:.4f}, {clock(left)} left", f"{speed}, {1 - self._tokens / self._places:.1%} padding"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, note="\n".join(notes))
        elif step % self.every == 0 or step == self.total:
            print(f"step {step}/{self.total}: {', '.join(notes)}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line beside the bar."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
