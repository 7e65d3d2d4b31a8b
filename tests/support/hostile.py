"""What hostile clients and files bring: requests without end, pickles that leave a trace; and a server to meet them."""

from __future__ import annotations

import ast
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serve.keys import Keys
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.adapter_toys import make_adapter, make_base
from tests.support.admin_site import Site

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
JUNK = b"a" * 4096
ENDLESS = {
    "request line": b"GET /",
    "header": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    "name of a header": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX",
    "body": HEAD + b"Content-Length: 99999999999\r\n\r\n",
    "trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ",
    "extension of a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;x=",
}


def open_site(root: Path, keys: Keys) -> Site:
    base = BaseModel.open(make_base(root / "toy-base"))
    registry = Registry(root / "adapters")
    registry.add("a", make_adapter(root / "a"), base)
    return Site(base, registry, keys)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return open, (str(self.witness), "w")


def called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call by the name that stands in the source: ``eval``, ``torch.load``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def flood(client: socket.socket, start: bytes, junk: bytes, most: int) -> tuple[int, bytes]:
    """Send without end until the server hangs up or answers; the bytes that went out, and what came back."""
    sent, answer = len(start), io.BytesIO()
    try:
        client.sendall(start)
        client.settimeout(0.0)
        while sent < most:
            try:
                sent += client.send(junk)
            except BlockingIOError:
                client.settimeout(60)
                client.send(junk[:1])
                client.settimeout(0.0)
            try:
                got = client.recv(4096)
            except BlockingIOError:
                continue
            answer.write(got)
            break
    except (ConnectionError, TimeoutError):
        pass
    return sent, answer.getvalue()
