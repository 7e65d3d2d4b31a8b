"""The command ``bench data audit``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.data.progress_bar import open_with_progress, with_progress
from harness.cli_options import json_option, print_result

if TYPE_CHECKING:
    from harness.data.dataset import Dataset
    from harness.inspection.leak_audit import LeakAudit
    from harness.inspection.leak_detection import LeakFindings, PairsById

STRICT_OPTION = click.option("--strict", is_flag=True, help="A damaged line of a .jsonl is an error, not a warning.")
_TITLES = {
    "same_task": "same task (equal sets of pairs)",
    "test_pair": "test pair found in training",
    "train_pair": "train pair found in training",
}
_SHOWN_TASKS = 12
_SHOWN_MATCHES = 5


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


@click.command(cls=RepeatableOptions)
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

    Writes two lists of task ids, which #ids= in a dataset spec reads: clean_ids.txt has the evaluation tasks without
    a leak, clean_train_ids.txt the training tasks that share no pair with the evaluation data.

    \b
    bench data audit --train arc2/training --eval arc1/evaluation --json leaks.json
    bench run --dataset arc1/evaluation#ids=clean_ids.txt ...
    """
    from harness.inspection.leak_audit import audit_datasets, write_clean_ids

    train, evals = ([open_with_progress(spec, strict) for spec in specs] for specs in (train_specs, eval_specs))
    audits = audit_datasets(train, evals, _show_progress)
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


def _show_progress(dataset: Dataset, pairs: PairsById) -> PairsById:
    from harness.data.spec import selectable_ids

    return with_progress(f"auditing {dataset.spec}", pairs, len(selectable_ids(dataset)))


def audit_lines(audits: dict[str, LeakAudit], background: str) -> Iterator[str]:
    """Yield the lines of an audit: for each pair of training and evaluation set the counts, and the first ids.

    Args:
        audits: by the treatment of colour 0, ``free`` and ``fixed``.
        background: the treatment whose ids are listed.
    """
    from harness.inspection.leak_detection import LEAK_KINDS

    chosen = audits[background]
    for t, train in enumerate(chosen.train):
        for e, evals in enumerate(chosen.evals):
            yield f"{_name(train)} -> {_name(evals)}, {len(evals.ids)} tasks"
            for kind in LEAK_KINDS:
                free, fixed = (len(getattr(audits[colour_0].findings[t][e], kind)) for colour_0 in ("free", "fixed"))
                other = "" if free == fixed else f" ({fixed} with colour 0 fixed)"
                yield f"    {_TITLES[kind]}: {free}{other}"
                yield from _ids(chosen.findings[t][e], kind)
    if chosen.unknown_output_ids:
        yield (
            f"not compared: the test outputs of {len(chosen.unknown_output_ids)} evaluation tasks are unknown, "
            f"e.g. {chosen.unknown_output_ids[0]}"
        )
    leaked = chosen.all_findings().leaked_eval_ids
    yield f"{chosen.n_train} training tasks read; {len(leaked)} evaluation tasks have a finding"


def _name(dataset: Dataset) -> str:
    """Return the dataset's spec, with its origin if the spec does not contain it."""
    return dataset.spec if dataset.origin in dataset.spec else f"{dataset.spec} ({dataset.origin})"


def _ids(findings: LeakFindings, kind: str) -> Iterator[str]:
    matches = findings.as_dict()[kind]
    for task in list(matches)[:_SHOWN_TASKS]:
        cut = " ..." if len(matches[task]) > _SHOWN_MATCHES else ""
        yield f"        {task} = {', '.join(matches[task][:_SHOWN_MATCHES])}{cut}"
    if len(matches) > _SHOWN_TASKS:
        yield f"        ... and {len(matches) - _SHOWN_TASKS} more; --json FILE lists all"
