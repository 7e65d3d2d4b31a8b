"""The commands ``bench data ...``: inspect datasets, audit them, index, download and export them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.progress_bar import progress_bar, with_progress
from harness.core.cli_options import RenamedOption, json_option, print_result

if TYPE_CHECKING:
    from harness.data.dataset import Dataset
    from harness.inspection.leak_detection import PairsById

STRICT_OPTION = click.option("--strict", is_flag=True, help="A damaged line of a .jsonl is an error, not a warning.")


def _open(spec: str, strict: bool) -> Dataset:
    from harness.data.spec import open_dataset

    with progress_bar(f"indexing {spec}") as progress:
        return open_dataset(spec, strict=strict, progress=progress)


def _watch(dataset: Dataset, pairs: PairsById) -> PairsById:
    from harness.data.spec import selectable_ids

    return with_progress(f"auditing {dataset.spec}", pairs, len(selectable_ids(dataset)))


@click.group()
def data() -> None:
    """Inspect datasets, audit them for leaks, index, download and export them.

    A dataset is given by the same spec everywhere: arc1/training, arc2/evaluation, toy/border, a .json file or folder
    in any ARC format, BARC's .jsonl, barc-400-10-PATH, each optionally followed by #n=100, #seed=7, #ids=FILE.
    """


@data.command("list")
@json_option("the names")
def list_(json_file: Path | None) -> None:
    """List the bundled and named datasets.

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
@click.option(
    "-o",
    "--out",
    "output",
    cls=RenamedOption,
    old_names=("--output",),
    type=click.Path(path_type=Path),
    help="Write a picture (.png, .svg or .pdf) instead of printing.",
)
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
    "--tokenizer", help="Folder or Hugging Face id of a tokenizer; adds the lengths of prompts and answers in tokens."
)
@click.option("--prompt", default="output-from-examples-v1", show_default=True)
@click.option(
    "--grid-encoder",
    "encoder",
    cls=RenamedOption,
    old_names=("--encoder",),
    help="Default: shape, row numbers and digits.",
)
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
    from harness.inspection.dataset_statistics import dataset_stats, load_prompt_tokenizer

    tokens = None if tokenizer is None else load_prompt_tokenizer(tokenizer, prompt, encoder)
    statistics = dataset_stats(_open(spec, strict), tokens, max_length, partial(with_progress, "reading"))
    lines = []
    for name, value in statistics.items():
        shown = "  ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        lines.append(f"{name.replace('_', ' '):<18} {shown}")
    print_result("\n".join(lines), json.dumps(statistics, indent=2), json_file)


class RepeatableOptions(click.Command):
    """A command where ``--train A B`` means ``--train A --train B``, and the same for ``--eval``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        option = ""
        for arg in args:
            if option and not arg.startswith("-") and words[-1] != option:
                words.append(option)
            words.append(arg)
            if arg.startswith("-"):
                option = arg if arg in ("--train", "--eval") else ""
        return super().parse_args(ctx, words)


@data.command(cls=RepeatableOptions)
@click.option(
    "--train", "train_specs", multiple=True, required=True, metavar="SPEC", help="Training data, one or more."
)
@click.option(
    "--eval", "eval_specs", multiple=True, required=True, metavar="SPEC", help="Evaluation data, one or more."
)
@json_option("the findings", was_flag=False)
@click.option(
    "--background",
    type=click.Choice(["free", "fixed"]),
    default="free",
    show_default=True,
    help="Whether a permutation of colours may move colour 0; both are counted, the ids are of this one.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder of the id files."
)
@STRICT_OPTION
def audit(
    train_specs: tuple[str, ...],
    eval_specs: tuple[str, ...],
    json_file: Path | None,
    background: str,
    out: Path,
    strict: bool,
) -> None:
    """Find evaluation tasks and pairs in training data, up to rotation, reflection and permutation of colours.

    Writes clean_ids.txt, the evaluation tasks without a finding, and clean_train_ids.txt, the training tasks that
    share nothing with the evaluation data; both are for #ids=.

    \b
    bench data audit --train arc2/training --eval arc1/evaluation --json leaks.json
    bench run --dataset arc1/evaluation#ids=clean_ids.txt ...
    """
    from harness.cli.audit_text import audit_lines
    from harness.inspection.leak_audit import audit_datasets, write_clean_ids

    train, evals = ([_open(spec, strict) for spec in specs] for specs in (train_specs, eval_specs))
    audits = audit_datasets(train, evals, _watch)
    content = json.dumps(audits[background].all_findings().as_dict(), indent=2)
    print_result("\n".join(audit_lines(audits, background)), content, json_file)
    to_stderr = str(json_file) == "-"
    if json_file is not None and not to_stderr:
        click.echo(f"wrote {json_file}")
    written, removed = write_clean_ids(audits[background], out)
    for path in written:
        click.echo(f"wrote {path}", err=to_stderr)
    for path in removed:
        click.echo(f"removed {path}, the list of an earlier audit: this one has none of that name", err=to_stderr)


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
@click.option(
    "-o",
    "--out",
    "output",
    cls=RenamedOption,
    old_names=("--output",),
    type=click.Path(path_type=Path),
    required=True,
    help="A name ending in .json.",
)
@STRICT_OPTION
def export(spec: str, output: Path, strict: bool) -> None:
    """Write a dataset in ARC's combined JSON format.

    If the name ends in challenges.json, the test outputs go to ...solutions.json beside it, else into the same file.

    \b
    bench data export arc1/training -o arc-agi_training_challenges.json
    """
    from harness.data.export import export_dataset

    for path in export_dataset(_open(spec, strict), output):
        click.echo(f"wrote {path}")
