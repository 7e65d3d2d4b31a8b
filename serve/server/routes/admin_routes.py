"""The routes under /admin/adapters: list adapters and change them. Clients send names and never files or paths."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from harness.core.errors import AdapterError
from serve.registry.adapter_version import AdapterVersion
from serve.server.adapters.pool import AdapterPool
from serve.server.http.http_json import Refusal, admin_status, error_response, json_response, read_json
from serve.server.routes.sleep_routes import SLEEP_ROUTES, attach_sleep_routes, can_sleep
from serve.server.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

_log = logging.getLogger("vllm.arc_bench")


class ChangeBody(Schema):
    """Body of promote, rollback, unload and remove."""

    model_config = ConfigDict(extra="forbid", strict=True)
    adapter: str = Field(max_length=100)


class LoadBody(ChangeBody):
    """Body of load."""

    live: bool = True
    """False: load the version without making it live."""


class GcBody(Schema):
    """Body of gc."""

    model_config = ConfigDict(extra="forbid", strict=True)
    keep: int = Field(1, ge=0, le=1_000_000)
    """Newest versions of each name that stay."""


Action = Callable[[AdapterPool, Any], Awaitable[AdapterVersion | list[str]]]
ACTIONS: dict[str, tuple[type[Schema], Action]] = {
    "load": (LoadBody, lambda pool, body: pool.load(body.adapter, live=body.live)),
    "unload": (ChangeBody, lambda pool, body: pool.unload(body.adapter)),
    "promote": (ChangeBody, lambda pool, body: pool.promote(body.adapter)),
    "rollback": (ChangeBody, lambda pool, body: pool.rollback(body.adapter)),
    "remove": (ChangeBody, lambda pool, body: asyncio.to_thread(pool.registry.remove, body.adapter)),
    "gc": (GcBody, lambda pool, body: asyncio.to_thread(pool.registry.gc, body.keep)),
}
"""By the last part of the route: its body, and the change, which returns the version or the ids it concerns."""
ADMIN_ROUTES = {("GET", "/admin/adapters"), *(("POST", f"/admin/adapters/{name}") for name in ACTIONS), *SLEEP_ROUTES}
"""Method and path of every route of administration."""


def attach_routes(app: FastAPI) -> None:
    """Add the routes to the app. AdapterMiddleware checks route and key of a request before they run."""
    app.router.routes.append(Route("/admin/adapters", _list, methods=["GET"]))
    for name in ACTIONS:
        app.router.routes.append(Route(f"/admin/adapters/{name}", _change, methods=["POST"]))
    attach_sleep_routes(app)


async def _list(request: Request) -> Response:
    """Answer GET /admin/adapters."""
    service: Service = request.app.state.arc_bench
    if service.pool is None:
        return _refused(409, "this server was started without --adapters")
    try:
        names = await asyncio.to_thread(service.pool.registry.names)
        adapters = [await _row(service.pool, name) for name in sorted({*names, *service.pool.live})]
    except AdapterError as error:
        return _refused(admin_status(error), str(error))
    about = {
        "base": service.base.name,
        "swaps": service.pool.swaps,
        "can_sleep": can_sleep(request),
        "scores_output_layer": service.prompt_rows_are_right,
    }
    return json_response(200, {**about, "adapters": adapters})


async def _row(pool: AdapterPool, name: str) -> dict[str, Any]:
    """Return one name with its versions, oldest first, and the version that a rollback makes live."""
    registered = await asyncio.to_thread(pool.registry.versions, name)
    history = await asyncio.to_thread(pool.registry.history, name)
    loaded, live = pool.loaded, pool.live.get(name)
    versions = []
    for version in registered:
        entry = loaded.get(version.id)
        state = "registered" if entry is None else "retiring" if entry.retiring else "loaded"
        row: dict[str, Any] = {"id": version.id, "state": "live" if live == version.id else state}
        if entry is not None:
            row |= {"rank": entry.verified.facts.rank, "requests": entry.requests, "served": entry.served}
        versions.append(row)
    return {"name": name, "live": live, "previous": history[0].id if history else None, "versions": versions}


async def _change(request: Request) -> Response:
    """Load, unload, promote or roll back adapters, as a POST below /admin/adapters/ asks, and return the answer."""
    service: Service = request.app.state.arc_bench
    name = request.url.path.rpartition("/")[2]
    schema, action = ACTIONS[name]
    started = time.monotonic()
    if service.pool is None:
        return _refused(409, "this server was started without --adapters")
    try:
        body = schema.model_validate(await read_json(request.scope, request.receive))
        result = await action(service.pool, body)
        ids = [result.id] if isinstance(result, AdapterVersion) else result
    except Refusal as refusal:
        return _refused(refusal.status, str(refusal))
    except ValidationError as error:
        return _refused(400, "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    except AdapterError as error:
        return _refused(admin_status(error), str(error))
    except OSError as error:  # a full or unwritable disk
        return _refused(500, f"{service.pool.registry.root}: {error.strerror}")
    _log.info("%s %s", name, ", ".join(ids))
    warnings = _warnings(service.pool, ids)
    for warning in warnings:
        _log.warning("%s", warning)
    answer = {"action": name, "adapters": ids, "live": service.pool.live, "seconds": time.monotonic() - started}
    return json_response(200, {**answer, "warnings": warnings})


def _warnings(pool: AdapterPool, ids: list[str]) -> list[str]:
    """Return the warnings about those versions that are loaded."""
    loaded = pool.loaded
    return [f"{i}: {warning}" for i in ids if i in loaded for warning in loaded[i].verified.facts.warnings]


def _refused(status: int, message: str) -> Response:
    return error_response(status, "AdapterError", message)
