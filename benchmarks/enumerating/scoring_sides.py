"""Ways to score given answers: our route, `prompt_logprobs`, and the floor of computing everything once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import Literal

from harness.client.http.http_client import Client
from harness.client.protocol.parameters import SamplingParameters
from harness.client.scoring.score_client import ScoreClient
from harness.client.scoring.score_format import PromptAnswers, ScoreMethod, ScoreRequest

VIEWS, CANDIDATES, ANSWER_TOKENS = 8, 8, 90
Method = ScoreMethod | Literal["floor"]
_VOCABULARY = 300
_TIMEOUT = 3600.0


def fresh_items(seed: str, length: int, views: int = VIEWS) -> list[PromptAnswers]:
    """Return prompts of about this many tokens, each with all candidates, that no earlier measurement has used."""
    rng = Random(seed)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(_VOCABULARY) for _ in range(count)]

    return [
        PromptAnswers(tokens(length - rng.randrange(length // 10)), [tokens(ANSWER_TOKENS) for _ in range(CANDIDATES)])
        for _ in range(views)
    ]


def seconds(url: str, model: str, method: Method, items: Sequence[PromptAnswers]) -> float:
    """Return the seconds of one way to score all items."""
    return floor_seconds(url, model, items) if method == "floor" else score_seconds(url, model, method, items)


def score_seconds(url: str, model: str, method: ScoreMethod, items: Sequence[PromptAnswers]) -> float:
    """Return the seconds to score all items, each prompt in a request of its own, all in flight at once."""

    async def score_all() -> float:
        async with Client(url, None, _TIMEOUT, SamplingParameters(), _ignore) as client:
            await client.models()
            scorer = ScoreClient(client)
            scorer.method = method
            start = time.perf_counter()
            await asyncio.gather(*(scorer.score(ScoreRequest(model, [item])) for item in items))
            return time.perf_counter() - start

    return asyncio.run(score_all())


def floor_seconds(url: str, model: str, items: Sequence[PromptAnswers]) -> float:
    """Return the seconds in which the server reads each prompt once and then each answer once, by its prefix cache.

    No log-probability of a prompt's token is computed.
    """

    async def read(client: Client, sequences: list[list[int]]) -> None:
        body = {"model": model, "prompt": sequences, "max_tokens": 1, "temperature": 0.0}
        await client.post_completion(body)

    async def read_all() -> float:
        async with Client(url, None, _TIMEOUT, SamplingParameters(), _ignore) as client:
            await client.models()
            start = time.perf_counter()
            await asyncio.gather(*(read(client, [list(item.prompt)]) for item in items))
            answered = [[[*item.prompt, *answer] for answer in item.answers] for item in items]
            await asyncio.gather(*(read(client, sequences) for sequences in answered))
            return time.perf_counter() - start

    return asyncio.run(read_all())


def largest_difference(url: str, model: str, items: Sequence[PromptAnswers]) -> float:
    """Return the largest difference of a log-probability between our route and `prompt_logprobs`."""

    async def both() -> float:
        async with Client(url, None, _TIMEOUT, SamplingParameters(), _ignore) as client:
            await client.models()
            scores = []
            methods: tuple[ScoreMethod, ...] = ("arc_score", "prompt_logprobs")
            for method in methods:
                scorer = ScoreClient(client)
                scorer.method = method
                reply = await scorer.score(ScoreRequest(model, items))
                scores.append([score.logprob for row in reply.scores for score in row])
            largest: float = max(abs(ours - theirs) for ours, theirs in zip(*scores, strict=True))
            return largest

    return asyncio.run(both())


def _ignore(line: str) -> None:
    """Drop a notice."""
