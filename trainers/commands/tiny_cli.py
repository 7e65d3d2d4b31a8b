"""Define the command ``bench tiny-base``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.core.cli_options import RenamedOption


@click.command("tiny-base")
@click.option("--path", "show", is_flag=True, help="Print the folder of the shipped tiny base, and exit.")
@click.option(
    "-o",
    "--out",
    "output",
    cls=RenamedOption,
    old_names=("--output",),
    type=click.Path(path_type=Path),
    help="Folder to write the new model to.",
)
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
    model, tokenizer = train_tiny_base(config, click.echo)
    save_tiny_base(model, tokenizer, config, output, click.echo)
