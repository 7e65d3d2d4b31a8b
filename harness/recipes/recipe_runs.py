"""Benched models with what their runs record of their training, and recipes as sets of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import ConfigError, RunError
from harness.recipes.half_splits import HalfScores, half_scores
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import ModelConfig
from harness.runs.schemas.training_record import TrainingRecord
from harness.scoring.matched_runs import SelectedModels
from harness.scoring.model_scores import ModelScores
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_selector import is_file_of_predictions, split_run_name


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A benched model: one training run of a recipe, or a model of which no training is known."""

    scores: ModelScores
    run: Path
    config: ModelConfig
    training: TrainingRecord | None = None
    """What the run records of its training; None if it records nothing."""
    is_base: bool = False
    """Whether the server listed it without a parent, as a base model."""

    @property
    def name(self) -> str:
        """Return the name in tables."""
        return self.scores.model


@dataclass(frozen=True, slots=True)
class RecipeRuns:
    """A recipe with its benched training runs, in order."""

    name: str
    models: tuple[TrainedModel, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the training runs in tables."""
        return tuple(model.name for model in self.models)


def trained_models(names: Sequence[str], selected: SelectedModels) -> list[TrainedModel]:
    """Return the selected models with what their runs record of them.

    Args:
        names: the ``RUN[@MODEL]`` strings of which ``selected`` is the result.

    Raises:
        ConfigError: a model is named twice, or a string names a file of predictions.
    """
    if file := next((name for name in names if is_file_of_predictions(split_run_name(name)[0])), None):
        raise ConfigError(
            f"{file} is a file of predictions, which does not say how its model was trained; recipes are compared by "
            "their runs, and a file with one model: bench compare FILE RUN, bench gate FILE --baseline RUN"
        )
    manifests = {path: RunFolder(path).manifest() for path, _ in map(split_run_name, names)}
    sources = [
        (path, config)
        for path, name in map(split_run_name, names)
        for config in manifests[path].config.models
        if name in (None, config.name)
    ]
    models: list[TrainedModel] = []
    for scores, (path, config) in zip(selected.scored, sources, strict=True):
        if any((path, config.name) == (other.run, other.config.name) for other in models):
            raise ConfigError(f"{path}@{config.name} is named twice, but is one training run")
        served = next((model for model in manifests[path].served if model.name == config.name), None)
        is_base = served is not None and served.parent is None
        models.append(TrainedModel(scores, path, config, None if served is None else served.training, is_base))
    return models


def named_recipe_runs(
    models: Sequence[TrainedModel], recipes: Mapping[str, Sequence[str]], paired: bool = False
) -> list[RecipeRuns]:
    """Return recipes whose training runs the user named.

    Args:
        models: the models that the strings of ``recipes`` name, in their order.
        recipes: by name, the ``RUN[@MODEL]`` strings of its training runs.
        paired: whether the training runs are compared in pairs.

    Raises:
        ConfigError: a recipe has one training run; two runs have the same weights; paired ones differ in number.
    """
    known, grouped = iter(models), []
    for name, runs in recipes.items():
        grouped.append(RecipeRuns(name, tuple(next(known) for _ in runs)))
        refuse_same_weights(grouped[-1].models, name)
        require_several_runs(grouped[-1])
    refuse_same_weights([model for recipe in grouped for model in recipe.models], " or ".join(recipes))
    if paired and len({len(recipe.models) for recipe in grouped}) > 1:
        counts = ", ".join(f"{recipe.name} {len(recipe.models)}" for recipe in grouped)
        raise ConfigError(f"--paired-seeds: the recipes have different numbers of training runs ({counts})")
    return grouped


def require_several_tasks(recipe: RecipeRuns) -> None:
    """Raise RunError if the recipe has one task: its variance over tasks is unknown."""
    if (tasks := len(recipe.models[0].scores.tasks.ids)) < 2:
        raise RunError(
            f"intervals of recipes need at least 2 tasks, and the runs of {recipe.name} have {tasks} in common; look "
            "at single adapters instead (bench compare --per-adapter, bench gate RUN@MODEL)"
        )


def require_several_runs(recipe: RecipeRuns) -> None:
    """Raise ConfigError if a recipe has one training run."""
    if len(recipe.models) < 2:
        raise ConfigError(
            f"recipe {recipe.name} has one training run ({', '.join(recipe.names)}): nothing is known about how "
            "training runs of this recipe differ. Train it with another seed, or compare its adapter as one model, "
            "without --recipe"
        )


def refuse_same_weights(models: Iterable[TrainedModel], recipe: str) -> None:
    """Raise ConfigError if two models of a recipe have the same weights, which are one training run."""
    known: dict[str, str] = {}
    for model in models:
        if model.config.hash is None:
            continue
        if model.config.hash in known:
            raise ConfigError(
                f"{known[model.config.hash]} and {model.name} have the same weights: they are one training run of "
                f"{recipe}, not two; name one of them"
            )
        known[model.config.hash] = model.name


def read_halves(recipes: Sequence[RecipeRuns]) -> Mapping[tuple[Path, str], HalfScores]:
    """Return the scores of both halves of every model's predictions, by (run folder, name of the model there).

    The predictions are read again.
    """
    runs = dict.fromkeys(model.run for recipe in recipes for model in recipe.models)
    halves = {path: half_scores(open_predictions(path)) for path in runs}
    return {(path, name): half for path, by_model in halves.items() for name, half in by_model.items()}
