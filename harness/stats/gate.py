"""Verdicts of ``bench gate``: whether a confidence interval reaches a threshold."""

from __future__ import annotations

from enum import Enum

from harness.stats.bootstrap import Floats
from harness.stats.intervals import CONFIDENCE, wilson
from harness.stats.paired_test import ALIKE, Comparison
from harness.stats.recipes import RecipeComparison

_MISSED = 0.05
"""Probability with which tasks that lose everything may be missed before a gate says so."""


class Gate(Enum):
    """Verdict of a gate; the value is the exit status of the command."""

    PASS = 0
    FAIL = 1
    INCONCLUSIVE = 3


def gate_verdict(low: float, high: float, minimum: float) -> Gate:
    """Return PASS if the whole interval is at or above the minimum, FAIL if all of it is below, else INCONCLUSIVE."""
    if low >= minimum:
        return Gate.PASS
    return Gate.FAIL if high < minimum else Gate.INCONCLUSIVE


def margin_verdict(
    comparison: Comparison | RecipeComparison,
    margin: float,
    lower_is_better: bool = False,
    confidence: float = CONFIDENCE,
) -> Gate:
    """Return the verdict on whether a run is at most ``margin`` worse than its baseline.

    The interval of the gain decides (see ``gain_bounds``).

    Raises:
        ValueError: the margin is negative.
    """
    if margin < 0:
        raise ValueError(f"a margin is 0 or more, not {margin}")
    low, high = gain_bounds(comparison, lower_is_better, confidence)
    return gate_verdict(low, high, -margin)


def gain_verdict(
    comparison: Comparison | RecipeComparison,
    gain: float,
    lower_is_better: bool = False,
    confidence: float = CONFIDENCE,
) -> Gate:
    """Return the verdict on whether a run is better than its baseline by at least ``gain``.

    The interval of the gain decides (see ``gain_bounds``): PASS needs all of it at or above ``gain``.

    Raises:
        ValueError: the gain is not above 0.
    """
    if gain <= 0:
        raise ValueError(f"a gain to be shown is above 0, not {gain}")
    low, high = gain_bounds(comparison, lower_is_better, confidence)
    return gate_verdict(low, high, gain)


def gain_bounds(
    comparison: Comparison | RecipeComparison, lower_is_better: bool = False, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the confidence interval of the gain: the difference, with positive sign if the run is better.

    Where nearly all tasks differ alike, it is widened to ``nearly_alike_bounds``. Where too few tasks differ for an
    interval, the worst case is used: every lost task loses 1 and every won task wins 1, with both shares of tasks at
    the upper ends of their Wilson intervals. For recipes without an interval this is widened to Student's t interval
    over tasks and training runs, as other training runs may differ on other tasks.
    """
    tasks, sign = comparison.tasks, -1 if lower_is_better else 1
    if comparison.note and comparison.note != ALIKE:
        _, lost = wilson(comparison.lost / tasks, tasks, confidence)
        _, won = wilson(comparison.won / tasks, tasks, confidence)
        gains = [-lost, won]
    else:
        ends = (comparison.low, comparison.high, *(comparison.widest or ()))
        gains = [sign * end for end in ends if end is not None]
    if comparison.note and isinstance(comparison, RecipeComparison):
        gain, half = sign * comparison.delta, comparison.half_width(confidence)
        gains += [gain - half, gain + half]
    return min(gains), max(gains)


def missable_share(comparison: Comparison | RecipeComparison, gains: Floats, margin: float) -> float | None:
    """Return the share of tasks that lose everything which this many tasks miss with a probability of 5 %.

    A bootstrap knows no other losses than those that were seen: where a larger share than the margin may have been
    missed, its interval may lie too high.

    Args:
        gains: of the tasks, with positive sign where the run is better.

    Returns:
        None if the share is at most the margin, if a task lost everything, or where the interval allows for tasks that
        were not seen (see ``gain_bounds``).
    """
    allowed_for = comparison.widest is not None or comparison.note not in ("", ALIKE)
    if allowed_for or gains.min() <= -1 or (1 - margin) ** comparison.tasks <= _MISSED:
        return None
    return float(1 - _MISSED ** (1 / comparison.tasks))
