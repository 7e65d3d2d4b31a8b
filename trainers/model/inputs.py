"""Open what a recipe names: base, chat template, datasets, mixture. Heavy packages are imported only where used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.digests import weights_digest
from harness.core.errors import ConfigError
from harness.data.dataset import Dataset
from harness.data.spec import open_dataset
from harness.prompts.assistant_turn import AssistantTurn
from harness.prompts.prompt_template import inference_prompt, load_prompt
from trainers.model.base_model import base_digest, check_same_base, find_base, hub_folder
from trainers.model.chat_template import Chat, open_chat, today
from trainers.recipe.schema import WITHOUT_DATASETS, Recipe, RecipeData
from trainers.store.manifest import check_unchanged, read_manifest, refuse_pickle
from trainers.store.run_folder import DATE_KEY, TEMPLATE_KEY, start_date

if TYPE_CHECKING:
    from trainers.data.mixture import Mixture


@dataclass(frozen=True)
class RecipeInputs:
    """A recipe with everything that it names, opened."""

    recipe: Recipe
    base: Path | str
    """Folder, or Hub id."""
    adapter_digest: str | None
    """Weights digest of the adapter from which training continues."""
    datasets: tuple[Dataset, ...]
    prompts: tuple[str, ...]
    """Prompt of each dataset, one that the chat template supports; without datasets the recipe's."""
    chat: Chat
    turns: tuple[AssistantTurn, ...]
    """How the chat template writes the answers to the prompts."""
    held_out: Dataset | None
    """Dataset of the validation."""
    held_out_prompt: str
    """Prompt of the validation."""
    advice: tuple[str, ...] = ()
    """What a user should know before training, one line each."""

    @cached_property
    def base_digest(self) -> str:
        """Return 16 hex digits over configuration and weights of the base; a Hub model is downloaded if needed.

        Raises:
            ConfigError: the model cannot be loaded from the Hub.
        """
        return base_digest(self.base)

    @property
    def base_commit(self) -> str | None:
        """Return the commit of a base from the Hub, by which older versions recorded it; None for a folder."""
        return None if isinstance(self.base, Path) else hub_folder(self.base).name

    @property
    def inference_prompt(self) -> str:
        """Return the prompt to use at evaluation."""
        return inference_prompt(self.prompts)

    @property
    def stop_token_ids(self) -> list[int]:
        """Return the tokens that end an answer, at which a server must stop."""
        return sorted({turn.end_token_id for turn in self.turns})

    def deciding_values(self) -> RecipeData:
        """Return everything that affects the trained weights: the recipe's keys, and digests of what they name."""
        content: RecipeData = {"model (its content)": self.base_digest, "adapter (its content)": self.adapter_digest}
        for k, (dataset, prompt) in enumerate(zip(self.datasets, self.prompts, strict=True)):
            content[f"datasets.{k} (its content)"] = dataset.digest()
            content[f"prompt {prompt} (its text)"] = load_prompt(prompt).digest
        if self.held_out is not None:
            content["validation (its content)"] = self.held_out.digest()
            content[f"prompt {self.held_out_prompt} (its text)"] = load_prompt(self.held_out_prompt).digest
        content[TEMPLATE_KEY] = self.chat.digest
        if self.chat.settings.date is not None:
            content[DATE_KEY] = self.chat.settings.date
        return self.recipe.deciding_values() | content


def open_inputs(recipe: Recipe, output: Path | None = None, template: str | None = None) -> RecipeInputs:
    """Find the base model, its tokenizer and chat template, and open the datasets of a recipe.

    Args:
        output: folder of the run, whose start date is reused on resume; None for the recipe's ``output_dir``.
        template: text of the chat template if it is known; None for the one that the recipe names.

    Raises:
        ConfigError, SpecError, DataError: something that the recipe names is missing or unusable.
    """
    base = find_base(recipe.model)
    datasets = tuple(open_dataset(part.spec) for part in recipe.datasets)
    held_out = open_dataset(recipe.validation.spec) if recipe.validation else None
    adapter_digest = _adapter_digest(recipe, base)
    chat = open_chat(base, recipe, _day(recipe, output or recipe.output_dir), template)
    requested = [part.prompt or recipe.prompt for part in recipe.datasets] or [recipe.prompt]
    requested.append((recipe.validation.prompt if recipe.validation else None) or recipe.prompt)
    usable = {name: chat.usable_prompt(name) for name in dict.fromkeys(requested)}
    used = [usable[name] for name in requested]
    turns = chat.turns(used if held_out else used[:-1])
    return RecipeInputs(
        recipe,
        base,
        adapter_digest,
        datasets,
        tuple(used[:-1]),
        chat,
        tuple(turns),
        held_out,
        used[-1],
        tuple(chat.advice(turns, requested, used)),
    )


def _day(recipe: Recipe, output: Path) -> str:
    """Return the date for a template that prints one: the recipe's, the run's first day or the start adapter's."""
    if recipe.template_date is not None:
        return recipe.template_date.isoformat()
    if recipe.resume and (begun := start_date(output)) is not None:
        return begun
    manifest = read_manifest(Path(recipe.adapter)) if recipe.adapter else None
    return (manifest.template_date if manifest else None) or today()


def _adapter_digest(recipe: Recipe, base: Path | str) -> str | None:
    if recipe.adapter is None:
        return None
    folder = Path(recipe.adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ConfigError(f"adapter {recipe.adapter!r}: no adapter_config.json there, so it is not an adapter folder")
    refuse_pickle(folder)
    if manifest := read_manifest(folder):
        check_unchanged(folder, manifest)
        check_same_base(base, folder, manifest)
    return weights_digest(folder)


def require_datasets(recipe: Recipe) -> None:
    """Raise ConfigError if a recipe has no datasets, as one for test-time training may."""
    if not recipe.datasets:
        raise ConfigError(f"recipe: 'datasets' is empty{WITHOUT_DATASETS}")


def open_recipe_mixture(inputs: RecipeInputs) -> Mixture:
    """Build and check the mixture of a recipe.

    Raises:
        DataError: a dataset cannot supply samples.
    """
    from trainers.data.mixture import open_mixture
    from trainers.data.task_augmentation import TaskChanges

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
        loss_on_outputs=recipe.loss_on == "outputs",
        task_changes=[
            TaskChanges(
                recipe.resplit if part.resplit is None else part.resplit,
                recipe.change_probability if part.change_probability is None else part.change_probability,
                weights,
            )
            for part in recipe.datasets
        ],
    )
    mixture.check()
    return mixture
