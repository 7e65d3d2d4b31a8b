"""Find the best validation so far, which decides early stopping and which weights are saved.

The result depends only on the validations up to a step. A checkpoint stores those before it, so that a resumed run
decides the same as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainers.recipe.parts import ValidationRecipe

Line = Mapping[str, Any]


@dataclass(frozen=True)
class BestValidation:
    """The best among some validations."""

    step: int
    """Training step after which it was made."""
    value: float
    """Its loss, or its share of exact grids."""
    validations_since: int
    """Number of later validations, none of which was better."""


def find_best_validation(
    history: Iterable[Line], part: ValidationRecipe, until: float = float("inf")
) -> BestValidation | None:
    """Return the best validation up to a step; None if there is none. Among equal values the first is the best.

    Args:
        history: lines of a log; those with ``eval_loss`` or ``eval_exact`` are validations.
        until: the last step to consider.
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
    """Return whether training must stop early: the last ``patience`` validations were not better than the best."""
    return best is not None and part.patience is not None and best.validations_since >= part.patience
