"""What a training run tells while it runs: log.jsonl with every step, and a progress bar or plain lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Line = Mapping[str, Any]


class TrainingLog:
    """``log.jsonl``: one line a step, and one a validation. Lines after the step that is gone on from are dropped."""

    def __init__(self, path: Path, from_step: int = 0) -> None:
        self.path = path
        kept = [line for line in read_log(path) if line["step"] <= from_step]
        fresh = path.with_suffix(".tmp")
        fresh.write_text("".join(_text(line) for line in kept), encoding="utf-8")
        os.replace(fresh, path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Line) -> None:
        """Append a line."""
        self._file.write(_text(line))
        self._file.flush()

    def sync(self) -> None:
        """Bring all lines to the disk, so that a checkpoint never knows more steps than the log."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


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
    return json.dumps(line) + "\n"


class Progress:
    """A bar on a terminal, else a line every ``every`` steps; both with loss, tokens/s and time left."""

    def __init__(self, total: int, every: int, shown: bool = True) -> None:
        self.total, self.every, self.shown = total, every, shown
        self._started, self._first, self._tokens = time.monotonic(), 0, 0
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self.shown and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns = (
                progress.TextColumn("training"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
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
        self._first, self._tokens, self._started = step, 0, time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def step(self, step: int, loss: float, tokens: int) -> None:
        """Step number ``step`` is done, with ``tokens`` tokens that are not padding."""
        if not self.shown:
            return
        self._tokens += tokens
        seconds = max(1e-9, time.monotonic() - self._started)
        left = seconds / max(1, step - self._first) * (self.total - step)
        note = f"loss {loss:.4f}, {self._tokens / seconds:,.0f} tokens/s, {_clock(left)} left"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, note=note)
        elif step % self.every == 0 or step == self.total:
            print(f"step {step}/{self.total}: {note}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line beside the bar."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
