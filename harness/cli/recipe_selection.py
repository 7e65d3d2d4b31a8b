"""Benched models as recipes: grouped by what their manifests record, or as ``--recipe`` says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from harness.core.errors import ConfigError

if TYPE_CHECKING:
    from harness.recipes.recipe_runs import RecipeRuns, TrainedModel
    from harness.runs.schemas.training_record import TrainingRecord

C = TypeVar("C", bound=Callable[..., object])
_SHOWN_KEYS = 8
OFFER = "name the folders of their training with --training, or group the runs with --recipe NAME=RUN@MODEL,RUN@MODEL"


def recipe_options(command: C) -> C:
    """Add the options that say which models are training runs of one recipe."""
    options = (
        click.option(
            "--recipe",
            "recipes",
            multiple=True,
            metavar="NAME=RUN@MODEL,...",
            help="A recipe and its training runs; repeat it. Default: by the recipes that the runs recorded.",
        ),
        click.option(
            "--training",
            multiple=True,
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Folder of trained adapters, for the recipes of runs that recorded none; repeatable.",
        ),
        click.option(
            "--paired-seeds",
            is_flag=True,
            help="The training runs of the recipes belong together in pairs, by seed, or in the order of --recipe.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class Grouping:
    """Models grouped by recipe."""

    recipes: tuple[RecipeRuns, ...]
    """The recipes that are known, in order of first occurrence."""
    unknown: tuple[TrainedModel, ...] = ()
    """Adapters of which no recipe is known."""
    notes: tuple[str, ...] = ()
    """What the reader should know about the grouping."""

    @property
    def repeated(self) -> list[RecipeRuns]:
        """Return the recipes with several training runs."""
        return [recipe for recipe in self.recipes if len(recipe.models) > 1]


def named_recipes(options: Sequence[str]) -> dict[str, list[str]]:
    """Return the ``RUN@MODEL`` strings of each ``--recipe NAME=RUN@MODEL,…``.

    Raises:
        ConfigError: an option has another form, a name occurs twice, or a string names several models.
    """
    from harness.scoring.run_selector import require_one_model

    recipes: dict[str, list[str]] = {}
    for option in options:
        name, equals, listed = option.partition("=")
        runs = [run.strip() for run in listed.split(",")]
        if not (name.strip() and equals and all(runs)):
            raise ConfigError(f"--recipe {option}: write NAME=RUN@MODEL,RUN@MODEL")
        if name.strip() in recipes:
            raise ConfigError(f"--recipe {name.strip()} is given twice; list all of its training runs in one")
        recipes[name.strip()] = runs
    for run in (run for runs in recipes.values() for run in runs):
        require_one_model(run)
    return recipes


def group_as_named(
    models: Sequence[TrainedModel], recipes: Mapping[str, Sequence[str]], training: Sequence[Path], paired: bool
) -> Grouping:
    """Return the recipes of ``--recipe``.

    Args:
        models: the models that the strings of ``recipes`` name, in their order.
        training: folders of trained adapters.
        paired: whether the training runs are compared in pairs.

    Raises:
        ConfigError: a recipe has one training run; two runs have the same weights; paired ones differ in number.
    """
    from harness.recipes.recipe_runs import named_recipe_runs

    grouped = named_recipe_runs(_with_training(models, training), recipes, paired)
    return Grouping(tuple(grouped), notes=tuple(_mixed_notes(grouped)))


def group_by_manifest(models: Sequence[TrainedModel], training: Sequence[Path], paired: bool) -> Grouping:
    """Return the models grouped by the recipes that their runs or the folders of their training record.

    Raises:
        ConfigError: paired recipes with several training runs have different seeds.
    """
    from harness.recipes.recipe_runs import RecipeRuns

    known = _with_training(models, training)
    groups: dict[str, list[TrainedModel]] = {}
    for model in known:
        if model.training is not None:
            groups.setdefault(_identity_text(model.training), []).append(model)
    unknown = tuple(model for model in known if model.training is None and not model.is_base)
    if repeated := _same_weights(known):
        note = f"models with the same weights are one training run ({repeated}), so that runs are not grouped by recipe"
        return Grouping((), unknown, (note,))
    names = _recipe_names(list(groups.values()))
    recipes = tuple(RecipeRuns(name, tuple(group)) for name, group in zip(names, groups.values(), strict=True))
    if paired:
        recipes = tuple(map(_by_seed, recipes))
        _check_seeds([recipe for recipe in recipes if len(recipe.models) > 1])
    return Grouping(recipes, unknown, tuple(_difference_notes(recipes)))


def _with_training(models: Sequence[TrainedModel], folders: Sequence[Path]) -> list[TrainedModel]:
    """Return the models with the training records of folders, where their runs recorded none.

    Raises:
        ConfigError: a model of which only the name is known could be one of several adapters of that name.
    """
    from harness.core.digests import ADAPTER_FILES, content_hash
    from harness.runs.schemas.training_record import training_record
    from trainers.store.manifest import read_manifest

    if not folders or all(model.training is not None for model in models):
        return list(models)
    records: dict[str, TrainingRecord] = {}
    hashes: dict[str, dict[str, Path]] = {}  # of each name, with a folder that has it
    for path in sorted(path.parent for folder in folders for path in folder.rglob("manifest.json")):
        if not all((path / name).is_file() for name in ADAPTER_FILES) or (manifest := read_manifest(path)) is None:
            continue
        if (record := training_record(manifest.model_dump(mode="json"))) is not None:
            records[content_hash(path)] = record
            hashes.setdefault(path.name, {})[content_hash(path)] = path

    def record_of(model: TrainedModel) -> TrainingRecord | None:
        if model.training is not None or model.config.hash is not None:
            return model.training or records.get(str(model.config.hash))
        # Servers other than ours report no hash: then the folder must have the name of the model.
        candidates = hashes.get(model.config.name, {})
        if len(candidates) > 1:
            listed = " and ".join(map(str, candidates.values()))
            raise ConfigError(
                f"--training: {listed} are different adapters, and the run of {model.name} has only a name; name the "
                "folder of the one that was benched"
            )
        return next((records[digest] for digest in candidates), None)

    return [replace(model, training=record_of(model)) for model in models]


def _identity_text(training: TrainingRecord) -> str:
    from trainers.recipe.identity import recipe_identity

    return json.dumps(recipe_identity(training), sort_keys=True)


def _same_weights(models: Sequence[TrainedModel]) -> str:
    """Return the names of two models with the same weights, as ``a and b``; empty if there are none."""
    names: dict[str, str] = {}
    for model in models:
        if model.config.hash is not None and not model.is_base:
            if model.config.hash in names:
                return f"{names[model.config.hash]} and {model.name}"
            names[model.config.hash] = model.name
    return ""


def _recipe_names(groups: Sequence[Sequence[TrainedModel]]) -> list[str]:
    """Return a name for each recipe: what the names of its adapters begin with, or else ``recipe 1``, ``recipe 2``."""
    names = []
    for k, group in enumerate(groups, 1):
        alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*(m.config.name for m in group), strict=False))
        prefix = "".join(letters[0] for letters in alike)
        if len(group) > 1:
            prefix = re.sub(r"(?:[-_.]+(?:s|seed)?|seed)[-_.]?\d*$", "", prefix)
        names.append(prefix or f"recipe {k}")
    return [name if names.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(names, 1)]


def _by_seed(recipe: RecipeRuns) -> RecipeRuns:
    """Return a recipe with its training runs in the order of their seeds."""
    seeds = {model.name: -1 if model.training is None else model.training.seed for model in recipe.models}
    return replace(recipe, models=tuple(sorted(recipe.models, key=lambda model: seeds[model.name])))


def _check_seeds(recipes: Sequence[RecipeRuns]) -> None:
    """Raise ConfigError unless all recipes were trained with the same seeds, each once."""
    seeds = {r.name: [m.training.seed for m in r.models if m.training is not None] for r in recipes}
    lists = list(seeds.values())
    if any(len(set(each)) < len(each) or each != lists[0] for each in lists):
        texts = "; ".join(f"{name}: {', '.join(map(str, each))}" for name, each in seeds.items())
        raise ConfigError(f"--paired-seeds: the recipes need the same training seeds, each once; they have {texts}")


def _difference_notes(recipes: Sequence[RecipeRuns]) -> list[str]:
    """Say in which keys the recipes differ, and which training runs of one recipe have the same seed."""
    from trainers.recipe.identity import recipe_identity
    from trainers.recipe.schema import changed_keys

    identities = [recipe_identity(r.models[0].training) for r in recipes if r.models[0].training is not None]
    keys = sorted({key for other in identities[1:] for key in changed_keys(identities[0], other)})
    notes = []
    if keys:
        more = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
        notes.append(f"the recipes differ in {', '.join(keys[:_SHOWN_KEYS])}{more}")
    for recipe in recipes:
        seeds = [model.training.seed for model in recipe.models if model.training is not None]
        if len(set(seeds)) < len(seeds):
            notes.append(f"training runs of {recipe.name} have the same seed, so that they may differ too little")
    return notes


def _mixed_notes(recipes: Sequence[RecipeRuns]) -> list[str]:
    """Say which recipes of ``--recipe`` have training runs whose manifests record different recipes."""
    from trainers.recipe.identity import recipe_identity
    from trainers.recipe.schema import changed_keys

    notes = []
    for recipe in recipes:
        identities = [recipe_identity(m.training) for m in recipe.models if m.training is not None]
        if keys := sorted({key for other in identities[1:] for key in changed_keys(identities[0], other)}):
            notes.append(f"training runs of {recipe.name} were trained by recipes that differ in {', '.join(keys)}")
    return notes
