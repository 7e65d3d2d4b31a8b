"""What a recipe names, opened: base model, datasets and mixture; heavy packages are imported where they are needed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.datasets import Dataset, open_dataset
from harness.errors import ConfigError
from harness.hub import cached_snapshot, missing_weights, refuse_offline
from harness.prompt import load_prompt
from harness.turns import Turn
from trainers.artifact import check_unchanged, model_digest, read_manifest, refuse_pickle, weights_digest
from trainers.chat import Chat, open_chat, today
from trainers.folder import DATE_KEY, TEMPLATE_KEY, first_day
from trainers.recipe import Data, Recipe

if TYPE_CHECKING:
    from trainers.mixture import Mixture


@dataclass(frozen=True)
class Inputs:
    """What a recipe names, opened."""

    recipe: Recipe
    base: Path | str
    """A folder or a Hub id."""
    base_digest: str
    adapter_digest: str | None
    """Of the adapter that is gone on from."""
    datasets: tuple[Dataset, ...]
    prompts: tuple[str, ...]
    """The prompt of each dataset, one that the chat template takes."""
    chat: Chat
    turns: tuple[Turn, ...]
    """How the chat template writes the answers to them."""
    held_out: Dataset | None
    """What is validated on."""
    held_out_prompt: str
    """The prompt of the validation."""
    advice: tuple[str, ...] = ()
    """What a user should know before training, one line each."""

    @property
    def stop_token_ids(self) -> list[int]:
        """The tokens that end an answer, which a server must be asked to stop at."""
        return sorted({turn.end_id for turn in self.turns})

    def decides(self) -> Data:
        """Everything that decides what is learned: the recipe's keys and the content behind its names."""
        content: Data = {"model (its content)": self.base_digest, "adapter (its content)": self.adapter_digest}
        for k, (dataset, prompt) in enumerate(zip(self.datasets, self.prompts, strict=True)):
            content[f"datasets.{k} (its content)"] = dataset.digest()
            content[f"prompt {prompt} (its text)"] = load_prompt(prompt).digest
        if self.held_out is not None:
            content["validation (its content)"] = self.held_out.digest()
            content[f"prompt {self.held_out_prompt} (its text)"] = load_prompt(self.held_out_prompt).digest
        content[TEMPLATE_KEY] = self.chat.digest
        if self.chat.settings.date is not None:
            content[DATE_KEY] = self.chat.settings.date
        return self.recipe.decides() | content


def open_inputs(recipe: Recipe, output: Path | None = None, template: str | None = None) -> Inputs:
    """Find the base model, its tokenizer and chat template, and open the datasets of a recipe.

    Args:
        output: the folder of the run, the recipe's own where None: a run that goes on there keeps its date.
        template: the text of the chat template where it is known, instead of the one that the recipe names.

    Raises:
        ConfigError, SpecError, DataError: something that it names is not there.
    """
    base = find_base(recipe.model)
    datasets = tuple(open_dataset(part.spec) for part in recipe.datasets)
    held_out = open_dataset(recipe.validation.spec) if recipe.validation else None
    base_digest, adapter_digest = _base_digest(base), _adapter_digest(recipe)
    chat = open_chat(base, recipe, _day(recipe, output or recipe.output_dir), template)
    asked = [part.prompt or recipe.prompt for part in recipe.datasets]
    asked.append((recipe.validation.prompt if recipe.validation else None) or recipe.prompt)
    usable = {name: chat.usable_prompt(name) for name in dict.fromkeys(asked)}
    used = [usable[name] for name in asked]
    turns = chat.turns(used if held_out else used[:-1])
    return Inputs(
        recipe,
        base,
        base_digest,
        adapter_digest,
        datasets,
        tuple(used[:-1]),
        chat,
        tuple(turns),
        held_out,
        used[-1],
        tuple(chat.advice(turns, asked, used)),
    )


def _day(recipe: Recipe, output: Path) -> str:
    """The date for a template that writes it: the recipe's, else that of the first start, else the adapter's."""
    if recipe.template_date is not None:
        return recipe.template_date.isoformat()
    if recipe.resume and (begun := first_day(output)) is not None:
        return begun
    manifest = read_manifest(Path(recipe.adapter)) if recipe.adapter else None
    return (manifest.template_date if manifest else None) or today()


def find_base(model: str) -> Path | str:
    """The folder of a base model, or its Hub id: ``tiny`` is the shipped base.

    Raises:
        ConfigError: a path that is no model folder.
    """
    if model == "tiny":
        from trainers.tiny_base import shipped_path

        return shipped_path()
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"model {model!r}: the folder has no config.json, so that it is no model")
        return path
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ConfigError(f"model {model!r}: no such folder; give a folder, a Hugging Face id (owner/name), or tiny")
    return model


def check_weights(base: Path | str) -> None:
    """Check that the weights of a base model are here, or may be downloaded.

    Raises:
        ConfigError: they are not; the message says what is missing, and what to do.
    """
    if isinstance(base, str):
        refuse_offline(base, cached_snapshot(base), os.environ)
    elif lacking := missing_weights(base):
        raise ConfigError(f"model {str(base)!r} cannot be loaded: it has {lacking}; copy or download the whole of it")


def _adapter_digest(recipe: Recipe) -> str | None:
    if recipe.adapter is None:
        return None
    folder = Path(recipe.adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ConfigError(f"adapter {recipe.adapter!r}: no adapter_config.json there, so that it is no adapter folder")
    refuse_pickle(folder)
    if manifest := read_manifest(folder):
        check_unchanged(folder, manifest)
    return weights_digest(folder)


def _base_digest(base: Path | str) -> str:
    if isinstance(base, Path):
        return model_digest(base)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base)
    except OSError as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"model {base!r} is neither a folder nor to be had from Hugging Face: {why}") from error
    return str(getattr(config, "_commit_hash", None) or "unknown")


def open_recipe_mixture(inputs: Inputs) -> Mixture:
    """The mixture of a recipe, checked.

    Raises:
        DataError: a dataset cannot supply.
    """
    from trainers.mixture import Remake, open_mixture

    recipe = inputs.recipe
    weights = recipe.change_weights.by_kind()
    mixture = open_mixture(
        inputs.datasets,
        inputs.prompts,
        [part.weight for part in recipe.datasets],
        inputs.chat.tokenizer,
        encoder=recipe.encoder,
        settings=inputs.chat.settings,
        seed=recipe.seed,
        max_seq_len=recipe.max_seq_len,
        drop_pairs=recipe.too_long == "drop_pairs",
        augment=recipe.augment,
        remakes=[
            Remake(
                recipe.resplit if part.resplit is None else part.resplit,
                recipe.change_probability if part.change_probability is None else part.change_probability,
                weights,
            )
            for part in recipe.datasets
        ],
    )
    mixture.check()
    return mixture
