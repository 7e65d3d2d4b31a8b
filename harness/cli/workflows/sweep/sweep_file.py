"""Sweep files: the cells to train, and how to serve and bench the adapters; typed and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, PrivateAttr, ValidationError, model_validator

from harness.cli.workflows.sweep.sweep_cells import (
    WEIGHT_KEY,
    Cell,
    Mixture,
    check_axes,
    check_keys,
    checked_weight,
    expand_cells,
)
from harness.cli.workflows.sweep.sweep_names import adapter_name
from harness.cli.workflows.sweep.sweep_parts import (
    AdapterTraining,
    Evaluation,
    MixtureRow,
    ServeOptions,
    mixture_of_weight,
)
from harness.core.errors import ConfigError
from harness.prompts.prompt_template import load_prompt
from harness.runs.schemas.manifest_schema import SourceFileRecord
from harness.runs.schemas.sweep_record import SweepRecord, SweepRow
from trainers.recipe.explain import InvalidValuesError, Location, find_problems
from trainers.recipe.files.extended_file import naming_files, read_extended
from trainers.recipe.files.yaml_file import load_data
from trainers.recipe.parts import DatasetList, Folder, StrictModel
from trainers.recipe.schema import make_recipe

ROW_KEYS = ("output_dir", "datasets", "seed")
"""Keys of a recipe that the sweep sets itself."""
WEIGHT_HEADER = "original datasets weight"


class Sweep(StrictModel):
    """A sweep: an adapter per row and seed is trained; all are served by one server, benched, and compared."""

    out: Folder
    """Folder of the sweep."""
    recipe: dict[str, JsonValue]
    """What the recipes of all adapters share, without output_dir and seed; datasets only beside axes or cells."""
    original: DatasetList = Field(default_factory=list)
    """The datasets of which ``original_weight`` gives the share in each mixture."""
    added: DatasetList = Field(default_factory=list)
    """The datasets that make up the rest of each mixture."""
    original_weight: list[Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=list)
    """The share of ``original`` in each mixture, one mixture per value."""
    mixtures: list[MixtureRow] = Field(default_factory=list)
    """Explicit mixtures, instead of ``original_weight``."""
    axes: dict[str, Annotated[list[JsonValue], Field(min_length=1)]] = Field(default_factory=dict)
    """Values by dotted recipe key or ``original_weight``: every combination is trained, with every mixture."""
    cells: list[dict[str, JsonValue]] = Field(default_factory=list)
    """Listed combinations instead of ``axes``: keys with one value each, and an optional ``name``."""
    seeds: Annotated[list[int], Field(min_length=1)] = Field(default_factory=lambda: [0])
    """Training seeds; with one seed the variation between training runs is unknown."""
    paired_seeds: bool = False
    """Whether training runs of two mixtures with the same seed are pairs; equal seeds alone do not make them pairs."""
    processes: Annotated[int, Field(gt=0)] = 1
    """Processes that train one adapter together (torchrun on this machine), e.g. one per GPU."""
    serve: ServeOptions = Field(default_factory=ServeOptions)
    """Options of the server."""
    evaluation: Evaluation
    """How all adapters are benched."""
    title: str = "Mixture sweep"
    """Title of the report."""
    reference: str | None = None
    """A published experiment to show beside the results, as by ``bench report --reference``."""
    _files: list[SourceFileRecord] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _check_consistency(self) -> Sweep:
        """Check that the mixtures are given in one way, completely, and under distinct names."""
        self._check_mixtures()
        if self.axes and self.cells:
            raise ValueError("give either axes (every combination) or cells (listed combinations), not both")
        check_axes(self.axes)
        keys = {"axes": list(self.axes)} | {f"cells.{i}": list(cell) for i, cell in enumerate(self.cells)}
        for where, varied in keys.items():
            check_keys(where, varied, not self._recipe_has_datasets)
        names = [cell.name for cell in self.table_rows()]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            rows = "cells" if self.axes or self.cells else "mixtures"
            raise ValueError(f"two {rows} are named {', '.join(repeated)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one occurs twice")
        return self

    def _check_mixtures(self) -> None:
        """Check that the datasets of every row are given in exactly one way.

        Raises:
            ValueError: they are not.
        """
        varied = self._varied_weights()
        weights = [*self.original_weight, *varied]
        ways = [bool(self.mixtures), bool(self.original_weight), bool(varied)]
        if sum(ways) > 1 or not (any(ways) or self._recipe_has_datasets):
            others = "; beside axes or cells, recipe.datasets does too" if self.axes or self.cells else ""
            raise ValueError(f"give either mixtures, or original_weight with original and added{others}")
        if varied and len(varied) < len(self.cells):
            raise ValueError("cells: original_weight is given in some; give it in every one")
        if any(w > 0 for w in weights) and not self.original:
            raise ValueError("original: which datasets does original_weight speak of?")
        if any(w < 1 for w in weights) and not self.added:
            raise ValueError("added: a weight below 1 needs the datasets that the rest comes from")
        allowed = {"datasets"} if (self.axes or self.cells) and not any(ways) else set()
        if decided := [key for key in ROW_KEYS if key in self.recipe and key not in allowed]:
            raise ValueError(f"recipe must not set {', '.join(decided)}; the sweep does")

    @property
    def _recipe_has_datasets(self) -> bool:
        """Whether the datasets of all rows are those of the recipe, which only axes or cells allow."""
        return bool(self.axes or self.cells) and "datasets" in self.recipe

    def _varied_weights(self) -> list[float]:
        """Return the values of ``original_weight`` in axes and cells."""
        listed = [cell[WEIGHT_KEY] for cell in self.cells if WEIGHT_KEY in cell]
        return [checked_weight(value) for value in (*self.axes.get(WEIGHT_KEY, ()), *listed)]

    def rows(self) -> list[Mixture]:
        """Return the mixtures that every combination of settings is trained on."""
        explicit = [Mixture(row.name, row.name, tuple(row.datasets)) for row in self.mixtures]
        return explicit or [self._mixture_of_weight(weight) for weight in self.original_weight]

    def _mixture_of_weight(self, weight: float) -> Mixture:
        """Return the mixture in which the original datasets have a share."""
        return mixture_of_weight(self.original, self.added, weight)

    def table_rows(self) -> list[Cell]:
        """Return the rows of the table, in its order."""
        return expand_cells(self.rows(), self.axes, self.cells, self._mixture_of_weight)

    def record(self) -> SweepRecord:
        """Return the table's rows and their adapters, for the report."""
        header = ["mixture"] if self.mixtures else [WEIGHT_HEADER] if self.original_weight else []
        header += ["settings"] if self.cells else [WEIGHT_HEADER if key == WEIGHT_KEY else key for key in self.axes]
        rows = [
            SweepRow(label=cell.label, models=[self.adapter_name(cell.name, seed) for seed in self.seeds])
            for cell in self.table_rows()
        ]
        return SweepRecord(
            header=", ".join(header),
            rows=rows,
            seeds=self.seeds,
            paired_seeds=self.paired_seeds or None,
            files=self._files or None,
        )

    def adapter_name(self, row: str, seed: int) -> str:
        """Return the name under which the adapter of a row and a seed is served."""
        return adapter_name(self.out, row, seed, len(self.seeds) > 1, {cell.name for cell in self.table_rows()})

    def file_location(self, location: Location) -> Location:
        """Return the keys under which the sweep file has a value of an adapter's recipe."""
        key = ".".join(map(str, location))
        for varied in self.axes:
            if f"{key}.".startswith(f"{varied}."):
                return ("axes", varied)
        return ("cells",) if any(key in cell for cell in self.cells) else ("recipe", *location)

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
        for cell in self.table_rows():
            # The order of keys is part of the files that are written.
            settings = load_data(None, (), {**self.recipe, **cell.settings}) if cell.settings else self.recipe
            for seed in self.seeds:
                adapter = self.adapter_name(cell.name, seed)
                data: dict[str, Any] = {**settings, "output_dir": str(self.out / "trained" / adapter)}
                if cell.datasets is not None:
                    data["datasets"] = [part.model_dump(exclude_defaults=True) for part in cell.datasets]
                data["seed"] = seed
                yield AdapterTraining(adapter, data, make_recipe(data, f"recipe of {adapter}"))


def load_sweep(path: Path, overrides: Sequence[str] = (), out: Path | None = None) -> Sweep:
    """Read and check the sweep of a YAML file.

    Args:
        overrides: ``KEY=VALUE`` with dotted keys, as for recipes.
        out: replaces the file's ``out``.

    Raises:
        ConfigError: unreadable YAML, an unknown key or a wrong value, also in one of the recipes.
    """
    given = {} if out is None else {"out": str(out)}
    file = read_extended(path)
    with naming_files(file, [*given, *overrides]):
        try:
            sweep = Sweep.model_validate(load_data(file, overrides, given))
        except ValidationError as error:
            raise InvalidValuesError(str(path), find_problems(error, Sweep)) from None
    sweep._files = file.records()  # as they are now: they may be edited while the adapters are trained
    with naming_files(file, overrides, sweep.file_location):
        try:
            sweep.inference_prompt()
            if sweep.axes or sweep.cells:
                _refuse_equal_recipes(sweep)
        except InvalidValuesError:
            raise
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    return sweep


def _refuse_equal_recipes(sweep: Sweep) -> None:
    """Raise ConfigError if two adapters would be trained with the same recipe."""
    names: dict[str, str] = {}
    for training in sweep.trainings():
        recipe = training.recipe.model_dump_json(exclude={"output_dir"})
        if recipe in names:
            raise ConfigError(f"{names[recipe]} and {training.name} have the same recipe; leave one of them out")
        names[recipe] = training.name
