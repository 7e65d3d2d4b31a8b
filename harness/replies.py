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
from harness.records import ServedModel

_SHOWN = 300
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
    """What a server answered; ``seconds`` from sending to the last byte."""

    text: str
    finish_reason: str | None
    model: str
    n_tokens: int | None
    cumulative_logprob: float | None
    seconds: float


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


def read_reply(data: dict[str, Any], seconds: float) -> Reply:
    """The one choice of a chat completion.

    Raises:
        Fault: not exactly one choice, a choice without a message, or an answer that was broken off (``abort``).
    """
    choices = data.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        count = len(choices) if isinstance(choices, list) else "no list of"
        raise Fault("garbage", f"expected one choice, got {count} choices")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
        raise Fault("garbage", f"a choice without a message: {cut(str(choice))}")
    finish = choice.get("finish_reason")
    if finish == "abort":
        raise Fault("abort", "the server broke off the answer (finish_reason abort); it is shutting down")
    logprobs = _logprobs(choice.get("logprobs"))
    usage = data.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(tokens, int):
        tokens = None if logprobs is None else len(logprobs)
    return Reply(
        text=message.get("content") or "",
        finish_reason=finish if isinstance(finish, str) else None,
        model=str(data.get("model") or ""),
        n_tokens=tokens,
        cumulative_logprob=None if logprobs is None else math.fsum(logprobs),
        seconds=seconds,
    )


def _logprobs(data: object) -> list[float] | None:
    content = data.get("content") if isinstance(data, dict) else None
    if not isinstance(content, list) or not content:
        return None
    values = [entry.get("logprob") if isinstance(entry, dict) else None for entry in content]
    return values if all(isinstance(v, int | float) for v in values) else None  # type: ignore[return-value]


def read_model(entry: dict[str, Any]) -> ServedModel:
    """A model's entry, read leniently: our server adds ``arc_bench: {hash, rank, base, manifest}``."""

    def table(value: object) -> dict[str, Any]:
        return value if isinstance(value, dict) else {}

    def text(value: object) -> str | None:
        return value if isinstance(value, str) and value else None

    def number(value: object) -> int | None:
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    own = table(entry.get("arc_bench"))
    manifest = table(own.get("manifest") or entry.get("manifest"))
    return ServedModel(
        name=entry["id"],
        root=text(entry.get("root")),
        parent=text(entry.get("parent")),
        max_model_len=number(entry.get("max_model_len")),
        hash=text(own.get("hash")),
        rank=number(own.get("rank")),
        base=text(own.get("base")),
        prompt=text(manifest.get("prompt")),
        encoder=text(manifest.get("encoder")),
    )


def cut(text: str) -> str:
    """A server's text on one line, of bounded length, to be shown."""
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
