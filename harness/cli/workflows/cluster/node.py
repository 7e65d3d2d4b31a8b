"""What runs on a node, inside a process of Ray: check the node, run one training, and say how it ended."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from harness.cli.workflows.steps import last_error
from harness.core.errors import ArcBenchError, RunError
from trainers.store.manifest import training_environment
from trainers.store.run_folder import lock_when_free

RUNNING = "=== running on "
"""How the line of a log begins that names the node; a later one says that the training was placed again."""
_SHARED_SECONDS = 20.0
"""How long a file that was just written may take until other machines of a network file system see it."""
_LOCK_SECONDS = 180.0
"""How long to wait until a node that was given up has ended its process, or the file system has released its lock."""
_POLL_SECONDS = 0.2
_SAVING_SECONDS = 120.0
"""How long a cancelled training may take to finish its step and save a checkpoint."""


@dataclass(frozen=True)
class NodeWork:
    """One training to run on any node, with what tells a node whether it can. All paths are absolute.

    Attributes:
        name: for the user.
        directory: where the command was started; relative paths of a recipe count from it.
        input: a file that the training reads, by which a node tests that it shares the folder.
        input_digest: SHA-256 of its content.
        folder: the folder that the training locks.
        log: file to which its output is appended.
        versions: as ``code_versions`` gives them where the command was started.
        arguments: of Python.
    """

    name: str
    directory: str
    input: str
    input_digest: str
    folder: str
    log: str
    versions: Mapping[str, str]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        status: exit status; 0 if it is done.
        node: where it ran last; empty if that is not known.
        message: why it failed, in one line.
        lines: what it returns to the command, such as the replies of test-time training.
    """

    status: int
    node: str = ""
    message: str = ""
    lines: tuple[str, ...] = ()


@cache
def code_versions() -> dict[str, str]:
    """Return what must be equal on all nodes: Python, this code and the packages that decide what is trained."""
    environment = training_environment()
    versions = {"Python": environment.python, "arc-bench": environment.version, **environment.packages}
    return versions if environment.commit is None else {**versions, "commit of arc-bench": environment.commit}


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_soon(condition: Callable[[], bool]) -> bool:
    """Return whether a condition on files that another machine has just written is true, or becomes true soon."""
    until = time.monotonic() + _SHARED_SECONDS
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def node_name() -> str:
    """Return host and node id of this process, such as ``gpu-3 (5c01ab)``: one machine may run several nodes."""
    import ray

    return f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:6]})"


def run_training(work: NodeWork) -> Outcome:
    """Run the training of some work as a process of its own, which ends with this one.

    Raises:
        KeyboardInterrupt: it was cancelled, and has saved a checkpoint.
    """

    def train(log: BinaryIO) -> Outcome:
        start = log.tell()
        status = _run_process(work, log)
        if status < 0:
            return Outcome(1, message=f"killed by {signal.Signals(-status).name}")
        return Outcome(status, message="" if status == 0 else last_error(_text_after(Path(work.log), start)))

    return run_on_node(work, train)


def run_on_node(work: NodeWork, train: Callable[[BinaryIO], Outcome]) -> Outcome:
    """Check the node, wait until the work's folder is free, and call ``train`` with the open log.

    An outcome that says why is returned if the node cannot do the work.
    """
    node = node_name()
    try:
        _check_node(work, node)
        with Path(work.log).open("ab", buffering=0) as log:
            log.write(f"{RUNNING}{node}\n".encode())
            with lock_when_free(Path(work.folder), _LOCK_SECONDS):
                pass  # the training's own process takes the lock
            done = train(log)
    except (ArcBenchError, OSError) as error:
        return Outcome(error.exit_code if isinstance(error, ArcBenchError) else 1, node, str(error))
    return Outcome(done.status, node, done.message, done.lines)


def _text_after(log: Path, start: int) -> str:
    """Return what a log has after ``start`` bytes."""
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")


def _check_node(work: NodeWork, node: str) -> None:
    """Make sure that this node can do the work.

    Raises:
        RunError: it lacks the shared folder or the directory, or has other versions.
    """
    path = Path(work.input)
    if not is_soon(lambda: path.is_file() and file_digest(path) == work.input_digest):
        raise RunError(f"node {node} does not see {path}: --out must be in a folder that all nodes share")
    if not Path(work.directory).is_dir():
        raise RunError(
            f"node {node} has no folder {work.directory}, where the command was started and relative paths count from; "
            "start it in a folder that all nodes share"
        )
    here = code_versions()
    if different := [
        f"{name} {here.get(name, 'is missing')} instead of {version}"
        for name, version in work.versions.items()
        if here.get(name) != version
    ]:
        raise RunError(f"node {node} would train with other code: {', '.join(different)}; start Ray from the same venv")


def _run_process(work: NodeWork, log: BinaryIO) -> int:
    """Return the exit status of the work's process (negative: killed by that signal)."""
    guard = ["-P", "-m", "harness.cli.workflows.cluster.guard", str(os.getpid())]
    command = [sys.executable, *guard, sys.executable, *work.arguments]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=work.directory,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    ) as child:
        try:
            while child.poll() is None:  # Ray's cancellation is noticed between two calls only
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            child.terminate()
            with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                child.wait(_SAVING_SECONDS)
            child.kill()
            raise
    return child.returncode
