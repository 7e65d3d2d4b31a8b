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

    def __init__(self, seed: int, length: int, vocabulary: int = VOCABULARY) -> None:
        self.seed, self.length, self.vocabulary = seed, length, vocabulary
        self.logprobs = cache(self._logprobs)

    def _logprobs(self, prefix: tuple[int, ...]) -> dict[int, float]:
        draw = random.Random(f"{self.seed} {prefix}")
        weights = [draw.expovariate(1) ** 4 for _ in range(self.vocabulary)]
        if len(prefix) >= self.length:
            weights[2:] = [0.0] * (self.vocabulary - 2)
        total = sum(weights)
        return {token: math.log(w / total) for token, w in enumerate(weights) if w > 0}

    def complete(self, branch: Branch, top: int, limit: int, stops: frozenset[int] = STOPS) -> list[Position]:
        tokens, positions = branch.tokens, []
        while len(tokens) < limit:
            ranked = sorted(self.logprobs(tokens).items(), key=lambda item: -item[1])
            chosen = ranked[0][0]
            positions.append(Position(chosen, dict(ranked[:top])))
            if chosen in stops:
                break
            tokens = (*tokens, chosen)
        return positions

    def brute_force(
        self,
        min_prob: float,
        limit: int,
        prefix: tuple[int, ...] = (),
        logprob: float = 0.0,
        stops: frozenset[int] = STOPS,
    ) -> dict[tuple[int, ...], float]:
        """Depth first over the whole vocabulary, without the code under test."""
        if len(prefix) >= limit:
            return {}
        answers = {}
        here = self.logprobs(prefix)
        end = sum(math.exp(logprob + here[stop]) for stop in stops if stop in here)
        if end >= min_prob:
            answers[prefix] = end
        for token, value in here.items():
            if token not in stops and math.exp(logprob + value) >= min_prob:
                answers |= self.brute_force(min_prob, limit, (*prefix, token), logprob + value, stops)
        return answers


def enumerate_answers(
    model: RandomModel, search: AnswerSearch, limit: int, order: random.Random, at_once: int
) -> list[EnumeratedAnswer]:
    """Run a search with several branches in flight, whose completions arrive in random order."""
    in_flight: list[Branch] = []
    while not search.complete:
        while len(in_flight) < at_once and (branch := search.next_branch()) is not None:
            in_flight.append(branch)
        branch = in_flight.pop(order.randrange(len(in_flight)))
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
    expected = model.brute_force(min_prob * (1 - 1e-9), limit)
    search = AnswerSearch(min_prob, STOPS)
    answers = enumerate_answers(model, search, limit, random.Random(seed), at_once)
    clear = {tokens for tokens, p in expected.items() if abs(math.log(p / min_prob)) > 1e-9}
    assert clear <= {answer.tokens for answer in answers} <= expected.keys()
    for answer in answers:
        assert math.exp(answer.logprob) == pytest.approx(expected[answer.tokens], abs=1e-12)
    assert search.unexplored_mass() == pytest.approx(1 - sum(expected[a.tokens] for a in answers), abs=1e-9)
    assert [a.logprob for a in answers] == sorted((a.logprob for a in answers), reverse=True)


@given(seed=st.integers(0, 10**6), min_prob=st.sampled_from((0.02, 0.05, 0.1, 0.3, 1.0)), n_stops=st.integers(1, 3))
def test_as_many_log_probabilities_as_are_requested_are_enough(seed: int, min_prob: float, n_stops: int) -> None:
    """With one token that ends a turn the result is exact. Of several, one outside the likeliest is not counted."""
    model, limit, stops = RandomModel(seed, 2, 60), 3, frozenset(range(n_stops))
    top = math.floor(1 / min_prob + 1e-9) + n_stops
    search = AnswerSearch(min_prob, stops)
    while (branch := search.next_branch()) is not None:
        search.add_completion(branch, model.complete(branch, top, limit, stops))
    answers = {answer.tokens: math.exp(answer.logprob) for answer in search.answers()}
    everything = model.brute_force(min_prob / 10, limit, stops=stops)
    for tokens, probability in answers.items():
        assert probability <= everything[tokens] + 1e-12
    if n_stops == 1:
        clear = {tokens for tokens, p in everything.items() if p > min_prob * (1 + 1e-9)}
        assert clear <= answers.keys()
    for tokens, probability in everything.items():
        prefix = math.exp(math.fsum(model.logprobs(tokens[:at])[token] for at, token in enumerate(tokens)))
        bound = n_stops * prefix / (top + 1) if n_stops > 1 else 0.0
        if probability - bound > min_prob * (1 + 1e-9):
            assert answers[tokens] >= probability - bound - 1e-12


def test_the_end_of_a_turn_outside_the_likeliest_tokens_is_unexplored() -> None:
    """Tokens 0 and 1 end the turn; the server gives two of the four likely tokens."""
    search = AnswerSearch(0.3, STOPS)
    branch = search.next_branch()
    assert branch is not None
    search.add_completion(branch, [Position(0, {0: math.log(0.4), 2: math.log(0.25)})])
    (answer,) = search.answers()
    assert math.exp(answer.logprob) == pytest.approx(0.4)
    assert search.unexplored_mass() == pytest.approx(0.6)


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


@given(seed=st.integers(0, 10**6), min_prob=st.sampled_from((0.05, 0.3, 0.9)), keep=st.none() | st.integers(1, 3))
def test_the_greedy_answer_is_kept_on_request(seed: int, min_prob: float, keep: int | None) -> None:
    model = RandomModel(seed, 4)
    likeliest = enumerate_answers(model, AnswerSearch(min_prob, STOPS, keep), 5, random.Random(seed), 1)
    search = AnswerSearch(min_prob, STOPS, keep, keep_greedy=True)
    answers = enumerate_answers(model, search, 5, random.Random(seed), 1)
    assert search.greedy is not None
    assert answers == likeliest if search.greedy in likeliest else answers == [*likeliest, search.greedy]
    assert search.unexplored_mass() == pytest.approx(1 - sum(math.exp(a.logprob) for a in answers), abs=1e-9)
    assert [a.logprob for a in answers] == sorted((a.logprob for a in answers), reverse=True)


def test_a_completion_that_is_cut_off_leaves_its_mass_unexplored() -> None:
    search = AnswerSearch(0.1, STOPS)
    branch = search.next_branch()
    assert branch is not None
    search.add_completion(branch, [Position(2, {2: math.log(0.8), 0: math.log(0.2)})])
    assert search.complete
    assert search.n_truncated == 1
    assert [a.tokens for a in search.answers()] == [()]
    assert search.unexplored_mass() == pytest.approx(0.8)
