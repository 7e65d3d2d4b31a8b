"""Sweep files: the mixtures to train, how to serve them, and how to bench them, as one typed and checked value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue, ValidationError, model_validator

from harness.core.errors import ConfigError
from harness.core.random_stream import MAX_SEED
from harness.prompts.prompt_template import load_prompt
from harness.runs.schema import SweepRecord, SweepRow
from trainers.recipe.explain import explain_errors
from trainers.recipe.schema import (
    DatasetRecipe,
    Recipe,
    Spec,
    StrictModel,
    expand_home,
    make_recipe,
    normalize_datasets,
)
from trainers.recipe.yaml_file import load_data

ROW_KEYS = ("output_dir", "datasets", "seed")
"""Keys of a recipe that the sweep itself decides."""
WEIGHT_HEADER = "original datasets weight"


class MixtureRow(StrictModel):
    """One row of the table: a mixture that an adapter is trained on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$")]
    """Names its adapter, with ``-s<seed>`` behind it where there are several seeds."""
    datasets: Annotated[list[DatasetRecipe], Field(min_length=1), BeforeValidator(normalize_datasets)]


class ServeOptions(StrictModel):
    """How the server is started; see ``bench serve --help``. None is chosen from the machine and the adapters."""

    dtype: str | None = None
    """``exact`` is float32 where the machine serves adapters in it."""
    max_model_len: Annotated[int, Field(gt=0)] | None = None
    max_loras: Annotated[int, Field(gt=0)] | None = None
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    extra: list[str] = Field(default_factory=list)
    """Further options of vLLM itself."""


class Evaluation(StrictModel):
    """What every adapter is asked, with equal draws; see ``bench run --help``."""

    dataset: Spec
    n: Annotated[int, Field(gt=0)] = 32
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    limit: Annotated[int, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    temperature: Annotated[float, Field(ge=0)] = 0.0
    prompt: str | None = None
    """None: the prompt of the datasets, where all that show the test input have the same."""
    base: bool = False
    """Whether the base model is benched too."""


class Sweep(StrictModel):
    """A sweep: every mixture x every seed is trained, all are served by one server, benched, and set in one table."""

    out: Annotated[Path, BeforeValidator(expand_home)]
    recipe: dict[str, JsonValue]
    """What all adapters share: any key of a recipe except output_dir, datasets and seed."""
    original: Annotated[list[DatasetRecipe], BeforeValidator(normalize_datasets)] = Field(default_factory=list)
    """With ``original_weight``: the datasets that this share of every mixture comes from."""
    added: Annotated[list[DatasetRecipe], BeforeValidator(normalize_datasets)] = Field(default_factory=list)
    """With ``original_weight``: the datasets that the rest comes from."""
    original_weight: list[Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=list)
    mixtures: list[MixtureRow] = Field(default_factory=list)
    """Mixtures written out, instead of ``original_weight``."""
    seeds: Annotated[list[int], Field(min_length=1)] = Field(default_factory=lambda: [0])
    """Training seeds; one says nothing about what another training run would give."""
    processes: Annotated[int, Field(gt=0)] = 1
    """Processes that train one adapter together (torchrun on this machine), e.g. one a GPU."""
    serve: ServeOptions = Field(default_factory=ServeOptions)
    evaluation: Evaluation
    title: str = "Mixture sweep"
    reference: str | None = None
    """A published experiment to set beside it, as in ``bench report --reference``."""

    @model_validator(mode="after")
    def _one_way(self) -> Sweep:
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
            raise ValueError("seeds: one is there twice")
        return self

    def rows(self) -> list[tuple[str, list[DatasetRecipe]]]:
        """The mixtures in the order of the table, each with the name of its adapter."""
        if self.mixtures:
            return [(row.name, list(row.datasets)) for row in self.mixtures]
        return [
            (_weight_name(weight), [*_scaled(self.original, weight), *_scaled(self.added, 1 - weight)])
            for weight in self.original_weight
        ]

    def record(self) -> SweepRecord:
        """What the report is to know."""
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
        """The name of an adapter on the server."""
        return row if len(self.seeds) == 1 else f"{row}-s{seed}"

    @property
    def encoder(self) -> str:
        """The grid encoder that all adapters are trained and benched with."""
        return next(self.trainings()).recipe.encoder

    def inference_prompt(self) -> str:
        """Return the prompt under which all adapters are benched, so that rows compare.

        Raises:
            ConfigError: the recipe is wrong, or the adapters are trained with several prompts and none is chosen.
            SpecError: a prompt is not known.
        """
        recipes = [lesson.recipe for lesson in self.trainings()]
        trained = list(dict.fromkeys(part.prompt or recipe.prompt for recipe in recipes for part in recipe.datasets))
        shown = [name for name in trained if load_prompt(name).shows_test_input]
        if self.evaluation.prompt is None and len(shown) != 1:
            several = f"several prompts ({', '.join(shown)})" if shown else "no prompt that shows the test input"
            raise ConfigError(f"the adapters are trained with {several}; say with evaluation.prompt which one asks all")
        chosen = self.evaluation.prompt or shown[0]
        if not load_prompt(chosen).shows_test_input:
            raise ConfigError(f"evaluation.prompt {chosen} never shows the test input; it is for training only")
        return chosen

    def trainings(self) -> Iterator[AdapterTraining]:
        """Every adapter to be trained.

        Raises:
            ConfigError: the recipe is wrong.
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
    """One adapter to be trained: its name, its recipe as plain values and as checked."""

    name: str
    data: dict[str, Any]
    recipe: Recipe


def _weight_name(weight: float) -> str:
    return f"w{100 * weight:g}".replace(".", "_")


def _scaled(datasets: Sequence[DatasetRecipe], share: float) -> list[DatasetRecipe]:
    """Datasets with weights that add up to ``share``, in the proportions of their own (equal where they have none)."""
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
    try:
        sweep = Sweep.model_validate(load_data(path, overrides, {} if out is None else {"out": str(out)}))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain_errors(error, Sweep)}") from None
    sweep.inference_prompt()
    return sweep
