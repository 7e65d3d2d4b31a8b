"""A proxy in front of a server that keeps the body of every request for completions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import web

_ROUTE = "/v1/completions"
_HOP_HEADERS = {"transfer-encoding", "content-encoding", "content-length", "connection", "host"}
"""Headers that belong to one connection or to an encoding that the proxy undoes."""


class Recorder:
    """Forwards requests to a server and keeps the bodies of those for completions, in order, in ``bodies``."""

    def __init__(self, target: str) -> None:
        self.bodies: list[bytes] = []
        self._target = target
        self._session: aiohttp.ClientSession | None = None

    async def forward(self, request: web.Request) -> web.Response:
        """Send a request on and return the response."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=_NO_TIMEOUT)
        body = await request.read()
        if request.path == _ROUTE:
            self.bodies.append(body)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_HEADERS}
        url = self._target + request.path_qs
        async with self._session.request(request.method, url, data=body, headers=headers) as response:
            content = await response.read()
            kept = {name: value for name, value in response.headers.items() if name.lower() not in _HOP_HEADERS}
            return web.Response(status=response.status, body=content, headers=kept)

    async def close(self) -> None:
        """Close the connections to the server."""
        if self._session is not None:
            await self._session.close()


_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


@contextmanager
def recording(target: str) -> Iterator[tuple[str, Recorder]]:
    """Run the proxy in a thread within the block, and yield its URL and the recorder."""
    recorder, loop = Recorder(target), asyncio.new_event_loop()
    ports: list[int] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", recorder.forward)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        ready.set()
        await stop.wait()
        await recorder.close()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(30)
    try:
        yield f"http://127.0.0.1:{ports[0]}", recorder
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
