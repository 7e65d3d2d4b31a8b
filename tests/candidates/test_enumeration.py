"""The search finds exactly what brute force over small random language models finds."""

from __future__ import annotations

import math
import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.candidates.enumeration import AnswerSearch, Branch, EnumeratedAnswer, Position

STOPS = frozenset((0, 1))
VOCABULARY = 6


class RandomModel:
    """Next-token distributions drawn from the prefix and a seed: peaked ones, so that few answers are likely."""

    def __init__(self, seed: int, length: int) -> None:
        self.seed, self.length = seed, length
        self.logprobs = cache(self._logprobs)

    def _logprobs(self, prefix: tuple[int, ...]) -> dict[int, float]:
        draw = random.Random(f"{self.seed} {prefix}")
        weights = [draw.expovariate(1) ** 4 for _ in range(VOCABULARY)]
        if len(prefix) >= self.length:
            weights[2:] = [0.0] * (VOCABULARY - 2)
        total = sum(weights)
        return {token: math.log(w / total) for token, w in enumerate(weights) if w > 0}

    def complete(self, branch: Branch, top: int, limit: int) -> list[Position]:
        tokens, positions = branch.tokens, []
        while len(tokens) < limit:
            ranked = sorted(self.logprobs(tokens).items(), key=lambda item: -item[1])
            chosen = ranked[0][0]
            positions.append(Position(chosen, dict(ranked[:top])))
            if chosen in STOPS:
                break
            tokens = (*tokens, chosen)
        return positions

    def brute_force(
        self, min_prob: float, limit: int, prefix: tuple[int, ...] = (), logprob: float = 0.0
    ) -> dict[tuple[int, ...], float]:
        """Depth first over the whole vocabulary, without the code under test."""
        if len(prefix) >= limit:
            return {}
        found = {}
        here = self.logprobs(prefix)
        end = sum(math.exp(logprob + here[stop]) for stop in STOPS if stop in here)
        if end >= min_prob:
            found[prefix] = end
        for token, value in here.items():
            if token not in STOPS and math.exp(logprob + value) >= min_prob:
                found |= self.brute_force(min_prob, limit, (*prefix, token), logprob + value)
        return found


def enumerate_answers(
    model: RandomModel, search: AnswerSearch, limit: int, order: random.Random, at_once: int
) -> list[EnumeratedAnswer]:
    """Run a search with several branches in flight, whose completions arrive or fail in random order."""
    in_flight: list[Branch] = []
    while not search.complete:
        while len(in_flight) < at_once and (branch := search.next_branch()) is not None:
            in_flight.append(branch)
        branch = in_flight.pop(order.randrange(len(in_flight)))
        if order.random() < 0.2:
            search.return_branch(branch)
        else:
            search.add_completion(branch, model.complete(branch, VOCABULARY, limit))
    return search.answers()


@given(
    seed=st.integers(0, 10**6),
    min_prob=st.sampled_from((0.005, 0.02, 0.05, 0.1, 0.3, 1.0)),
    length=st.integers(0, 6),
    at_once=st.integers(1, 5),
)
def test_the_answers_are_those_of_brute_force(seed: int, min_prob: float, length: int, at_once: int) -> None:
    model, limit = RandomModel(seed, length), length + 1
    expected = model.brute_force(min_prob, limit)
    search = AnswerSearch(min_prob, STOPS)
    answers = enumerate_answers(model, search, limit, random.Random(seed), at_once)
    clear = {tokens for tokens, p in expected.items() if abs(math.log(p / min_prob)) > 1e-9}
    assert clear <= {answer.tokens for answer in answers} <= expected.keys()
    for answer in answers:
        assert math.exp(answer.logprob) == pytest.approx(expected[answer.tokens], abs=1e-12)
    assert search.unexplored_mass() == pytest.approx(1 - sum(expected[a.tokens] for a in answers), abs=1e-9)
    assert [a.logprob for a in answers] == sorted((a.logprob for a in answers), reverse=True)


@given(seed=st.integers(0, 10**6), keep=st.integers(1, 4), at_once=st.integers(1, 5))
def test_a_bound_on_answers_keeps_the_likeliest(seed: int, keep: int, at_once: int) -> None:
    model = RandomModel(seed, 4)
    everything = enumerate_answers(model, AnswerSearch(0.01, STOPS), 5, random.Random(seed), 1)
    search = AnswerSearch(0.01, STOPS, keep)
    assert enumerate_answers(model, search, 5, random.Random(seed + 1), at_once) == everything[:keep]


def test_the_first_completion_is_the_greedy_answer_even_where_it_is_unlikely() -> None:
    model = RandomModel(3, 5)
    search = AnswerSearch(0.99, STOPS)
    enumerate_answers(model, search, 6, random.Random(0), 1)
    tokens: tuple[int, ...] = ()
    while (best := max(model.logprobs(tokens), key=lambda t, at=tokens: model.logprobs(at)[t])) not in STOPS:
        tokens = (*tokens, best)
    assert search.greedy is not None
    assert search.greedy.tokens == tokens


def test_a_completion_that_is_cut_off_leaves_its_mass_unexplored() -> None:
    search = AnswerSearch(0.1, STOPS)
    branch = search.next_branch()
    assert branch is not None
    search.add_completion(branch, [Position(2, {2: math.log(0.8), 0: math.log(0.2)})])
    assert search.complete
    assert search.n_truncated == 1
    assert [a.tokens for a in search.answers()] == [()]
    assert search.unexplored_mass() == pytest.approx(0.8)
