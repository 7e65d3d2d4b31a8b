"""Decide whether rounding explains how far a 16-bit server's log-odds are from PEFT's in float32. Pure functions.

The largest difference of log-probabilities is no criterion: it was 0.43 nats with the right adapter, at a token of
which the model was unsure, and 0.01 with the adapter of ten training steps earlier. Rounding is an error of logits,
which appears unchanged in log-odds, log(p / (1 - p)), at any p. How strongly a model rounds is measured for each: PEFT
in the server's dtype against PEFT in float32, on the same tokens. The server's mean difference, as a multiple of that:

    on the server                                                        bfloat16      float16
    the right adapter, tiny base (5 adapters, 15 sets of 8 samples)      0.17-0.43     0.15-0.38
    the right adapter, random models (9 of 2 sizes; up to 87 M)          0.6-1.3       0.2-0.94
    another seed or mixture, or the base (75 sets)                       4.0 and up    32 and up
    alpha doubled; all layers' q, or the first layer, left out (18)      2.4 and up    20 and up
    ten steps before the end, alpha + 10 %, one module left out (27)     1.1-3.4       7.4 and up

The bound is 2. Of the last row it detects 15 of 27 in bfloat16, and all in float16 and float32. Measured on a CPU; GPUs
use other kernels, and nothing was measured there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_ROUNDING = 2.0
"""Bound of the server's mean difference, as a multiple of PEFT's mean rounding."""
_OUTLIER = 3.0
"""Bound of the server's difference at any token, as a multiple of PEFT's largest rounding."""
_CONTROL = 4.0
"""Base and adapter must differ by this multiple of PEFT's mean rounding, else the check could not fail."""
LEAST_ROUNDING = {"bfloat16": 4 * 2.0**-8, "float16": 4 * 2.0**-11}
"""Smallest rounding to assume for each dtype (of logits of size 4); some models happen to round almost nothing."""
_EPSILON = 1e-5
"""Added to 1 - p, since float32 cannot distinguish probabilities closer to 1."""
LogProbs = list[list[float]]
"""Log-probability of each answer token, by sample."""


@dataclass(frozen=True)
class OddsDifferences:
    """Absolute differences of tokens' log-odds, from which parity with a 16-bit server is decided."""

    mean: float
    """Mean between PEFT in float32 and the server, both with the adapter."""
    largest: float
    """Largest of the same differences."""
    rounding: float
    """Mean between PEFT in float32 and PEFT in the server's dtype."""
    largest_rounding: float
    """Largest of the same differences."""
    control: float
    """Mean between base and adapter, both through PEFT in float32."""

    @property
    def within_bounds(self) -> bool:
        """Return whether rounding explains how far the server is from PEFT, but not how far the base model is."""
        alike = self.mean <= _ROUNDING * self.rounding and self.largest <= _OUTLIER * self.largest_rounding
        return alike and self.control > _CONTROL * self.rounding

    def as_text(self) -> str:
        """Return one line with all values and their bounds."""
        return (
            f"mean difference of log-odds {self.mean:.3f} (at most {_ROUNDING * self.rounding:.3f}), "
            f"largest {self.largest:.2f} (at most {_OUTLIER * self.largest_rounding:.2f}), "
            f"control (base against adapter) {self.control:.2f} (above {_CONTROL * self.rounding:.2f})"
        )


def compare_odds(
    adapted: LogProbs, served: LogProbs, rounded: LogProbs, plain: LogProbs, least: float
) -> OddsDifferences:
    """Compare log-odds with those of ``adapted`` (PEFT in float32 with the adapter).

    Args:
        served: from the server.
        rounded: PEFT in the server's dtype.
        plain: PEFT in float32 without the adapter.
        least: smallest rounding to assume.
    """

    def distances(other: LogProbs) -> tuple[float, float]:
        differences = [abs(_log_odds(x) - _log_odds(y)) for x, y in token_pairs(adapted, other)]
        if not all(map(math.isfinite, differences)):
            return math.inf, math.inf
        return sum(differences) / len(differences), max(differences)

    (mean, largest), (rounding, largest_rounding) = distances(served), distances(rounded)
    return OddsDifferences(mean, largest, max(rounding, least), max(largest_rounding, least), distances(plain)[0])


def _log_odds(log: float) -> float:
    return log - math.log(-math.expm1(min(log, 0.0)) + _EPSILON) if math.isfinite(log) else math.nan


def token_pairs(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Return the pairs of values token by token; both arguments must have the same samples."""
    return [pair for a, b in zip(one, other, strict=True) for pair in zip(a, b, strict=True)]
