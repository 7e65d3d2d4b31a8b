"""The one ASGI layer in front of vLLM: routes, keys, names to versions, reference counts, /ready and /v1/models."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

import orjson

from harness.errors import AdapterError
from serve.keys import bearer, is_loopback
from serve.service import Service
from serve.version import AdapterInUseError, UnknownAdapterError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 16 << 20
"""Bytes; a prompt of 32,768 token ids takes about 0.2 MB."""
MODEL_ROUTES = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize")
_PLAIN = {("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"), ("GET", "/metrics/"), ("GET", "/v1/models")}
_PLAIN |= {("GET", "/version")}
_log = logging.getLogger("vllm.arc_bench")


class Refusal(Exception):
    """A request that is answered here, with an error in OpenAI's form."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class AdapterMiddleware:
    """Stands outermost in vLLM's server (``--middleware serve.middleware.AdapterMiddleware``)."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            service: Service = scope["app"].state.arc_bench
            try:
                await self._route(service, scope, receive, send)
            except Refusal as refusal:
                await answer_error(send, refusal.status, refusal.kind, str(refusal))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _route(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        admin = path == "/admin/adapters" or path.startswith("/admin/adapters/")
        if not (admin or (method, path) in _PLAIN or (method == "POST" and path in MODEL_ROUTES)):
            raise Refusal(404, "NotFoundError", f"{method} {path[:200]}: no such route here")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        _check_key(service, path, admin, headers)
        if path == "/ready":
            await _answer(send, 503 if service.draining else 200, {"ready": not service.draining})
        elif path == "/v1/models":
            await _answer(send, 200, service.model_list())
        elif path in MODEL_ROUTES:
            await self._model_request(service, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _model_request(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        if service.draining:
            raise Refusal(
                503,
                "ServiceUnavailableError",
                "This server is shutting down; send the request elsewhere or again later",
            )
        with service.request():
            body = await read_json(scope, receive)
            asked = body.get("model") or service.base.name
            if not isinstance(asked, str):
                raise Refusal(400, "BadRequestError", f"model: expected a string, got {type(asked).__name__}")
            async with AsyncExitStack() as held:
                model, waited = await _take(service, asked, held)
                body["model"] = model
                data = orjson.dumps(body)
                started = time.monotonic()
                reply = _Reply(service, model, send)
                try:
                    await self._app(_with_length(scope, len(data)), _replay(data, receive), reply)
                finally:
                    reply.count(waited)
                    _log.debug("%s %s %d %.3f s", scope["path"], model, reply.status, time.monotonic() - started)


async def _take(service: Service, asked: str, held: AsyncExitStack) -> tuple[str, float]:
    """Resolve a model, hold its version and, for an adapter, a slot; the version's id and the seconds waited."""
    if service.pool is None:
        if asked != service.base.name:
            raise Refusal(
                404, "NotFoundError", f"The model {asked[:200]!r} does not exist here; known: {service.base.name}"
            )
        return asked, 0.0
    try:
        model = held.enter_context(service.pool.use(asked))
    except UnknownAdapterError as error:
        raise Refusal(404, "NotFoundError", str(error)) from error
    if service.gate is None or model == service.base.name:
        return model, 0.0
    return model, await held.enter_async_context(service.gate.turn(model))


class _Reply:
    """Passes an answer on and notes its status, its token counts and whether it was finished."""

    def __init__(self, service: Service, model: str, send: Send) -> None:
        self.status = 0
        self._metrics = service.metrics
        self._model = model
        self._send = send
        self._finished = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self._metrics.count_tokens(self._model, message.get("body", b""))
            self._finished = not message.get("more_body", False)
        await self._send(message)

    def count(self, waited: float) -> None:
        self._metrics.requests.labels(self._model, str(self.status)).inc()
        self._metrics.waited.labels(self._model).observe(waited)
        if self.status != 200 or not self._finished:
            self._metrics.failures.labels(self._model).inc()


def _check_key(service: Service, path: str, admin: bool, headers: dict[str, str]) -> None:
    keys = service.keys
    if path in ("/health", "/ready"):
        return
    if keys.user is None and keys.admin is None:
        # Without keys only this machine is let in, and a web page that resolves its own name to it is not.
        host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if not is_loopback(host.strip("[]")):
            raise Refusal(
                403, "PermissionDeniedError", "This server has no keys and answers to localhost or 127.0.0.1 only"
            )
        return
    shown = bearer(headers.get("authorization"))
    if keys.opens(admin, shown) or (path.startswith("/metrics") and keys.opens(True, shown)):
        return
    if admin and keys.admin is None:
        raise Refusal(
            403, "PermissionDeniedError", "No administrator's key is set on this server, so that this route is shut"
        )
    raise Refusal(401, "AuthenticationError", "Missing or wrong key; send it as 'Authorization: Bearer KEY'")


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


def _with_length(scope: Scope, length: int) -> Scope:
    headers = [(k, v) for k, v in scope["headers"] if k not in (b"content-length", b"transfer-encoding")]
    return {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}


def _replay(data: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body first and then what the client does next (it may leave)."""
    pending = [data]

    async def next_message() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return next_message


async def answer_error(send: Send, status: int, kind: str, message: str) -> None:
    """Send an error in OpenAI's form."""
    await _answer(send, status, {"error": {"message": message, "type": kind, "param": None, "code": status}})


async def _answer(send: Send, status: int, content: dict[str, Any]) -> None:
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
