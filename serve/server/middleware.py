"""The ASGI middleware in front of vLLM: checks route and key, resolves adapter names, answers /ready and /v1/models."""

from __future__ import annotations

import logging
import time
from contextlib import AsyncExitStack
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.keys import bearer, is_loopback
from serve.registry.adapter_version import UnknownAdapterError
from serve.server.http.http_json import Refusal, error_response, json_response, read_json
from serve.server.http.limits import MAX_SEQUENCES, SCORE_ROUTE
from serve.server.routes.admin_routes import ADMIN_ROUTES
from serve.server.service import Service

MODEL_ROUTES = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", SCORE_ROUTE)
_PLAIN = {("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"), ("GET", "/metrics/"), ("GET", "/v1/models")}
_PLAIN |= {("GET", "/version")}
_log = logging.getLogger("vllm.arc_bench")


class AdapterMiddleware:
    """Checks route and key of every request, and answers it or passes it on to vLLM with its adapter resolved.

    It is the outermost middleware of vLLM's server (``--middleware serve.server.middleware.AdapterMiddleware``).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on to vLLM."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            service: Service = scope["app"].state.arc_bench
            try:
                await self._route(service, scope, receive, send)
            except Refusal as refusal:
                await error_response(refusal.status, refusal.kind, str(refusal))(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _route(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        """Check route and key of a request; answer it here or pass it on (raises Refusal)."""
        method, path = scope["method"], scope["path"]
        admin = (method, path) in ADMIN_ROUTES
        if not (admin or (method, path) in _PLAIN or (method == "POST" and path in MODEL_ROUTES)):
            raise Refusal(404, "NotFoundError", f"{method} {path[:200]}: no such route here")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        _check_key(service, path, admin, headers)
        if path == "/ready":
            is_ready = not (service.draining or service.asleep)
            await json_response(200 if is_ready else 503, {"ready": is_ready})(scope, receive, send)
        elif path == "/v1/models":
            await json_response(200, service.model_list())(scope, receive, send)
        elif path in MODEL_ROUTES:
            await self._model_request(service, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _model_request(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request to a model with its adapter's name resolved to a version, which is kept loaded."""
        with service.request():
            if service.draining:  # checked after the request was counted: a drain that begins later waits for it
                raise Refusal(
                    503,
                    "ServiceUnavailableError",
                    "This server is shutting down; send the request elsewhere or again later",
                )
            _refuse_asleep(service)
            body = await read_json(scope, receive)
            requested = body.get("model") or service.base.name
            if not isinstance(requested, str):
                raise Refusal(400, "BadRequestError", f"model: expected a string, got {type(requested).__name__}")
            _check_sequences(body)
            scores_prompt = scope["path"] == SCORE_ROUTE or _asks_for_prompt(body)
            if scores_prompt:
                refuse_wrapped_heads(service)
            async with AsyncExitStack() as stack:
                model, waited = await _acquire_model(service, requested, stack)
                _refuse_asleep(service)  # again, for what changed while the request waited for a slot
                if scores_prompt:
                    refuse_wrapped_heads(service)
                data = orjson.dumps({**body, "model": model})
                inner = _replace_length(scope, len(data))
                response = _RecordedResponse(send)
                started = time.monotonic()
                try:
                    await self._app(inner, _replay(data, receive), response)
                finally:
                    service.metrics.count_request(model, response.status, response.finished, waited)
                    service.metrics.count_tokens(model, inner["state"])
                    _log.debug("%s %s %d %.3f s", scope["path"], model, response.status, time.monotonic() - started)


def _refuse_asleep(service: Service) -> None:
    """Refuse a request to a model while the engine's memory is free."""
    if service.asleep:
        raise Refusal(503, "ServiceUnavailableError", "This server sleeps; send the request elsewhere or again later")


def _check_sequences(body: dict[str, Any]) -> None:
    """Refuse a request for too many answers; vLLM checks everything else in the body."""
    n, prompt = body.get("n"), body.get("prompt")
    if n is not None and type(n) is not int:
        raise Refusal(400, "BadRequestError", f"n: expected an integer, got {type(n).__name__}")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    one = bool(prompts) and isinstance(prompts[0], int)  # of token ids
    requested = (1 if one else len(prompts)) * max(1, n or 1)
    if requested > MAX_SEQUENCES:
        raise Refusal(
            400, "BadRequestError", f"{requested} answers are asked for at once; at most {MAX_SEQUENCES} may be"
        )


def _asks_for_prompt(body: dict[str, Any]) -> bool:
    """Return whether a request wants log-probabilities of its prompt, in vLLM's form or in that of completions."""
    with_echo = bool(body.get("echo")) and body.get("logprobs") is not None
    return with_echo or body.get("prompt_logprobs") is not None


def refuse_wrapped_heads(service: Service) -> None:
    """Refuse log-probabilities of prompts while an adapter on the output layer is loaded, if vLLM would mix it in.

    vLLM computes the logits of a prompt with the adapters of other rows; on a CPU, ``serve.cpu.patches`` corrects that.
    """
    if service.pool is None or service.prompt_rows_are_right:
        return
    heads = [name for name, entry in service.pool.loaded.items() if "lm_head" in entry.verified.facts.targets]
    if heads:
        raise Refusal(
            422,  # clients take 409 for a server that is busy, and would wait
            "UnprocessableEntityError",
            f"{', '.join(heads)}: LoRA on the output layer, which vLLM applies to wrong rows of prompts on this "
            "machine; unload it to score others, or score on a CPU",
        )


async def _acquire_model(service: Service, requested: str, stack: AsyncExitStack) -> tuple[str, float]:
    """Resolve a requested model and hold its version and, for an adapter, a slot until the stack closes.

    Returns:
        The version's id (or the base's name), and the seconds waited for the slot.
    """
    if service.pool is None:
        if requested != service.base.name:
            raise Refusal(
                404, "NotFoundError", f"The model {requested[:200]!r} does not exist here; known: {service.base.name}"
            )
        return requested, 0.0
    try:
        model = stack.enter_context(service.pool.use(requested))
    except UnknownAdapterError as error:
        raise Refusal(404, "NotFoundError", str(error)) from error
    if service.gate is None or model == service.base.name:
        return model, 0.0
    return model, await stack.enter_async_context(service.gate.hold_slot(model))


class _RecordedResponse:
    """Passes a response on and records its status and whether it was finished."""

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
    """Refuse a request without the key of its route.

    A route without a key is open to this machine only: the Host header must be a loopback name, which also shuts out
    web pages whose name was pointed at this machine (DNS rebinding).
    """
    keys = service.keys
    if path in ("/health", "/ready"):
        return
    if (keys.admin if admin and keys.admin else keys.user) is None:
        host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if not is_loopback(host.strip("[]")):
            raise Refusal(
                403,
                "PermissionDeniedError",
                "No key is set for this route, so it answers requests to localhost or 127.0.0.1 only",
            )
        return
    key = bearer(headers.get("authorization"))
    if keys.opens(admin, key) or (path.startswith("/metrics") and keys.opens(True, key)):
        return
    if admin and keys.admin is None:
        raise Refusal(
            403, "PermissionDeniedError", "No administrator's key is set on this server, so this route is closed"
        )
    raise Refusal(401, "AuthenticationError", "Missing or wrong key; send it as 'Authorization: Bearer KEY'")


def _replace_length(scope: Scope, length: int) -> Scope:
    """Return a scope for a body of another length, with a state of its own in which vLLM leaves the token counts."""
    headers = [(k, v) for k, v in scope["headers"] if k not in (b"content-length", b"transfer-encoding")]
    headers.append((b"content-length", str(length).encode()))
    return {**scope, "headers": headers, "state": dict(scope.get("state") or {})}


def _replay(data: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that yields the body first, and then the client's further messages (it may disconnect)."""
    pending = [data]

    async def next_message() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return next_message
