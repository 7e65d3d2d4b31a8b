"""SIGTERM and Ctrl-C during training: finish the running step, save a checkpoint, stop. Imports torch."""

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
    """Remembers the first SIGTERM or SIGINT while it is entered; SIGINT as a second one interrupts at once.

    SIGTERM as a second one changes nothing: who started this process may pass on what the terminal has sent to all.

    Handlers can only be set in the main thread; elsewhere nothing is caught.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.stopped_at: int | None = None
        """The step after which training stopped because of it."""
        self._before: dict[signal.Signals, Any] = {}

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
    """Ends training after the step in which a signal received, with a checkpoint."""

    def __init__(self, signal: StopSignal) -> None:
        self.signal = signal

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop on all processes if a signal reached any of them."""
        received = torch.tensor(int(self.signal.received is not None), device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
        if received.item():
            self.signal.stopped_at = state.global_step
            control.should_save = control.should_training_stop = True


def ignore_first_signal(start: Callable[[int], object] | None, worker: int) -> None:
    """Start a worker of a data loader that the first signal does not end.

    A signal to the process group reaches it too, and without it the running step could not end. The main process
    ends it. A second signal ends it at once: the interpreter's exit sends two before it waits for a worker.
    """
    if start is not None:
        start(worker)
    for number in STOP_SIGNALS:  # in the place of torch's own handlers, which end the worker
        signal.signal(number, _only_the_first)


def _only_the_first(number: int, frame: FrameType | None) -> None:
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_DFL)
