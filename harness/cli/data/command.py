"""The commands ``bench data ...``: inspect datasets, audit them, index, download and export them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.data.audit import STRICT_OPTION, audit
from harness.cli.data.progress_bar import open_with_progress, progress_bar, with_progress
from harness.cli_options import grid_encoder_option, json_option, output_option, print_result

if TYPE_CHECKING:
    from harness.prompts.prompt_tokenizer import PromptTokenizer


@click.group()
def data() -> None:
    """Inspect datasets, audit them for leaks, index, download and export them.

    A dataset is given by the same spec everywhere: arc1/training, kaggle2025/evaluation, toy/border, a .json file or
    folder in any ARC format, BARC's .jsonl, barc-400-10-PATH, each optionally followed by #n=100, #seed=7,
    #ids=FILE.
    """


@data.command("list")
@json_option("the names")
def list_(json_file: Path | None) -> None:
    """List the bundled and named datasets, and the tasks in which versions of one dataset differ.

    \b
    bench data list
    """
    from harness.inspection.dataset_catalogue import named_datasets

    rows = named_datasets()
    lines = []
    for row in rows:
        count = "" if row.tasks is None else f"{row.tasks} tasks, {row.test_outputs} test outputs"
        lines.append(f"{row.spec}\n    {', '.join(part for part in (count, row.note) if part)}")
    print_result("\n".join(lines), json.dumps([asdict(row) for row in rows], indent=2), json_file)


@data.command()
@click.argument("spec")
@click.argument("task_id", required=False)
@output_option(help="Write a picture (.png, .svg or .pdf) instead of printing.")
@click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Print colours or digits."
)
def show(spec: str, task_id: str | None, output: Path | None, color: str) -> None:
    """Show a task in colour: the one with TASK_ID, else the first.

    \b
    bench data show arc1/evaluation 00576224
    bench data show toy/border -o border.png
    """
    from harness.data.dataset import find_task
    from harness.data.spec import open_dataset

    task = find_task(open_dataset(spec), task_id)
    if output is not None:
        from harness.inspection.task_picture import save_task_picture

        save_task_picture(task, output)
        click.echo(f"wrote {output}")
        return
    from shutil import get_terminal_size

    from harness.inspection.terminal_picture import task_lines

    colour = color == "always" or (color == "auto" and _colours_wanted())
    for line in task_lines(task, colour=colour, width=get_terminal_size().columns):
        click.echo(line, color=colour)


def _colours_wanted() -> bool:
    import os

    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


@data.command()
@click.argument("spec")
@click.option(
    "--tokenizer",
    help="Folder or Hugging Face id of a tokenizer, or tiny; adds the lengths of prompts and answers in tokens.",
)
@click.option("--prompt", default="output-from-examples-v1", show_default=True)
@grid_encoder_option(help="Default: shape, row numbers and digits.")
@click.option("--max-length", type=click.IntRange(1), default=4096, show_default=True, help="Limit in tokens.")
@STRICT_OPTION
@json_option("the statistics")
def stats(
    spec: str,
    tokenizer: str | None,
    prompt: str,
    encoder: str | None,
    max_length: int,
    strict: bool,
    json_file: Path | None,
) -> None:
    """Count tasks, grid sizes and colours of a dataset, and with --tokenizer the lengths of prompts and answers.

    \b
    bench data stats arc1/training --tokenizer Qwen/Qwen2.5-0.5B-Instruct --max-length 4096
    """
    from harness.inspection.dataset_statistics import dataset_stats

    tokens = None if tokenizer is None else _prompt_tokenizer(tokenizer, prompt, encoder)
    statistics = dataset_stats(open_with_progress(spec, strict), tokens, max_length, partial(with_progress, "reading"))
    lines = []
    for name, value in statistics.items():
        shown = "  ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        lines.append(f"{name.replace('_', ' '):<18} {shown}")
    print_result("\n".join(lines), json.dumps(statistics, indent=2), json_file)


def _prompt_tokenizer(tokenizer: str, prompt: str, encoder: str | None) -> PromptTokenizer:
    """Combine a tokenizer (``tiny``, a folder or a Hub id) with a prompt and a grid encoder."""
    from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
    from harness.prompts.prompt_template import load_prompt
    from harness.prompts.prompt_tokenizer import PromptTokenizer
    from trainers.model.tokenizer import load_tokenizer
    from trainers.tiny.train import shipped_path

    grids, text = parse_encoder(encoder or DEFAULT_ENCODER), load_prompt(prompt)
    return PromptTokenizer(load_tokenizer(shipped_path() if tokenizer == "tiny" else tokenizer), text, grids)


data.add_command(audit)


@data.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--check", is_flag=True, help="Also read every row and count those that are skipped.")
@STRICT_OPTION
def index(files: tuple[str, ...], check: bool, strict: bool) -> None:
    """Index BARC files, so that they open fast afterwards.

    FILES are .jsonl or .jsonl.gz files, or BARC's Hugging Face names.

    \b
    bench data index data_100k.jsonl --check
    """
    from harness.data.barc_dataset import open_barc, read_all_rows

    for name in files:
        with progress_bar(f"indexing {name}") as progress:
            rows = open_barc(name, strict, progress)
        click.echo(f"{name}: {rows.n_rows} rows, digest {rows.digest()}")
        if check:
            for _ in with_progress("checking", read_all_rows(rows), rows.n_rows):
                pass
        for reason, count in sorted(rows.skipped.items()):
            click.echo(f"    left out: {count} x {reason}")


@data.command()
@click.argument("what", type=click.Choice(["barc"]))
def fetch(what: str) -> None:
    """Download BARC's four files (about 12 GB), resuming partial downloads, and index them.

    Mirrors and offline caches are set by huggingface_hub's own variables (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE).

    \b
    bench data fetch barc
    """
    from harness.data.barc_dataset import open_barc
    from harness.data.barc_download import fetch_barc

    for path in fetch_barc():
        with progress_bar(f"indexing {path.name}") as progress:
            rows = open_barc(str(path), False, progress)
        click.echo(f"{path}: {rows.n_rows} rows")


@data.command()
@click.argument("spec")
@output_option(required=True, help="A name ending in .json.")
@STRICT_OPTION
def export(spec: str, output: Path, strict: bool) -> None:
    """Write a dataset in ARC's combined JSON format.

    If the name ends in challenges.json, the test outputs go to ...solutions.json beside it, else into the same file.

    \b
    bench data export arc1/training -o arc-agi_training_challenges.json
    """
    from harness.data.export import export_dataset

    for path in export_dataset(open_with_progress(spec, strict), output):
        click.echo(f"wrote {path}")
