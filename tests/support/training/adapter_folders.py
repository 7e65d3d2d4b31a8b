"""Folders as the trainer leaves them, with a manifest and weights that nobody trained."""

from __future__ import annotations

from pathlib import Path

from harness.runs.environment import describe_environment
from tests.support.training.recipes import SMALL
from trainers.recipe.schema import make_recipe
from trainers.store.manifest import AdapterManifest, BaseModelRecord, DatasetRecord, Losses, write_manifest


def write_adapter_folder(folder: Path, seed: int, weights: bytes) -> Path:
    """Write a folder of a trained adapter of a small recipe, and return it."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(weights)
    zeros = dict.fromkeys(("drawn", "too_long", "no_output", "dropped_pairs", "tokens", "answer_tokens"), 0)
    dataset = DatasetRecord(
        spec="toy/cross", prompt="p", prompt_digest="p", digest="d", ids=1, declared_share=1, share=1, **zeros
    )
    recipe = make_recipe({**SMALL, "seed": seed}).model_dump(mode="json")
    manifest = AdapterManifest(
        kind="adapter", recipe=recipe, base=BaseModelRecord(name="tiny", digest="b"), prompt="p", prompt_digest="p",
        encoder="e", datasets=[dataset], seed=seed, steps=1, kept_step=1, ended="max_steps", tokens=1, answer_tokens=1,
        padding=0, seconds=1, losses=Losses(first=1, last=1, mean_of_last_10=1, validation={}), weights_sha256="w",
        serveable=True, environment=describe_environment(), finished="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    write_manifest(folder, manifest)
    return folder
