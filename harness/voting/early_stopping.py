"""Early stopping: when a test output needs no further samples, because its two attempts will not change.

The decision depends on counts only: votes for each distinct grid, failures, and samples that remain.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.errors import ConfigError
from harness.core.symmetry import SYMMETRIES
from harness.runs.schemas.manifest_schema import RunConfig

BUSY = 256
"""Samples of a model in flight that keep a server busy; also the default of --max-in-flight."""
FINEST, COARSEST = 8, 4
"""Each later round is 1/8 to 1/4 of the samples after the first: shorter ones save little more and idle the server."""


@dataclass(frozen=True, slots=True)
class StopRule:
    """A rule of ``--stop``: stop if the probability that the two attempts or their order change is below ``risk``.

    With risk 0 (``decided``) they must be certain not to change.
    """

    risk: float = 0.0

    @staticmethod
    def parse(text: str) -> StopRule:
        """Return the rule of a text such as ``decided`` or ``risk=0.01``.

        Raises:
            ConfigError: the text is neither, or the risk is not between 0 and 1.
        """
        if text == "decided":
            return StopRule()
        match = re.fullmatch(r"risk=(\d*\.?\d+(?:e-?\d+)?)", text)
        if match is None or not 0 < float(match[1]) < 1:
            raise ConfigError(f"--stop {text!r} is neither 'decided' nor a risk between 0 and 1 such as 'risk=0.01'")
        return StopRule(float(match[1]))

    def __str__(self) -> str:
        return f"risk={self.risk:g}" if self.risk else "decided"

    def is_met(self, counts: Sequence[int], failures: int, left: int) -> bool:
        """Return whether a test output with these votes per distinct grid may stop ``left`` samples early."""
        if is_decided(counts, left):
            return True
        from harness.voting.change_bound import change_bound  # and numpy, which runs without --stop do not need here

        return change_bound(counts, failures, left) < self.risk


def is_decided(counts: Sequence[int], left: int) -> bool:
    """Return whether ``left`` further samples cannot change the two best grids of the vote, nor their order.

    The first must lead the second, and the second the third (or, without a third, a grid not sampled yet), by more than
    ``left`` votes. A lead of exactly ``left`` can become a tie, which stays a tie if answers come without
    log-probabilities. For ``left`` above 0 the rule is tight: if it returns False, some continuation changes the
    result. If all further answers were certain to have log-probabilities, it could stop at most one sample earlier.

    Args:
        counts: votes for each distinct grid, in any order; zeros are allowed.
    """
    first, second, third, *_ = (*sorted(counts, reverse=True), 0, 0, 0)
    return left == 0 or (first - second > left and second - third > left)


@dataclass(frozen=True)
class Schedule:
    """The rounds in which a test output is sampled; at the end of each, the stopping rule is applied.

    They depend on the run's configuration only, so that a run's samples do not depend on timing, servers or
    interruptions.
    """

    stop: StopRule
    n: int
    """Samples of a test output without early stopping."""
    round_ends: tuple[int, ...]
    """Number of samples at the end of each round but the last; ascending, below n."""
    cycle: int
    """Number of samples after which the views start again with the first symmetry."""

    @property
    def first_round(self) -> int:
        """Number of samples in the first round, which every test output gets."""
        return self.round_ends[0] if self.round_ends else self.n

    @property
    def is_balanced(self) -> bool:
        """Whether each symmetry has the same share of the first round as of all n samples."""
        return self.first_round % self.cycle == 0 and self.n % self.cycle == 0

    def required_samples(self, counts: Sequence[int], failures: int) -> int:
        """Return how many samples a test output needs, given the outcome of those drawn so far.

        This is the number drawn if it is the end of a round and the rule is met, else the end of the current round.

        Args:
            counts: votes for each distinct grid.
            failures: samples without a grid.
        """
        drawn = sum(counts) + failures
        completed = bisect_right(self.round_ends, drawn)
        if completed and self.round_ends[completed - 1] == drawn and self.stop.is_met(counts, failures, self.n - drawn):
            return drawn
        return self.round_ends[completed] if completed < len(self.round_ends) else self.n


def view_cycle(augment: bool, samples_per_view: int) -> int:
    """Return the number of samples after which a run's views start again with the first symmetry."""
    return len(SYMMETRIES) * samples_per_view if augment else 1


def run_schedule(config: RunConfig) -> Schedule | None:
    """Return the rounds of a run; None if it has no early stopping."""
    if config.stop is None:
        return None
    cycle = view_cycle(config.augment, config.samples_per_view)
    return Schedule(StopRule.parse(config.stop.rule), config.n, tuple(config.stop.rounds), cycle)


def plan_rounds(stop: StopRule, n: int, outputs: int, cycle: int) -> Schedule:
    """Return the rounds of a run with n samples for each of ``outputs`` test outputs of a model.

    The first round is half of the samples, or for ``decided`` three quarters: before that nothing can be decided. It is
    rounded down to whole cycles of views, if it has at least one. Later rounds are as short as keeps a server busy,
    within limits.
    """
    earliest = math.ceil(n / 2) if stop.risk else math.ceil(3 * (n + 1) / 4)
    first = earliest // cycle * cycle or earliest
    left = n - first
    step = max(math.ceil(left / FINEST), min(math.ceil(BUSY / outputs), math.ceil(left / COARSEST)))
    second = min(max(first + step, earliest), n - 1)
    round_ends = sorted({first, *range(second, n, step)}) if earliest < n else []
    return Schedule(stop, n, tuple(round_ends), cycle)
