"""What ``bench gate`` asks of a metric: a minimum, a loss that is allowed, or a gain that must be shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.stats.bootstrap import Floats
    from harness.stats.gate import Gate
    from harness.stats.paired_test import Comparison
    from harness.stats.recipes import RecipeComparison


@dataclass(frozen=True)
class Requirement:
    """One of ``minimum``, ``margin`` and ``gain`` is given; the last two are about the difference from a baseline."""

    metric: str
    minimum: float | None
    margin: float | None
    """Share that may be lost."""
    gain: float | None
    """Share that must be gained."""

    @property
    def lower_is_better(self) -> bool:
        """Whether lower values of the metric are better."""
        from harness.voting.metrics import LOWER_IS_BETTER

        return self.metric in LOWER_IS_BETTER

    def in_words(self, tested: str, baseline: str) -> str:
        """Return what is tested, as the name of a test."""
        if self.minimum is not None:
            return f"{tested} {self.metric} >= {self.minimum:g}"
        if self.gain is not None:
            return f"{tested} {self.metric} >= {baseline} + {self.gain:g}"
        return f"{tested} {self.metric} no worse than {baseline} - {self.margin or 0.0:g}"

    def verdict_on_difference(self, comparison: Comparison | RecipeComparison) -> tuple[Gate, str]:
        """Return the verdict on a difference from a baseline, and in words the gain with its bounds.

        Returns:
            The verdict and the words; ``asked_for`` says what they are compared with.
        """
        from harness.results.table_format import points
        from harness.stats.gate import gain_bounds, gain_verdict, margin_verdict

        lower = self.lower_is_better
        low, high = gain_bounds(comparison, lower)
        if self.gain is None:
            verdict = margin_verdict(comparison, self.margin or 0.0, lower)
        else:
            verdict = gain_verdict(comparison, self.gain, lower)
        change = -comparison.delta if lower else comparison.delta
        note = comparison.note or ("nearly all tasks differ alike" if comparison.widest else "")
        why = f" (widest case: {note})" if note else ""
        return verdict, f"gains {points(change)} points [{points(low)}, {points(high)}]{why}"

    def notes_beside(
        self, verdict: Gate, comparison: Comparison | RecipeComparison, differences: Floats
    ) -> Iterator[str]:
        """Yield what a PASS with a margin does not rule out.

        Args:
            differences: of the tasks, from the baseline.
        """
        from harness.stats.gate import Gate, missable_share

        if verdict is not Gate.PASS or self.margin is None:
            return
        gains = -differences if self.lower_is_better else differences
        if (share := missable_share(comparison, gains, self.margin)) is not None:
            yield (
                f"{comparison.tasks} tasks miss, with more than 5 % probability, all tasks that lose everything, if "
                f"these are at most {100 * share:.2f} % of the family; the margin is {100 * self.margin:g} points"
            )

    @property
    def asked_for(self) -> str:
        """What a difference must be, in words."""
        if self.gain is None:
            return f"asked for is a loss of at most {100 * (self.margin or 0.0):g} points"
        return f"asked for is a gain of at least {100 * self.gain:g} points"
