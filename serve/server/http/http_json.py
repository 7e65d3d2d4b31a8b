"""JSON requests and responses of the server's own routes: bounded bodies, and errors in OpenAI's form."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope

from harness.core.errors import AdapterError
from serve.registry.adapter_version import AdapterInUseError, UnknownAdapterError

MAX_BODY = 16 << 20
"""Bytes; a prompt of 32,768 token ids takes about 0.2 MB."""


class Refusal(Exception):
    """A request that this server refuses, with HTTP status and the error type in OpenAI's form."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


async def read_json(scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises:
        Refusal: the body is not declared as JSON (415), larger than MAX_BODY (413) or no JSON object (400), or the
            client has disconnected (499).
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


def json_response(status: int, content: dict[str, Any]) -> Response:
    """Return a response with a JSON body; with status 503 it asks the client to retry after a second."""
    headers = {"Retry-After": "1"} if status == 503 else None
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def error_response(status: int, kind: str, message: str) -> Response:
    """Return an error in OpenAI's form."""
    return json_response(status, {"error": {"message": message, "type": kind, "param": None, "code": status}})


def admin_status(error: AdapterError) -> int:
    """Return the HTTP status for a refused change of adapters."""
    if isinstance(error, UnknownAdapterError):
        return 404
    return 409 if isinstance(error, AdapterInUseError) else 422
