"""Define the commands ``bench train``, ``bench preview``, ``bench merge`` and ``bench tiny-base``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli_options import json_option, output_option, print_result, schema_option, settings_option
from harness.core.errors import ConfigError
from trainers.commands.arc24_options import arc24_options

if TYPE_CHECKING:
    from trainers.recipe.files.extended_file import ExtendedFile
    from trainers.recipe.schema import Recipe
    from trainers.tiny.model import TinyBaseConfig

DASHES = {"token_normalize_func": lambda token: token.replace("_", "-")}
"""Context settings with which options may be written with dashes or underscores."""

OVERRIDE = settings_option("E.g. lora.rank=32.")
RECIPE = click.argument("recipe_file", metavar="[RECIPE.yaml]", required=False, type=click.Path(path_type=Path))

DRY_RUN = click.option("--dry-run", is_flag=True, help="Train two steps on the run's heaviest samples; write nothing.")


@click.command(context_settings=DASHES)
@RECIPE
@OVERRIDE
@schema_option(lambda: _recipe_schema())
@click.option("--progress/--no-progress", default=True, help="Show loss, tokens/s and time left.")
@DRY_RUN
@json_option("the manifest of the finished folder")
@arc24_options
def train(
    recipe_file: Path | None,
    overrides: tuple[str, ...],
    progress: bool,
    dry_run: bool,
    json_file: Path | None,
    **original: Any,
) -> Path | None:
    """Train an adapter from a recipe, or from the options of the arc24 script.

    A run that was stopped or killed is resumed from its newest checkpoint, to the same weights.

    \b
    bench train examples/train-toy.yaml --set max_steps=40 --set lora.rank=8
    bench train examples/train-qwen.yaml --dry-run
    bench train --schema > recipe.schema.json
    bench train --model_path tiny --output_dir out --train_datasets arc1/training output-from-examples-v1 --max_steps 10
    """
    from trainers.recipe.files.extended_file import opened
    from trainers.recipe.launcher_environment import is_first_process
    from trainers.run.api import train as train_recipe

    file = opened(recipe_file)
    recipe = _recipe(file, overrides, original)
    if dry_run:
        _print_dry_run(recipe, progress, json_file)
        return None
    output = train_recipe(recipe, recipe.output_dir, progress=progress, files=file.records() if file else [])
    if is_first_process():  # the others may end before it has written the manifest
        print_result(str(output), (output / "manifest.json").read_text(encoding="utf-8").rstrip("\n"), json_file)
    return output


@click.command(context_settings=DASHES)
@RECIPE
@OVERRIDE
@click.option("--samples", default=2, show_default=True, type=click.IntRange(0), help="Samples to print in full.")
@click.option(
    "--draws", default=1000, show_default=True, type=click.IntRange(1), help="Samples for lengths and shares."
)
@click.option("--dataset", metavar="SPEC", help="Show the test-time training of the dataset's first task instead.")
@DRY_RUN
@json_option("the preview")
@arc24_options
def preview(
    recipe_file: Path | None,
    overrides: tuple[str, ...],
    samples: int,
    draws: int,
    dataset: str | None,
    dry_run: bool,
    json_file: Path | None,
    **original: Any,
) -> None:
    """Show what the trainer will see: samples with the loss region marked, lengths, shares of the mixture.

    \b
    bench preview examples/train-toy.yaml
    bench preview examples/ttt-tiny.yaml --dataset arc1/evaluation#ids=FILE
    """
    import json
    from dataclasses import asdict

    if dataset is not None:
        _print_task_preview(recipe_file, overrides, dataset, samples, json_file)
        return

    from trainers.commands.preview import format_preview
    from trainers.commands.preview import preview as preview_recipe

    recipe = _recipe(recipe_file, overrides, original)
    if dry_run:
        _print_dry_run(recipe, True, json_file)
        return
    result = preview_recipe(recipe, samples=samples, draws=draws)
    print_result(format_preview(result), json.dumps(asdict(result), indent=2, ensure_ascii=False), json_file)


@click.command()
@click.argument("base")
@click.argument("adapter", type=click.Path(path_type=Path))
@output_option(required=True, help="Folder of the full model.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="dtype of its weights  [default: the base's]"
)
def merge(base: str, adapter: Path, output: Path, dtype: str | None) -> None:
    """Merge an adapter into its base, for servers that cannot load adapters, and compare the result with PEFT.

    \b
    bench merge tiny runs/demo/trained/cross -o merged
    """
    from trainers.commands.merge import merge as merge_adapter

    click.echo(merge_adapter(base, adapter, output, dtype=dtype))


@click.command("tiny-base")
@click.option("--path", "show", is_flag=True, help="Print the folder of the shipped tiny base, and exit.")
@output_option(help="Folder to write the new model to.")
@click.option("--steps", type=click.IntRange(1), help="Training steps.")
@click.option("--batch", type=click.IntRange(1), help="Sequences per training step.")
@click.option("--hidden", type=int, help="Hidden size, a multiple of the head size 32.")
@click.option("--layers", type=click.IntRange(1), help="Number of layers.")
@click.option("--mlp", type=click.IntRange(1), help="Width of the MLP.")
@click.option("--families", help="Comma-separated toy families, in the order of the curriculum.")
@click.option("--seed", type=int, help="Seed of weights and tasks.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where to train.")
def tiny_base(show: bool, output: Path | None, families: str | None, **options: int | str | None) -> None:
    """Train the embedded tiny model again, or a larger one of its kind.

    \b
    bench tiny-base --path
    bench tiny-base -o my-base --steps 200
    bench tiny-base -o sibling --hidden 512 --layers 8 --mlp 1536 --device cuda
    """
    from trainers.tiny.model import TinyBaseConfig
    from trainers.tiny.train import save_tiny_base, shipped_path, train_tiny_base

    if show:
        click.echo(shipped_path())
        return
    if output is None:
        raise click.UsageError("name a folder to write to (-o FOLDER), or ask for --path")
    if output.exists() and any(output.iterdir()):
        raise click.UsageError(f"{output} is not empty; name another folder")
    settings: dict[str, object] = {key: value for key, value in options.items() if value is not None}
    if families:
        settings["families"] = tuple(families.split(","))
    config = TinyBaseConfig(**settings)  # type: ignore[arg-type]
    _check_tiny_base(config)
    model, tokenizer = train_tiny_base(config, click.echo)
    save_tiny_base(model, tokenizer, config, output, click.echo)


def _check_tiny_base(config: TinyBaseConfig) -> None:
    """Raise UsageError for values that no model can be built or trained with."""
    import torch

    if config.hidden < config.head or config.hidden % config.head:
        raise click.UsageError(f"--hidden {config.hidden}: give a multiple of the head size {config.head}")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: torch finds no GPU here")


def _recipe_schema() -> dict[str, Any]:
    from trainers.recipe.json_schema import recipe_schema

    return recipe_schema()


def _print_dry_run(recipe: Recipe, progress: bool, json_file: Path | None) -> None:
    import json
    from dataclasses import asdict

    from trainers.run.api import dry_run

    result = dry_run(recipe, progress=progress)
    print_result(result.as_text(), json.dumps(asdict(result), indent=2), json_file)


def _print_task_preview(
    path: Path | None, overrides: tuple[str, ...], dataset: str, samples: int, json_file: Path | None
) -> None:
    """Print what test-time training shows of the first task of a dataset."""
    import json
    from dataclasses import asdict

    from trainers.commands.ttt_preview import preview_task
    from trainers.recipe.ttt_recipe import load_ttt_recipe

    result = preview_task(load_ttt_recipe(path, overrides), dataset, samples=samples)
    values = {**asdict(result.preview), "task_training": asdict(result.plan)}
    print_result(result.as_text(), json.dumps(values, indent=2, ensure_ascii=False), json_file)


def _recipe(file: Path | ExtendedFile | None, overrides: tuple[str, ...], original: dict[str, Any]) -> Recipe:
    """Return the recipe from a file, arc24 options and overrides; later ones replace earlier ones. Print warnings."""
    from trainers.recipe.arc24 import recipe_data
    from trainers.recipe.files.yaml_file import load_recipe

    options = {k: v for k, v in original.items() if v is not None and v != ()}
    if file is None and not options and not overrides:
        raise click.UsageError("name a recipe file, or give --train_datasets and --output_dir")
    if file is None and options and not options.get("output_dir"):
        raise ConfigError("--output_dir is missing: where is the adapter to be written?")
    data, warnings = recipe_data(options, with_defaults=file is None)
    for warning in warnings if options else ():
        click.echo(f"warning: {warning}", err=True)
    return load_recipe(file, overrides, data if options else None)
