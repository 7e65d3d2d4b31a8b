"""Decide whether training runs have the same recipe: equal in all that decides the result but the seed."""

from __future__ import annotations

import re

from pydantic import ValidationError

from harness.runs.schemas.training_record import TrainingRecord
from trainers.recipe.schema import CHANGEABLE_KEYS, MICRO_BATCH_KEYS, Recipe, RecipeData, flatten

_NOT_DECIDING = CHANGEABLE_KEYS | MICRO_BATCH_KEYS | {"seed", "threads", "serveable", "max_lora_rank"}
"""Keys that do not change which results a training run may have. Micro-batches and threads change rounding and which
dropout masks are drawn, as another seed does."""
_NAMED_BY_DIGEST = re.compile(
    r"model|prompt|chat_template|template_date|datasets\.\d+\.(spec|prompt)|validation\.(spec|prompt)"
)
"""Keys that name what a digest identifies: the same data at another path is the same recipe."""


def recipe_identity(training: TrainingRecord) -> RecipeData:
    """Return all that decides the result of a training run but its seed, flat (``lora.rank``).

    Two training runs with equal identities are training runs of one recipe. Keys that an older version did not record
    have their defaults. An adapter from which training continued is compared by its path.
    """
    try:
        recipe: RecipeData = Recipe.model_validate(training.recipe).model_dump(mode="json")
    except ValidationError:  # of another version of the schema
        recipe = dict(training.recipe)
    flat = flatten({key: value for key, value in recipe.items() if key not in _NOT_DECIDING})
    named = {key: value for key, value in flat.items() if not _NAMED_BY_DIGEST.fullmatch(key)}
    return {**named, **{f"{name} (content)": digest for name, digest in training.digests.items()}}
