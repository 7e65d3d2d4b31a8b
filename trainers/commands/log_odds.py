"""Whether rounding explains how far the log-odds of a server in 16 bits are from those of PEFT in float32; pure.

The largest difference says little: 0.43 nats with the right adapter, at a token of which it was unsure,
and 0.01 with that of ten training steps before. Rounding is an error of logits, which log-odds, log(p / (1 - p)), show
as it is whatever p. How much a model suffers from it is computed for each: PEFT in the server's dtype against PEFT in
float32, on the same tokens. The server's mean difference, as a multiple of that:

    on the server                                                        bfloat16      float16
    the right adapter, tiny base (5 adapters, 15 sets of 8 samples)      0.17-0.43     0.15-0.38
    the right adapter, random models (9 of 2 sizes; up to 87 M)          0.6-1.3       0.2-0.94
    another seed or mixture, or the base (75 sets)                       4.0 and up    32 and up
    alpha doubled; all layers' q, or the first layer, left out (18)      2.4 and up    20 and up
    ten steps before the end, alpha + 10 %, one module left out (27)     1.1-3.4       7.4 and up

The bound is twice; of the last line it tells 15 of 27 in bfloat16, and all in float16 and float32. Measured on a CPU;
on a GPU the kernels are others, and nothing was measured there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_ROUNDING = 2.0
"""How many times the mean rounding through PEFT the server may be off on average."""
_OUTLIER = 3.0
"""How many times the largest rounding of a token through PEFT the server may be off at any token."""
_APART = 4.0
"""How many times the mean rounding base and adapter must differ in 16 bits, else the check could not fail."""
LEAST_ROUNDING = {"bfloat16": 4 * 2.0**-8, "float16": 4 * 2.0**-11}
"""Of logits of size 4: for models whose rounding through PEFT happens to be next to nothing."""
_LEAST_DOUBT = 1e-5
"""Added to 1 - p: below it float32 cannot tell probabilities from 1."""
LogProbs = list[list[float]]
"""By sample: the log-probability of each answer token."""


@dataclass(frozen=True)
class OddsDifferences:
    """Differences of tokens' log-odds, for a server in 16 bits."""

    mean: float
    """PEFT in float32 against the server, both with the adapter."""
    largest: float
    rounding: float
    """The mean between PEFT in float32 and PEFT in the server's dtype."""
    largest_rounding: float
    control: float
    """The mean between base and adapter, both through PEFT in float32."""

    @property
    def within_bounds(self) -> bool:
        """Whether rounding explains the server's answers, and would not explain those of the base."""
        alike = self.mean <= _ROUNDING * self.rounding and self.largest <= _OUTLIER * self.largest_rounding
        return alike and self.control > _APART * self.rounding

    def as_text(self) -> str:
        """All figures with their bounds."""
        return (
            f"mean difference of log-odds {self.mean:.3f} (at most {_ROUNDING * self.rounding:.3f}), "
            f"largest {self.largest:.2f} (at most {_OUTLIER * self.largest_rounding:.2f}), "
            f"control (base against adapter) {self.control:.2f} (above {_APART * self.rounding:.2f})"
        )


def compare_odds(
    adapted: LogProbs, served: LogProbs, rounded: LogProbs, plain: LogProbs, least: float
) -> OddsDifferences:
    """Compare log-odds with those of ``adapted``; ``least`` is the least rounding that is taken for granted."""

    def apart(other: LogProbs) -> tuple[float, float]:
        found = [abs(_log_odds(x) - _log_odds(y)) for x, y in token_pairs(adapted, other)]
        if not all(map(math.isfinite, found)):
            return math.inf, math.inf
        return sum(found) / len(found), max(found)

    (mean, largest), (rounding, largest_rounding) = apart(served), apart(rounded)
    return OddsDifferences(mean, largest, max(rounding, least), max(largest_rounding, least), apart(plain)[0])


def _log_odds(log: float) -> float:
    return log - math.log(-math.expm1(min(log, 0.0)) + _LEAST_DOUBT) if math.isfinite(log) else math.nan


def token_pairs(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Token by token; both must have the same samples."""
    return [pair for a, b in zip(one, other, strict=True) for pair in zip(a, b, strict=True)]
