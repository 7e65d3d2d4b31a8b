"""Scoring answers with a server: the method is detected and said, and nothing doubtful counts as a score."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.client.http.http_client import Client
from harness.client.protocol.error_response import Refusal
from harness.client.protocol.parameters import SamplingParameters
from harness.client.scoring.score_client import ScoreClient, _batches
from harness.client.scoring.score_format import PromptAnswers, ScoreReply, ScoreRequest, UnusableScores
from harness.core.errors import ServerError
from tests.support.servers.score_server import Body, ScoreServer, echo, generation_only, prompt_logprobs, route, total

REQUEST = ScoreRequest(
    "base", (PromptAnswers([1, 2, 3], [[4, 5], [4, 6, 7]]), PromptAnswers([8], [[9]]), PromptAnswers([1, 2], [[3, 4]]))
)
EXPECTED = [[total(item.prompt, answer) for answer in item.answers] for item in REQUEST.prompts]


def score(server: ScoreServer, notices: list[str] | None = None, times: int = 1) -> ScoreReply:
    """Score REQUEST with a new client."""
    shown: list[str] = [] if notices is None else notices

    async def go() -> ScoreReply:
        async with Client(server.url, None, 5.0, SamplingParameters(), shown.append) as client:
            await client.models()
            scorer = ScoreClient(client)
            replies = [await scorer.score(REQUEST) for _ in range(times)]
            return replies[-1]

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("server", "method", "model"),
    [
        (ScoreServer(scores=route), "arc_score", "base@1"),
        (ScoreServer(prompt_logprobs), "prompt_logprobs", "base"),
        (ScoreServer(lambda body: echo(body) if "echo" in body else (400, "prompt_logprobs: unknown")), "echo", "base"),
        (ScoreServer(lambda body: echo(body) if "echo" in body else generation_only(body)), "echo", "base"),
    ],
)
def test_every_method_gives_the_sum_over_the_answer(server: ScoreServer, method: str, model: str) -> None:
    notices: list[str] = []
    with server:
        reply = score(server, notices, times=2)
    assert (reply.method, reply.model) == (method, model)
    assert [[one.logprob for one in row] for row in reply.scores] == [pytest.approx(row) for row in EXPECTED]
    assert [[one.n_tokens for one in row] for row in reply.scores] == [[2, 3], [1], [2]]
    assert len(notices) == 1, "the method is said once"
    assert "scores answers with" in notices[0]
    word = {"arc_score": "/arc/score", "prompt_logprobs": "prompt_logprobs", "echo": "echo and logprobs"}[method]
    assert word in notices[0]
    # The method is detected once, by one sequence for each fallback that was tried.
    assert len(server.bodies) == {"arc_score": 2, "prompt_logprobs": 3, "echo": 4}[method]


def test_a_server_without_any_method_is_told_with_every_reason() -> None:
    with ScoreServer(lambda body: (400, "no echo here") if "echo" in body else generation_only(body)) as server:
        with pytest.raises(ServerError) as caught:
            score(server)
        assert "cannot score given answers" in str(caught.value)
        assert "prompt_logprobs: expected prompt_logprobs of 5 tokens, got none" in str(caught.value)
        assert "echo: HTTP 400: no echo here" in str(caught.value)
        assert "bench serve" in str(caught.value)


def test_a_refused_key_is_not_taken_for_a_missing_method() -> None:
    with ScoreServer(lambda body: (401, "wrong key")) as server, pytest.raises(Refusal, match="wrong key"):
        score(server)


def change_first_choice(stock: Callable[[Body], Body], change: Callable[[Body], None]) -> Callable[[Body], Body]:
    """Return ``stock`` with a change of the choice of the first prompt in every reply."""

    def reply(body: Body) -> Body:
        data = stock(body)
        change(next(choice for choice in data["choices"] if choice["index"] == 0))
        return data

    return reply


def set_row(value: object) -> Callable[[Body], None]:
    """Return a change of the log-probability of the first prompt's last token, which is the answer's."""

    def change(choice: Body) -> None:
        for entry in choice["prompt_logprobs"][-1].values():
            entry["logprob"] = value

    return change


def another_token(choice: Body) -> None:
    choice["prompt_logprobs"][1] = {"77": {"logprob": -1.0}}


BAD: dict[str, tuple[ScoreServer, str]] = {
    "NaN": (ScoreServer(change_first_choice(prompt_logprobs, set_row(math.nan))), "nan is not a finite"),
    "infinite": (ScoreServer(change_first_choice(prompt_logprobs, set_row(-math.inf))), "-inf is not a finite"),
    "null": (ScoreServer(change_first_choice(prompt_logprobs, set_row(None))), "None is not a finite"),
    "true": (ScoreServer(change_first_choice(prompt_logprobs, set_row(True))), "True is not a finite"),
    "a logit": (ScoreServer(change_first_choice(prompt_logprobs, set_row(12.5))), "12.5 is positive"),
    "another token": (ScoreServer(change_first_choice(prompt_logprobs, another_token)), "another token than 2 at pos"),
    "a row less": (
        ScoreServer(change_first_choice(prompt_logprobs, lambda choice: choice["prompt_logprobs"].pop())),
        "expected prompt_logprobs of 5 tokens, got 4",
    ),
    "another echoed token": (
        ScoreServer(
            change_first_choice(echo, lambda choice: choice["logprobs"]["tokens"].__setitem__(3, "token_id:1"))
        ),
        "token_id:1 instead of token_id:4 at position 3",
    ),
    "echo of fewer tokens": (
        ScoreServer(change_first_choice(echo, lambda choice: choice["logprobs"].update(token_logprobs=[None, -1]))),
        "expected token_logprobs of 5 echoed tokens, got 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_doubtful_replies_are_told_and_not_scored(name: str) -> None:
    server, message = BAD[name]
    with server, pytest.raises(ServerError, match=message):
        score(server)


ROUTE_FAULTS: dict[str, tuple[Callable[[Body], object], str]] = {
    "no scores": (lambda data: data.pop("scores"), "expected scores of 3 prompts, got None"),
    "a prompt less": (lambda data: data["scores"].pop(), "expected scores of 3 prompts"),
    "an answer less": (lambda data: data["scores"][0].pop(), "expected scores of 2 answers"),
    "other tokens": (lambda data: data["scores"][0][1].update(n_tokens=2), "expected the score of 3 tokens"),
    "NaN": (lambda data: data["scores"][1][0].update(logprob=math.nan), "nan is not a finite"),
    "positive": (lambda data: data["scores"][1][0].update(logprob=0.5), "0.5 is positive"),
}


@pytest.mark.parametrize("name", ROUTE_FAULTS)
def test_doubtful_replies_of_the_route_are_told(name: str) -> None:
    change, message = ROUTE_FAULTS[name]

    def faulty(body: Body) -> Body:
        data = route(body)
        change(data)
        return data

    with ScoreServer(scores=faulty) as server, pytest.raises(UnusableScores, match=message):
        score(server)


@pytest.mark.parametrize(("prompt", "answers"), [([], [[1]]), ([1], []), ([1], [[1], []])])
def test_nothing_empty_is_scored(prompt: list[int], answers: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="needs a token"):
        PromptAnswers(prompt, answers)


@given(st.lists(st.tuples(st.integers(1, 120_000), st.integers(1, 5)), max_size=8))
def test_batches_keep_the_order_and_their_size(sizes: list[tuple[int, int]]) -> None:
    pairs = [(range(prompt), range(answer)) for prompt, answer in sizes]
    batches = list(_batches(pairs))
    assert [pair for batch in batches for pair in batch] == pairs
    for batch in batches:
        assert len(batch) == 1 or sum(len(prompt) + len(answer) for prompt, answer in batch) <= 100_000
