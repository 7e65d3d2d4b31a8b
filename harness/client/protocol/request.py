"""Requests for predictions, and their JSON bodies in the form of OpenAI's API with the parameters a server accepts."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.client.protocol.error_response import Refusal, shorten
from harness.core.errors import ServerError
from harness.prompts.prompt_template import Message

Api = Literal["chat", "completions"]
ROUTES: Mapping[Api, str] = {"chat": "/chat/completions", "completions": "/completions"}
NEUTRAL_PARAMETERS: Mapping[str, object] = {
    "top_p": 1.0,
    "min_p": 0.0,
    "top_k": -1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "logprobs": True,
}
"""Parameters sent with every request, so that a model's own generation config has no effect; omitted if refused."""
OPTIONAL_PARAMETERS = ("stop_token_ids",)
"""Parameters sent when a value is known; omitted if refused."""
RESERVED_FIELDS = (
    "model", "messages", "prompt", "n", "best_of", "stream", "echo", "suffix", "seed", "max_tokens",
    "max_completion_tokens", "temperature", "top_p", "min_p", "logprobs",
)  # fmt: skip
"""Fields that ``extra_body`` must not set: the run sets and records them."""


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


@dataclass(frozen=True)
class SamplingParameters:
    """The parameters that all requests of a run share."""

    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    extra_body: Mapping[str, object] = field(default_factory=dict)

    def value(self, name: str) -> object:
        """Return the value that is sent for one of ``NEUTRAL_PARAMETERS``."""
        chosen = {"top_p": self.top_p, "min_p": self.min_p}
        return chosen.get(name, NEUTRAL_PARAMETERS[name])

    def body(self, request: Request, omitted: Collection[str], limit_name: str = "max_tokens") -> dict[str, object]:
        """Return the JSON body of a request.

        Args:
            omitted: names to leave out because the server refuses them: of ``NEUTRAL_PARAMETERS``,
                ``OPTIONAL_PARAMETERS``, or ``seed``.
            limit_name: the field that limits the tokens of a chat's answer.
        """
        body: dict[str, object] = {"model": request.model, "temperature": self.temperature}
        body |= {name: self.value(name) for name in NEUTRAL_PARAMETERS if name not in omitted}
        if request.seed is not None and "seed" not in omitted:
            body["seed"] = request.seed
        if request.stop_token_ids and "stop_token_ids" not in omitted:
            body["stop_token_ids"] = list(request.stop_token_ids)
        if isinstance(request, ChatRequest):
            body["messages"] = message_dicts(request.messages)
            body |= request.template
            if request.max_tokens is not None:
                body[limit_name] = request.max_tokens
        else:
            body["prompt"] = request.prompts
            # If the field is absent this route stops after 16 tokens; null means the rest of the context.
            body["max_tokens"] = request.max_tokens
            if "logprobs" in body:
                body["logprobs"] = 0  # of the sampled tokens only, without alternatives
            if request.top_logprobs is not None:
                body |= {"logprobs": request.top_logprobs, "return_tokens_as_token_ids": True}
        return body | dict(self.extra_body)


class AcceptedParameters:
    """Builds request bodies for one server, without the parameters that it refuses.

    Args:
        url: the server, for messages.
        notice: prints a line for each parameter that is omitted from then on.

    Attributes:
        omitted: the parameters that the server refuses.
    """

    def __init__(self, url: str, sampling: SamplingParameters, notice: Callable[[str], None]) -> None:
        self.omitted: set[str] = set()
        self._url = url
        self._sampling = sampling
        self._notice = notice
        self._limit_name = "max_tokens"

    def body(self, request: Request) -> dict[str, object]:
        """Return the JSON body of a request."""
        return self._sampling.body(request, self.omitted, self._limit_name)

    def omit(self, names: Sequence[str], reason: str) -> None:
        """Omit parameters from all further requests, with one notice for each.

        Raises:
            ServerError: the user has set one of them to a value that changes the answers.
        """
        for name in names:
            if name not in self.omitted:
                if name in NEUTRAL_PARAMETERS and (value := self._sampling.value(name)) != NEUTRAL_PARAMETERS[name]:
                    raise ServerError(f"{self._url} refuses {name} = {value}, which was asked for ({reason})")
                self.omitted.add(name)
                self._notice(f"{self._url} does not take {name!r}; requests go without it ({reason})")

    def adapt_to_refusal(self, refusal: Refusal, body: Mapping[str, object]) -> bool:
        """Change how bodies are built if a refusal names the parameter that caused it.

        Args:
            body: the body of the refused request. Only its parameters count: other requests in flight may have led to
                the same change already.

        Returns:
            Whether the request should be sent again.

        Raises:
            ServerError: the server refuses what the run cannot do without.
        """
        if refusal.status not in (400, 422) or refusal.is_context or refusal.is_about_account:
            return False
        if "return_tokens_as_token_ids" in body and re.search(r"\blogprobs\b", refusal.searchable):
            raise ServerError(_too_many_logprobs(self._url, body["logprobs"], refusal))
        if "max_completion_tokens" in refusal.searchable and "messages" in body and "max_tokens" in body:
            self._limit_name = "max_completion_tokens"
            return True
        removable = (*NEUTRAL_PARAMETERS, *OPTIONAL_PARAMETERS, "seed")
        removable = tuple(name for name in removable if name in body and name not in self._sampling.extra_body)
        named = [name for name in removable if re.search(rf"\b{name}\b", refusal.searchable)]
        self.omit(named, shorten(str(refusal)))
        return bool(named)


def _too_many_logprobs(url: str, count: object, refusal: Refusal) -> str:
    """Return the message for a server that refuses the number of log-probabilities that enumeration needs."""
    return (
        f"{url} refuses the {count} log-probabilities for each token that --min-prob needs: start it with "
        f"--max-logprobs {count} (bench serve: behind --), or give a larger --min-prob ({shorten(str(refusal))})"
    )


def message_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return chat messages as they appear in a request's body."""
    return [{"role": message.role, "content": message.content} for message in messages]
