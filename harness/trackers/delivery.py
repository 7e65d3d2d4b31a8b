"""Send reports to trackers, each in its own process: a tracker that fails or hangs costs a warning, never the run."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import monotonic

from harness.core.errors import truncate
from harness.runs.schemas.tracker_run import TrackerRun
from harness.trackers.redaction import run_without_secrets, without_secrets
from harness.trackers.report import TrackerReport

SECONDS = 600.0
"""How long all trackers together may take; a tracker that is not done then is stopped."""
_OUTPUT_LIMIT = 300


@dataclass(frozen=True)
class Delivery:
    """What became of the reports to one tracker."""

    tracker: str
    runs: tuple[TrackerRun, ...] = ()
    """One per report; empty after an error."""
    error: str | None = None
    """Why not all reports were sent, in one line."""


def deliver(reports: Sequence[TrackerReport], trackers: Sequence[str], seconds: float = SECONDS) -> list[Delivery]:
    """Send reports to trackers at the same time, and wait for at most ``seconds``.

    The packages of trackers change the process that imports them (threads, exit handlers, output), and may wait for a
    network for ever. So each is imported in a new process, which is ended with its children.
    """
    if not reports:
        return []
    end = monotonic() + seconds
    senders = [_start(tracker, reports, seconds) for tracker in trackers]
    try:
        return [
            _wait_for(tracker, connection, max(0.0, end - monotonic()), seconds)
            for tracker, (_, connection) in zip(trackers, senders, strict=True)
        ]
    finally:
        for process, connection in senders:
            _end(process)
            connection.close()


def _start(tracker: str, reports: Sequence[TrackerReport], seconds: float) -> tuple[BaseProcess, Connection]:
    """Start the process that sends reports to a tracker, and return it with the connection that it answers on."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send_all, args=(tracker, reports, there, seconds))
    process.start()
    there.close()  # so that an end of the process is noticed here
    return process, here


def _wait_for(tracker: str, connection: Connection, left: float, seconds: float) -> Delivery:
    """Return the answer of a tracker's process."""
    if not connection.poll(left):
        return Delivery(tracker, error=f"it did not finish within {seconds:g} s and was stopped")
    try:
        answer = connection.recv()
    except EOFError:
        return Delivery(tracker, error="its process ended without an answer")
    return Delivery(tracker, error=answer) if isinstance(answer, str) else Delivery(tracker, tuple(answer))


def _end(process: BaseProcess) -> None:
    """Stop a process and all that it started; a process that is done has nothing left to lose."""
    if process.pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _send_all(tracker: str, reports: Sequence[TrackerReport], connection: Connection, seconds: float) -> None:
    """Run in a new process: send every report, and answer with the tracker's runs or with a line about the error."""
    os.setsid()  # the group that is stopped at the end, and no Ctrl-C of the terminal
    signal.alarm(int(seconds) + 60)  # if this process is left alone
    with suppress(OSError), open(os.devnull, "r+b") as nothing:
        for descriptor in (0, 1, 2):  # what a tracker prints would mix with the command's own output
            os.dup2(nothing.fileno(), descriptor)
    sys.argv = ["bench", reports[0].command]  # trackers record the command line, which may contain a key
    answer: list[TrackerRun] | str
    try:
        send: Callable[[TrackerReport], TrackerRun] = importlib.import_module(
            f"harness.trackers.{tracker}_adapter"
        ).send_report
        answer = [run_without_secrets(send(report)) for report in reports]
    except BaseException as error:  # noqa: BLE001  # trackers raise anything, SystemExit included
        answer = describe_error(error)
    connection.send(answer)


def describe_error(error: BaseException) -> str:
    """Return kind and message of an error as one line."""
    text = without_secrets(" ".join(str(error).split()))
    return truncate(f"{type(error).__name__}: {text}" if text else type(error).__name__, _OUTPUT_LIMIT)
