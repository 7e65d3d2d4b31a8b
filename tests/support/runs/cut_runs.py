"""Runs that a deadline cuts: a server that stops answering after some requests, and sessions with a deadline."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import monotonic

from harness.core.deadline import Deadline
from harness.runs.folder import RunFolder
from harness.runs.prediction_reader import read_predictions
from harness.sampling.options import RunOptions
from harness.sampling.progress_display import Display
from harness.sampling.session import SessionSummary, sample_run
from tests.support.servers.chat_answers import Body
from tests.support.servers.chat_server import ChatServer

_HOUR = 3600.0


def hang_after(server: ChatServer, answers: int) -> None:
    """Make a server answer so many prompts and no more; greetings are not counted."""
    numbers = count(1)
    server.hangs = answers == 0

    def notice(body: Body) -> None:
        if body.get("max_tokens") != 1 and next(numbers) >= answers:
            server.hangs = True

    server.refuse = notice


def answer_again(server: ChatServer) -> None:
    """Make a server answer everything."""
    server.hangs = False
    server.refuse = lambda body: None


def sample_until(options: RunOptions, seconds: float, output: io.StringIO | None = None) -> SessionSummary:
    """Sample with a deadline that passes so many seconds after the first request, however long the preparations take.

    The recorded deadline is an hour.
    """
    deadline = Deadline(_HOUR)

    def begin() -> None:
        object.__setattr__(deadline, "started", monotonic() - _HOUR + seconds)

    display = Display(io.StringIO() if output is None else output)
    return sample_run(replace(options, deadline=deadline), display, on_begin=begin)


def predictions_by_output(run: Path) -> Counter[tuple[str, str, int]]:
    """Return the number of predictions of each model and test output."""
    read = read_predictions(RunFolder(run).predictions_path)
    return Counter((one.model, one.task_id, one.test_index) for one in read)
