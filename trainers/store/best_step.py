"""Which validation was the best so far: what early stopping and the choice of the result go by.

A pure function of the validations up to a step. A checkpoint holds those of its own past, so that a run that was killed
and goes on decides as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainers.recipe.schema import ValidationRecipe

Line = Mapping[str, Any]


@dataclass(frozen=True)
class BestValidation:
    """The best of some validations."""

    step: int
    """After which it was made."""
    value: float
    validations_since: int
    """Validations after it, none of them better."""


def find_best_validation(
    history: Iterable[Line], part: ValidationRecipe, until: float = float("inf")
) -> BestValidation | None:
    """The best validation among lines of a log (those with ``eval_loss``), up to a step; None where there is none.

    Of equal values the first is the best.
    """
    sign, key = (-1 if part.by == "exact" else 1), f"eval_{part.by}"
    best: BestValidation | None = None
    for line in history:
        if key not in line or line["step"] > until:
            continue
        if best is None or sign * line[key] < sign * best.value:
            best = BestValidation(line["step"], line[key], 0)
        else:
            best = BestValidation(best.step, best.value, best.validations_since + 1)
    return best


def patience_exhausted(best: BestValidation | None, part: ValidationRecipe) -> bool:
    """Whether patience is at its end."""
    return best is not None and part.patience is not None and best.validations_since >= part.patience
