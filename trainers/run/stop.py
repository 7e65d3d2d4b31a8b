"""Stop training on SIGTERM or Ctrl-C: finish the running step, save a checkpoint, end the run. Imports torch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from transformers import TrainerCallback

from harness.core.errors import ArcBenchError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingStopped(ArcBenchError):
    """A signal stopped the run; its checkpoint is saved."""

    exit_code = 130


class StopSignal:
    """Context manager that records the first SIGTERM or SIGINT; a second SIGINT raises KeyboardInterrupt.

    A second SIGTERM is ignored: a parent process may forward the signal that the terminal already sent to the whole
    group. Handlers can only be set in the main thread; in other threads nothing is recorded.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.stopped_at: int | None = None
        """Training step after which the run stopped because of the signal."""
        self._before: dict[signal.Signals, Any] = {}

    def check_finished(self, steps: int) -> None:
        """Refuse to take the weights of a run of so many steps for its result if it was stopped before the last.

        Raises:
            TrainingStopped: also in a process that received no signal, but stopped because another one did.
        """
        if self.stopped_at is not None and self.stopped_at < steps:
            by = self.received.name if self.received is not None else "a signal to another training process"
            raise TrainingStopped(
                f"stopped by {by} after step {self.stopped_at} of {steps}; it is saved, the same command resumes there"
            )

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt


class StopAtStep(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Callback that saves a checkpoint and ends training after the step in which a signal came."""

    def __init__(self, signal: StopSignal) -> None:
        self.signal = signal

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop on all processes if a signal reached at least one of them."""
        received = torch.tensor(int(self.signal.received is not None), device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
        if received.item():
            self.signal.stopped_at = state.global_step
            control.should_save = control.should_training_stop = True


def ignore_first_signal(start: Callable[[int], object] | None, worker: int) -> None:
    """Start a data loader worker that survives the first signal.

    A signal to the process group reaches workers too; if they died, the running step could not finish. The main process
    ends them afterwards. A second signal ends a worker at once: on exit, Python sends two before it waits for the
    worker.

    Args:
        start: the loader's own ``worker_init_fn``.
        worker: index of the worker.
    """
    if start is not None:
        start(worker)
    for number in STOP_SIGNALS:  # replaces torch's handlers, which end the worker
        signal.signal(number, _restore_default_handlers)


def _restore_default_handlers(number: int, frame: FrameType | None) -> None:
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_DFL)
