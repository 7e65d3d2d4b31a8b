"""Sweep files: the mixtures to train, and how to serve and bench the adapters; typed and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError, model_validator

from harness.core.errors import ConfigError
from harness.core.random_stream import MAX_SEED
from harness.prompts.prompt_template import load_prompt
from harness.runs.schema import SweepRecord, SweepRow
from trainers.recipe.explain import InvalidValuesError, find_problems
from trainers.recipe.extended_file import naming_files
from trainers.recipe.parts import DatasetList, DatasetRecipe, FilledDatasetList, Folder, Spec, StrictModel
from trainers.recipe.schema import Recipe, make_recipe
from trainers.recipe.yaml_file import load_data

ROW_KEYS = ("output_dir", "datasets", "seed")
"""Keys of a recipe that the sweep sets itself."""
WEIGHT_HEADER = "original datasets weight"


class MixtureRow(StrictModel):
    """One row of the table: a mixture, and the name of the adapter that is trained on it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$")]
    """The adapter's name; with several seeds ``-s<seed>`` is appended."""
    datasets: FilledDatasetList


class ServeOptions(StrictModel):
    """Options of ``bench serve``; those that are None are chosen from the machine and the adapters."""

    dtype: str | None = None
    """``exact`` means float32, on machines that serve adapters in it."""
    max_model_len: Annotated[int, Field(gt=0)] | None = None
    max_loras: Annotated[int, Field(gt=0)] | None = None
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    extra: list[str] = Field(default_factory=list)
    """Options that are passed to vLLM."""


class Evaluation(StrictModel):
    """How every adapter is benched: options of ``bench run``, the same for all adapters."""

    dataset: Spec
    n: Annotated[int, Field(gt=0)] = 32
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    limit: Annotated[int, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    temperature: Annotated[float, Field(ge=0)] = 0.0
    prompt: str | None = None
    """None: the prompt of the datasets, if all that show the test input have the same."""
    base: bool = False
    """Whether to bench the base model too."""


class Sweep(StrictModel):
    """A sweep: an adapter per mixture and seed is trained; all are served by one server, benched, and compared."""

    out: Folder
    """Folder of the sweep."""
    recipe: dict[str, JsonValue]
    """The recipe that all adapters share, without output_dir, datasets and seed."""
    original: DatasetList = Field(default_factory=list)
    """The datasets of which ``original_weight`` gives the share in each mixture."""
    added: DatasetList = Field(default_factory=list)
    """The datasets that make up the rest of each mixture."""
    original_weight: list[Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=list)
    """The share of ``original`` in each mixture, one mixture per value."""
    mixtures: list[MixtureRow] = Field(default_factory=list)
    """Explicit mixtures, instead of ``original_weight``."""
    seeds: Annotated[list[int], Field(min_length=1)] = Field(default_factory=lambda: [0])
    """Training seeds; with one seed the variation between training runs is unknown."""
    processes: Annotated[int, Field(gt=0)] = 1
    """Processes that train one adapter together (torchrun on this machine), e.g. one per GPU."""
    serve: ServeOptions = Field(default_factory=ServeOptions)
    evaluation: Evaluation
    title: str = "Mixture sweep"
    reference: str | None = None
    """A published experiment to show beside the results, as by ``bench report --reference``."""

    @model_validator(mode="after")
    def _check_consistency(self) -> Sweep:
        """Check that the mixtures are given in one way, completely, and under distinct names."""
        if bool(self.mixtures) == bool(self.original_weight):
            raise ValueError("give either mixtures, or original_weight with original and added")
        if self.original_weight and any(w > 0 for w in self.original_weight) and not self.original:
            raise ValueError("original: which datasets does original_weight speak of?")
        if self.original_weight and any(w < 1 for w in self.original_weight) and not self.added:
            raise ValueError("added: a weight below 1 needs the datasets that the rest comes from")
        if decided := [key for key in ROW_KEYS if key in self.recipe]:
            raise ValueError(f"recipe must not set {', '.join(decided)}; the sweep does")
        names = [name for name, _ in self.rows()]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two mixtures are named {', '.join(repeated)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one occurs twice")
        return self

    def rows(self) -> list[tuple[str, list[DatasetRecipe]]]:
        """Return the mixtures in the order of the table, each with the name of its row."""
        if self.mixtures:
            return [(row.name, list(row.datasets)) for row in self.mixtures]
        return [
            (_weight_name(weight), [*_scaled(self.original, weight), *_scaled(self.added, 1 - weight)])
            for weight in self.original_weight
        ]

    def record(self) -> SweepRecord:
        """Return the table's rows and their adapters, for the report."""
        if self.mixtures:
            header, labels = "mixture", [row.name for row in self.mixtures]
        else:
            header, labels = WEIGHT_HEADER, [f"{100 * weight:g} %" for weight in self.original_weight]
        rows = [
            SweepRow(label=label, models=[self.adapter_name(name, seed) for seed in self.seeds])
            for label, (name, _) in zip(labels, self.rows(), strict=True)
        ]
        return SweepRecord(header=header, rows=rows, seeds=self.seeds)

    def adapter_name(self, row: str, seed: int) -> str:
        """Return the name under which an adapter is served."""
        return row if len(self.seeds) == 1 else f"{row}-s{seed}"

    @property
    def encoder(self) -> str:
        """The grid encoder that all adapters are trained and benched with."""
        return next(self.trainings()).recipe.encoder

    def inference_prompt(self) -> str:
        """Return the prompt with which all adapters are benched.

        Raises:
            ConfigError: the recipe is invalid, or the adapters are trained with several prompts and none is chosen.
            SpecError: a prompt is unknown.
        """
        recipes = [training.recipe for training in self.trainings()]
        trained = list(dict.fromkeys(part.prompt or recipe.prompt for recipe in recipes for part in recipe.datasets))
        shown = [name for name in trained if load_prompt(name).shows_test_input]
        if self.evaluation.prompt is None and len(shown) != 1:
            several = f"several prompts ({', '.join(shown)})" if shown else "no prompt that shows the test input"
            raise ConfigError(f"the adapters are trained with {several}; say with evaluation.prompt which one asks all")
        chosen = self.evaluation.prompt or shown[0]
        if not load_prompt(chosen).shows_test_input:
            raise ConfigError(f"evaluation.prompt {chosen} never shows the test input; it is for training only")
        return chosen

    def run_options(self) -> list[str]:
        """Return the options of ``bench run`` that are the same for all models."""
        evaluation = self.evaluation
        words = ["--dataset", evaluation.dataset, "-n", str(evaluation.n), "--seed", str(evaluation.seed)]
        words += ["--temperature", f"{evaluation.temperature:g}"]
        words += ["--prompt", self.inference_prompt(), "--grid-encoder", self.encoder]
        words += ["--limit", str(evaluation.limit)] if evaluation.limit else []
        words += ["--max-tokens", str(evaluation.max_tokens)] if evaluation.max_tokens else []
        return words

    def trainings(self) -> Iterator[AdapterTraining]:
        """Yield every adapter to train.

        Raises:
            ConfigError: the recipe is invalid.
        """
        for name, datasets in self.rows():
            for seed in self.seeds:
                adapter = self.adapter_name(name, seed)
                mixture = [part.model_dump(exclude_defaults=True) for part in datasets]
                data: dict[str, Any] = {
                    **self.recipe, "output_dir": str(self.out / "trained" / adapter), "datasets": mixture, "seed": seed
                }  # fmt: skip
                yield AdapterTraining(adapter, data, make_recipe(data, f"recipe of {adapter}"))


@dataclass(frozen=True)
class AdapterTraining:
    """One adapter to train, with its recipe as plain values (``data``) and validated (``recipe``)."""

    name: str
    data: dict[str, Any]
    recipe: Recipe


def _weight_name(weight: float) -> str:
    return f"w{100 * weight:g}".replace(".", "_")


def _scaled(datasets: Sequence[DatasetRecipe], share: float) -> list[DatasetRecipe]:
    """Return the datasets with their weights scaled to add up to ``share``; a missing weight counts as 1."""
    if share == 0:
        return []
    total = sum(part.weight or 1.0 for part in datasets)
    return [part.model_copy(update={"weight": share * (part.weight or 1.0) / total}) for part in datasets]


def load_sweep(path: Path, overrides: Sequence[str] = (), out: Path | None = None) -> Sweep:
    """Read and check the sweep of a YAML file.

    Args:
        overrides: ``KEY=VALUE`` with dotted keys, as for recipes.
        out: replaces the file's ``out``.

    Raises:
        ConfigError: unreadable YAML, an unknown key or a wrong value, also in one of the recipes.
    """
    given = {} if out is None else {"out": str(out)}
    with naming_files(path, [*given, *overrides]):
        try:
            sweep = Sweep.model_validate(load_data(path, overrides, given))
        except ValidationError as error:
            raise InvalidValuesError(str(path), find_problems(error, Sweep)) from None
    with naming_files(path, overrides, lambda location: ("recipe", *location)):
        sweep.inference_prompt()
    return sweep
