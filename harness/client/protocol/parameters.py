"""Parameters of requests and the JSON bodies with them, as a run chooses and a server accepts them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from harness.client.protocol.error_response import Refusal, shorten
from harness.client.protocol.request import ChatRequest, Request, message_dicts
from harness.core.errors import ServerError

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

    async def negotiate(self, send: Callable[[], Awaitable[object]]) -> None:
        """Find out which parameters the server refuses.

        A refusal that names a parameter is handled by ``send``. For one that does not, ever larger sets of parameters
        are omitted until the server accepts the request.

        Args:
            send: sends a request, with ``body`` of this object.

        Raises:
            TransientError, Refusal: the server does not answer even the request without optional parameters.
        """
        try:
            await send()
            return
        except Refusal as refusal:
            if refusal.is_systematic:
                raise
            reason = shorten(str(refusal))
        before = set(self.omitted)
        optional, neutral = list(OPTIONAL_PARAMETERS), list(NEUTRAL_PARAMETERS)
        for names in (["logprobs"], optional, neutral, [*neutral, *optional]):
            self.omitted = before | set(names)
            try:
                await send()
            except Refusal:
                continue
            self.omitted = before
            self.omit(names, reason)
            return
        self.omitted = before
        await send()

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
