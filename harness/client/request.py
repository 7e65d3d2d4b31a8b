"""What is asked of a server, and the JSON body that asks it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.prompts.prompt_template import Message
from harness.runs.schema import RunConfig

Api = Literal["chat", "completions"]
ROUTES: Mapping[Api, str] = {"chat": "/chat/completions", "completions": "/completions"}
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
OPTIONAL = ("stop_token_ids",)
"""Sent where it is known, and left out where a server refuses it."""
RESERVED = (
    "model", "messages", "prompt", "n", "best_of", "stream", "echo", "suffix", "seed", "max_tokens",
    "max_completion_tokens", "temperature", "top_p", "min_p", "logprobs",
)  # fmt: skip
"""What ``extra_body`` must not set: predictions are recorded by it, or it has an option of its own."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One answer to ask for. ``max_tokens`` None leaves the bound to the server (the rest of the context)."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None
    seed: int | None
    stop_token_ids: tuple[int, ...] = ()
    template: Mapping[str, object] = field(default_factory=dict)
    """What it says about the chat template: ``chat_template_kwargs`` and ``chat_template``, where there are any."""

    @property
    def answers(self) -> int:
        """How many answers it asks for."""
        return 1

    def only(self, places: Sequence[int]) -> ChatRequest:
        """The request for some of the answers."""
        return self

    def without_system(self) -> ChatRequest | None:
        """The request without its system messages; None where it has none."""
        others = tuple(message for message in self.messages if message.role != "system")
        return replace(self, messages=others) if len(others) < len(self.messages) else None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One answer to each of some prompts, given as token ids. They share the bound; a seed is for one prompt alone."""

    model: str
    prompts: tuple[list[int], ...]
    max_tokens: int | None
    seed: int | None
    stop_token_ids: tuple[int, ...] = ()

    @property
    def answers(self) -> int:
        """How many answers it asks for."""
        return len(self.prompts)

    def only(self, places: Sequence[int]) -> TokenRequest:
        """The request for some of the answers."""
        return replace(self, prompts=tuple(self.prompts[place] for place in places))


Request = ChatRequest | TokenRequest


def greeting(model: str) -> ChatRequest:
    """The smallest useful request, to see whether a server answers at all."""
    return ChatRequest(model, (Message("user", "Hello"),), 1, None)


@dataclass(frozen=True)
class Sampling:
    """The parameters of every request of a run, beside those of ``Request``."""

    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    extra_body: Mapping[str, object] = field(default_factory=dict)

    @staticmethod
    def of(config: RunConfig) -> Sampling:
        """The sampling parameters of a run."""
        return Sampling(config.temperature, config.top_p, config.min_p, config.extra_body)

    def value(self, name: str) -> object:
        """What is sent of one of NEUTRAL."""
        chosen = {"top_p": self.top_p, "min_p": self.min_p}
        return chosen.get(name, NEUTRAL[name])

    def body(self, request: Request, without: Collection[str], limit_name: str = "max_tokens") -> dict[str, object]:
        """The JSON body of a request.

        Args:
            without: parameters that the server does not take: some of NEUTRAL and OPTIONAL, or the seed.
            limit_name: what the server calls the bound on an answer's tokens.
        """
        body: dict[str, object] = {"model": request.model, "temperature": self.temperature}
        body |= {name: self.value(name) for name in NEUTRAL if name not in without}
        if request.seed is not None and "seed" not in without:
            body["seed"] = request.seed
        if request.stop_token_ids and "stop_token_ids" not in without:
            body["stop_token_ids"] = list(request.stop_token_ids)
        if isinstance(request, ChatRequest):
            body["messages"] = plain(request.messages)
            body |= request.template
            if request.max_tokens is not None:
                body[limit_name] = request.max_tokens
        else:
            body["prompt"] = request.prompts
            # Without a number this route stops after 16 tokens; null is the rest of the context.
            body["max_tokens"] = request.max_tokens
            if "logprobs" in body:
                body["logprobs"] = 0  # that of the sampled token alone
        return body | dict(self.extra_body)


def plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as they are sent."""
    return [{"role": message.role, "content": message.content} for message in messages]
