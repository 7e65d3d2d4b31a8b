"""The command ``bench run``: sample, score and summarise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.entry import INTERRUPTED
from harness.cli.parameters import (
    JsonObject,
    api_key_option,
    deadline_option,
    policy_options,
    resume_command,
    servers_option,
)
from harness.cli.report_to import report_scores, report_to_option
from harness.cli.shown_scores import show_missing, show_scores
from harness.cli_options import FloatRange, rule_option
from harness.core.random_stream import MAX_SEED

if TYPE_CHECKING:
    from harness.sampling.options.run_options import RunOptions
    from harness.sampling.session import SessionSummary


@click.command()
@servers_option
@click.option(
    "--model", "models", multiple=True, required=True, help="A model or adapter that the server serves; repeat it."
)
@click.option("--dataset", required=True, help="A dataset spec, e.g. arc1/evaluation or toy/cross/evaluation#n=60.")
@click.option(
    "-n",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Predictions (--search dfs: views) per test output.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The run folder.")
@click.option("--resume", is_flag=True, help="Complete the run in --out.")
@click.option("--retry-errors", is_flag=True, help="With --resume: repeat the requests that failed or were refused.")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many tasks.")
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Seeds views, sampling and intervals.",
)
@click.option("--prompt", help="Default: the adapter's, else output-from-examples-v1.")
@click.option("--grid-encoder", "encoder", help="Default: the adapter's, else shape, row numbers and digits.")
@click.option("--augment/--no-augment", default=True, help="Give every sample another view of the task (default).")
@click.option("--lenient", is_flag=True, help="Parse answers as the arc24 scripts did, instead of strictly.")
@click.option(
    "--samples-per-view", type=click.IntRange(1), default=1, show_default=True, help="Samples of each view of a task."
)
@click.option(
    "--stop",
    metavar="decided|risk=R",
    help="Stop sampling a test output once further samples cannot change its attempts (decided), or do so with a "
    "probability below R.",
)
@click.option(
    "--until-resolved",
    metavar="METRIC",
    help="Sample tasks in random order and end once every model is better or worse than the first --model in this "
    "metric; --limit is the budget.",
)
@click.option(
    "--smaller-than",
    type=FloatRange(0, 100, min_open=True, max_open=True),
    help="With --until-resolved: also end once the differences are smaller than this many points, with 95 % confidence "
    "if they are about symmetric over tasks.",
)
@click.option(
    "--search",
    type=click.Choice(["greedy", "sample", "dfs"]),
    help="dfs: all answers of every view that have at least the probability --min-prob. Default: greedy at temperature "
    "0, else sample.",
)
@click.option(
    "--min-prob",
    type=FloatRange(0, 1, min_open=True),
    help="For --search dfs: the least probability of an answer. Default: 0.1.",
)
@click.option(
    "--max-answers",
    type=click.IntRange(1),
    help="For --search dfs: keep so many answers of a view, the likeliest. Default: all.",
)
@click.option(
    "--keep-greedy",
    is_flag=True,
    help="For --search dfs: also keep the answer that temperature 0 gives where it is less likely than --min-prob.",
)
@rule_option(before_sampling=True)
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be requested, and stop.")
@click.option("--temperature", type=FloatRange(0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--min-p", type=FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), help="Default: enough for a 30x30 grid.")
@click.option(
    "--api",
    type=click.Choice(["auto", "chat", "completions"]),
    default="auto",
    show_default=True,
    help="auto: completions with token ids if every server tokenizes chats to the same ids, else chats.",
)
@api_key_option
@click.option("--extra-body", type=JsonObject(), default="{}", help="JSON object merged into every request.")
@click.option("--chat-template-kwargs", type=JsonObject(), default="{}", help="JSON object for the chat template.")
@click.option(
    "--models-at-once", type=click.IntRange(1), help="Default: the server's --max-loras where it names it, else 1."
)
@deadline_option("Ask nothing")
@report_to_option
@policy_options
def run(
    servers: tuple[str, ...],
    models: tuple[str, ...],
    max_in_flight: int,
    timeout: float,
    retries: int,
    wait: float,
    dry_run: bool,
    report_to: tuple[str, ...],
    **options: object,
) -> int:
    """Sample augmented predictions from served models, score and store them.

    \b
    Example:
      bench run --server http://127.0.0.1:8000 --model base --model cross \\
        --dataset arc1/evaluation -n 32 --out runs/first
    """
    from harness.client.pool.retry import RetryPolicy
    from harness.sampling.options.run_options import RunOptions

    policy = RetryPolicy(max_in_flight, retries, timeout, wait)
    chosen = RunOptions(servers=servers, models=models, policy=policy, **options)  # type: ignore[arg-type]
    if dry_run:
        from harness.sampling.dry_run import estimate_run

        click.echo(estimate_run(chosen).text())
        return 0
    hint = f"to resume: {resume_command()}"
    summary = _sample(chosen, hint)
    overhead = 1000 * summary.cpu_seconds / max(summary.sampled, 1)
    click.echo(
        f"{summary.sampled} {summary.noun} in {summary.seconds:.1f} s; "
        f"the harness took {overhead:.2f} ms of CPU for each",
        err=True,
    )
    if summary.is_cut:
        missing = f"missing by the deadline: {summary.total - summary.done} of {summary.total} {summary.noun}"
        show_missing(missing, "--deadline", is_everything=not summary.done)
    elif not summary.finished:
        click.echo(f"{summary.done} of {summary.total} {summary.noun} are saved; {hint}", err=True)
        return INTERRUPTED
    session = {summary.noun: summary.sampled, "seconds": summary.seconds, "cpu_seconds": summary.cpu_seconds}
    results = show_scores(chosen.out, "bench score {run} --dataset DATASET; bench submit {run} -o submission.json")
    report_scores(report_to, "run", chosen.out, results, session)
    return 0


def _sample(options: RunOptions, hint: str) -> SessionSummary:
    """Sample the run; if it fails after its first request, print the hint how to resume it."""
    from harness.sampling.session import sample_run
    from harness.sampling.unmeasured_models import NothingMeasuredError

    begun: list[bool] = []
    try:
        return sample_run(options, on_begin=lambda: begun.append(True))
    except NothingMeasuredError:  # the run is complete: resuming would change nothing
        raise
    except BaseException:
        if begun:  # an error before the first request would come again on resuming
            click.echo(hint, err=True)
        raise
