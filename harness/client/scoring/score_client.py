"""Log-probabilities of given answers from one server, by the best method that the server has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter

from harness.client.http.http_client import Client
from harness.client.protocol.error_response import Refusal, shorten
from harness.client.scoring.score_format import (
    FALLBACKS,
    AnswerScore,
    PromptAnswers,
    ScoreMethod,
    ScoreReply,
    ScoreRequest,
    UnusableScores,
    completion_body,
    parse_completion_reply,
    parse_route_reply,
    route_body,
)
from harness.core.errors import ServerError

_BATCH_TOKENS = 100_000
"""Tokens of one fallback request; its reply has some 100 bytes for each, and ``Client`` reads at most 64 MiB."""
_DESCRIPTIONS: dict[ScoreMethod, str] = {
    "arc_score": "its route /arc/score, which computes each prompt once",
    "prompt_logprobs": "prompt_logprobs, which computes each prompt again for every answer",
    "echo": "echo and logprobs, which compute each prompt again for every answer",
}

_Pair = tuple[Sequence[int], Sequence[int]]


class ScoreClient:
    """Scores answers with one server.

    Args:
        client: an open client; its ``models`` have been requested, so that its scoring route is known.

    Attributes:
        method: how this server scores; None until the first request has shown it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.method: ScoreMethod | None = None

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """Return the scores of a request's answers; a single attempt, like ``Client.send``.

        The first request detects the method and shows it in a notice.

        Raises:
            TransientError: the request may succeed later. Refusal: the server refuses it.
            UnusableScores: the reply does not hold the log-probabilities of the tokens sent.
            ServerError: the server has no method; the message gives the reason for each.
        """
        if self.method is None:
            await self.detect(request)
        start = perf_counter()
        if self.method == "arc_score":
            data = await self._client.post_score(route_body(request))
            model, scores = str(data.get("model") or ""), parse_route_reply(data, request)
        else:
            model, scores = await self._score_by_completions(request, self.method or FALLBACKS[0])
        return ScoreReply(model, scores, self.method or FALLBACKS[0], perf_counter() - start)

    async def detect(self, request: ScoreRequest) -> ScoreMethod:
        """Detect how the server scores; without a scoring route, try the methods on the first answer of a request.

        Raises:
            TransientError, ServerError: as ``score``. Refusal: about the key, the account or the model.
        """
        if self._client.score_route is not None:
            return self._choose("arc_score")
        first = request.prompts[0]
        probe = ScoreRequest(request.model, (PromptAnswers(first.prompt, first.answers[:1]),))
        reasons = []
        for method in FALLBACKS:
            try:
                await self._score_by_completions(probe, method)
            except Refusal as refusal:
                if refusal.is_systematic:
                    raise
                reasons.append(f"{method}: {shorten(str(refusal))}")
            except UnusableScores as error:
                reasons.append(f"{method}: {error}")
            else:
                return self._choose(method)
        raise ServerError(
            f"{self._client.url} cannot score given answers ({'; '.join(reasons)}); serve the model with bench serve"
        )

    def _choose(self, method: ScoreMethod) -> ScoreMethod:
        """Use a method from now on, and say so."""
        self.method = method
        self._client.notice(f"{self._client.url} scores answers with {_DESCRIPTIONS[method]}")
        return method

    async def _score_by_completions(
        self, request: ScoreRequest, method: ScoreMethod
    ) -> tuple[str, tuple[tuple[AnswerScore, ...], ...]]:
        """Return the replying model and the scores by a fallback, with as many requests as their size needs."""
        model, scores = "", list[AnswerScore]()
        for pairs in _batches([(item.prompt, answer) for item in request.prompts for answer in item.answers]):
            body = completion_body(request.model, [[*prompt, *answer] for prompt, answer in pairs], method)
            data = await self._client.post_completion(body)
            model = str(data.get("model") or "")
            scores += parse_completion_reply(data, pairs, method)
        rest = iter(scores)
        return model, tuple(tuple(next(rest) for _ in item.answers) for item in request.prompts)


def _batches(pairs: Sequence[_Pair]) -> Iterator[list[_Pair]]:
    """Yield the pairs in order, in batches of at most _BATCH_TOKENS tokens, each of one pair at least."""
    batch: list[_Pair] = []
    size = 0
    for prompt, answer in pairs:
        tokens = len(prompt) + len(answer)
        if batch and size + tokens > _BATCH_TOKENS:
            yield batch
            batch, size = [], 0
        batch.append((prompt, answer))
        size += tokens
    if batch:
        yield batch
