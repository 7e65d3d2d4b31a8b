"""Parse what an OpenAI-compatible server answers to completions and chat completions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from harness.candidates.enumeration import Position
from harness.client.protocol.error_response import TransientError, classify_error, shorten
from harness.client.protocol.request import ChatRequest, Request, TokenRequest
from harness.client.protocol.token_logprobs import check_prompt_tokens, read_positions

_TOKENS_BOUND = 1 << 53
_LIMIT_REASONS = frozenset(("length", "max_tokens", "model_length", "max_output_tokens", "max_length", "token_limit"))
"""Values of ``finish_reason`` for an answer that reached its limit."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer to one prompt."""

    text: str
    finish_reason: str | None
    model: str
    """The model's name as the response gives it."""
    n_tokens: int | None
    cumulative_logprob: float | None
    seconds: float
    """From sending the request to its last byte, divided by the number of prompts that shared the request."""
    only_reasoning: bool = False
    """The response has reasoning in a field of its own, and no answer."""
    positions: tuple[Position, ...] = ()
    """The generated positions of a request with ``top_logprobs``."""

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability per token; None if it is not known."""
        return (
            self.cumulative_logprob / self.n_tokens if self.cumulative_logprob is not None and self.n_tokens else None
        )

    @property
    def truncated(self) -> bool:
        """Whether the answer reached its token limit or the end of the context."""
        return self.finish_reason is not None and self.finish_reason.lower() in _LIMIT_REASONS

    @property
    def aborted(self) -> bool:
        """Whether the server stopped generating because it is shutting down; the prompt must then be sent again."""
        return self.finish_reason == "abort"


def parse_replies(data: dict[str, Any], request: Request, seconds: float) -> list[Reply]:
    """Return the answers of a response, one per prompt, in the order of the request's prompts.

    Answers that the server aborted are included (``Reply.aborted``).

    Args:
        data: the body of the response.
        seconds: how long the request took.

    Raises:
        TransientError: the number of choices differs from that of prompts, a choice is malformed or has neither text
            nor finish_reason, or the response holds a retryable error; ``UnusableLogprobs``, if the request has
            ``top_logprobs``.
        Refusal: the response holds another error.
    """
    choices = data.get("choices")
    count = request.prompt_count
    if not choices and data.get("error"):
        raise classify_error(200, data, None, "the answer is an error")
    if not isinstance(choices, list) or len(choices) != count:
        received = len(choices) if isinstance(choices, list) else "no list of"
        raise TransientError("garbage", f"expected {count} choices, got {received}")
    if count > 1:
        choices = sort_by_index(choices)
    parse_choice = _parse_chat_choice if isinstance(request, ChatRequest) else _parse_completion_choice
    usage = data.get("usage")
    # The usage of several prompts is their sum.
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) and count == 1 else None
    tokens = tokens if type(tokens) is int and 0 <= tokens < _TOKENS_BOUND else None
    model = _valid_unicode(str(data.get("model") or ""))
    searched = request if isinstance(request, TokenRequest) and request.top_logprobs is not None else None
    if searched is not None:
        check_prompt_tokens(data, searched.prompts)
    replies = []
    for index, choice in enumerate(choices):
        if isinstance(choice, dict) and choice.get("error"):
            raise classify_error(200, choice, None, "the answer is an error")
        text, logprobs = parse_choice(choice)
        reply = Reply(
            text=text,
            finish_reason=_finish_reason(choice),
            model=model,
            n_tokens=tokens if tokens is not None else None if logprobs is None else len(logprobs),
            cumulative_logprob=None if logprobs is None else _finite_sum(logprobs),
            seconds=seconds / count,
            only_reasoning=not text and _has_reasoning(choice),
        )
        if reply.finish_reason == "error" or (reply.finish_reason is None and not text.strip()):
            shown = f"an answer with finish_reason {choice.get('finish_reason')} and text {shorten(text)!r}"
            raise TransientError("server", shown)
        replies.append(reply if searched is None else _with_positions(reply, choice, searched, index))
    return replies


def _with_positions(reply: Reply, choice: dict[str, Any], request: TokenRequest, index: int) -> Reply:
    """Return the answer to a prompt with its positions; without them if the server aborted it."""
    if reply.aborted or request.top_logprobs is None:
        return reply
    stop_ids = frozenset(request.stop_token_ids)
    positions = read_positions(
        choice, request.prompts[index], request.top_logprobs, stop_ids, truncated=reply.truncated
    )
    return replace(reply, positions=positions)


def sort_by_index(choices: list[Any]) -> list[dict[str, Any]]:
    """Return the choices in the order of their ``index``.

    Raises:
        TransientError: the indices are not 0, 1, 2, … with each once.
    """
    by_index = {c["index"]: c for c in choices if isinstance(c, dict) and type(c.get("index")) is int}
    if by_index.keys() != set(range(len(choices))):
        raise TransientError("garbage", f"{len(choices)} choices that are not numbered from 0")
    return [by_index[index] for index in range(len(choices))]


def _parse_chat_choice(choice: Any) -> tuple[str, list[float] | None]:
    """Return the text and the tokens' log-probabilities of a chat completion's choice."""
    message = choice.get("message") if isinstance(choice, dict) else None
    content = _content_text(message.get("content")) if isinstance(message, dict) else None
    if content is None:
        raise TransientError("garbage", f"a choice without a message: {shorten(str(choice))}")
    data = choice.get("logprobs")
    tokens = data.get("content") if isinstance(data, dict) else None
    try:
        values = [entry["logprob"] for entry in tokens or ()]
    except (TypeError, KeyError):
        values = []
    return _valid_unicode(content), _finite_numbers(values)


def _parse_completion_choice(choice: Any) -> tuple[str, list[float] | None]:
    """Return the text and the tokens' log-probabilities of a completion's choice."""
    if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
        raise TransientError("garbage", f"a choice without a text: {shorten(str(choice))}")
    data = choice.get("logprobs")
    values = data.get("token_logprobs") if isinstance(data, dict) else None
    return _valid_unicode(choice["text"]), _finite_numbers(values if isinstance(values, list) else [])


def _content_text(content: object) -> str | None:
    """Return a message's content as text: "" for null, the joined text parts of a list, None for anything else."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else _part_text(part) for part in parts]
    return None if None in texts else "".join(text for text in texts if text)


def _part_text(part: object) -> str | None:
    """Return the text of one part of a content: "" for parts of other types, such as reasoning; None if malformed."""
    if not isinstance(part, dict) or not isinstance(kind := part.get("type", "text"), str):
        return None
    if kind not in ("text", "output_text"):
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else None


def _has_reasoning(choice: dict[str, Any]) -> bool:
    """Return whether a choice without text has reasoning: in a field of its own, or as parts of the content."""
    message = choice.get("message")
    fields = ("reasoning_content", "reasoning", "thinking", "content")
    return isinstance(message, dict) and any(message.get(name) for name in fields)


def _finish_reason(choice: dict[str, Any]) -> str | None:
    """Return a choice's finish_reason; SGLang sends it as an object in some of its answers."""
    reason = choice.get("finish_reason")
    if isinstance(reason, dict):
        reason = reason.get("type")
    return _valid_unicode(reason) if isinstance(reason, str) and reason else None


def _valid_unicode(text: str) -> str:
    """Return the text with lone surrogates, which cannot be saved in a file, replaced by question marks."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode()


def _finite_numbers(values: list[Any]) -> list[float] | None:
    """Return the values if there are any and all are finite numbers, else None."""
    if not values or not set(map(type, values)) <= {float, int}:
        return None
    try:
        return values if all(map(math.isfinite, values)) else None
    except OverflowError:
        return None


def _finite_sum(values: list[float]) -> float | None:
    """Return the sum, or None if it overflows."""
    try:
        return math.fsum(values)
    except OverflowError:
        return None
