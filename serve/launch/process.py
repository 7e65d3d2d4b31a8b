"""Start a vLLM server, wait until it is ready while watching its log, and stop its whole process group."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.client.http.address import open_without_proxy
from harness.client.http.server_log import root_cause
from harness.core.errors import ServerError
from serve.launch.preparation import prepare
from serve.launch.serve_config import ServeConfig
from serve.launch.server_environment import LOG_PATH, NOT_RESTORED, OWNER_PID, address

START_SECONDS = 900.0
"""How long a server may take until it is ready."""
_LOG_LINES = 25
"""How many of the log's last lines an error message shows."""
_ENDING_SECONDS = 10.0
"""How long a server that no longer answers may take to end."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        url: its address without a path.
        pid: the process to stop, which leads its own process group.
        log: the file with its output.
    """

    url: str
    pid: int
    log: Path


class ServerDiedError(ServerError):
    """The process of a server has ended."""


@contextmanager
def serving(
    model: str | Path,
    adapters: Path | None = None,
    *,
    log: Path,
    port: int | None = None,
    progress: Callable[[str], None] | None = None,
    ready_seconds: float = START_SECONDS,
    **options: Any,
) -> Iterator[Server]:
    """Serve ``model`` while the block runs.

    Args:
        model: a model folder or a hub id.
        adapters: the registry folder; its live versions are loaded at the start.
        log: the file for the server's output, which is overwritten.
        port: to listen on; None chooses a free one.
        progress: called every few seconds during the start with a line to show.
        ready_seconds: how long the start may take.
        options: fields of ServeConfig.

    Raises:
        ServerError: the model is missing, the port is taken, or the server did not start (with the end of its log).
        ServerDiedError: its process ended; the block's error is the cause.
        MissingExtraError: vLLM is not installed.
        ConfigError: options contradict each other.
    """
    config = ServeConfig(model=model, adapters=adapters, **options)
    process, server = start_server(config, port, log, owned=True, notice=progress)
    try:
        wait_until_ready(process, server, seconds=ready_seconds, progress=progress)
        yield server
    except Exception as error:
        # If the server has ended, that caused the failure: report the server's reason.
        if has_ended(process, server):
            raise ServerDiedError(death_notice(process.returncode, log, "while it served")) from error
        raise
    finally:
        stop_server(process.pid, config.shutdown_seconds, process)


def has_ended(process: subprocess.Popen[bytes], server: Server) -> bool:
    """Return whether a server's process has ended.

    If the server no longer answers, it gets ten seconds to end: its engine may just have died.
    """
    if process.poll() is None and not is_responding(server.url + "/health"):
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING_SECONDS)
    return process.poll() is not None


def start_server(
    config: ServeConfig,
    port: int | None,
    log: Path,
    *,
    owned: bool,
    show: Callable[[str], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> tuple[subprocess.Popen[bytes], Server]:
    """Start the server in a session of its own and return at once (same errors as ``serving``).

    Args:
        owned: end the server when this process ends, even by SIGKILL.
        show: called with the command line.
        notice: called with each line for the user about how the server will run.
    """
    port, command = prepare(config, port)
    if notice is not None:
        for line in command.notices:
            notice(f"note: {line}")
    if show is not None:
        show(" ".join([*(f"{k}={v}" for k, v in sorted(command.env.items())), *command.argv]))
    env = {**os.environ, **command.env, LOG_PATH: str(log.resolve())}
    if owned:
        env[OWNER_PID] = str(os.getpid())
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command.argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, Server(address(config.host, port), process.pid, log)


def wait_until_ready(
    process: subprocess.Popen[bytes],
    server: Server,
    *,
    seconds: float = START_SECONDS,
    progress: Callable[[str], None] | None = None,
    path: str = "/ready",
) -> None:
    """Wait until the server answers ``path`` (a plain vLLM has /health only).

    Args:
        seconds: how long to wait at most.
        progress: called every 5 s with a line to show.

    Raises:
        ServerError: its process ended (detected within half a second), or the time is over.
    """
    started = time.monotonic()
    last_progress = started
    while not is_responding(server.url + path):
        if process.poll() is not None:
            raise ServerDiedError(death_notice(process.returncode, server.log, "before it was ready"))
        now = time.monotonic()
        if now - started > seconds:
            raise ServerError(
                f"vLLM was not ready after {seconds:.0f} s; the end of {server.log}:\n{log_end(server.log)}"
            )
        if progress is not None and now - last_progress >= 5:
            progress(f"vLLM is starting, {now - started:.0f} s (log: {server.log})")
            last_progress = now
        time.sleep(0.25)


def is_responding(url: str) -> bool:
    """Return whether a GET of ``url`` answers with status 200 within two seconds."""
    try:
        with open_without_proxy(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False


def stop_server(pid: int, patience: float, process: subprocess.Popen[bytes] | None = None) -> None:
    """End a server and its process group: SIGTERM to the server, which finishes its requests, then SIGKILL to the rest.

    Args:
        pid: the server's process, which leads its own group.
        patience: seconds that requests in flight may take; 30 s more are allowed for the shutdown itself.
        process: the process object, if it is a child of this process.
    """
    try:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + patience + 30
        while time.monotonic() < deadline and _runs(pid, process):
            time.sleep(0.05)
    finally:  # also after a second Ctrl-C
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if process is not None:
            process.wait()


def _runs(pid: int, process: subprocess.Popen[bytes] | None) -> bool:
    """Return whether a process runs; a zombie does not."""
    if process is not None:
        return process.poll() is None
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)  # in a container nobody may reap it
    except psutil.NoSuchProcess:
        return False


def log_end(log: Path, lines: int = _LOG_LINES) -> str:
    """Return the last lines of a log."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(cannot be read: {error.strerror})"


def not_restored(log: Path) -> list[str]:
    """Return the lines in the log about live adapters that could not be loaded at the start: name and reason."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.partition(NOT_RESTORED)[2] for line in lines if NOT_RESTORED in line]


def death_notice(status: int, log: Path, when: str) -> str:
    """Return a message on why a server ended: its exit status, the root cause in its log, and the log's last lines."""
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    how += " (the kernel does that when memory runs out: see dmesg)" if status == -signal.SIGKILL else ""
    cause = f": {reason}" if (reason := root_cause(log)) else ""
    return f"vLLM {how} {when}{cause}\nthe end of {log}:\n{log_end(log)}"
