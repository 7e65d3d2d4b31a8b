"""The process that trains: started, given one task per line, and restarted if it is killed."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import BinaryIO

from harness.cli.workflows.steps import last_error
from harness.core.errors import ArcBenchError, DeadlineError, RunError
from trainers.ttt.protocol import ReplyLine, StepLine, TaskLine, parse_output

_RESTARTS = 2
"""How often a killed process is started again for the same task."""
_END_SECONDS = 10.0
Output = StepLine | ReplyLine | ArcBenchError | None


class TrainerProcess:
    """``python -m trainers.ttt WORK``: answers task lines in their order.

    A process that was killed (memory, an operator) is started again and gets the unanswered lines again; adapters that
    are complete are not trained twice.

    Args:
        work: the run folder, with the recipe.
        log: file for its diagnostics, to which is appended.
        show: called with each training step.
        notice: shows a line to the user.
    """

    def __init__(self, work: Path, log: Path, show: Callable[[StepLine], None], notice: Callable[[str], None]) -> None:
        self._work, self._log = work, log
        self._show, self._notice = show, notice
        self._unanswered: deque[TaskLine] = deque()
        self._output: queue.Queue[Output] = queue.Queue()
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts = self._log_start = 0

    def __enter__(self) -> TrainerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return None if self._process is None else self._process.pid

    def send(self, line: TaskLine) -> None:
        """Give the process a task; it is started with the first."""
        self._unanswered.append(line)
        if self._process is None:
            self._start()
        else:
            self._write(line)

    def wait(self, until: float | None = None) -> ReplyLine:
        """Return the reply to the oldest unanswered task, after passing on its steps.

        Args:
            until: ``monotonic()`` until which to wait; None for no limit.

        Raises:
            DeadlineError: the time is over. RunError: the process ended with an error, or was killed again and again.
        """
        while True:
            try:
                output = self._output.get(timeout=None if until is None else max(0.0, until - monotonic()))
            except queue.Empty:
                raise DeadlineError("the deadline (--deadline) passed during a training") from None
            if isinstance(output, StepLine):
                self._show(output)
            elif isinstance(output, ReplyLine):
                if output.task_id != self._unanswered[0].task_id:
                    raise RunError(f"the trainer answered {output.task_id} instead of {self._unanswered[0].task_id}")
                self._unanswered.popleft()
                self._restarts = 0
                return output
            elif output is None:
                self._handle_end()
            else:
                raise RunError(f"{output} ({self._log} may say why)")

    def close(self) -> None:
        """End the process: it stops at the end of its input, else by signals. It forgets tasks without a reply."""
        process, self._process = self._process, None
        is_busy = bool(self._unanswered)
        self._unanswered.clear()  # who gives tasks afterwards gives these again
        if process is None:
            return
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        if is_busy:
            process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        """Start the process and give it the unanswered tasks."""
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        command = [sys.executable, "-P", "-m", "trainers.ttt", str(self._work)]
        with self._log.open("ab") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONSAFEPATH": "1"},
                start_new_session=True,  # Ctrl-C on the terminal reaches this process only, which then stops it
            )
        self._process, self._output = process, queue.Queue()
        assert process.stdout is not None
        threading.Thread(target=_read_lines, args=(process.stdout, self._output), daemon=True).start()
        for line in self._unanswered:
            self._write(line)

    def _write(self, line: TaskLine) -> None:
        """Write a task line; if the process has ended, ``wait`` notices."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line.model_dump_json(exclude_defaults=True).encode() + b"\n")
            self._process.stdin.flush()

    def _handle_end(self) -> None:
        """Start a killed process again.

        Raises:
            RunError: it ended by itself, or was started again too often.
        """
        assert self._process is not None
        status = self._process.wait()
        task = self._unanswered[0].task_id
        if status >= 0:
            raise RunError(
                f"the trainer ended with status {status} at task {task}: {_last_line(self._log, self._log_start)}"
            )
        name = signal.Signals(-status).name
        if self._restarts >= _RESTARTS:
            raise RunError(
                f"the trainer was killed by {name} {self._restarts + 1} times at task {task}; see {self._log}"
            )
        self._restarts += 1
        self._notice(f"the trainer was killed by {name} at task {task}; it is started again")
        self._start()


def _read_lines(stream: BinaryIO, output: queue.Queue[Output]) -> None:
    """Put every line of the process into a queue, and None at its end."""
    for line in stream:
        try:
            output.put(parse_output(line.decode(errors="replace")))
        except ArcBenchError as error:
            output.put(error)
    output.put(None)


def _last_line(log: Path, start: int) -> str:
    """Return the last error in a log, else its last line.

    Args:
        start: bytes of the log that are older.
    """
    return f"{last_error(log.read_bytes()[start:].decode(errors='replace'))} (log: {log})"
