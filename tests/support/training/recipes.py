"""Recipes for tests: a small one, and the command line of the arc24 experiment."""

from __future__ import annotations

from pathlib import Path

from trainers.commands.cli import _recipe, train
from trainers.recipe.schema import Recipe

SMALL = {"model": "tiny", "output_dir": "out", "max_steps": 3, "datasets": [{"spec": "toy/cross"}]}
SHAPES = "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"
EXPERIMENT = (
    f"--grid_encoder {SHAPES} --device_map None --lora_r 32 --max_steps 10 --logging_steps 1 --eval_steps 200 "
    "--batch_size 16 --learning_rate 1e-4 --max_seq_len 4096 --no-resume_from_checkpoint --random_seed 7 --verbose"
).split()


def recipe_from_options(arguments: list[str]) -> Recipe:
    """Return the recipe of a ``bench train`` command line."""
    options = train.make_context("train", arguments).params
    common = {name: options.pop(name) for name in ("recipe_file", "overrides", "progress", "json_file")}
    return _recipe(common["recipe_file"], common["overrides"], options)


def write_recipe(folder: Path, text: str) -> Path:
    """Write a recipe file and return its path."""
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path
