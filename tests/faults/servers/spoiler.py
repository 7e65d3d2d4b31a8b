"""A proxy in front of a test's server that spoils the bytes of some responses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import orjson

from tests.support.runs.sampling_runs import PATIENT_POLICY
from tests.support.servers.chat_server import ChatServer

Spoil = Callable[[bytes, bytes, asyncio.StreamWriter], Awaitable[None]]
"""Gets the head of a response (with its empty line), the body, and the stream to write a spoiled response to."""

IMPATIENT_POLICY = replace(PATIENT_POLICY, timeout=0.4)
"""Retry policy for a server that may not answer."""


class SpoilingProxy:
    """A proxy of ``server`` on a free port, run by a thread.

    Args:
        spoil: writes the spoiled response to a request for predictions.
        every: spoil the first and then every ``every``-th response; 1 spoils all.
    """

    def __init__(self, server: ChatServer, spoil: Spoil, every: int = 2) -> None:
        self._server, self._spoil, self._every = server, spoil, every
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: set[asyncio.Task[None]] = set()
        self._requests = 0
        self.spoiled = 0
        self.url = ""

    def __enter__(self) -> SpoilingProxy:
        self._thread.start()
        self._listener = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _close(self) -> None:
        self._listener.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    await self._serve_request(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(_content_length(head))
        answer_head, answer = await self._forward(head, body)
        if b"completions" in head.split(b"\r\n")[0] and orjson.loads(body).get("max_tokens") != 1:
            self._requests += 1
            if (self._requests - 1) % self._every == 0:
                self.spoiled += 1
                await self._spoil(answer_head, answer, writer)
                await writer.drain()
                return
        writer.write(answer_head + answer)
        await writer.drain()

    async def _forward(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        writer.write(head + body)
        answer_head = await reader.readuntil(b"\r\n\r\n")
        answer = await reader.readexactly(_content_length(answer_head))
        writer.close()
        return answer_head, answer


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def with_content_length(head: bytes, length: int) -> bytes:
    """Return the head of a response with another Content-Length."""
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines[:-2], b"Content-Length: %d" % length, b"", b""])
