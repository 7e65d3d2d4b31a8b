"""Answers of a test's server: texts that depend only on the request, faults, and response bodies of both routes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from harness.core.random_stream import Stream

FAULTS = (
    "http_500", "http_503", "http_429", "http_408", "reset", "not_json", "html", "no_choice", "two_choices", "abort",
    "null", "slow",
)  # fmt: skip
Body = dict[str, Any]


def echo(body: Body) -> str:
    """Return the last user message: the right answer for every task of toy/copy in the compact prompt."""
    return str(body["messages"][-1]["content"])


def no_grid(body: Body) -> str:
    """Return a text that is not a grid."""
    return "I would rather talk about the weather."


def mixed_answer(body: Body) -> tuple[str, str]:
    """Return a right, wrong, unparsable or truncated answer and its finish_reason, chosen by a hash of the request."""
    text = echo(body)
    digest = hashlib.sha256(orjson.dumps([body["model"], body["messages"]])).digest()[0]
    if digest < 150:
        return text, "stop"
    if digest < 190:
        return text.translate(str.maketrans("0123456789", "1234567890")), "stop"
    return (text + "\n1", "stop") if digest < 220 else (text[:2], "length")


def random_faults(seed: int, percent: int) -> Callable[[int], str | None]:
    """Return a function that gives a random fault for ``percent`` of the request numbers and None for the others."""

    def fault(number: int) -> str | None:
        stream = Stream("fault", seed, number)
        return stream.choice(FAULTS) if stream.below(100) < percent else None

    return fault


def response_body(body: Body, answers: list[tuple[str, str]], name: str = "0") -> Body:
    """Return the response to a chat or completions request.

    Args:
        answers: text and finish_reason for each prompt.
        name: the request's X-Request-Id, which vLLM uses in the id of its response.
    """
    choice = _chat_choice if "messages" in body else _completion_choice
    # Chat requests ask for log-probabilities by true, completions by a number.
    logprobs = body.get("logprobs") is not None and body["logprobs"] is not False
    choices = [choice(i, text, finish, logprobs) for i, (text, finish) in enumerate(answers)]
    return {
        "id": f"cmpl-{name}",
        "model": body["model"],
        "choices": choices,
        "usage": {"completion_tokens": sum(len(text) for text, _ in answers)},
    }


def _chat_choice(index: int, text: str, finish: str, logprobs: bool) -> Body:
    """Return a choice of the chat route. Each character is a token of log-probability -0.5."""
    choice: Body = {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if logprobs:
        choice["logprobs"] = {"content": [{"token": c, "logprob": -0.5, "top_logprobs": []} for c in text]}
    return choice


def _completion_choice(index: int, text: str, finish: str, logprobs: bool) -> Body:
    """Return a choice of the completions route."""
    choice: Body = {"index": index, "text": text, "finish_reason": finish, "logprobs": None}
    if logprobs:
        choice["logprobs"] = {"tokens": list(text), "token_logprobs": [-0.5] * len(text)}
    return choice


def faulty_response(fault: str, request: web.Request, right: Body, index: int) -> web.StreamResponse:
    """Return a response with a fault.

    Args:
        right: body of the right response.
        index: the choice of ``right`` that is spoiled, for faults of one choice.
    """
    if fault == "reset":
        assert request.transport is not None
        request.transport.abort()
        return web.Response()
    choices = right["choices"]
    broken = {**choices[index], "finish_reason": "abort"}
    bodies: dict[str, bytes] = {
        "not_json": b'{"choices": [',
        "html": b"<html>It works</html>",
        "no_choice": orjson.dumps({**right, "choices": [*choices[:index], *choices[index + 1 :]]}),
        "two_choices": orjson.dumps({**right, "choices": [*choices, choices[index]]}),
        "abort": orjson.dumps({**right, "choices": [*choices[:index], broken, *choices[index + 1 :]]}),
        "null": b"null",
    }
    if fault in bodies:
        return web.Response(body=bodies[fault], content_type="application/json")
    status = int(fault.removeprefix("http_"))
    headers = {"Retry-After": "0.01"} if status == 429 else {}
    return web.Response(status=status, text=f"injected {status}", headers=headers)


def json_response(data: Body, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(data), status=status, headers=headers, content_type="application/json")
