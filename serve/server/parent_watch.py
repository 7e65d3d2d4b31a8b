"""Nothing of a vLLM outlives those whom it serves: an engine its API process, and that the process that owns it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time

from serve.launch.command import OWNER_PID

_SECONDS = 1.0
_PATIENCE = 60.0
"""For requests in flight. A vLLM that is still starting hangs for ever where SIGTERM meets it between its processes."""
_NAME = "arc-bench-parent"
_log = logging.getLogger("vllm.arc_bench")


def end_with_parent() -> None:
    """Start a thread that ends this process of vLLM when its parent is gone; may be called several times.

    Two kinds of processes are guarded, and no other child of vLLM (such as the one in which it inspects a model's
    class, ``python -m vllm.model_executor.models.registry``, which also loads general plugins):

    - the API process, for as long as the owner lives that the launcher named. It leads the session in which the
      launcher started it, and it takes the owner out of the environment, so that none of its children inherits it;
    - processes that vLLM starts through ``multiprocessing`` (engines and workers), for as long as their parent lives.
    """
    owner = os.environ.pop(OWNER_PID, "")
    if any(thread.name == _NAME for thread in threading.enumerate()):
        return
    if multiprocessing.parent_process() is not None:
        # Who started this process: with a fork server not its parent in multiprocessing's sense.
        watched = os.getppid(), signal.SIGKILL  # it serves nobody any more, and may be stuck waiting for its parent
    elif owner and os.getsid(0) == os.getpid():
        watched = int(owner), signal.SIGTERM  # requests in flight may finish
    else:
        return
    threading.Thread(target=_watch, args=watched, name=_NAME, daemon=True).start()


def _watch(parent: int, then: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    _log.warning("the process that owns this one (%d) is gone; ending", parent)
    os.kill(os.getpid(), then)
    time.sleep(_PATIENCE)
    _log.warning("it did not end in %g s; killed", _PATIENCE)
    if os.getpgrp() == os.getpid():  # as the launcher starts it: its engines go with it
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
