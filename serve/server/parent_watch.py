"""End vLLM's engines when their API process is gone, and the API process when its owner is gone."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time

from serve.launch.server_environment import OWNER_PID

_SECONDS = 1.0
"""How often the parent is checked."""
_PATIENCE = 60.0
"""Seconds that requests in flight may take. A vLLM that gets SIGTERM during its start may hang forever."""
_NAME = "arc-bench-parent"
_log = logging.getLogger("vllm.arc_bench")


def end_with_parent() -> None:
    """Start a thread that ends this process when its parent is gone. May be called several times.

    It guards two kinds of processes, and no other child of vLLM (such as the one in which vLLM inspects a model's
    class,
    ``python -m vllm.model_executor.models.registry``, which also loads general plugins):

    - the API process, whose owner the launcher names in OWNER_PID. It leads the session in which the launcher started
      it. It removes the variable from its environment, so that its children do not inherit it;
    - processes that vLLM starts through ``multiprocessing`` (engines and workers), which watch their parent.
    """
    owner = os.environ.pop(OWNER_PID, "")
    if any(thread.name == _NAME for thread in threading.enumerate()):
        return
    if multiprocessing.parent_process() is not None:
        # The real parent: with a fork server it differs from multiprocessing's. SIGKILL, because without its parent
        # this process has nothing to finish and may be stuck waiting for it.
        watched = os.getppid(), signal.SIGKILL
    elif owner and os.getsid(0) == os.getpid():
        watched = int(owner), signal.SIGTERM  # requests in flight may finish
    else:
        return
    threading.Thread(target=_watch, args=watched, name=_NAME, daemon=True).start()


def _watch(parent: int, then: signal.Signals) -> None:
    """Wait until the parent is another process, then send ``then`` to this process, and SIGKILL after ``_PATIENCE``."""
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    _log.warning("the process that owns this one (%d) is gone; ending", parent)
    os.kill(os.getpid(), then)
    time.sleep(_PATIENCE)
    _log.warning("it did not end in %g s; killed", _PATIENCE)
    if os.getpgrp() == os.getpid():  # it leads its process group, so its engines end with it
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
