"""When a test output needs no further draws: its two attempts are decided, or are likely enough to stay.

Only counts matter here: the votes on each distinct grid, the failures, and the draws that are left.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import ConfigError
from harness.core.symmetry import SYMMETRIES
from harness.runs.schema import RunConfig

BUSY = 256
"""Draws of a round, over all test outputs of a model, that keep a server full (the default of --max-in-flight)."""
FINEST, COARSEST = 8, 4
"""A later round is from 1/8 to 1/4 of what the first one leaves: finer ones spare little more, and idle a server."""

CONCENTRATION, DISCOUNT = 0.5, 0.25
"""The urn of ``change_bound``; chosen so that the measured error is below the promise, within its standard error.

Measured in benchmarks/stopping.md.."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StopRule:
    """A rule of ``--stop``: the chance that the two attempts or their order change is below ``risk``; 0 is never."""

    risk: float = 0.0

    @staticmethod
    def parse(text: str) -> StopRule:
        """``decided`` or ``risk=0.01``.

        Raises:
            ConfigError: it is neither, or the risk is not between 0 and 1.
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
        """Whether a test output may be left with these votes on its distinct grids and ``left`` draws to come."""
        return is_decided(counts, left) or change_bound(counts, failures, left) < self.risk


def is_decided(counts: Sequence[int], left: int) -> bool:
    """Whether no ``left`` further draws can change the first two places of the vote, or their order.

    The first must lead the second, and the second the third (a grid not seen yet where there is none), by
    more than ``left`` votes: a lead of exactly ``left`` can become a tie, which answers without
    log-probabilities leave open. For ``left`` above 0 the rule is tight: where it does not hold, some
    continuation gives another result. It would be conservative by one draw, at most, if every further
    answer were sure to carry log-probabilities.
    """
    first, second, third, *_ = (*sorted(counts, reverse=True), 0, 0, 0)
    return left == 0 or (first - second > left and second - third > left)


def change_bound(counts: Sequence[int], failures: int, left: int) -> float:
    """An upper bound on the chance that ``left`` further draws change the first two places, or their order.

    The model is a Pólya urn with new colours, the two-parameter Poisson-Dirichlet process (Pitman and Yor
    1997): after m draws the next one is a grid seen c times with weight c − d, a failure with the weight of
    the failures so far, and a grid not seen before with weight θ + dK, K grids being seen (together m + θ).
    The events that the second reaches the first, that another reaches the second, and the expected number
    of new grids that reach the second have exact chances under it; the bound is their sum. A tie counts
    as a change.

    Returns:
        A number in [0, 1], rounded to 9 decimals, so that machines that round differently agree.
    """
    first, second, *others = (*sorted(counts, reverse=True), 0, 0)
    mass = sum(counts) + failures + CONCENTRATION
    total = _overtaking(first, second, mass, left)
    for count, times in Counter(filter(None, others)).items():
        if total >= 1:
            break
        total += times * _overtaking(second, count, mass, left)
    unseen = CONCENTRATION + DISCOUNT * np.count_nonzero(counts)
    return round(min(total + _newcomers(second, unseen, mass, left), 1.0), 9)


@lru_cache(maxsize=1 << 16)
def _overtaking(leader: int, rival: int, mass: float, left: int) -> float:
    """The chance that ``rival`` has at least as many votes as ``leader`` after ``left`` draws."""
    own, other = max(leader - DISCOUNT, 0.0), max(rival - DISCOUNT, 0.0)
    return _reaching(leader - rival, own, _log_ways(other, left), mass - own - other, mass, left)


@lru_cache(maxsize=1 << 16)
def _newcomers(leader: int, unseen: float, mass: float, left: int) -> float:
    """How many grids that nobody has seen are expected to have at least as many votes as ``leader``."""
    own = max(leader - DISCOUNT, 0.0)
    sizes = np.arange(2, left + 1)
    grown = np.cumsum(np.log((sizes - 1 - DISCOUNT) / sizes))
    log_ways = np.concatenate(([-math.inf], math.log(unseen) + np.concatenate(([0.0], grown))))[: left + 1]
    return _reaching(leader, own, log_ways, mass - own + DISCOUNT, mass, left)


def _reaching(lead: int, own: float, log_rival: Floats, rest: float, mass: float, left: int) -> float:
    """Sum over all x, y with y ≥ lead + x of the chance that the leader gets x draws and the rival y.

    The chance of (x, y) is a product of three weights, of x, y and left − x − y. Each is multiplied by the chances of a
    negative binomial distribution of mean left in all, which keeps them within a float's range and cancels out.

    Args:
        log_rival: log of the urn's weight of y = 0 … left draws on the rival.
        own, rest, mass: the urn's weights of the leader, of all else than the two, and altogether.
    """
    tilt, stay = math.log(max(left, 1) / (mass + left)), math.log(mass / (mass + left))
    draws = np.arange(left + 1) * tilt
    leader = np.exp(_log_ways(own, left) + draws + own * stay)
    rival = np.exp(log_rival + draws + (mass - own - rest) * stay)
    others = np.exp(_log_ways(rest, left) + draws + rest * stay)[::-1]
    total = sum(
        float(leader[x]) * float(rival[lead + x : left - x + 1] @ others[lead + 2 * x :])
        for x in range((left - lead) // 2 + 1)
    )
    return total / math.exp(float(_log_ways(mass, left)[left]) + left * tilt + mass * stay)


@lru_cache(maxsize=1 << 12)
def _log_ways(weight: float, left: int) -> Floats:
    """The logarithms of weight (weight + 1) … (weight + x − 1) / x! for x = 0 … left: x draws on a colour."""
    x = np.arange(1, left + 1)
    with np.errstate(divide="ignore"):
        return np.concatenate(([0.0], np.cumsum(np.log((weight + x - 1) / x))))


@dataclass(frozen=True)
class Schedule:
    """After how many draws of a test output a rule is asked whether to go on.

    Nothing but the run's configuration decides it, so that the draws of a run do not depend on timing, on
    the servers, or on where it was interrupted.
    """

    stop: StopRule
    n: int
    round_ends: tuple[int, ...]
    """Ascending and below n; the first ends the first round, which every test output gets."""
    cycle: int
    """Draws after which the views start over with the first symmetry."""

    @property
    def first_round(self) -> int:
        """Draws of the first round."""
        return self.round_ends[0] if self.round_ends else self.n

    @property
    def is_balanced(self) -> bool:
        """Whether the first round holds each symmetry as often, in proportion, as all n draws do."""
        return self.first_round % self.cycle == 0 and self.n % self.cycle == 0

    def required_samples(self, counts: Sequence[int], failures: int) -> int:
        """How many draws a test output needs at least, given the first so many: those, if it may be left with them."""
        drawn = sum(counts) + failures
        place = bisect_right(self.round_ends, drawn)
        if place and self.round_ends[place - 1] == drawn and self.stop.is_met(counts, failures, self.n - drawn):
            return drawn
        return self.round_ends[place] if place < len(self.round_ends) else self.n


def view_cycle(augment: bool, samples_per_view: int) -> int:
    """Draws after which the views of a run start over with the first symmetry."""
    return len(SYMMETRIES) * samples_per_view if augment else 1


def run_schedule(config: RunConfig) -> Schedule | None:
    """The rounds of a run; None where every test output gets all of its draws."""
    if config.stop is None:
        return None
    cycle = view_cycle(config.augment, config.samples_per_view)
    return Schedule(StopRule.parse(config.stop.rule), config.n, tuple(config.stop.rounds), cycle)


def plan_rounds(stop: StopRule, n: int, outputs: int, cycle: int) -> Schedule:
    """The rounds of a run that asks each model for n draws of each of ``outputs`` test outputs.

    The first round is half of the draws, or as many as come before anything can be decided, rounded down to
    whole cycles where there is one. Later rounds are as small as keeps a server full, within limits.
    """
    earliest = math.ceil(n / 2) if stop.risk else math.ceil(3 * (n + 1) / 4)
    first = earliest // cycle * cycle or earliest
    left = n - first
    step = max(math.ceil(left / FINEST), min(math.ceil(BUSY / outputs), math.ceil(left / COARSEST)))
    second = min(max(first + step, earliest), n - 1)
    round_ends = sorted({first, *range(second, n, step)}) if earliest < n else []
    return Schedule(stop, n, tuple(round_ends), cycle)
