"""One OpenAI-compatible server over HTTP: a single attempt at a time, with typed ways to fail."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from harness.client.address import bases, canonical
from harness.client.error_response import Fault, Refusal, cut
from harness.client.request import NEUTRAL, OPTIONAL, ROUTES, ChatRequest, Request, Sampling, plain
from harness.client.response import Reply, checked_body, read_models, read_replies
from harness.client.server_log import log_on_this_machine
from harness.core.errors import ServerError
from harness.runs.schema import ServedModel

if TYPE_CHECKING:
    import aiohttp

_KEEPALIVE = 2.0
"""Seconds; below the 5 of uvicorn, so that a reused connection is not just being closed by the server."""
_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 10.0
"""For what a server answers without its model."""
_BODY_LIMIT = 64 << 20
_JSON = {"Content-Type": "application/json"}


class Client:
    """Talks to one server. Use as an async context manager; every await has a deadline.

    Args:
        url: the server, with or without ``/v1``; other paths are taken as given.
        notice: called once for each parameter that the server refuses and requests go without, and for what else a
            user should know of the server.

    Attributes:
        log: the file of the server's output, where the server runs on this machine and names it.
    """

    def __init__(
        self, url: str, key: str | None, timeout: float, sampling: Sampling, notice: Callable[[str], None]
    ) -> None:
        self.url = canonical(url)
        self.log: Path | None = None
        self.without: set[str] = set()
        self.notice = notice
        self._bases = bases(self.url)
        """Where the routes may lie; one once that is known."""
        self._lists_models: bool | None = None
        """Whether it has a list of models; None while nobody knows."""
        self._key = key
        self._timeout = timeout
        self._sampling = sampling
        self._limit_name = "max_tokens"
        self._mark = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def version(self) -> str | None:
        """What the server says under ``/version`` (vLLM does); None where it says nothing that can be read."""
        try:
            found = (await self._call("GET", self._beside("/version"), None, _LOOK_SECONDS)).get("version")
        except ServerError:
            return None
        return found if isinstance(found, str) and found else None

    async def models(self) -> list[ServedModel] | None:
        """What the server lists under ``/models``; None where it has no such list, which is said once.

        Raises:
            Fault: no answer, or one that is no list of models. Refusal: 4xx; 404 and 405 only where there was a list.
        """
        garbage: Fault | None = None
        for base in self._bases:
            try:
                data = await self._call("GET", f"{base}/models", None, _LOOK_SECONDS)
                entries = _entries(data, f"{base}/models")
            except Refusal as refusal:
                if refusal.status not in (404, 405) or self._lists_models:
                    raise
            except Fault as fault:
                if fault.kind != "garbage":
                    raise
                garbage = garbage or fault
            else:
                self._bases, self._lists_models = (base,), True
                self.log = log_on_this_machine(self.url, entries)
                return read_models(entries)
        if garbage is not None:
            raise garbage
        if self._lists_models is None:
            self._lists_models = False
            self.notice(f"{self.url} has no list of models ({self._bases[0]}/models: 404); --model is taken as given")
        return None

    async def tokenize(self, request: ChatRequest) -> list[int]:
        """The token ids that a chat request's prompt has by the server's ``/tokenize`` (vLLM has it).

        Raises:
            Fault, Refusal: the server has no such route, or did not answer.
        """
        return await self._ids({"model": request.model, "messages": plain(request.messages), **request.template})

    async def tokenize_text(self, model: str, text: str) -> list[int]:
        """The token ids that a text has by the server's ``/tokenize``.

        Raises:
            Fault, Refusal: the server has no such route, or did not answer.
        """
        return await self._ids({"model": model, "prompt": text, "add_special_tokens": False})

    async def _ids(self, body: dict[str, object]) -> list[int]:
        where = self._beside("/tokenize")
        data = await self._call("POST", where, body, self._timeout)
        ids = data.get("tokens")
        if not isinstance(ids, list) or not set(map(type, ids)) <= {int}:
            raise Fault("garbage", f"{where} did not answer with token ids")
        return ids

    async def negotiate(self, request: Request) -> None:
        """Ask for one token, so that what this server does not take is known before the run.

        Raises:
            Fault, Refusal: the server does not answer even the plainest form of the request.
        """
        request = replace(request, max_tokens=1)
        try:
            await self.ask(request)
            return
        except Refusal as refusal:
            if refusal.is_systematic:
                raise
            why = cut(str(refusal))
        # The message named no parameter: find the least that must go.
        before = set(self.without)
        for names in (["logprobs"], list(OPTIONAL), list(NEUTRAL), [*NEUTRAL, *OPTIONAL]):
            self.without = before | set(names)
            try:
                await self.ask(request)
            except Refusal:
                continue
            self.without = before
            self.go_without(names, why)
            return
        self.without = before
        await self.ask(request)

    async def ask(self, request: Request) -> list[Reply]:
        """One attempt to get the answers; parameters that the server does not know are left out from then on.

        Raises:
            Fault: it may work later. Refusal: it will not.
        """
        while True:
            body = self._sampling.body(request, self.without, self._limit_name)
            start, name = perf_counter(), f"{self._mark}-{next(self._numbers)}-"
            try:
                data = await self._post(request, body, name)
                self._check_asked(data, name)
                return read_replies(data, request, perf_counter() - start)
            except Refusal as refusal:
                if refusal.is_cut and request.answers == 1:
                    return [Reply("", "length", request.model, None, None, perf_counter() - start)]
                if not self._learn(refusal, body):
                    raise

    async def _post(self, request: Request, body: dict[str, object], name: str) -> dict[str, Any]:
        """The answer to a request; where the server's routes lie is found by the first one that is no 404."""
        route = ROUTES["chat" if isinstance(request, ChatRequest) else "completions"]
        missing: Refusal | None = None
        for base in self._bases:
            try:
                data = await self._call("POST", base + route, body, self._timeout, {"X-Request-Id": name})
            except Refusal as refusal:
                if refusal.status not in (404, 405):
                    self._bases = (base,)
                    raise
                missing = missing or refusal
            else:
                self._bases = (base,)
                return data
        assert missing is not None
        raise missing

    def _beside(self, route: str) -> str:
        """A route of vLLM's that lies beside ``/v1``."""
        return self._bases[0].removesuffix("/v1") + route

    def _check_asked(self, data: Mapping[str, Any], name: str) -> None:
        """Refuse the answer to another request of this client, which something on the way has sent a second time.

        vLLM makes the id of an answer from the request's X-Request-Id; other servers' ids say nothing.
        """
        answered = data.get("id")
        if isinstance(answered, str) and self._mark in answered and name not in answered:
            raise Fault("garbage", f"{self.url}: the answer to another request ({answered}, not {name})")

    def go_without(self, names: Sequence[str], why: str) -> None:
        """Leave out parameters that the server refuses, said once.

        Raises:
            ServerError: one of them was asked for with a value that changes the answers.
        """
        for name in names:
            if name not in self.without:
                if name in NEUTRAL and (value := self._sampling.value(name)) != NEUTRAL[name]:
                    raise ServerError(f"{self.url} refuses {name} = {value}, which was asked for ({why})")
                self.without.add(name)
                self.notice(f"{self.url} does not take {name!r}; requests go without it ({why})")

    def _learn(self, refusal: Refusal, body: Mapping[str, object]) -> bool:
        """Whether the request can be repeated in another form after this refusal."""
        if refusal.status not in (400, 422) or refusal.is_context or refusal.ends_run:
            return False
        if "max_completion_tokens" in refusal.named and "messages" in body and "max_tokens" in body:
            self._limit_name = "max_completion_tokens"
            return True
        # Only what this very request carried: others in flight may have learned the same already.
        optional = [n for n in (*NEUTRAL, *OPTIONAL, "seed") if n in body and n not in self._sampling.extra_body]
        named = [name for name in optional if re.search(rf"\b{name}\b", refusal.named)]
        self.go_without(named, cut(str(refusal)))
        return bool(named)

    async def _call(
        self, method: str, where: str, body: dict[str, object] | None, timeout: float, more: Mapping[str, str] = _JSON
    ) -> dict[str, Any]:
        import aiohttp

        if self._session is None:
            raise RuntimeError("the client is not open; use it as an async context manager")
        data = None if body is None else orjson.dumps(body)
        connect = min(_CONNECT_SECONDS, timeout / 2)
        deadline = aiohttp.ClientTimeout(total=timeout, sock_connect=connect)
        try:
            async with self._session.request(
                method, where, data=data, headers={**_JSON, **more}, timeout=deadline, allow_redirects=False
            ) as response:
                content = await _read(response)
                status, headers = response.status, response.headers
        except aiohttp.ConnectionTimeoutError:
            raise Fault("connection", f"{self.url}: no connection in {connect:g} s") from None
        except TimeoutError:
            raise Fault("timeout", f"{where}: no answer in {timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Fault("connection", f"{self.url}: {str(error) or type(error).__name__}") from None
        except ValueError as error:
            raise Fault("garbage", f"{where}: {error}") from None
        return checked_body(status, content, headers, where)


def _entries(data: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The entries of a list of models.

    Raises:
        Fault: it is none.
    """
    entries = data.get("data")
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("id"), str) for e in entries):
        raise Fault("garbage", f"{where} did not answer with a list of models")
    return entries


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > _BODY_LIMIT:
            raise ValueError(f"an answer of over {_BODY_LIMIT >> 20} MiB")
        parts.append(part)
    return b"".join(parts)
