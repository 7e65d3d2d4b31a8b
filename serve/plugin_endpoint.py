"""vLLM endpoint plugin: the routes under /admin/adapters and the start and end of the adapter pool.

vLLM loads it because the launcher names it in VLLM_PLUGINS; what it serves is in the environment (see serve.command).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field, ValidationError

from harness.errors import AdapterError
from serve.base_model import BaseModel
from serve.command import ADAPTERS_DIR, OWNER_PID
from serve.fairness import SlotGate
from serve.keys import Keys
from serve.leases import LeaseFile
from serve.metrics import Metrics
from serve.middleware import Refusal, admin_status, read_json
from serve.pool import AdapterPool, PoolLimits
from serve.registry import Registry
from serve.service import Service, owner_is_gone

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response
    from vllm.engine.protocol import EngineClient

_log = logging.getLogger("vllm.arc_bench")


class AdapterChange(Schema):
    """The body of every POST under /admin/adapters."""

    model_config = ConfigDict(extra="forbid")
    adapter: str = Field(max_length=100)


class VllmEngine:
    """The pool's view of vLLM: its own loading code, called inside the server process."""

    def __init__(self, models: Any, client: Any) -> None:
        self._models = models
        self._client = client

    async def load(self, model: str, folder: str) -> None:
        """Load an adapter folder under a name that was never used for other weights."""
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        result = await self._models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=model, lora_path=folder))
        if not isinstance(result, str):
            raise AdapterError(f"{model}: vLLM refused it: {result.error.message}")

    async def unload(self, model: str) -> None:
        """Forget the name and free the engine's copy."""
        from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

        number = self._models.lora_requests[model].lora_int_id
        result = await self._models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=model))
        if not isinstance(result, str):
            raise AdapterError(f"{model}: vLLM refused to unload it: {result.error.message}")
        await self._client.remove_lora(number)


class AdapterEndpoints:
    """The plugin object; see vllm.plugins.endpoint_plugins.interface."""

    name = "arc_bench_adapters"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes; the middleware has checked key and route before they run."""
        from starlette.routing import Route

        app.router.routes.append(Route("/admin/adapters", _list, methods=["GET"]))
        for action in ("load", "unload", "promote", "rollback"):
            app.router.routes.append(Route(f"/admin/adapters/{action}", partial(_change, action), methods=["POST"]))

    async def init_state(self, engine_client: EngineClient | None, state: Any, args: Namespace) -> None:
        """Open the registry, restore its live adapters, and take over the start of a shutdown."""
        client: Any = engine_client
        base = BaseModel.open(args.model)
        base = BaseModel(args.served_model_name[0] if args.served_model_name else base.name, base.folder)
        await asyncio.to_thread(lambda: base.hash)  # read every weight now, and not when a client asks
        service = Service(
            base=base,
            model_path=args.model,
            max_model_len=client.model_config.max_model_len,
            keys=Keys.from_environment(os.environ),
            pool=None,
            gate=None,
            metrics=Metrics.make(),
        )
        lora = client.vllm_config.lora_config
        if (root := os.environ.get(ADAPTERS_DIR)) and lora is not None:
            lease = LeaseFile(Path(root), f"http://{args.host}:{args.port}", args.port)
            limits = PoolLimits(lora.max_lora_rank, lora.max_cpu_loras)
            engine = VllmEngine(state.openai_serving_models, client)
            service.pool = AdapterPool(engine, Registry(Path(root)), base, limits, lease)
            service.gate = SlotGate(lora.max_loras)
            service.metrics.loaded.set_function(lambda pool=service.pool: len(pool.loaded))
            for reason in await service.pool.restore():
                _log.warning("not restored: %s", reason)
            _log.info("adapters restored: %s", ", ".join(service.pool.live.values()) or "none are live")
        state.arc_bench = service
        _drain_before_shutdown(client, service)
        if owner := os.environ.get(OWNER_PID):
            self._tasks.append(asyncio.create_task(end_with(int(owner))))


def _drain_before_shutdown(client: Any, service: Service) -> None:
    """Let vLLM's shutdown, which runs in a thread of its own, first wait for the requests in flight."""
    stop = client.shutdown

    def shutdown(timeout: float | None = None) -> None:
        started = time.monotonic()
        patience = timeout or 0.0
        if not service.drain(patience):
            _log.warning("%d requests were still in flight after %.0f s", service.in_flight, patience)
        stop(timeout=None if timeout is None else max(0.0, patience - (time.monotonic() - started)))

    client.shutdown = shutdown


async def end_with(owner: int) -> None:
    """End this server when the process that started it is gone, however it went."""
    while not owner_is_gone(owner):
        await asyncio.sleep(1.0)
    _log.warning("the process that owns this server (%d) is gone; shutting down", owner)
    os.kill(os.getpid(), signal.SIGTERM)


async def _list(request: Request) -> Response:
    from fastapi.responses import JSONResponse

    service: Service = request.app.state.arc_bench
    if service.pool is None:
        return _refused(409, "this server was started without --adapters")
    pool = service.pool
    loaded, live = pool.loaded, pool.live
    names = await asyncio.to_thread(pool.registry.names)
    adapters = []
    for name in sorted({*names, *live}):
        versions = await asyncio.to_thread(pool.registry.versions, name)
        rows: list[dict[str, Any]] = []
        for version in versions:
            entry = loaded.get(version.id)
            state = "registered" if entry is None else "retiring" if entry.retiring else "loaded"
            row: dict[str, Any] = {"id": version.id, "state": "live" if live.get(name) == version.id else state}
            if entry is not None:
                row |= {"rank": entry.verified.facts.rank, "requests": entry.requests, "served": entry.served}
            rows.append(row)
        adapters.append({"name": name, "live": live.get(name), "versions": rows})
    return JSONResponse({"base": service.base.name, "swaps": pool.swaps, "adapters": adapters})


async def _change(action: str, request: Request) -> Response:
    from fastapi.responses import JSONResponse

    service: Service = request.app.state.arc_bench
    started = time.monotonic()
    try:
        change = AdapterChange.model_validate(await read_json(request.scope, request.receive))
        if service.pool is None:
            return _refused(409, "this server was started without --adapters")
        before = service.pool.swaps
        result = await getattr(service.pool, action)(change.adapter)
        service.metrics.swaps.inc(service.pool.swaps - before)
    except Refusal as refusal:
        return _refused(refusal.status, str(refusal))
    except ValidationError as error:
        return _refused(400, "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    except AdapterError as error:
        return _refused(admin_status(error), str(error))
    ids = result if isinstance(result, list) else [result.id]
    _log.info("%s %s", action, ", ".join(ids))
    return JSONResponse(
        {"action": action, "adapters": ids, "live": service.pool.live, "seconds": time.monotonic() - started}
    )


def _refused(status: int, message: str) -> Response:
    from fastapi.responses import JSONResponse

    return JSONResponse({"error": {"message": message, "type": "AdapterError", "param": None, "code": status}}, status)
