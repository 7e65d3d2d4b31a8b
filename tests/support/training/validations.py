"""Validation settings and logs for tests."""

from __future__ import annotations

from trainers.recipe.parts import ValidationRecipe


def validation_recipe(by: str = "loss", patience: int | None = 2) -> ValidationRecipe:
    """Return validation settings."""
    values = {"spec": "toy/cross", "by": by, "patience": patience, "exact_tasks": 1}
    return ValidationRecipe.model_validate(values)


def validation_log(values: list[float], key: str = "eval_loss") -> list[dict[str, float]]:
    """Return the lines of a log with one training step before each validation."""
    return [
        line for k, v in enumerate(values) for line in ({"step": 2 * k + 1, "loss": v}, {"step": 2 * k + 2, key: v})
    ]
