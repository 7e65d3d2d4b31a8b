"""One OpenAI-compatible server over HTTP: a single attempt at a time, with typed ways to fail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from harness.errors import ServerError
from harness.prompt import Message
from harness.records import RunConfig, ServedModel
from harness.replies import Fault, Refusal, Reply, checked_body, cut, read_model, read_reply

if TYPE_CHECKING:
    import aiohttp

NEUTRAL: Mapping[str, object] = {
    "top_p": 1.0,
    "min_p": 0.0,
    "top_k": -1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "logprobs": True,
}
"""Sent explicitly, so that a model's own generation config changes nothing; left out where a server refuses one."""
RESERVED = ("model", "messages", "n", "stream", "seed", "max_tokens")
"""What ``extra_body`` must not set, as predictions are recorded by it."""
_KEEPALIVE = 2.0
"""Seconds; below the 5 of uvicorn, so that a reused connection is not just being closed by the server."""
_CONNECT_SECONDS = 10.0
_BODY_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One answer to ask for. ``max_tokens`` None leaves the bound to the server (the rest of the context)."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None
    seed: int | None


def greeting(model: str) -> ChatRequest:
    """The smallest useful request, to see whether a server answers at all."""
    return ChatRequest(model, (Message("user", "Hello"),), 1, None)


@dataclass(frozen=True)
class Sampling:
    """The parameters of every request of a run, beside those of ``ChatRequest``."""

    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    extra_body: Mapping[str, object] = field(default_factory=dict)
    chat_template_kwargs: Mapping[str, object] = field(default_factory=dict)

    @staticmethod
    def of(config: RunConfig) -> Sampling:
        """The sampling parameters of a run."""
        return Sampling(config.temperature, config.top_p, config.min_p, config.extra_body, config.chat_template_kwargs)


class Client:
    """Talks to one server. Use as an async context manager; every await has a deadline.

    Args:
        url: the server, with or without ``/v1``.
        notice: called once for each parameter that the server refuses and requests go without.
    """

    def __init__(
        self, url: str, key: str | None, timeout: float, sampling: Sampling, notice: Callable[[str], None]
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.without: set[str] = set()
        self._key = key
        self._timeout = timeout
        self._sampling = sampling
        self._notice = notice
        self._limit_name = "max_tokens"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=_CONNECT_SECONDS),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def models(self, timeout: float = _CONNECT_SECONDS) -> list[ServedModel]:
        """What the server lists under ``/v1/models``.

        Raises:
            Fault: no answer, or one that is no list of models. Refusal: 4xx.
        """
        data = await self._call("GET", "/v1/models", None, timeout)
        entries = data.get("data")
        if not isinstance(entries, list) or not all(
            isinstance(e, dict) and isinstance(e.get("id"), str) for e in entries
        ):
            raise Fault("garbage", f"{self.url}/v1/models did not answer with a list of models")
        return [read_model(entry) for entry in entries]

    async def count_tokens(self, request: ChatRequest) -> int:
        """The tokens of a request's prompt by the server's ``/tokenize`` (vLLM has it).

        Raises:
            Fault, Refusal: the server has no such route, or did not answer.
        """
        body = {"model": request.model, "messages": _plain(request.messages), **self._template()}
        data = await self._call("POST", "/tokenize", body, self._timeout)
        if not isinstance(count := data.get("count"), int):
            raise Fault("garbage", f"{self.url}/tokenize did not answer with a count")
        return count

    async def negotiate(self, model: str) -> None:
        """Ask for a word, so that what this server does not take is known before the run.

        Raises:
            Fault, Refusal: the server does not answer even the plainest request.
        """
        request = greeting(model)
        try:
            await self.chat(request)
            return
        except Refusal as refusal:
            if refusal.is_systematic:
                raise
            why = cut(str(refusal))
        # The message named no parameter: find the least that must go.
        before = set(self.without)
        for names in (["logprobs"], list(NEUTRAL)):
            self.without = before | set(names)
            try:
                await self.chat(request)
            except Refusal:
                continue
            self.without = before
            self.go_without(names, why)
            return
        self.without = before
        await self.chat(request)

    async def chat(self, request: ChatRequest) -> Reply:
        """One attempt to get an answer; parameters that the server does not know are left out from then on.

        Raises:
            Fault: it may work later. Refusal: it will not.
        """
        while True:
            body = self._body(request)
            start = perf_counter()
            try:
                data = await self._call("POST", "/v1/chat/completions", body, self._timeout)
            except Refusal as refusal:
                if not self._learn(refusal, body):
                    raise
                continue
            return read_reply(data, perf_counter() - start)

    def go_without(self, names: Sequence[str], why: str) -> None:
        """Leave out parameters that the server refuses, said once.

        Raises:
            ServerError: one of them was asked for with a value that changes the answers.
        """
        for name in names:
            if name not in self.without:
                if self._neutral(name) != NEUTRAL[name]:
                    raise ServerError(f"{self.url} refuses {name} = {self._neutral(name)}, which was asked for ({why})")
                self.without.add(name)
                self._notice(f"{self.url} does not take {name!r}; requests go without it ({why})")

    def _learn(self, refusal: Refusal, body: Mapping[str, object]) -> bool:
        """Whether the request can be repeated in another form after this refusal."""
        if refusal.status not in (400, 422) or refusal.is_context:
            return False
        if "max_completion_tokens" in refusal.named and "max_tokens" in body:
            self._limit_name = "max_completion_tokens"
            return True
        # Only what this very request carried: others in flight may have learned the same already.
        optional = [name for name in NEUTRAL if name in body and name not in self._sampling.extra_body]
        named = [name for name in optional if re.search(rf"\b{name}\b", refusal.named)]
        self.go_without(named, cut(str(refusal)))
        return bool(named)

    def _neutral(self, name: str) -> object:
        chosen = {"top_p": self._sampling.top_p, "min_p": self._sampling.min_p}
        return chosen.get(name, NEUTRAL[name])

    def _body(self, request: ChatRequest) -> dict[str, object]:
        body: dict[str, object] = {"model": request.model, "messages": _plain(request.messages)}
        if request.max_tokens is not None:
            body[self._limit_name] = request.max_tokens
        body["temperature"] = self._sampling.temperature
        body |= {name: self._neutral(name) for name in NEUTRAL if name not in self.without}
        if request.seed is not None:
            body["seed"] = request.seed
        return body | self._template() | dict(self._sampling.extra_body)

    def _template(self) -> dict[str, object]:
        kwargs = dict(self._sampling.chat_template_kwargs)
        return {"chat_template_kwargs": kwargs} if kwargs else {}

    async def _call(self, method: str, route: str, body: dict[str, object] | None, timeout: float) -> dict[str, Any]:
        import aiohttp

        if self._session is None:
            raise RuntimeError("the client is not open; use it as an async context manager")
        data = None if body is None else orjson.dumps(body)
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(
                    method, self.url + route, data=data, headers={"Content-Type": "application/json"}
                ) as response,
            ):
                content = await _read(response)
                status, headers = response.status, response.headers
        except TimeoutError:
            raise Fault("timeout", f"{self.url}{route}: no answer in {timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Fault("connection", f"{self.url}: {str(error) or type(error).__name__}") from None
        except ValueError as error:
            raise Fault("garbage", f"{self.url}{route}: {error}") from None
        return checked_body(status, content, headers.get("Retry-After"), self.url + route)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > _BODY_LIMIT:
            raise ValueError(f"an answer of over {_BODY_LIMIT >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
