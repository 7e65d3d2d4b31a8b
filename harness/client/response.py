"""What an OpenAI-compatible server answers, read into typed values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import orjson

from harness.client.error_response import Fault, Refusal, cut, failure, read_error
from harness.client.request import ChatRequest, Request
from harness.runs.schema import ServedModel

_MOST_TOKENS = 1 << 53
_CUT_OFF = frozenset(("length", "max_tokens", "model_length", "max_output_tokens", "max_length", "token_limit"))
"""How servers say that an answer reached its bound."""


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
    reasoned: bool = False
    """The server sent thoughts in a field of their own, and no answer."""

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability a token; None where it is not known."""
        return (
            self.cumulative_logprob / self.n_tokens if self.cumulative_logprob is not None and self.n_tokens else None
        )

    @property
    def cut_off(self) -> bool:
        """The answer reached the bound on its tokens or the end of the context."""
        return self.finish_reason is not None and self.finish_reason.lower() in _CUT_OFF

    @property
    def broken_off(self) -> bool:
        """The server stopped in the middle: it is shutting down, and the answer is to be asked for again."""
        return self.finish_reason == "abort"


def checked_body(status: int, content: bytes, headers: Mapping[str, str], where: str) -> dict[str, Any]:
    """The JSON object of a 200 answer.

    Raises:
        Fault: a status that may pass, or not a JSON object. Refusal: any other 4xx, or a redirect.
    """
    if 300 <= status < 400:
        raise Refusal(status, f"{where} redirects to {cut(headers.get('Location', 'nowhere'))}; give that address")
    if status >= 400:
        raise failure(status, read_error(content), headers.get("Retry-After"), where)
    data = _read_json(content)
    if isinstance(data, list) and where.endswith("/models"):
        data = {"data": data}  # Together's form
    if status != 200 or not isinstance(data, dict):
        raise Fault(
            "garbage", f"{where}: HTTP {status} with {cut(content.decode(errors='replace'))!r}, not a JSON object"
        )
    return data


def _read_json(content: bytes) -> object:
    """The JSON value, or None where it is none; NaN, half surrogates and bytes that are no UTF-8 are read too."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(content.decode("utf-8-sig", errors="replace"), strict=False)
    except (ValueError, RecursionError):
        return None


def read_replies(data: dict[str, Any], request: Request, seconds: float) -> list[Reply]:
    """The answers to a request, one a prompt, in the order of its prompts.

    An answer that the server broke off is among them, with ``finish_reason`` abort.

    Raises:
        Fault: not as many choices as prompts, one that is no choice or has neither text nor finish_reason, or an
            error that may pass. Refusal: an error that will not.
    """
    choices = data.get("choices")
    if not choices and data.get("error"):
        raise failure(200, data, None, "the answer is an error")
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
    model = _clean(str(data.get("model") or ""))
    replies = []
    for choice in choices:
        if isinstance(choice, dict) and choice.get("error"):
            raise failure(200, choice, None, "the answer is an error")
        text, logprobs = read(choice)
        finish = _finish(choice)
        if finish == "error" or (finish is None and not text.strip()):
            raise Fault("server", f"an answer with finish_reason {choice.get('finish_reason')} and text {cut(text)!r}")
        replies.append(
            Reply(
                text=text,
                finish_reason=finish,
                model=model,
                n_tokens=tokens if tokens is not None else None if logprobs is None else len(logprobs),
                cumulative_logprob=None if logprobs is None else _sum(logprobs),
                seconds=seconds / request.answers,
                reasoned=not text and _has_thoughts(choice),
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
    content = _content(message.get("content")) if isinstance(message, dict) else None
    if content is None:
        raise Fault("garbage", f"a choice without a message: {cut(str(choice))}")
    data = choice.get("logprobs")
    tokens = data.get("content") if isinstance(data, dict) else None
    try:
        values = [entry["logprob"] for entry in tokens or ()]
    except (TypeError, KeyError):
        values = []
    return _clean(content), _numbers(values)


def _content(content: object) -> str | None:
    """A message's content as text; null is none, of a list the text parts count. None where it is something else."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else _part(part) for part in parts]
    return None if None in texts else "".join(text for text in texts if text)


def _part(part: object) -> str | None:
    """The text of a part of a content; parts of other types, such as thoughts, are no part of the answer."""
    if not isinstance(part, dict) or not isinstance(kind := part.get("type", "text"), str):
        return None
    if kind not in ("text", "output_text"):
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else None


def _has_thoughts(choice: dict[str, Any]) -> bool:
    """Whether a choice has thoughts beside its content."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return False
    return any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking")) or bool(
        message.get("content")
    )


def _completion_choice(choice: Any) -> tuple[str, list[float] | None]:
    if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
        raise Fault("garbage", f"a choice without a text: {cut(str(choice))}")
    data = choice.get("logprobs")
    values = data.get("token_logprobs") if isinstance(data, dict) else None
    return _clean(choice["text"]), _numbers(values if isinstance(values, list) else [])


def _finish(choice: dict[str, Any]) -> str | None:
    """A choice's finish_reason; SGLang has it as an object in some of its answers."""
    finish = choice.get("finish_reason")
    if isinstance(finish, dict):
        finish = finish.get("type")
    return _clean(finish) if isinstance(finish, str) and finish else None


def _clean(text: str) -> str:
    """The text with halves of surrogate pairs, which no file can hold, replaced."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode()


def _numbers(values: list[Any]) -> list[float] | None:
    """The values where there are some and all are finite numbers, else None."""
    if not values or not set(map(type, values)) <= {float, int}:
        return None
    try:
        return values if all(map(math.isfinite, values)) else None
    except OverflowError:
        return None


def _sum(values: list[float]) -> float | None:
    """The sum of finite numbers, None where it is none."""
    try:
        return math.fsum(values)
    except OverflowError:
        return None


def read_models(entries: Sequence[dict[str, Any]]) -> list[ServedModel]:
    """The models of a list; an adapter whose context length is not given has its base's."""
    models = [read_model(entry) for entry in entries]
    lengths = {model.name: model.max_model_len for model in models}
    return [
        model.model_copy(update={"max_model_len": lengths.get(model.parent)})
        if model.max_model_len is None and model.parent is not None
        else model
        for model in models
    ]


def read_model(entry: dict[str, Any]) -> ServedModel:
    """A model's entry: our server adds ``arc_bench: {hash, rank, base, manifest, max_loras}``."""
    own = _dict(entry.get("arc_bench"))
    manifest = _dict(own.get("manifest") or entry.get("manifest"))
    return ServedModel(
        name=entry["id"],
        root=_string(entry.get("root")),
        parent=_string(entry.get("parent")),
        max_model_len=_integer(entry.get("max_model_len")),
        hash=_string(own.get("hash")),
        rank=_integer(own.get("rank")),
        base=_string(own.get("base")),
        prompt=_string(manifest.get("prompt")),
        encoder=_string(manifest.get("encoder")),
        stop_token_ids=_token_ids(manifest.get("stop_token_ids")),
        chat_template_kwargs=_dict(manifest.get("chat_template_kwargs")) or None,
        chat_template=_string(manifest.get("chat_template")),
        template_date=_date(manifest.get("template_date")),
        max_loras=_integer(own.get("max_loras")),
    )


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _token_ids(value: object) -> list[int] | None:
    return value if isinstance(value, list) and value and all(type(v) is int and v >= 0 for v in value) else None


def _date(value: object) -> str | None:
    try:
        return date.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except ValueError:
        return None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
