"""The child processes of a vLLM whose API process was killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection

import psutil
import pytest

from serve.server.parent_watch import end_with_parent

pytestmark = pytest.mark.slow


def engine(pipe: Connection) -> None:
    end_with_parent()
    end_with_parent()
    pipe.send((os.getpid(), threading.active_count()))
    threading.Event().wait(300)


def api_process(pipe: Connection) -> None:
    multiprocessing.get_context("spawn").Process(target=engine, args=(pipe,)).start()
    threading.Event().wait(300)


def test_a_child_ends_with_its_killed_parent() -> None:
    """A process of an engine ends within seconds after its parent process was killed."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    parent = context.Process(target=api_process, args=(there,))
    parent.start()
    pid, threads = here.recv()
    child = psutil.Process(pid)
    assert threads == 2
    assert child.is_running()
    parent.kill()
    parent.join()
    _, left = psutil.wait_procs([child], timeout=60)
    assert left == []
