"""A small OpenAI-compatible server whose answers are a pure function of the request, with faults on demand.

Runs inside a test (``ChatServer``), or as a process of its own: ``python -m tests.chat_server PORT [SECONDS]``.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from harness.rng import Stream

FAULTS = ("http_500", "http_503", "http_429", "reset", "not_json", "html", "no_choice", "two_choices", "abort", "null")
Body = dict[str, Any]


def echo(body: Body) -> str:
    """The last user's grid: right for every task of toy/copy in the compact prompt."""
    return str(body["messages"][-1]["content"])


def garbage(body: Body) -> str:
    """Never a grid."""
    return "I would rather talk about the weather."


def moody(body: Body) -> tuple[str, str]:
    """Right, wrong, broken or truncated, as a hash of the request says."""
    text = echo(body)
    digest = hashlib.sha256(orjson.dumps([body["model"], body["messages"]])).digest()[0]
    if digest < 150:
        return text, "stop"
    if digest < 190:
        return text.translate(str.maketrans("0123456789", "1234567890")), "stop"
    return (text + "\n1", "stop") if digest < 220 else (text[:2], "length")


class ChatServer:
    """Serves on a free port from a thread of its own.

    Args:
        answer: the text, or the text and its finish_reason, for a request; ``!fault`` for one of FAULTS.
        faults: the fault for request number i, or None.
        refuse: a (status, body) that refuses a request, or None; asked for greetings too.
        seconds: how long each answer takes.
        hold: answers wait until so many requests are there at once.
    """

    def __init__(
        self,
        answer: Callable[[Body], str | tuple[str, str]] = echo,
        *,
        models: Mapping[str, Body] | None = None,
        faults: Callable[[int], str | None] = lambda i: None,
        refuse: Callable[[Body], tuple[int, Body] | None] = lambda body: None,
        seconds: float = 0.0,
        hold: int = 0,
        logprobs: bool = True,
        tokenize: bool = False,
        key: str | None = None,
    ) -> None:
        self.answer, self.faults, self.refuse = answer, faults, refuse
        self.models = {"base": {}, "cross": {}} if models is None else models
        self.seconds, self.logprobs, self.tokenize, self.key = seconds, logprobs, tokenize, key
        self.hold = hold
        self.bodies: list[Body] = []
        """Chat requests in the order of arrival, but for greetings."""
        self.in_flight = self.most_in_flight = 0
        self.port = 0
        self._number = 0
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ChatServer:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        asyncio.run_coroutine_threadsafe(_settle(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join()
        self._loop.close()

    def up(self) -> None:
        """Listen (again, on the same port)."""
        asyncio.run_coroutine_threadsafe(self._up(), self._loop).result()

    def down(self) -> None:
        """Drop every connection and stop listening."""
        asyncio.run_coroutine_threadsafe(self._down(), self._loop).result()

    async def _up(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/chat/completions", self._chat)
        if self.tokenize:
            app.router.add_post("/tokenize", self._count)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=2048, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def _down(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            for connection in list(runner.server.connections):  # type: ignore[union-attr]
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    async def _list(self, request: web.Request) -> web.Response:
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return _json({"error": {"message": "invalid key"}}, 401)
        return _json({"object": "list", "data": [{"id": name, **extra} for name, extra in self.models.items()]})

    async def _count(self, request: web.Request) -> web.Response:
        return _json({"count": count_tokens(await request.json())})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._reply(request)
        finally:
            self.in_flight -= 1

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        greeting = body["messages"][-1]["content"] == "Hello"
        if not greeting:
            self.bodies.append(body)
        number, self._number = self._number, self._number + 1
        while not greeting and self.most_in_flight < self.hold:
            await asyncio.sleep(0.05)
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if body["model"] not in self.models:
            return _json({"error": {"message": f"The model `{body['model']}` does not exist."}}, 404)
        if (refusal := self.refuse(body)) is not None:
            return _json(refusal[1], refusal[0])
        if (fault := self.faults(number)) is not None:
            return _faulty(fault, request)
        answer = "Hi" if greeting else self.answer(body)
        text, finish = answer if isinstance(answer, tuple) else (answer, "stop")
        if text.removeprefix("!") in FAULTS:
            return _faulty(text.removeprefix("!"), request)
        return _json(completion(body, text, finish, self.logprobs and bool(body.get("logprobs"))))


async def _settle() -> None:
    """End what still runs in this loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def count_tokens(body: Body) -> int:
    """A token a character, and four a message."""
    return sum(len(message["content"]) + 4 for message in body["messages"])


def completion(body: Body, text: str, finish: str, logprobs: bool) -> Body:
    """A chat completion of one choice; each character is a token of log-probability -0.5."""
    choice: Body = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if logprobs:
        choice["logprobs"] = {"content": [{"token": c, "logprob": -0.5, "top_logprobs": []} for c in text]}
    return {"model": body["model"], "choices": [choice], "usage": {"completion_tokens": len(text)}}


def _faulty(fault: str, request: web.Request) -> web.StreamResponse:
    if fault == "reset":
        assert request.transport is not None
        request.transport.abort()
        return web.Response()
    choice: Body = {"index": 0, "message": {"role": "assistant", "content": "12"}, "finish_reason": "stop"}
    bodies: dict[str, bytes] = {
        "not_json": b'{"choices": [',
        "html": b"<html>It works</html>",
        "no_choice": orjson.dumps({"choices": []}),
        "two_choices": orjson.dumps({"choices": [choice, choice]}),
        "abort": orjson.dumps({"choices": [{**choice, "finish_reason": "abort"}]}),
        "null": b"null",
    }
    if fault in bodies:
        return web.Response(body=bodies[fault], content_type="application/json")
    status = int(fault.removeprefix("http_"))
    headers = {"Retry-After": "0.01"} if status == 429 else {}
    return web.Response(status=status, text=f"injected {status}", headers=headers)


def _json(data: Body, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(data), status=status, content_type="application/json")


def random_faults(seed: int, percent: int) -> Callable[[int], str | None]:
    """Faults of every kind on a share of the requests."""

    def fault(number: int) -> str | None:
        stream = Stream("fault", seed, number)
        return stream.choice(FAULTS) if stream.below(100) < percent else None

    return fault


def main() -> None:
    """Serve ``moody`` on a port until killed."""
    server = ChatServer(moody, seconds=float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
    server.port = int(sys.argv[1])
    with server:
        print(server.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
