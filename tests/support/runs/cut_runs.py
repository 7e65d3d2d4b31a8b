"""Runs that a deadline cuts: a server that stops answering, sessions with a deadline, and runs cut by hand."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import monotonic

import orjson

from harness.core.deadline import Deadline
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_reader import read_predictions
from harness.runs.schemas.deadline_record import RunDeadline
from harness.sampling.options.run_options import RunOptions
from harness.sampling.progress_display import Display
from harness.sampling.session import SessionSummary, sample_run
from tests.support.runs.run_folders import edit_manifest
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


def cut_run(run: Path, keep: Callable[[str, int, int], bool], *, seconds: float = 43200) -> int:
    """Remove predictions or views from a finished run as if a deadline had left them out; return how many.

    Args:
        keep: returns whether to keep what a task id, a test index and a sample index identify.
    """
    folder = RunFolder(run)
    lines = [(line, orjson.loads(line)) for line in folder.predictions_path.read_bytes().splitlines(keepends=True)]
    kept, missing = [], Counter(dict.fromkeys((model.name for model in folder.manifest().config.models), 0))
    requested = missing.copy()
    for line, record in lines:
        is_kept = keep(record["task_id"], record["test_index"], record["sample_index"])
        kept += [line] if is_kept else []
        if record.get("answer_index") is None:  # a prediction, or the closing record of a view
            requested[record["model"]] += 1
            missing[record["model"]] += not is_kept
    folder.predictions_path.write_bytes(b"".join(kept))
    passed = "2026-01-01T12:00:00+00:00"
    deadline = RunDeadline(seconds=seconds, passed=passed, missing=dict(missing), requested=dict(requested))
    edit_manifest(run, finished=None, deadline=deadline)
    return missing.total()
