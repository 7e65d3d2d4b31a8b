"""Two nodes on this machine: network namespaces of their own, joined by a virtual cable (a veth pair).

Needs Linux with ``unshare``, ``nsenter`` and ``ip``, and root's rights; without them both nodes are this machine's
loopback. Nothing outlives the processes in the namespaces.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.commands import wait_until

INTERFACE = "cable"
"""Name of each namespace's end of the cable."""
_ADDRESSES = ("10.77.0.1", "10.77.0.2")


@dataclass(frozen=True)
class Node:
    """One of two nodes.

    Attributes:
        address: under which the other node reaches it.
        prefix: words before a command that run it on this node.
        interface: of its address.
    """

    address: str
    prefix: tuple[str, ...]
    interface: str


def missing_for_namespaces() -> str | None:
    """Return what this machine lacks for network namespaces, or None."""
    if absent := [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]:
        return f"no {', '.join(absent)}"
    if os.geteuid() != 0:
        return "not root"
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() or None


@contextmanager
def two_nodes() -> Iterator[tuple[Node, Node]]:
    """Create two joined namespaces within the context; without them yield loopback twice."""
    if missing_for_namespaces() is not None:
        loopback = Node("127.0.0.1", (), "lo")
        yield loopback, loopback
        return
    holders = [subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) for _ in _ADDRESSES]
    try:
        wait_until(lambda: all(_namespace(holder.pid) != _namespace(os.getpid()) for holder in holders))
        first, second = (str(holder.pid) for holder in holders)
        _run("ip", "link", "add", INTERFACE, "netns", first, "type", "veth", "peer", "name", INTERFACE, "netns", second)
        nodes = [Node(a, _enter(h.pid), INTERFACE) for a, h in zip(_ADDRESSES, holders, strict=True)]
        for node in nodes:
            _run(*node.prefix, "ip", "address", "add", f"{node.address}/24", "dev", INTERFACE)
            for name in (INTERFACE, "lo"):
                _run(*node.prefix, "ip", "link", "set", name, "up")
        yield nodes[0], nodes[1]
    finally:
        for holder in holders:
            holder.send_signal(signal.SIGKILL)
            holder.wait()


def _enter(pid: int) -> tuple[str, ...]:
    return "nsenter", "--target", str(pid), "--net"


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
