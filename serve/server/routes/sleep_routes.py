"""The routes that make a server free its GPU memory, while adapters are trained on that GPU, and compute again.

vLLM's own routes for this (``vllm/entrypoints/serve/dev/sleep``) exist only in its development mode, which opens others
that are not safe. These call the same methods of its engine client. **Not run**: vLLM's sleep mode needs a GPU.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.server.http.http_json import error_response, json_response

if TYPE_CHECKING:
    from fastapi import FastAPI

    from serve.server.service import Service

SLEEP_ROUTES = {("POST", "/admin/sleep"), ("POST", "/admin/wake")}
LEVEL = 1
"""Of vLLM's sleep levels: the weights are kept in the CPU's memory, the KV cache is dropped."""
PAUSE_MODE = "wait"
"""Of vLLM's ways to pause: requests in flight are finished."""


def attach_sleep_routes(app: FastAPI) -> None:
    """Add the routes to the app. AdapterMiddleware checks route and key of a request before they run."""
    for method, path in sorted(SLEEP_ROUTES):
        app.router.routes.append(Route(path, _change, methods=[method]))


def can_sleep(request: Request) -> bool:
    """Return whether the server was started with vLLM's sleep mode."""
    client: Any = getattr(request.app.state, "engine_client", None)
    return client is not None and bool(client.model_config.enable_sleep_mode)


async def _change(request: Request) -> Response:
    """Put the engine to sleep or wake it, and answer whether it sleeps."""
    client: Any = getattr(request.app.state, "engine_client", None)
    if not can_sleep(request):
        return error_response(
            409, "AdapterError", "this server cannot sleep: start it with --enable-sleep-mode (bench serve: behind --)"
        )
    service: Service = request.app.state.arc_bench
    async with service.falling_asleep:  # a wake waits until a sleep that began before it is complete
        try:
            if request.url.path.endswith("/sleep"):
                service.set_asleep(True)  # before it sleeps, for what comes while it waits for requests in flight
                async with nullcontext() if service.pool is None else service.pool.exclusive:
                    await client.sleep(LEVEL, PAUSE_MODE)
            else:
                await client.wake_up()
        finally:
            asleep = bool(await client.is_sleeping())
            service.set_asleep(asleep)
    return json_response(200, {"asleep": asleep})
