"""A small OpenAI-compatible server whose answers depend only on the request, and which injects faults.

It runs in a test (``ChatServer``) or as a process: ``python -m tests.support.servers.chat_server PORT [SECONDS]``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
from aiohttp import web

from harness.prompts.file_tokenizer import FileTokenizer
from tests.support.servers.chat_answers import (
    FAULTS,
    Body,
    echo,
    faulty_response,
    json_response,
    mixed_answer,
    response_body,
)
from tests.support.servers.chat_tokens import copying_model, count_tokens, messages_of, token_ids
from tests.support.servers.language_model import LanguageModel

TINY_BASE = Path(__file__).parents[3] / "trainers" / "weights" / "tiny-base"


class ChatServer:
    """A server on a free port, run by a thread. A greeting is a request for one token, which clients send as a check.

    Args:
        answer: returns the text, or the text and its finish_reason, for a chat; ``!fault`` injects one of FAULTS.
        models: fields of each model in the list of models, by name.
        tokens: also serve /v1/completions and /tokenize with the tokenizer in ``base``, as vLLM does. Prompts of token
            ids are decoded and answered like chats.
        faults: returns the fault for request number i, or None.
        refuse: returns (status, body) to refuse a chat or greeting, or None.
        seconds: duration of each answer.
        hold: no request is answered until this many have been in flight at once.
        logprobs: send log-probabilities if they are requested.
        tokenize: serve /tokenize with one token per character.
        key: API key required for the list of models.
        headers: headers of refusals.
        prefix: path prefix of the API's routes.
        lists: serve the list of models.
        language_model: answers completions of token ids, from the tokenizer; needs ``tokens``.
        scores: serve and list /arc/score with the language model; ``spoil_scores`` changes the replies.
    """

    slow = 1.0
    """Delay in seconds of the fault ``slow``, which is followed by the right answer."""
    hangs = False
    """If true, nothing is answered from the first request on that is not a greeting."""
    version: str | None = None
    in_flight = 0
    most_in_flight = 0
    port = 0
    _number = 0
    _thread: threading.Thread | None = None
    _runner: web.AppRunner | None = None

    def __init__(
        self,
        answer: Callable[[Body], str | tuple[str, str]] = echo,
        *,
        models: Mapping[str, Body] | None = None,
        tokens: bool = False,
        base: Path = TINY_BASE,
        faults: Callable[[int], str | None] = lambda i: None,
        refuse: Callable[[Body], tuple[int, Body] | None] = lambda body: None,
        seconds: float = 0.0,
        hold: int = 0,
        logprobs: bool = True,
        tokenize: bool = False,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        prefix: str = "/v1",
        lists: bool = True,
        language_model: Callable[[FileTokenizer], LanguageModel] | None = None,
        scores: bool = False,
    ) -> None:
        self.answer, self.faults, self.refuse = answer, faults, refuse
        self.tokenizer = FileTokenizer(base) if tokens else None
        self.language_model: LanguageModel | None = None
        if language_model is not None and self.tokenizer is not None:
            self.language_model = language_model(self.tokenizer)
        fields: Body = {"root": str(base), "max_model_len": 4096} if tokens else {}
        self.models = {"base": fields, "cross": fields} if models is None else models
        self.scores = scores
        self.spoil_scores: Callable[[Body], Body] = lambda reply: reply
        """Changes what /arc/score replies."""
        self.seconds, self.logprobs, self.tokenize, self.key = seconds, logprobs, tokenize or tokens, key
        self.hold, self.headers, self.prefix, self.lists = hold, headers, prefix, lists
        self.answered_as: Callable[[Body], str] = lambda body: str(body["model"])
        self.bodies: list[Body] = []
        """Chats in order of arrival, without greetings; one for each prompt of a list."""
        self.requests: list[Body] = []
        """Bodies of the requests in order of arrival, without greetings."""
        self._loop = asyncio.new_event_loop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ChatServer:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        asyncio.run_coroutine_threadsafe(_cancel_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join()
        self._loop.close()

    def start(self) -> None:
        """Listen; on the same port as before after a stop."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def stop(self) -> None:
        """Drop every connection and stop listening."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        if self.lists:
            app.router.add_get(f"{self.prefix}/models", self._list_models)
        app.router.add_post(f"{self.prefix}/chat/completions", self._handle_completions)
        app.router.add_get("/version", self._get_version)
        if self.tokenizer is not None:
            app.router.add_post(f"{self.prefix}/completions", self._handle_completions)
        if self.scores:
            app.router.add_post("/arc/score", self._handle_scores)
        if self.tokenize:
            app.router.add_post("/tokenize", self._tokenize)
        self.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=2048, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    def add_routes(self, app: web.Application) -> None:
        """Add further routes; a subclass may have some."""

    async def _stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            for connection in list(runner.server.connections):  # type: ignore[union-attr]
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    async def _list_models(self, request: web.Request) -> web.Response:
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return json_response({"error": {"message": "invalid key"}}, 401)
        await self._wait_if_hanging()
        cards: list[Body] = [{"id": name, **extra} for name, extra in self.models.items()]
        if self.scores:
            cards = [{**card, "arc_bench": {"score": "/arc/score", **card.get("arc_bench", {})}} for card in cards]
        return json_response({"object": "list", "data": cards})

    async def _wait_if_hanging(self) -> None:
        while self.hangs and self.bodies:
            await asyncio.sleep(0.05)

    async def _get_version(self, request: web.Request) -> web.Response:
        return json_response({} if self.version is None else {"version": self.version})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.tokenizer is None:
            ids = list(range(count_tokens(body)))
        elif "prompt" in body:
            ids = self.tokenizer.encode(body["prompt"], add_special_tokens=body["add_special_tokens"])
        else:
            ids = token_ids(self.tokenizer, body["messages"], body.get("chat_template_kwargs", {}))
        return json_response({"count": len(ids), "tokens": ids})

    async def _handle_scores(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        number, self._number = self._number, self._number + 1
        self.requests.append(body)
        self.bodies += [body] * sum(len(item["answers"]) for item in body["prompts"])
        await self._wait_if_hanging()
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if (refusal := self.refuse(body)) is not None:
            return json_response(refusal[1], refusal[0], self.headers)
        assert self.language_model is not None
        reply = self.spoil_scores({**self.language_model.scores(body), "model": self.answered_as(body)})
        if (fault := self.faults(number)) == "slow":
            await asyncio.sleep(self.slow)
        elif fault is not None:
            return faulty_response(fault, request, {"choices": [{}]}, 0)
        return web.Response(text=json.dumps(reply), content_type="application/json")  # unlike orjson, json writes NaN

    async def _handle_completions(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        chats = self._chats(body)
        self.in_flight += len(chats)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._respond(request, body, chats)
        finally:
            self.in_flight -= len(chats)

    def _chats(self, body: Body) -> list[Body]:
        """Return the chats of a request."""
        if "messages" in body:
            return [body]
        assert self.tokenizer is not None
        if self.language_model is not None:
            return [{**body, "prompt": [ids]} for ids in body["prompt"]]
        rest = {name: value for name, value in body.items() if name != "prompt"}
        return [{**rest, "messages": messages_of(self.tokenizer, ids)} for ids in body["prompt"]]

    async def _respond(self, request: web.Request, body: Body, chats: list[Body]) -> web.StreamResponse:
        greeting = body.get("max_tokens") == 1 and not (body.get("echo") or "prompt_logprobs" in body)
        if not greeting:
            self.bodies += chats
            self.requests.append(body)
        number, self._number = self._number, self._number + 1
        await self._wait_if_hanging()
        while not greeting and self.most_in_flight < self.hold:
            await asyncio.sleep(0.05)
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if body["model"] not in self.models:
            return json_response({"error": {"message": f"The model `{body['model']}` does not exist."}}, 404)
        for chat in chats:
            if (refusal := self.refuse(chat)) is not None:
                return json_response(refusal[1], refusal[0], self.headers)
        name = request.headers.get("X-Request-Id", "0")
        answers: list[tuple[str, str]] = [("", "stop") for _ in chats]
        if self.language_model is not None and "prompt" in body:
            right = self.language_model.response(body, name)
            if "error" in right:
                return json_response(right, 400)
            if self.faults(number) is None:  # unlike orjson, json writes NaN
                return web.Response(text=json.dumps(right), content_type="application/json")
        else:
            texts = ["Hi" if greeting else self.answer(chat) for chat in chats]
            answers = [text if isinstance(text, tuple) else (text, "stop") for text in texts]
            request_body = body if self.logprobs else {**body, "logprobs": None}
            right = response_body(request_body, answers, name)
        right["model"] = self.answered_as(body)
        injected = {i: text[1:] for i, (text, _) in enumerate(answers) if text.startswith("!") and text[1:] in FAULTS}
        if (fault := self.faults(number)) == "slow":
            await asyncio.sleep(self.slow)
        elif fault is not None:
            return faulty_response(fault, request, right, number % len(answers))
        if injected:
            index, fault = next(iter(injected.items()))
            return faulty_response(fault, request, right, index)
        return json_response(right)


async def _cancel_tasks() -> None:
    """Cancel all other tasks of this event loop and wait for them."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def main() -> None:
    """Serve ``mixed_answer`` on a port until killed; with ``--language-model`` also its completions."""
    model = copying_model if "--language-model" in sys.argv else None
    server = ChatServer(
        mixed_answer,
        seconds=float(sys.argv[2]) if len(sys.argv) > 2 else 0.0,
        tokens="--tokens" in sys.argv or model is not None,
        language_model=model,
        scores="--scores" in sys.argv,
    )
    server.port = int(sys.argv[1])
    with server:
        print(server.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
