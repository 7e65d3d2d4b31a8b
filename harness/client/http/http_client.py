"""The routes of one OpenAI-compatible server: a single attempt per call, with typed errors."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from harness.client.http.address import api_roots, canonical_url
from harness.client.http.http_session import HttpSession
from harness.client.http.server_log import local_log
from harness.client.protocol.error_response import Refusal, TransientError
from harness.client.protocol.model_alias import ModelAlias
from harness.client.protocol.model_list import model_entries, parse_models, score_route
from harness.client.protocol.parameters import (
    AcceptedParameters,
    SamplingParameters,
)
from harness.client.protocol.request import ROUTES, ChatRequest, Request, message_dicts
from harness.client.protocol.response import Reply, parse_replies
from harness.core.errors import ServerError
from harness.runs.schemas.manifest_schema import ServedModel

_LOOK_SECONDS = 10.0
"""Timeout for what a server answers without computing, such as its list of models."""


class Client:
    """Sends requests to one server. Use it as an async context manager; every call has a timeout.

    Args:
        url: the server, with or without ``/v1``; other paths are used as they are.
        key: the API key, sent as a bearer token; None sends none.
        timeout: seconds for one completion.
        notice: prints a line for the user: once for each parameter that the server refuses, and for other events.
        alias: a model that the server knows under another name; callers use the run's name only.

    Attributes:
        url: the canonical address.
        log: the server's log file, if the server runs on this machine and names it; known after ``models``.
        score_route: the server's route that scores answers, if it lists one; known after ``models``.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        timeout: float,
        sampling: SamplingParameters,
        notice: Callable[[str], None],
        alias: ModelAlias | None = None,
    ) -> None:
        self.url = canonical_url(url)
        self.log: Path | None = None
        self.score_route: str | None = None
        self.notice = notice
        self._roots = api_roots(self.url)
        """URLs under which the routes may be found; a single one once that is known."""
        self._lists_models: bool | None = None
        """Whether the server has a list of models; None until it was requested."""
        self._alias = alias
        self._timeout = timeout
        self._parameters = AcceptedParameters(self.url, sampling, notice)
        self._client_id = secrets.token_hex(8)
        self._request_numbers = itertools.count()
        self._http = HttpSession(self.url, key)

    async def __aenter__(self) -> Client:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.__aexit__()

    @property
    def omitted(self) -> set[str]:
        """Parameters that the server refused and that requests no longer contain."""
        return self._parameters.omitted

    def served_name(self, model: str) -> str:
        """Return the server's name of a model."""
        return self._alias.served_name if self._alias is not None and model == self._alias.name else model

    async def version(self) -> str | None:
        """Return the version that the server reports under ``/version`` (as vLLM does), or None."""
        try:
            version = (await self._call("GET", self._vllm_url("/version"), None, _LOOK_SECONDS)).get("version")
        except ServerError:
            return None
        return version if isinstance(version, str) and version else None

    async def models(self) -> list[ServedModel] | None:
        """Return the models that the server lists, or None (with one notice) if it has no such list.

        Raises:
            TransientError: no answer, or not a list of models.
            Refusal: 4xx; 404 and 405 only if the server had a list before.
        """
        garbage: TransientError | None = None
        for root in self._roots:
            try:
                entries = model_entries(await self._call("GET", f"{root}/models", None, _LOOK_SECONDS), root)
            except Refusal as refusal:
                if refusal.status not in (404, 405) or self._lists_models:
                    raise
            except TransientError as error:
                if error.kind != "garbage":
                    raise
                garbage = garbage or error
            else:
                self._roots, self._lists_models = (root,), True
                self.log = local_log(self.url, entries)
                self.score_route = score_route(entries)
                models = parse_models(entries)
                return models if self._alias is None else self._alias.rename_served(models)
        if garbage is not None:
            raise garbage
        if self._lists_models is None:
            self._lists_models = False
            self.notice(f"{self.url} has no list of models ({self._roots[0]}/models: 404); --model is taken as given")
        return None

    async def tokenize(self, request: ChatRequest) -> list[int]:
        """Return the token ids of a chat's prompt by the server's ``/tokenize`` (as vLLM has it).

        Raises:
            TransientError, Refusal: the server has no such route or did not answer.
        """
        messages = message_dicts(request.messages)
        return await self._post_tokenize({"model": request.model, "messages": messages, **request.template})

    async def tokenize_text(self, model: str, text: str) -> list[int]:
        """Return the token ids of a text by the server's ``/tokenize``, without special tokens.

        Raises:
            TransientError, Refusal: the server has no such route or did not answer.
        """
        return await self._post_tokenize({"model": model, "prompt": text, "add_special_tokens": False})

    async def _post_tokenize(self, body: dict[str, object]) -> list[int]:
        """Return the token ids that ``/tokenize`` answers."""
        url = self._vllm_url("/tokenize")
        ids = (await self._call("POST", url, body, self._timeout)).get("tokens")
        if not isinstance(ids, list) or not set(map(type, ids)) <= {int}:
            raise TransientError("garbage", f"{url} did not answer with token ids")
        return ids

    async def negotiate_parameters(self, request: Request) -> None:
        """Find out which parameters the server refuses, by sending a request with a limit of one token.

        Raises:
            TransientError, Refusal: the server does not answer even the request without optional parameters.
        """
        await self._parameters.negotiate(partial(self.send, replace(request, max_tokens=1)))

    async def send(self, request: Request) -> list[Reply]:
        """Send a request once and return its answers, one per prompt.

        If the server refuses a parameter by name, the request is repeated without it, and so are all later ones.

        Raises:
            TransientError: the request may succeed later. Refusal: it will not.
        """
        while True:
            body = self._parameters.body(request)
            start, request_id = perf_counter(), f"{self._client_id}-{next(self._request_numbers)}-"
            try:
                route = ROUTES["chat" if isinstance(request, ChatRequest) else "completions"]
                data = await self._post_v1(route, body, request_id)
                self._check_request_id(data, request_id)
                return parse_replies(data, request, perf_counter() - start)
            except Refusal as refusal:
                if refusal.reached_answer_limit and request.prompt_count == 1:
                    return [Reply("", "length", request.model, None, None, perf_counter() - start)]
                if not self._parameters.adapt_to_refusal(refusal, body):
                    raise

    async def post_completion(self, body: dict[str, object]) -> dict[str, Any]:
        """Send a body to the completions route once, as it is, and return the response (raises as ``send``)."""
        request_id = f"{self._client_id}-{next(self._request_numbers)}-"
        data = await self._post_v1(ROUTES["completions"], body, request_id)
        self._check_request_id(data, request_id)
        return data

    async def post_score(self, body: dict[str, object]) -> dict[str, Any]:
        """Send a body to the route that scores answers once, and return the response (raises as ``send``)."""
        return await self._call("POST", self._vllm_url(str(self.score_route)), body, self._timeout)

    async def _post_v1(self, route: str, body: dict[str, object], request_id: str) -> dict[str, Any]:
        """Return the response to a request; the first root whose route is not a 404 is used from then on."""
        not_found: Refusal | None = None
        for root in self._roots:
            try:
                data = await self._call("POST", root + route, body, self._timeout, {"X-Request-Id": request_id})
            except Refusal as refusal:
                if refusal.status not in (404, 405):
                    self._roots = (root,)
                    raise
                not_found = not_found or refusal
            else:
                self._roots = (root,)
                return data
        assert not_found is not None
        raise not_found

    def _vllm_url(self, route: str) -> str:
        """Return the URL of one of vLLM's routes that are next to ``/v1`` and not below it."""
        return self._roots[0].removesuffix("/v1") + route

    def _check_request_id(self, data: Mapping[str, Any], request_id: str) -> None:
        """Reject the response to another request of this client, which a proxy may have delivered twice.

        vLLM derives the id of a response from the request's X-Request-Id; other servers' ids are ignored.

        Raises:
            TransientError: the id is that of another request.
        """
        response_id = data.get("id")
        if isinstance(response_id, str) and self._client_id in response_id and request_id not in response_id:
            message = f"{self.url}: the answer to another request ({response_id}, not {request_id})"
            raise TransientError("garbage", message)

    async def _call(
        self,
        method: str,
        url: str,
        body: dict[str, object] | None,
        timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make one HTTP request by the server's names of models (raises as ``HttpSession.call``)."""
        if body is not None and self._alias is not None:
            body = self._alias.rename_requested(body)
        return await self._http.call(method, url, body, timeout, headers)
