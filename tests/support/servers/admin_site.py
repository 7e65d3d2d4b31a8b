"""Our server with a fake engine instead of vLLM: real middleware, admin routes, adapter pool and registry."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from harness.core.errors import AdapterError
from serve.keys import Keys
from serve.registry.base_model import BaseModel
from serve.registry.leases import LeaseFile
from serve.registry.store import Registry
from serve.server.adapters.loaded_versions import PoolLimits
from serve.server.adapters.pool import AdapterPool
from serve.server.adapters.slot_gate import SlotGate
from serve.server.http.bounded_http import BoundedHttp
from serve.server.metrics import Metrics
from serve.server.middleware import AdapterMiddleware
from serve.server.routes.admin_routes import attach_routes
from serve.server.service import Service
from tests.support.commands import wait_until

NO_KEYS = Keys(None, None)
_ports = itertools.count(9000)


class FakeEngine:
    """Replaces vLLM's engine: remembers which adapters are loaded, and lets other tasks run in between."""

    def __init__(self) -> None:
        self.models: set[str] = set()
        self.refuse = ""

    async def load(self, model: str, folder: str) -> None:
        await asyncio.sleep(0)
        assert model not in self.models
        assert (Path(folder) / "adapter_model.safetensors").is_file()
        if model == self.refuse:
            raise AdapterError(f"{model}: the engine says no")
        self.models.add(model)

    async def unload(self, model: str) -> None:
        await asyncio.sleep(0)
        self.models.remove(model)


class EchoApp:
    """Replaces vLLM's routes: returns the request's body, and sets token counts as vLLM does."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.hold: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append(scope["path"])
        body = b""
        if scope["method"] == "POST":
            message = await receive()
            body = message["body"]
            length = next(v for k, v in scope["headers"] if k == b"content-length")
            assert int(length) == len(body)
            usage = SimpleNamespace(prompt_tokens=3, completion_tokens=5)
            scope["state"]["request_metadata"] = SimpleNamespace(final_usage_info=usage)
        if self.hold is not None:
            await self.hold.wait()
        answer = {"body": json.loads(body) if body else None}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


class Site:
    """A server of ``base`` with a registry, used through its ASGI app or through HTTP (`over_http`)."""

    def __init__(self, base: BaseModel, registry: Registry, keys: Keys = NO_KEYS) -> None:
        port = next(_ports)
        self.registry = registry
        self.lease = LeaseFile(registry.root, f"http://127.0.0.1:{port}", port)
        self.engine = FakeEngine()
        self.figures = CollectorRegistry()
        metrics = Metrics.register(self.figures)
        limits = PoolLimits(max_rank=8, max_loaded=4)
        self.pool = AdapterPool(self.engine, registry, base, limits, self.lease, metrics.count_swap)
        self.service = Service(base, str(base.folder), 2048, keys, self.pool, SlotGate(2), metrics)
        self.inner = EchoApp()
        self.app = FastAPI()
        attach_routes(self.app)
        self.app.mount("/", self.inner)
        self.app.add_middleware(AdapterMiddleware)
        self.app.state.arc_bench = self.service

    async def request(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Send a request and return status and JSON of the response.

        Args:
            body: bytes, a list of chunks of bytes, or an object to send as JSON.
            headers: with underscores for hyphens.
        """
        raw = body if isinstance(body, bytes | list) else json.dumps(body).encode() if body is not None else b""
        chunks = list(raw) if isinstance(raw, list) else [raw]
        headers = {"host": "127.0.0.1:8000", "content_type": "application/json"} | headers
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            if not chunks:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
        }
        await self.app(scope, receive, send)
        text = b"".join(m.get("body", b"") for m in sent[1:])
        return sent[0]["status"], json.loads(text) if text else None

    @contextmanager
    def over_http(self) -> Iterator[str]:
        """Listen on a free port within the context, and yield the URL."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(self.app, http=BoundedHttp, log_level="error", lifespan="off"))
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            try:
                wait_until(lambda: server.started or not thread.is_alive())
                assert server.started
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                thread.join()
