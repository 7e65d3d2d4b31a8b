"""Requests for predictions, by either route of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.prompts.prompt_template import Message

Api = Literal["chat", "completions"]
ROUTES: Mapping[Api, str] = {"chat": "/chat/completions", "completions": "/completions"}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request for one answer to a chat, whose prompt the server renders with its chat template."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None
    """Limit on the answer's tokens; None leaves it to the server (usually the rest of the context)."""
    seed: int | None
    stop_token_ids: tuple[int, ...] = ()
    template: Mapping[str, object] = field(default_factory=dict)
    """Further body fields about the chat template: ``chat_template_kwargs``, ``chat_template``."""

    @property
    def prompt_count(self) -> int:
        """Number of prompts, which is the number of answers: always 1."""
        return 1

    def select_prompt(self, index: int) -> ChatRequest:
        """Return the request for one of the prompts: itself, as there is only one."""
        return self

    def without_system(self) -> ChatRequest | None:
        """Return the request without its system messages, or None if it has none."""
        others = tuple(message for message in self.messages if message.role != "system")
        return replace(self, messages=others) if len(others) < len(self.messages) else None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request for one answer to each of several prompts, which are given as token ids."""

    model: str
    prompts: tuple[list[int], ...]
    max_tokens: int | None
    """Limit on the tokens of each answer; None leaves it to the server."""
    seed: int | None
    """None unless there is a single prompt: a seed determines one answer."""
    stop_token_ids: tuple[int, ...] = ()
    top_logprobs: int | None = None
    """Request the log-probabilities of so many of the likeliest tokens at every position, with their token ids."""

    @property
    def prompt_count(self) -> int:
        """Number of prompts, which is the number of answers."""
        return len(self.prompts)

    def select_prompt(self, index: int) -> TokenRequest:
        """Return the request for one of the prompts."""
        return replace(self, prompts=(self.prompts[index],))


Request = ChatRequest | TokenRequest


def probe_request(model: str) -> ChatRequest:
    """Return the smallest useful chat (``Hello``, one token), which shows whether a server answers at all."""
    return ChatRequest(model, (Message("user", "Hello"),), 1, None)


def message_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return chat messages as they appear in a request's body."""
    return [{"role": message.role, "content": message.content} for message in messages]
