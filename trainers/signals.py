"""SIGTERM and Ctrl-C during training: the running step ends, a checkpoint is saved, then the run stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignal:
    """Remembers the first SIGTERM or SIGINT while it is entered; a second one interrupts at once.

    Handlers can only be set in the main thread; elsewhere nothing is caught.
    """

    def __init__(self) -> None:
        self.came: signal.Signals | None = None
        self.stopped_at: int | None = None
        """The step after which training stopped because of it."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.came is not None:
            raise KeyboardInterrupt
        self.came = signal.Signals(number)
