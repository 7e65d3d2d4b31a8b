"""Enumerate every answer of one view whose probability reaches a threshold (``--search dfs``); pure, no requests.

The search is a tree of token prefixes. A server completes a prefix greedily and returns, for every position, the
log-probabilities of the likeliest tokens. Each other token that keeps the prefix at or above the threshold starts a
branch, which is completed in turn (ARChitects 2024; NVARC 2025; arXiv 2505.07859, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush


@dataclass(frozen=True, slots=True)
class Branch:
    """The first tokens of an answer, to be completed greedily by a server.

    Args:
        tokens: their ids.
        logprob: their log-probability given the prompt, an upper bound for every answer that begins with them.
    """

    tokens: tuple[int, ...]
    logprob: float


@dataclass(frozen=True, slots=True)
class Position:
    """One generated position of a completion.

    Args:
        token: the token id that the server chose.
        logprobs: by token id, the log-probability of the likeliest tokens at this position, ``token`` among them.
    """

    token: int
    logprobs: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class EnumeratedAnswer:
    """A complete answer.

    Args:
        tokens: its token ids without the token that ends the turn.
        logprob: log-probability of the tokens followed by the end of the turn; if several tokens end a turn, their
            probabilities are added.
    """

    tokens: tuple[int, ...]
    logprob: float


class AnswerSearch:
    """Best-first search for all answers of one view with at least a given probability.

    Take branches with ``next_branch``, have each completed, and pass each completion to ``add_completion``, until
    ``complete``. The result does not depend on the order in which completions arrive.

    Args:
        min_prob: the threshold p, with 0 < p <= 1.
        stop_ids: tokens that end a turn.
        max_answers: keep only this many of the likeliest answers; None keeps all, which are at most 1/p.
        keep_greedy: also keep the answer that temperature 0 gives if it is less likely than p or was cut off.

    Time and memory grow with the number of branches, at most L/p for answers of up to L tokens.
    """

    def __init__(
        self, min_prob: float, stop_ids: frozenset[int], max_answers: int | None = None, *, keep_greedy: bool = False
    ) -> None:
        self._threshold = math.log(min_prob)
        self._stop_ids = stop_ids
        self._max_answers = max_answers
        self._keep_greedy = keep_greedy
        self._waiting: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        self._in_flight: set[tuple[int, ...]] = set()
        self._answers: list[EnumeratedAnswer] = []
        self.n_completions = 0
        """Completions that were added."""
        self.greedy: EnumeratedAnswer | None = None
        """The answer that temperature 0 gives, whatever its probability; None if it was truncated."""
        self.n_dropped = 0
        """Branches that ``max_answers`` cut off: none of their answers could be among the likeliest."""
        self.n_truncated = 0
        """Completions that reached the limit on tokens while their probability was at or above the threshold."""

    @property
    def complete(self) -> bool:
        """Whether no branch is waiting or in flight."""
        return not self._in_flight and not self._has_waiting()

    def next_branch(self) -> Branch | None:
        """Return the likeliest waiting branch, which is then in flight; None where none waits."""
        if not self._has_waiting():
            return None
        negative, tokens = heappop(self._waiting)
        self._in_flight.add(tokens)
        return Branch(tokens, -negative)

    def add_completion(self, branch: Branch, positions: Sequence[Position]) -> None:
        """Add the greedy completion of a branch that was in flight.

        Args:
            positions: every generated position; the last one is a stop token unless the completion was truncated.
        """
        self._in_flight.remove(branch.tokens)
        first = self.n_completions == 0
        self.n_completions += 1
        tokens, logprob = list(branch.tokens), branch.logprob
        for position in positions:
            end = self._end_logprob(position)
            if logprob + end >= self._threshold:
                self._answers.append(EnumeratedAnswer(tuple(tokens), logprob + end))
            for token, value in position.logprobs.items():
                if token != position.token and token not in self._stop_ids and logprob + value >= self._threshold:
                    heappush(self._waiting, (-(logprob + value), (*tokens, token)))
            if position.token in self._stop_ids:
                if first:
                    self.greedy = EnumeratedAnswer(tuple(tokens), logprob + end)
                return
            tokens.append(position.token)
            logprob += position.logprobs[position.token]
            if logprob < self._threshold and not first:
                return
        if logprob >= self._threshold:
            self.n_truncated += 1

    def answers(self) -> list[EnumeratedAnswer]:
        """Return the answers so far, likeliest first (equal ones by their tokens).

        They are at most ``max_answers``, and with ``keep_greedy`` the greedy answer after them if it is not among them.
        """
        likeliest = self._likeliest()
        greedy = self.greedy
        if not self._keep_greedy or greedy is None or greedy in likeliest:
            return likeliest
        return [*likeliest, greedy]

    def unexplored_mass(self) -> float:
        """Return 1 minus the probability of all returned answers: what lies below the threshold or was cut off."""
        return max(0.0, 1.0 - math.fsum(math.exp(answer.logprob) for answer in self.answers()))

    def _likeliest(self) -> list[EnumeratedAnswer]:
        """Return the answers that reach the threshold, likeliest first, at most ``max_answers``."""
        return sorted(self._answers, key=lambda answer: (-answer.logprob, answer.tokens))[: self._max_answers]

    def _has_waiting(self) -> bool:
        """Whether a waiting branch can still change the result; those that cannot are dropped."""
        if self._max_answers is not None and len(self._answers) >= self._max_answers:
            weakest = self._likeliest()[-1].logprob
            if self._waiting and -self._waiting[0][0] <= weakest:
                self.n_dropped += len(self._waiting)
                self._waiting.clear()
        return bool(self._waiting)

    def _end_logprob(self, position: Position) -> float:
        """Return the log-probability that the turn ends here, by any stop token."""
        return add_probabilities([position.logprobs[token] for token in self._stop_ids if token in position.logprobs])


def add_probabilities(logprobs: Sequence[float]) -> float:
    """Return the logarithm of the sum of probabilities, given their logarithms; minus infinity for none."""
    largest = max(logprobs, default=-math.inf)
    if largest == -math.inf:
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in logprobs))
