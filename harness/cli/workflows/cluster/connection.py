"""Join a Ray cluster, or start one on this machine, and leave it again."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from harness.cli.workflows.cluster.address import RayAddress
from harness.cli.workflows.cluster.resources import NodeResources
from harness.core.errors import ClusterError, MissingExtraError

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # prints none of the messages of raylets, whose logs have up to 20 lines each
    "RAY_worker_niceness": "0",  # trainings of a cluster that is started here are not slower than without it
}
"""Environment of Ray in this process, read when it is imported, and of a cluster that is started here."""
_CONNECT_SECONDS = 10.0
_OBJECT_STORE_BYTES = 100 << 20
"""Of a cluster that is started here: tasks and outcomes are small, and results are files."""
_LONGEST_TEMP = 24
"""Characters of the temporary folder, below which Ray's sockets have names of up to 107 characters."""


def require_ray() -> None:
    """Check that the ``ray`` extra is installed.

    Raises:
        MissingExtraError: it is not; the message gives the install command.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError('--on ray needs Ray, not installed here: pip install -e ".[ray]"')


@contextmanager
def connected(address: RayAddress) -> Iterator[list[NodeResources]]:
    """Join a cluster while the block runs, and yield its living nodes.

    Without host and port it is the one of ``RAY_ADDRESS``, else one that runs on this machine, else a new one on this
    machine, which ends with the block.

    Raises:
        MissingExtraError: Ray is not installed. ClusterError: the cluster cannot be joined.
    """
    require_ray()
    target = address.as_text() or os.environ.get("RAY_ADDRESS") or ("auto" if _runs_here() else "local")
    with ExitStack() as stack:
        stack.enter_context(_variables(_SETTINGS))
        if target == "local":
            options = _prepare_local(stack)
        else:
            _check_listening(target)
            options = {}
        import ray  # reads the variables

        stack.callback(ray.shutdown)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        _init(target, options)
        for number, handler in handlers.items():  # Ray's own would abort at SIGTERM
            signal.signal(number, handler)
        yield [_node(row) for row in ray.nodes() if row["Alive"]]


def _init(target: str, options: dict[str, Any]) -> None:
    """Join a running cluster, or start one.

    Raises:
        ClusterError: it cannot be joined or started.
    """
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)  # without Ray's own lines, and those of workers, on the terminal
    try:
        ray.init(address=target, log_to_driver=False, configure_logging=False, **options)
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        does = "Ray does not start on this machine" if target == "local" else f"cannot join the cluster at {target}"
        raise ClusterError(f"--on ray: {does}: {why}") from error


def _runs_here() -> bool:
    """Return whether the head of a cluster runs on this machine."""
    import psutil

    running = (each.info for each in psutil.process_iter(["name", "status"]))
    return any(each["name"] == "gcs_server" and each["status"] != psutil.STATUS_ZOMBIE for each in running)


def _prepare_local(stack: ExitStack) -> dict[str, Any]:
    """Return the options of a cluster of this machine alone, whose files and token vanish with the stack."""
    click.echo("no Ray cluster is named or runs here; starting one on this machine", err=True)
    if not any(name.startswith("RAY_AUTH") for name in os.environ):  # else Ray writes a token to ~/.ray
        stack.enter_context(_variables({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}))
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    if len(tempfile.gettempdir()) <= _LONGEST_TEMP:
        folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        options["_temp_dir"] = stack.enter_context(folder)
    return options


def _check_listening(target: str) -> None:
    """Make sure that something listens at a ``HOST:PORT``; Ray itself would try for a long time.

    Raises:
        ClusterError: nothing does, or the address is of another form.
    """
    if target == "auto":
        return
    host, _, port = target.rpartition(":")
    if not (host and port.isdigit() and "/" not in host):
        raise ClusterError(
            f"RAY_ADDRESS={target} is no HOST:PORT; unset it, or name the cluster with --on ray:HOST:PORT"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise ClusterError(
            f"--on ray: nothing answers at {target} ({why}); start a cluster there with "
            f"ray start --head --port={port}, or correct the address"
        ) from None


def _node(row: dict[str, Any]) -> NodeResources:
    """Return a node of ``ray.nodes()``."""
    has = row["Resources"]
    name = f"{row['NodeManagerHostname']} ({row['NodeID'][:6]})"
    return NodeResources(name, has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", 0.0))


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, which Ray's processes inherit, while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
