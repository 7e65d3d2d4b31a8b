"""Verdicts of ``bench gate``: whether a confidence interval reaches a threshold."""

from __future__ import annotations

from enum import Enum

from harness.stats.intervals import CONFIDENCE, wilson
from harness.stats.paired_test import Comparison
from harness.stats.recipes import RecipeComparison


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


def gain_bounds(
    comparison: Comparison | RecipeComparison, lower_is_better: bool = False, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the confidence interval of the gain: the difference, with positive sign if the run is better.

    If the comparison has no interval, the worst case is used: every lost task loses 1 and every won task wins 1, with
    both shares of tasks at the upper ends of their Wilson intervals. For recipes this is widened to Student's t
    interval over tasks and training runs, as other training runs may differ on other tasks.
    """
    if comparison.low is not None and comparison.high is not None:
        return (-comparison.high, -comparison.low) if lower_is_better else (comparison.low, comparison.high)
    tasks = comparison.tasks
    _, lost = wilson(comparison.lost / tasks, tasks, confidence)
    _, won = wilson(comparison.won / tasks, tasks, confidence)
    if not isinstance(comparison, RecipeComparison) or comparison.degrees_of_freedom is None:
        return -lost, won
    from scipy.special import stdtrit

    half = float(stdtrit(comparison.degrees_of_freedom, (1 + confidence) / 2)) * comparison.standard_error
    gain = -comparison.delta if lower_is_better else comparison.delta
    return min(-lost, gain - half), max(won, gain + half)
