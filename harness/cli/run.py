"""``bench run`` and ``bench reproduce``: sample, score and summarise."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.entry import INTERRUPTED
from harness.cli.parameters import JsonObject, api_key_option, policy_options, resume_command, servers_option
from harness.cli_options import rule_option
from harness.core.random_stream import MAX_SEED

if TYPE_CHECKING:
    from harness.sampling.reproduction import ReproductionResult


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
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    help="With --until-resolved: also end once the differences are certainly smaller than this many points.",
)
@click.option(
    "--search",
    type=click.Choice(["greedy", "sample", "dfs"]),
    help="dfs: all answers of every view that have at least the probability --min-prob. Default: greedy at temperature "
    "0, else sample.",
)
@click.option(
    "--min-prob",
    type=click.FloatRange(0, 1, min_open=True),
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
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--min-p", type=click.FloatRange(0, 1), default=0.0, show_default=True)
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
@policy_options
def run(
    servers: tuple[str, ...],
    models: tuple[str, ...],
    max_in_flight: int,
    timeout: float,
    retries: int,
    wait: float,
    dry_run: bool,
    **options: object,
) -> int:
    """Sample augmented predictions from served models, score and store them.

    \b
    Example:
      bench run --server http://127.0.0.1:8000 --model base --model cross \\
        --dataset arc1/evaluation -n 32 --out runs/first
    """
    from harness.client.retry import RetryPolicy
    from harness.core.errors import UnknownOutputError, UnusableRuleError
    from harness.sampling.options import RunOptions
    from harness.sampling.session import sample_run
    from harness.scoring.unmeasured_models import NothingMeasuredError

    policy = RetryPolicy(max_in_flight, retries, timeout, wait)
    chosen = RunOptions(servers=servers, models=models, policy=policy, **options)  # type: ignore[arg-type]
    if dry_run:
        from harness.sampling.dry_run import estimate_run

        click.echo(estimate_run(chosen).text())
        return 0
    hint = f"to resume: {resume_command()}"
    begun: list[bool] = []
    try:
        summary = sample_run(chosen, on_begin=lambda: begun.append(True))
    except NothingMeasuredError:  # the run is complete: resuming would change nothing
        raise
    except BaseException:
        if begun:  # an error before the first request would come again on resuming
            click.echo(hint, err=True)
        raise
    overhead = 1000 * summary.cpu_seconds / max(summary.sampled, 1)
    click.echo(
        f"{summary.sampled} {summary.noun} in {summary.seconds:.1f} s; "
        f"the harness took {overhead:.2f} ms of CPU for each",
        err=True,
    )
    if not summary.finished:
        click.echo(f"{summary.done} of {summary.total} {summary.noun} are saved; {hint}", err=True)
        return INTERRUPTED
    from harness.results.summary_table import (
        summary_table,
    )  # numpy and scipy, which the first request does not wait for
    from harness.scoring.run_scores import score_run

    try:
        results = score_run(chosen.out)
    except UnknownOutputError as error:  # as in Kaggle's test challenges; the run itself is complete
        where = shlex.quote(str(chosen.out))
        click.echo(
            f"not scored: {error}: bench score {where} --dataset DATASET; bench submit {where} -o submission.json",
            err=True,
        )
        return 0
    except UnusableRuleError as error:  # such as one on rescores, which are made next; the run itself is complete
        click.echo(f"not scored: {error}; then bench score {shlex.quote(str(chosen.out))}", err=True)
        return 0
    click.echo(summary_table(results))
    click.echo(f"written: {summary.folder.results_path}")
    return 0


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder of the new run.")
@click.option("--server", "servers", multiple=True, help="Default: the servers of the run, which are never sent a key.")
@click.option(
    "--adapters",
    type=click.Path(path_type=Path),
    help="For a run of bench ttt with --server: the registry of those servers. Without both, a server is started.",
)
@api_key_option
@click.option("--resume", is_flag=True, help="Complete the run in --out.")
@policy_options
def reproduce(
    run_folder: Path,
    out: Path,
    servers: tuple[str, ...],
    adapters: Path | None,
    api_key: str | None,
    resume: bool,
    max_in_flight: int,
    timeout: float,
    retries: int,
    wait: float,
) -> int:
    """Repeat a run from its manifest and compare the predictions and results; exit status 1 if they differ.

    \b
    Example:
      bench reproduce runs/first --out runs/again
    """
    from harness.client.retry import RetryPolicy
    from harness.core.errors import ConfigError
    from harness.runs.folder import RunFolder
    from harness.sampling.reproduction import reproduce_run

    policy = RetryPolicy(max_in_flight, retries, timeout, wait)
    manifest = RunFolder(run_folder).manifest()
    if manifest.config.ttt is not None:
        from harness.cli.workflows.ttt.reproduce import reproduce_trained_tasks

        if (agreement := reproduce_trained_tasks(run_folder, out, servers, adapters, api_key, resume, policy)) is None:
            click.echo(f"what was answered is saved; to resume: {resume_command()}", err=True)
            return INTERRUPTED
        return _show_agreement(agreement, "predictions" if manifest.config.search is None else "views")
    if adapters is not None:
        raise ConfigError(f"--adapters is for runs of bench ttt, and {run_folder} is none")
    if api_key and not servers:  # the run folder may come from anybody, and so may its server URLs
        named = " ".join(f"--server {url}" for url in manifest.servers)
        raise ConfigError(f"a key is only sent to servers that you name; where you trust those of the run: {named}")
    summary, agreement = reproduce_run(run_folder, out, servers, api_key, resume, policy)
    if agreement is None:
        saved = f"{summary.done} of {summary.total} {summary.noun} are saved"
        click.echo(f"{saved}; to resume: {resume_command()}", err=True)
        return INTERRUPTED
    return _show_agreement(agreement, summary.noun)


def _show_agreement(agreement: ReproductionResult, noun: str) -> int:
    """Print how two runs compare; return the exit status."""
    click.echo(f"{agreement.same} of {agreement.predictions} {noun} are the same")
    for model, task, test, sample in agreement.first:
        click.echo(f"  differs: {model}, task {task}, test {test}, sample {sample}")
    click.echo(f"metrics and failures are {'the same' if agreement.same_results else 'not the same'}")
    return 0 if agreement.same_results and agreement.same == agreement.predictions else 1
