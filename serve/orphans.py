"""A vLLM whose API process was killed leaves no engine behind, which would hold its memory for ever."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

_SECONDS = 1.0
_NAME = "arc-bench-parent"


def end_with_parent() -> None:
    """In a child process of vLLM, start a thread that ends it when its parent is gone; may be called several times."""
    if multiprocessing.parent_process() is None or any(thread.name == _NAME for thread in threading.enumerate()):
        return
    # Who started this process, and not its parent in multiprocessing's sense, which a fork server would differ from.
    threading.Thread(target=_watch, args=(os.getppid(),), name=_NAME, daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)  # it serves nobody any more, and may be stuck waiting for its parent
