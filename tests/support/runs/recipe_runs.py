"""Write runs whose manifests record the training of their models, and scores of training runs that differ."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import ServedModel
from harness.runs.schemas.training_record import TrainingRecord
from tests.support.runs.run_folders import write_run
from tests.support.training.recipes import SMALL
from trainers.recipe.schema import make_recipe

SKILL = {
    "a-s0": 0.62, "a-s1": 0.6, "a-s2": 0.64,
    "b-s0": 0.33, "b-s1": 0.35, "b-s2": 0.31,
}  # fmt: skip
"""Probabilities of exact predictions of three training runs of two recipes."""


def training_of(seed: int, data: str = "d1", **keys: object) -> TrainingRecord:
    """Return the training record of a small recipe.

    Args:
        data: the digest of its dataset.
        keys: other values of the recipe.
    """
    recipe = make_recipe({**SMALL, "seed": seed, **keys}).model_dump(mode="json")
    digests = {"base": "b", "datasets.0": data, "datasets.0.prompt": "p", "chat_template_digest": "c"}
    return TrainingRecord(recipe=recipe, seed=seed, digests=digests)


def record_training(
    run: Path, training: dict[str, TrainingRecord | None], hashes: dict[str, str] | None = None
) -> None:
    """Write the training records and weight hashes of a run's models into its manifest."""
    folder = RunFolder(run)
    manifest = folder.manifest()
    known = {name: hashlib.sha256(f"{run}{name}".encode()).hexdigest() for name in training} | (hashes or {})
    models = [m.model_copy(update={"hash": known.get(m.name)}) for m in manifest.config.models]
    served = [
        ServedModel(name=name, parent="tiny", hash=known[name], training=record) for name, record in training.items()
    ]
    config = manifest.config.model_copy(update={"models": models})
    folder.write_manifest(manifest.model_copy(update={"config": config, "served": served}))


def write_recipe_runs(
    parent: Path, spec: str, skill: dict[str, float] | None = None, n: int = 4, rate_of: Sequence[str] = ("b",)
) -> list[Path]:
    """Write a run for each model ``RECIPE-sSEED``, with its training record; return the folders in order.

    Args:
        rate_of: the recipes with another learning rate than the others.
    """
    runs = []
    for name, share in (skill or SKILL).items():
        recipe, seed = name.split("-s")
        run = write_run(parent, name, spec, {name: share}, n)
        keys = {"learning_rate": 3e-4} if recipe in rate_of else {}
        record_training(run, {name: training_of(int(seed), output_dir=f"out/{name}", **keys)})
        runs.append(run)
    return runs
