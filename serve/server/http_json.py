"""Requests and answers as the server's own code reads and writes them: ASGI's types, JSON bodies, refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from harness.core.errors import AdapterError
from serve.registry.adapter_version import AdapterInUseError, UnknownAdapterError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 16 << 20
"""Bytes; a prompt of 32,768 token ids takes about 0.2 MB."""


class Refusal(Exception):
    """A request that is answered here, with an error in OpenAI's form."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


async def read_json(scope: Scope, receive: Receive) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        Refusal: not declared as JSON (415), larger than MAX_BODY (413), no object (400), or the client left (499).
    """
    kind = next((v for k, v in scope["headers"] if k == b"content-type"), b"")
    if kind.split(b";")[0].strip().lower() != b"application/json":
        raise Refusal(415, "UnsupportedMediaTypeError", "Send the body as Content-Type: application/json")
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(499, "ClientClosedRequestError", "The client left before its request was complete")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MAX_BODY:
            raise Refusal(413, "RequestTooLargeError", f"The body is larger than {MAX_BODY >> 20} MiB")
    try:
        value = orjson.loads(b"".join(parts))
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "BadRequestError", f"The body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refusal(400, "BadRequestError", f"The body must be a JSON object, got {type(value).__name__}")
    return value


async def answer_error(send: Send, status: int, kind: str, message: str) -> None:
    """Send an error in OpenAI's form."""
    await answer(send, status, {"error": {"message": message, "type": kind, "param": None, "code": status}})


async def answer(send: Send, status: int, content: dict[str, Any]) -> None:
    """Send JSON."""
    body = orjson.dumps(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def admin_status(error: AdapterError) -> int:
    """The HTTP status of a refused change of adapters."""
    if isinstance(error, UnknownAdapterError):
        return 404
    return 409 if isinstance(error, AdapterInUseError) else 422
