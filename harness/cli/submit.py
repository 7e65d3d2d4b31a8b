"""The command ``bench submit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.entry import print_warnings
from harness.cli_options import rule_option, scorer_option

if TYPE_CHECKING:
    from harness.results.kaggle_submission import KaggleSubmission


@click.command()
@click.argument("run", metavar="[RUN[@MODEL]]", required=False)
@click.option("-o", "--out", "output", type=click.Path(dir_okay=False, path_type=Path), help="File of the submission.")
@rule_option()
@scorer_option()
@click.option(
    "--check", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Check this submission instead."
)
@click.option("--dataset", help="With --check: the dataset that the submission must answer, e.g. arc1/evaluation.")
def submit(
    run: str | None, output: Path | None, rule: str | None, scorer: str | None, check: Path | None, dataset: str | None
) -> int:
    """Write the two best attempts for every test output of a run as Kaggle's submission.json, or check such a file.

    \b
    bench submit runs/mine@adapter -o submission.json
    bench submit --check submission.json --dataset arc2/evaluation
    """
    if check is not None:
        if run is not None or output is not None or scorer is not None or dataset is None:
            raise click.UsageError("--check goes with --dataset, and with no RUN and -o")
        return _check(check, dataset)
    if run is None or output is None or dataset is not None:
        raise click.UsageError("give RUN and -o (a run knows its dataset), or --check and --dataset")
    _write(run, output, rule, scorer)
    return 0


def _write(run: str, output: Path, rule_name: str | None, scorer: str | None) -> None:
    """Write the submission of a run, and say what was filled in."""
    from harness.core.errors import ConfigError, UnusableRuleError
    from harness.results.kaggle_submission import make_submission, write_submission
    from harness.scoring.headline_rule import headline_rule, with_remedy
    from harness.scoring.run_selector import select_model
    from harness.voting.selection_rules import VOTE, get_rule

    selected = select_model(run, scorer)
    print_warnings(selected.warnings)
    rule = get_rule(rule_name or selected.rule or VOTE)
    if scorer is not None and not rule.needs_rescores:
        raise ConfigError(f"--scorer is for rules that need rescores; {rule.name} does not")
    try:
        submission = make_submission(selected, rule, selected.rescores)
    except UnusableRuleError as error:
        raise with_remedy(error, headline_rule(selected.rule, rule_name)) from None
    write_submission(output, submission, selected.tasks)
    if submission.empty:
        print_warnings([_placeholder_text(submission)])
    if submission.single:
        click.echo(f"{submission.single} outputs have one distinct grid; it is both attempts", err=True)
    click.echo(
        f"{output}: {len(submission.content)} tasks, {submission.outputs} test outputs, two attempts each; "
        f"read back and checked; chosen by the rule {rule.name}"
    )


def _placeholder_text(submission: KaggleSubmission) -> str:
    """Say how many outputs get placeholders, and how many of these have no prediction at all."""
    text = f"{submission.empty} outputs have no predicted grid and get placeholders"
    if submission.unasked:
        text += f"; {submission.unasked} of them have no prediction ({submission.tasks_without} tasks have none)"
    return text


def _check(path: Path, dataset: str) -> int:
    """Check a submission and print its problems; return the exit status."""
    from harness.data.dataset import iterate_tasks
    from harness.data.spec import open_dataset
    from harness.results.kaggle_submission import check_submission

    tasks = list(iterate_tasks(open_dataset(dataset)))
    result = check_submission(path, tasks)
    for problem in result.problems:
        click.echo(f"{path}: {problem}", err=True)
    if result.problems:
        click.echo(f"error: {path} has {len(result.problems)} problems", err=True)
        return 1
    placeholders = f"; {result.placeholders} outputs hold only placeholders" if result.placeholders else ""
    click.echo(f"{path}: {len(tasks)} tasks, {result.outputs} test outputs, two attempts each{placeholders}")
    return 0
