"""The gate of a continuous-integration run: does an interval clear a threshold?"""

from __future__ import annotations

from enum import Enum

from harness.stats.intervals import CONFIDENCE, wilson
from harness.stats.paired_test import Comparison


class Gate(Enum):
    """The verdict of a gate; the value is the command's exit code (2 is wrong use, as everywhere)."""

    PASS = 0
    FAIL = 1
    INCONCLUSIVE = 3


def gate_verdict(low: float, high: float, minimum: float) -> Gate:
    """PASS where the whole interval reaches the minimum, FAIL where none of it does, else INCONCLUSIVE."""
    if low >= minimum:
        return Gate.PASS
    return Gate.FAIL if high < minimum else Gate.INCONCLUSIVE


def margin_verdict(
    comparison: Comparison, margin: float, lower_is_better: bool = False, confidence: float = CONFIDENCE
) -> Gate:
    """Whether a run is no worse than its baseline by more than ``margin`` (0 or more).

    The interval of the difference decides; see ``gain_bounds`` for where there is none.

    Raises:
        ValueError: the margin is negative.
    """
    if margin < 0:
        raise ValueError(f"a margin is 0 or more, not {margin}")
    low, high = gain_bounds(comparison, lower_is_better, confidence)
    return gate_verdict(low, high, -margin)


def gain_bounds(
    comparison: Comparison, lower_is_better: bool = False, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """An interval of the gain (the difference, positive where better).

    Where too few tasks differ for a bootstrap, the gain lies between losing 1 on each task of the share
    lost and winning 1 on each of the share won, both shares at the upper end of Wilson's interval.
    """
    if comparison.low is not None and comparison.high is not None:
        return (-comparison.high, -comparison.low) if lower_is_better else (comparison.low, comparison.high)
    tasks = comparison.tasks
    _, lost = wilson(comparison.lost / tasks, tasks, confidence)
    _, won = wilson(comparison.won / tasks, tasks, confidence)
    return -lost, won
