"""The command ``bench ttt``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli.entry import INTERRUPTED
from harness.cli.parameters import (
    JsonObject,
    Seconds,
    api_key_option,
    deadline_option,
    policy_options,
    resume_command,
)
from harness.cli.report_to import report_scores, report_to_option
from harness.cli.shown_scores import show_missing, show_scores
from harness.cli.workflows.cluster.connection import require_ray
from harness.cli.workflows.cluster.options import cluster_options, take_placement
from harness.cli_options import FloatRange, rule_option, settings_option
from harness.core.random_stream import MAX_SEED

if TYPE_CHECKING:
    from harness.cli.workflows.ttt.job import TttOptions

F = TypeVar("F", bound=Callable[..., Any])
_SAMPLING = (
    click.option("--dataset", required=True, help="The tasks, a dataset spec, e.g. arc1/evaluation#ids=FILE."),
    click.option("-n", type=click.IntRange(1), default=8, show_default=True, help="Predictions or views per output."),
    click.option("--limit", type=click.IntRange(1), help="Only the first so many tasks."),
    click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="As in bench run."),
    click.option("--search", type=click.Choice(["greedy", "sample", "dfs"]), help="As in bench run."),
    click.option("--min-prob", type=FloatRange(0, 1, min_open=True), help="For --search dfs."),
    click.option("--max-answers", type=click.IntRange(1), help="For --search dfs."),
    click.option("--keep-greedy", is_flag=True, help="For --search dfs; as in bench run."),
    click.option("--temperature", type=FloatRange(0), default=0.0, show_default=True, help="0 is greedy."),
    click.option("--top-p", type=FloatRange(0, 1, min_open=True), default=1.0, show_default=True),
    click.option("--min-p", type=FloatRange(0, 1), default=0.0, show_default=True),
    click.option("--samples-per-view", type=click.IntRange(1), default=1, show_default=True),
    click.option("--augment/--no-augment", default=True, help="Give every sample another view (default)."),
    click.option("--lenient", is_flag=True, help="Parse answers as the arc24 scripts did."),
    click.option("--max-tokens", type=click.IntRange(1), help="Default: enough for a 30x30 grid."),
    click.option("--extra-body", type=JsonObject(), default="{}", help="JSON object merged into every request."),
    api_key_option,
)
_TRAINING = (
    "schedule", "again", "discard", "rescore", "task_deadline", "training_deadline", "deadline", "dtype", "port",
    "gpu_memory", "tasks_per_group",
)  # fmt: skip
"""Parameters of the command that ``TttOptions`` has and ``RunOptions`` has not."""


def _sampling_options(command: F) -> F:
    """Add the options that ``bench ttt`` shares with ``bench run``."""
    for option in reversed(_SAMPLING):
        command = option(command)
    return command


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("recipe_file", metavar="RECIPE.yaml", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@settings_option("Override a key of the recipe, e.g. ttt.steps=20; repeat it.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The run folder.")
@click.option("--name", help="The run's model name. Default: the name of the run folder.")
@click.option("--server", "servers", multiple=True, help="URL of a running server; else one is started and stopped.")
@click.option("--adapters", type=click.Path(path_type=Path), help="The registry of those servers.")
@click.option(
    "--schedule",
    type=click.Choice(["train-first", "resident"]),
    help="train-first: train all tasks, then serve. resident: train the next task while one is answered. Default: "
    "resident; train-first on a GPU without --server.",
)
@click.option("--task-deadline", type=Seconds(), help="Cut the training of a task after this time, e.g. 20m.")
@deadline_option("Train nothing", "--training-deadline", "The starting adapter or the base answers the other tasks.")
@deadline_option("Train and ask nothing")
@click.option("--discard-adapters", "discard", is_flag=True, help="Keep only the digests of adapters that answered.")
@click.option(
    "--rescore", type=click.IntRange(1), help="At the end, rescore every candidate under so many fixed views."
)
@rule_option(before_sampling=True)
@click.option("--resume", is_flag=True, help="Complete the run in --out.")
@click.option("--task", "again", multiple=True, metavar="ID", help="With --resume: train and answer this task again.")
@click.option("--dtype", default="exact", show_default=True, help="Of our own server (bench serve --dtype).")
@click.option("--port", type=int, help="Of our own server; by default a free one.")
@click.option(
    "--gpu-memory",
    type=FloatRange(0, 1, min_open=True),
    help="Share of GPU memory of our own server; --schedule resident needs it, and the trainer the rest.  "
    "[default: 0.9]",
)
@click.option("--dry-run", is_flag=True, help="Check everything, print the estimate of time and disk, and stop.")
@cluster_options
@click.option("--tasks-per-group", type=click.IntRange(1), help="With --on: tasks that one training does in turn.")
@_sampling_options
@report_to_option
@policy_options
def ttt(
    recipe_file: Path,
    overrides: tuple[str, ...],
    dry_run: bool,
    report_to: tuple[str, ...],
    **others: Any,
) -> int:
    """Train an adapter for every task on the task's own train pairs (test-time training), and bench it.

    \b
    Example:
      bench ttt examples/ttt-tiny.yaml --dataset toy/cross/evaluation#n=40 -n 8 --out runs/ttt
      bench ttt examples/ttt-tiny.yaml --dataset toy/cross/evaluation#n=40 -n 8 --out runs/ttt --resume
    """
    from harness.cli.workflows.steps import sigterm_as_interrupt
    from harness.cli.workflows.ttt.answering.answerer import Interrupted
    from harness.cli.workflows.ttt.answering.rescoring import failure_text
    from harness.cli.workflows.ttt.estimate import estimate_ttt
    from harness.cli.workflows.ttt.job import TttJob
    from harness.cli.workflows.ttt.machines import check_servers, trainer_is_on_gpu
    from harness.cli.workflows.ttt.run import run_ttt
    from harness.core.errors import RunError

    job = TttJob.open(_job_options(recipe_file, overrides, **others))
    check_servers(job)
    estimate = estimate_ttt(job, on_gpu=trainer_is_on_gpu())
    click.echo(estimate.text(), err=not dry_run)
    if dry_run:
        return 0
    with sigterm_as_interrupt():
        try:
            missing = run_ttt(job, estimate)
        except RunError as error:  # of a session, it names an option that only bench run has
            raise RunError(str(error).replace("--retry-errors", "--task ID (trained and answered again)")) from error
        except (Interrupted, KeyboardInterrupt):
            answered = len(job.tasks) - len(job.pending())
            resume = resume_command("--task")  # those tasks were removed already
            click.echo(f"{answered} of {len(job.tasks)} tasks are answered; to resume: {resume}", err=True)
            return INTERRUPTED
    _show_costs(job.out)
    if missing is not None:
        show_missing(missing.text(), "--task", "--deadline", is_everything=missing.is_everything)
        if missing.failed:
            raise RunError(failure_text(missing.failed))
    report_scores(report_to, "ttt", job.out, show_scores(job.out, "bench submit {run} -o submission.json"))
    return 0


def _job_options(
    recipe_file: Path,
    overrides: tuple[str, ...],
    *,
    out: Path,
    name: str | None,
    adapters: Path | None,
    max_in_flight: int,
    timeout: float,
    retries: int,
    wait: float,
    **others: Any,
) -> TttOptions:
    """Return the options of the command as those of its job; print a note if the recipe has keys that are not used.

    Args:
        others: the options of training and those of sampling.

    Raises:
        ConfigError: the recipe is invalid, or Ray is needed and not installed.
    """
    from harness.cli.workflows.ttt.job import TttOptions
    from harness.client.pool.retry import RetryPolicy
    from harness.sampling.options.run_options import RunOptions
    from trainers.recipe.files.extended_file import read_extended
    from trainers.recipe.ttt_recipe import load_ttt_recipe, unused_keys

    of_training = {key: others.pop(key) for key in _TRAINING}
    if (placement := take_placement(others)) is not None:
        require_ray()
    policy = RetryPolicy(max_in_flight, retries, timeout, wait)
    sampling = RunOptions(models=(name or out.resolve().name,), out=out, api="auto", policy=policy, **others)
    file = read_extended(recipe_file)
    recipe = load_ttt_recipe(file, overrides)
    if unused := unused_keys(file, overrides):
        click.echo(f"note: keys of ordinary trainings, not used here: {', '.join(unused)}", err=True)
    return TttOptions(recipe, sampling, adapters, placement=placement, **of_training)


def _show_costs(out: Path) -> None:
    """Print how the tasks were trained, and what a task took."""
    from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
    from harness.runs.schemas.task_training import count_outcomes

    records = TrainingLog(out / TTT_LOG).records()
    if not records:
        return
    counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in count_outcomes(records).items())
    trained = sum(record.train_seconds for record in records.values()) / max(1, len(records))
    sampled = sum(record.sample_seconds for record in records.values()) / max(1, len(records))
    click.echo(
        f"{len(records)} tasks: {counts}; a task took {trained:.1f} s to train and {sampled:.1f} s to answer", err=True
    )
