"""Get scores of answers from one server, with the retries of harness.client.pool.server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from harness.client.http.http_client import Client
from harness.client.pool.retry import Divide, RetryPolicy
from harness.client.pool.server import JobServer
from harness.client.protocol.error_response import Refusal
from harness.client.scoring.score_client import ScoreClient
from harness.client.scoring.score_format import ScoreMethod, ScoreRequest


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """The log-probability of one answer, in nats, and the number of its tokens."""

    logprob: float
    n_tokens: int
    method: ScoreMethod

    @property
    def aborted(self) -> bool:
        """Whether the server broke off: never, as a reply without all scores is an error."""
        return False


class ScoreServer(JobServer[ScoreRequest, ScoredAnswer]):
    """A server that scores answers; a job has one number for each answer."""

    def __init__(self, client: Client, models: Sequence[str], policy: RetryPolicy) -> None:
        super().__init__(client, models, policy)
        self.scores = ScoreClient(client)
        self._detecting = asyncio.Lock()
        self._verified_names: set[tuple[str, str]] = set()
        """Models with a name under which they answered and had the expected weights."""

    async def detect(self, request: ScoreRequest) -> None:
        """Detect how the server scores, once (raises as ``ScoreClient.detect``)."""
        async with self._detecting:
            if self.scores.method is None:
                await self.scores.detect(request)

    async def _send_once(self, request: ScoreRequest) -> list[ScoredAnswer | None]:
        """Return the scores of one attempt; None for an answer that does not fit into the context.

        Raises:
            ServerError: the reply does not hold the log-probabilities of the tokens sent, or the model has other
                weights by now. TransientError, Refusal, Divide: as ``JobServer``.
        """
        try:
            await self.detect(request)
            reply = await self.scores.score(request)
        except Refusal as refusal:
            if refusal.is_systematic or not refusal.is_context:
                raise
            if request.answer_count > 1:
                raise Divide from None
            return [None]
        await self._check_weights(request.model, reply.model)
        return [ScoredAnswer(one.logprob, one.n_tokens, reply.method) for row in reply.scores for one in row]

    async def _check_weights(self, model: str, answered_as: str) -> None:
        """Check the hashes of the models whenever one answers under a new name, such as another NAME@VERSION.

        Raises:
            ServerError: one has other weights than ``hashes``. TransientError, Refusal: as ``Client.models``.
        """
        if (model, answered_as) not in self._verified_names:
            await self._refresh_models()
            self._verified_names.add((model, answered_as))
