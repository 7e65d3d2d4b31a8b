"""The one ASGI layer in front of vLLM: routes, keys, names to versions, reference counts, /ready and /v1/models."""

from __future__ import annotations

import logging
import time
from contextlib import AsyncExitStack
from typing import Any

import orjson

from serve.keys import bearer, is_loopback
from serve.registry.adapter_version import UnknownAdapterError
from serve.server.admin_routes import ADMIN_ROUTES
from serve.server.http_json import App, Message, Receive, Refusal, Scope, Send, answer, answer_error, read_json
from serve.server.service import Service

MODEL_ROUTES = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize")
_PLAIN = {("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"), ("GET", "/metrics/"), ("GET", "/v1/models")}
_PLAIN |= {("GET", "/version")}
MAX_SEQUENCES = 16_384
"""Answers that one request may ask for, prompts times ``n``; vLLM bounds each of the two only, to 16 million."""
_log = logging.getLogger("vllm.arc_bench")


class AdapterMiddleware:
    """Stands outermost in vLLM's server (``--middleware serve.server.middleware.AdapterMiddleware``)."""

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
        admin = (method, path) in ADMIN_ROUTES
        if not (admin or (method, path) in _PLAIN or (method == "POST" and path in MODEL_ROUTES)):
            raise Refusal(404, "NotFoundError", f"{method} {path[:200]}: no such route here")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        _check_key(service, path, admin, headers)
        if path == "/ready":
            await answer(send, 503 if service.draining else 200, {"ready": not service.draining})
        elif path == "/v1/models":
            await answer(send, 200, service.model_list())
        elif path in MODEL_ROUTES:
            await self._model_request(service, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _model_request(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        with service.request():
            if service.draining:  # asked when already counted: a drain that begins after this waits for it
                raise Refusal(
                    503,
                    "ServiceUnavailableError",
                    "This server is shutting down; send the request elsewhere or again later",
                )
            body = await read_json(scope, receive)
            asked = body.get("model") or service.base.name
            if not isinstance(asked, str):
                raise Refusal(400, "BadRequestError", f"model: expected a string, got {type(asked).__name__}")
            _check_sequences(body)
            async with AsyncExitStack() as held:
                model, waited = await _take(service, asked, held)
                data = orjson.dumps({**body, "model": model})
                inner = _with_body_of(scope, len(data))
                reply = _Reply(send)
                started = time.monotonic()
                try:
                    await self._app(inner, _replay(data, receive), reply)
                finally:
                    service.metrics.count_request(model, reply.status, reply.finished, waited)
                    service.metrics.count_tokens(model, inner["state"])
                    _log.debug("%s %s %d %.3f s", scope["path"], model, reply.status, time.monotonic() - started)


def _check_sequences(body: dict[str, Any]) -> None:
    """Refuse a request for too many answers; what vLLM makes of anything else in the body is its own affair."""
    n, prompt = body.get("n"), body.get("prompt")
    if n is not None and type(n) is not int:
        raise Refusal(400, "BadRequestError", f"n: expected an integer, got {type(n).__name__}")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    one = bool(prompts) and isinstance(prompts[0], int)  # of token ids
    asked = (1 if one else len(prompts)) * max(1, n or 1)
    if asked > MAX_SEQUENCES:
        raise Refusal(400, "BadRequestError", f"{asked} answers are asked for at once; at most {MAX_SEQUENCES} may be")


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
    """Passes an answer on and notes its status and whether it was finished."""

    def __init__(self, send: Send) -> None:
        self.status = 0
        self.finished = False
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.finished = not message.get("more_body", False)
        await self._send(message)


def _check_key(service: Service, path: str, admin: bool, headers: dict[str, str]) -> None:
    keys = service.keys
    if path in ("/health", "/ready"):
        return
    if (keys.admin if admin and keys.admin else keys.user) is None:
        # Without a key only this machine is let in, and a web page that resolves its own name to it is not.
        host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if not is_loopback(host.strip("[]")):
            raise Refusal(
                403,
                "PermissionDeniedError",
                "No key is set for this route, which answers to localhost or 127.0.0.1 only",
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


def _with_body_of(scope: Scope, length: int) -> Scope:
    """The connection with another body, and with a state of its own in which vLLM leaves the token counts."""
    headers = [(k, v) for k, v in scope["headers"] if k not in (b"content-length", b"transfer-encoding")]
    headers.append((b"content-length", str(length).encode()))
    return {**scope, "headers": headers, "state": dict(scope.get("state") or {})}


def _replay(data: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body first and then what the client does next (it may leave)."""
    pending = [data]

    async def next_message() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return next_message
