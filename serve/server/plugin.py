"""vLLM endpoint plugin that creates the adapter pool at the server's start and adds the routes that change it.

vLLM loads it because the launcher names it in VLLM_PLUGINS. What to serve is in the environment
(serve.launch.command).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve.keys import Keys, is_loopback
from serve.launch.server_environment import ADAPTERS_DIR, LOG_PATH, NOT_RESTORED, address
from serve.registry.base_model import BaseModel
from serve.registry.leases import LeaseFile
from serve.registry.store import Registry
from serve.server.adapters.engine import VllmEngine
from serve.server.adapters.loaded_versions import PoolLimits
from serve.server.adapters.pool import AdapterPool
from serve.server.adapters.slot_gate import SlotGate
from serve.server.http.bounded_http import bound_heads
from serve.server.metrics import Metrics
from serve.server.routes.admin_routes import attach_routes
from serve.server.routes.score_route import attach_score_route
from serve.server.scoring.answer_scores import prompt_rows_are_right, verified_scorer
from serve.server.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.engine.protocol import EngineClient

_log = logging.getLogger("vllm.arc_bench")


class AdapterEndpoints:
    """The plugin: adds the routes and sets up the adapter pool. vllm.plugins.endpoint_plugins.interface calls it."""

    name = "arc_bench_adapters"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add this project's routes and limit request heads, before vLLM opens its socket."""
        attach_routes(app)
        attach_score_route(app)
        bound_heads()

    async def init_state(self, engine_client: EngineClient | None, state: Any, args: Namespace) -> None:
        """Open the registry, load its live adapters, and make a shutdown wait for requests in flight."""
        keys = Keys.from_environment(os.environ)
        if not args.uds:
            keys.check_bind(args.host or "")  # again, with the host as vLLM understood it
        client: Any = engine_client
        base = BaseModel.open(args.model)
        base.refuse_pickles()  # again: the files of a hub model are known only now
        served_as = args.served_model_name[0] if args.served_model_name else base.name
        base = BaseModel(served_as, base.folder, source=base.identity)
        await asyncio.to_thread(lambda: base.hash)  # reads all weights once, before the first request needs it
        service = Service(
            base=base,
            model_path=args.model,
            max_model_len=client.model_config.max_model_len,
            keys=keys,
            pool=None,
            gate=None,
            metrics=Metrics.register(),
            dtype=str(client.model_config.dtype).removeprefix("torch."),
            log=os.environ.get(LOG_PATH) if is_loopback(args.host or "") else None,
        )
        lora = client.vllm_config.lora_config
        if (root := os.environ.get(ADAPTERS_DIR)) and lora is not None:
            lease = LeaseFile(Path(root), address(args.host or "127.0.0.1", args.port), args.port)
            limits = PoolLimits(lora.max_lora_rank, lora.max_cpu_loras)
            engine = VllmEngine(state.openai_serving_models, client)
            service.pool = AdapterPool(engine, Registry(Path(root)), base, limits, lease, service.metrics.count_swap)
            service.gate = SlotGate(lora.max_loras)
            service.metrics.loaded.set_function(lambda pool=service.pool: len(pool.loaded))
            for reason in await service.pool.restore():
                _log.warning(NOT_RESTORED + "%s", reason)
            _log.info("adapters restored: %s", ", ".join(service.pool.live.values()) or "none are live")
        service.scorer = await verified_scorer(client, state.openai_serving_models.lora_requests)
        service.prompt_rows_are_right = prompt_rows_are_right()
        state.arc_bench = service
        drain_before_shutdown(client, service)


def drain_before_shutdown(client: Any, service: Service) -> None:
    """Make vLLM's ``client.shutdown``, which runs in a thread of its own, first wait for the requests in flight."""
    stop = client.shutdown

    def shutdown(timeout: float | None = None) -> None:
        started = time.monotonic()
        patience = timeout or 0.0
        if not service.drain(patience):
            _log.warning("%d requests were still in flight after %.0f s", service.in_flight, patience)
        stop(timeout=None if timeout is None else max(0.0, patience - (time.monotonic() - started)))

    client.shutdown = shutdown
