"""Hostile input: requests without end and pickles that run code, and a server to send them to."""

from __future__ import annotations

import io
import socket
from pathlib import Path
from typing import Any

from serve.keys import Keys
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.models.tiny_adapters import make_adapter, make_base
from tests.support.servers.admin_site import Site

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
JUNK = b"a" * 4096
ENDLESS_REQUESTS = {
    "request line": b"GET /",
    "header": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    "name of a header": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX",
    "body": HEAD + b"Content-Length: 99999999999\r\n\r\n",
    "trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ",
    "extension of a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;x=",
}


def open_site(root: Path, keys: Keys) -> Site:
    """Return a server with one adapter ``a`` in its registry."""
    base = BaseModel.open(make_base(root / "toy-base"))
    registry = Registry(root / "adapters")
    registry.add("a", make_adapter(root / "a"), base)
    return Site(base, registry, keys)


class PickleBomb:
    """Creates the file ``witness`` when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return open, (str(self.witness), "w")


def bytes_in_flight() -> int:
    """Return how many bytes a client can send at most that a server has not read: buffers of both, and one read."""
    limits = [Path(f"/proc/sys/net/ipv4/tcp_{kind}").read_text() for kind in ("rmem", "wmem")]
    return sum(int(limit.split()[2]) for limit in limits) + (1 << 20)


def send_endlessly(client: socket.socket, start: bytes, junk: bytes, limit: int) -> tuple[int, bytes]:
    """Send ``start`` and then ``junk`` again and again until the server answers or closes, or ``limit`` bytes are sent.

    Returns:
        Number of bytes sent, and the answer.
    """
    sent, answer = len(start), io.BytesIO()
    try:
        client.sendall(start)
        client.settimeout(0.0)
        while sent < limit:
            try:
                sent += client.send(junk)
            except BlockingIOError:
                client.settimeout(60)
                client.send(junk[:1])
                client.settimeout(0.0)
            try:
                received = client.recv(4096)
            except BlockingIOError:
                continue
            answer.write(received)
            break
    except (ConnectionError, TimeoutError):
        pass
    return sent, answer.getvalue()
