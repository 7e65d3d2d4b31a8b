"""What an OpenAI-compatible server answers, read into typed values, and its typed ways to fail."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Literal

import orjson

from harness.errors import ServerError
from harness.requests import ChatRequest, Request

_SHOWN = 300
_MOST_TOKENS = 1 << 53
_CONTEXT = re.compile(
    r"context length|context window|context_length|maximum (sequence|model) length|too many tokens", re.I
)
_NO_MODEL = re.compile(r"model.{0,80}(not exist|not found|unknown)|unknown model|no such model", re.I | re.S)

FaultKind = Literal["connection", "timeout", "busy", "server", "garbage", "abort"]


class Fault(ServerError):
    """One attempt failed in a way that may pass: the request can be sent again."""

    def __init__(self, kind: FaultKind, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


class Refusal(ServerError):
    """The server answered 4xx: the same request would be refused again."""

    def __init__(self, status: int, message: str, parameter: str = "") -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.named = f"{message} {parameter}"

    @property
    def is_context(self) -> bool:
        """The prompt, or the prompt with its answer, is longer than the model's context."""
        return self.status in (400, 413, 422) and bool(_CONTEXT.search(self.named))

    @property
    def is_systematic(self) -> bool:
        """It is about the key, the route or the model, and so about every request."""
        return self.status in (401, 403, 404, 405) or bool(_NO_MODEL.search(self.named))


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered to one prompt."""

    text: str
    finish_reason: str | None
    model: str
    n_tokens: int | None
    cumulative_logprob: float | None
    seconds: float
    """From sending the request to its last byte, divided among the prompts that shared the request."""

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability a token; None where it is not known."""
        return (
            self.cumulative_logprob / self.n_tokens if self.cumulative_logprob is not None and self.n_tokens else None
        )

    @property
    def broken_off(self) -> bool:
        """The server stopped in the middle: it is shutting down, and the answer is to be asked for again."""
        return self.finish_reason == "abort"


def checked_body(status: int, content: bytes, retry_after: str | None, where: str) -> dict[str, Any]:
    """The JSON object of a 200 answer.

    Raises:
        Fault: 408, 429, 5xx or not a JSON object. Refusal: any other 4xx.
    """
    if status in (408, 429) or status >= 500:
        kind: FaultKind = "busy" if status in (429, 503) else "server"
        raise Fault(kind, f"{where}: HTTP {status}: {_message(content)[0]}", _seconds(retry_after))
    if status >= 400:
        raise Refusal(status, *_message(content))
    try:
        data = orjson.loads(content)
    except orjson.JSONDecodeError:
        data = None
    if status != 200 or not isinstance(data, dict):
        raise Fault(
            "garbage", f"{where}: HTTP {status} with {cut(content.decode(errors='replace'))!r}, not a JSON object"
        )
    return data


def _message(content: bytes) -> tuple[str, str]:
    """The message of an error answer, and the parameter that it names (OpenAI's, FastAPI's, or plain text)."""
    try:
        data = orjson.loads(content)
    except orjson.JSONDecodeError:
        return cut(content.decode(errors="replace")), ""
    error = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or error
        return cut(message if isinstance(message, str) else orjson.dumps(message).decode()), str(
            error.get("param") or ""
        )
    return cut(str(error)), ""


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds, given as seconds or as a date."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def read_replies(data: dict[str, Any], request: Request, seconds: float) -> list[Reply]:
    """The answers to a request, one a prompt, in the order of its prompts.

    An answer that the server broke off is among them, with ``finish_reason`` abort.

    Raises:
        Fault: not as many choices as prompts, or one that is no choice.
    """
    choices = data.get("choices")
    if not isinstance(choices, list) or len(choices) != request.answers:
        found = len(choices) if isinstance(choices, list) else "no list of"
        raise Fault("garbage", f"expected {request.answers} choices, got {found}")
    if request.answers > 1:
        choices = _ordered(choices)
    read = _chat_choice if isinstance(request, ChatRequest) else _completion_choice
    usage = data.get("usage")
    # The usage of several prompts is their sum.
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) and request.answers == 1 else None
    tokens = tokens if type(tokens) is int and 0 <= tokens < _MOST_TOKENS else None
    model = str(data.get("model") or "")
    replies = []
    for choice in choices:
        text, logprobs = read(choice)
        finish = choice.get("finish_reason")
        replies.append(
            Reply(
                text=text,
                finish_reason=finish if isinstance(finish, str) else None,
                model=model,
                n_tokens=tokens if tokens is not None else None if logprobs is None else len(logprobs),
                cumulative_logprob=None if logprobs is None else _sum(logprobs),
                seconds=seconds / request.answers,
            )
        )
    return replies


def _ordered(choices: list[Any]) -> list[dict[str, Any]]:
    """The choices by their index.

    Raises:
        Fault: they are not numbered from 0, each once.
    """
    found = {c["index"]: c for c in choices if isinstance(c, dict) and type(c.get("index")) is int}
    if found.keys() != set(range(len(choices))):
        raise Fault("garbage", f"{len(choices)} choices that are not numbered from 0")
    return [found[place] for place in range(len(choices))]


def _chat_choice(choice: Any) -> tuple[str, list[float] | None]:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
        raise Fault("garbage", f"a choice without a message: {cut(str(choice))}")
    data = choice.get("logprobs")
    content = data.get("content") if isinstance(data, dict) else None
    try:
        values = [entry["logprob"] for entry in content or ()]
    except (TypeError, KeyError):
        values = []
    return message.get("content") or "", _numbers(values)


def _completion_choice(choice: Any) -> tuple[str, list[float] | None]:
    if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
        raise Fault("garbage", f"a choice without a text: {cut(str(choice))}")
    data = choice.get("logprobs")
    values = data.get("token_logprobs") if isinstance(data, dict) else None
    return choice["text"], _numbers(values if isinstance(values, list) else [])


def _numbers(values: list[Any]) -> list[float] | None:
    """The values where there are some and all are numbers, else None."""
    return values if values and set(map(type, values)) <= {float, int} else None


def _sum(values: list[float]) -> float | None:
    """The sum of finite numbers, None where it is none."""
    try:
        return math.fsum(values)
    except OverflowError:
        return None


def cut(text: str) -> str:
    """A server's text on one line, of bounded length, to be shown."""
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
