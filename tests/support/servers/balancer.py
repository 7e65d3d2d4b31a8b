"""A round-robin HTTP load balancer, which serves several replicas under one URL."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Sequence

import aiohttp
from aiohttp import web


class Balancer:
    """Forwards each request to the next backend, and answers 502 if that backend does not respond."""

    def __init__(self, backends: Sequence[str]) -> None:
        self._backends = itertools.cycle(backends)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""

    def __enter__(self) -> Balancer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _forward(self, request: web.Request) -> web.Response:
        data = await request.read()
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.request(
                request.method, next(self._backends) + request.path, data=data, headers=headers
            ) as response:
                return web.Response(status=response.status, body=await response.read(), content_type="application/json")
        except aiohttp.ClientError:
            return web.Response(status=502, text="bad gateway")
