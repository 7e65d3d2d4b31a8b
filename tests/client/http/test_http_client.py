"""One request to one server: every answer is parsed, or becomes a typed error."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from harness.client.http import http_session
from harness.client.http.http_client import Client
from harness.client.protocol.error_response import Refusal, TransientError
from harness.client.protocol.model_list import parse_model
from harness.client.protocol.parameters import NEUTRAL_PARAMETERS, SamplingParameters
from harness.client.protocol.request import ChatRequest, probe_request
from harness.core.errors import ServerError
from harness.prompts.prompt_template import Message
from tests.support.servers.chat_answers import Body, no_grid
from tests.support.servers.chat_server import ChatServer

R = TypeVar("R")
REQUEST = ChatRequest("base", (Message("user", "12\n34"),), 20, None)


def call(
    server: ChatServer | str,
    action: Callable[[Client], object],
    notices: list[str] | None = None,
    sampling: SamplingParameters | None = None,
    key: str | None = None,
    timeout: float = 5.0,
) -> object:
    """Return the result of one call on a new client."""
    url = server if isinstance(server, str) else server.url
    shown: list[str] = [] if notices is None else notices

    async def go() -> object:
        async with Client(url, key, timeout, sampling or SamplingParameters(), shown.append) as client:
            return await action(client)  # type: ignore[misc]

    return asyncio.run(go())


def test_an_answer_is_parsed_with_its_log_probabilities() -> None:
    with ChatServer() as server:
        (reply,) = call(f"{server.url}/v1/", lambda client: client.send(REQUEST))  # type: ignore[misc]
    assert (reply.text, reply.finish_reason, reply.model) == ("12\n34", "stop", "base")
    assert (reply.n_tokens, reply.cumulative_logprob) == (5, -2.5)


def test_parameters_are_sent_explicitly_and_neutral() -> None:
    sampling = SamplingParameters(0.7, 0.9, 0.1, {"top_k": 40})
    request = replace(REQUEST, seed=5, stop_token_ids=(7,), template={"chat_template_kwargs": {"a": 1}})
    with ChatServer() as server:
        call(server, lambda client: client.send(REQUEST))
        call(server, lambda client: client.send(request), sampling=sampling)
    plain, chosen = server.bodies
    assert plain == {
        "model": "base", "messages": [{"role": "user", "content": "12\n34"}], "max_tokens": 20, "temperature": 0.0,
        "top_p": 1.0, "min_p": 0.0, "top_k": -1, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "repetition_penalty": 1.0, "logprobs": True,
    }  # fmt: skip
    changed = {"temperature": 0.7, "top_p": 0.9, "min_p": 0.1, "top_k": 40, "seed": 5, "stop_token_ids": [7]}
    assert chosen == {**plain, **changed, "chat_template_kwargs": {"a": 1}}


@pytest.mark.parametrize("name", sorted(NEUTRAL_PARAMETERS))
@pytest.mark.parametrize("style", ["openai", "fastapi"])
def test_a_refused_parameter_is_omitted_with_one_notice(name: str, style: str) -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        if name not in body:
            return None
        if style == "openai":
            return 400, {"error": {"message": f"Unrecognized request argument supplied: {name}", "param": None}}
        return 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs"}]}

    notices: list[str] = []

    async def twice(client: Client) -> list[str]:
        return [(await client.send(REQUEST))[0].text for _ in range(2)]

    with ChatServer(refuse=refuse) as server:
        assert call(server, twice, notices) == ["12\n34"] * 2
    assert len(notices) == 1
    assert name in notices[0]
    assert [name in body for body in server.bodies] == [True, False, False]


def test_a_refusal_that_names_no_parameter_omits_as_few_as_possible() -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        return (400, {"error": {"message": "bad request"}}) if "logprobs" in body else None

    def refuse_all(body: Body) -> tuple[int, Body] | None:
        return (400, {"error": {"message": "bad request"}}) if body.keys() & NEUTRAL_PARAMETERS.keys() else None

    async def negotiated(client: Client) -> set[str]:
        await client.negotiate_parameters(probe_request("base"))
        return client.omitted

    with ChatServer(refuse=refuse) as server:
        assert call(server, negotiated) == {"logprobs"}
    with ChatServer(refuse=refuse_all) as server:
        assert call(server, negotiated) == set(NEUTRAL_PARAMETERS)


def test_a_refused_parameter_that_the_user_set_is_an_error() -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        return (400, {"error": {"message": "unknown parameter min_p"}}) if "min_p" in body else None

    with ChatServer(refuse=refuse) as server, pytest.raises(ServerError, match=r"refuses min_p = 0\.1"):
        call(server, lambda client: client.send(REQUEST), sampling=SamplingParameters(1.0, 1.0, 0.1))


def test_a_refused_seed_is_omitted_with_one_notice() -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        return (422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}) if "seed" in body else None

    notices: list[str] = []

    async def twice(client: Client) -> list[str]:
        return [(await client.send(replace(REQUEST, seed=seed)))[0].text for seed in (5, 6)]

    with ChatServer(refuse=refuse) as server:
        assert call(server, twice, notices, SamplingParameters(1.0)) == ["12\n34"] * 2
    assert len(notices) == 1
    assert "'seed'" in notices[0]
    assert ["seed" in body for body in server.bodies] == [True, False, False]


def test_max_completion_tokens_is_sent_where_a_server_requires_it() -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        if "max_tokens" in body:
            return 400, {"error": {"message": "Unsupported parameter: use 'max_completion_tokens' instead."}}
        return None

    with ChatServer(refuse=refuse) as server:
        call(server, lambda client: client.send(REQUEST))
    assert server.bodies[-1]["max_completion_tokens"] == 20


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("http_500", "server"), ("http_408", "server"), ("http_503", "busy"), ("http_429", "busy"),
        ("reset", "connection"),
        ("not_json", "garbage"), ("html", "garbage"), ("null", "garbage"), ("no_choice", "garbage"),
        ("two_choices", "garbage"),
    ],
)  # fmt: skip
def test_transient_errors_have_a_kind(fault: str, kind: str) -> None:
    with ChatServer(faults=lambda i: fault) as server, pytest.raises(TransientError) as caught:
        call(server, lambda client: client.send(REQUEST))
    assert caught.value.kind == kind
    assert caught.value.retry_after == (0.01 if fault == "http_429" else None)


def test_a_slow_answer_is_a_timeout() -> None:
    with ChatServer(seconds=5.0) as server, pytest.raises(TransientError, match="no answer") as caught:
        call(server, lambda client: client.send(REQUEST), timeout=0.1)
    assert caught.value.kind == "timeout"


def test_a_host_that_accepts_no_connection_is_a_connection_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_session, "_CONNECT_SECONDS", 0.2)
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for other in (first, second):  # The queue is full: who comes next is not answered at all.
            other.setblocking(False)
            other.connect_ex(deaf.getsockname())
        with pytest.raises(TransientError, match=r"no connection in 0\.2 s") as caught:
            call(f"http://127.0.0.1:{deaf.getsockname()[1]}", lambda client: client.models())
    assert caught.value.kind == "connection"


def test_a_closed_port_is_a_connection_error() -> None:
    with pytest.raises(TransientError) as caught:
        call("http://127.0.0.1:9", lambda client: client.models())
    assert caught.value.kind == "connection"


def test_other_refusals_have_the_servers_message() -> None:
    with ChatServer(refuse=lambda body: (400, {"error": {"message": "no cats"}})) as server:
        with pytest.raises(Refusal, match="no cats") as caught:
            call(server, lambda client: client.send(REQUEST))
        assert not caught.value.is_systematic
        with pytest.raises(Refusal, match="does not exist") as caught:
            call(server, lambda client: client.send(replace(REQUEST, model="nobody")))
    assert caught.value.is_systematic


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 64 tokens. However, your prompt contains at least 65 input tokens",
        "the request exceeds the available context size, try increasing the context window",
    ],
)
def test_a_prompt_that_is_too_long_is_recognised(message: str) -> None:
    with (
        ChatServer(refuse=lambda body: (400, {"error": {"message": message}})) as server,
        pytest.raises(Refusal) as caught,
    ):
        call(server, lambda client: client.send(REQUEST))
    assert caught.value.is_context


def test_without_log_probabilities_the_sum_is_none() -> None:
    with ChatServer(no_grid, logprobs=False) as server:
        (reply,) = call(server, lambda client: client.send(REQUEST))  # type: ignore[misc]
    assert reply.cumulative_logprob is None


def test_the_key_is_sent_and_a_missing_key_is_refused() -> None:
    with ChatServer(key="secret") as server:
        assert [m.name for m in call(server, lambda client: client.models(), key="secret")] == ["base", "cross"]  # type: ignore[attr-defined]
        with pytest.raises(Refusal) as caught:
            call(server, lambda client: client.models())
    assert caught.value.status == 401


def test_malformed_fields_of_a_listed_model_are_ignored() -> None:
    manifest = {"prompt": "compact-v0", "encoder": 3, "more": []}
    extension = {"hash": "abc", "rank": 8, "base": "tiny", "dtype": "float32", "manifest": manifest}
    entry = {"id": "cross", "root": "cross", "max_model_len": 512, "arc_bench": extension, "owned_by": "vllm"}
    model = parse_model(entry)
    assert (model.hash, model.rank, model.base, model.max_model_len) == ("abc", 8, "tiny", 512)
    assert (model.prompt, model.encoder, model.dtype) == ("compact-v0", None, "float32")
    assert parse_model({"id": "x", "arc_bench": "?"}).hash is None
