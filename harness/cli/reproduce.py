"""The command ``bench reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.entry import INTERRUPTED
from harness.cli.parameters import api_key_option, policy_options, resume_command

if TYPE_CHECKING:
    from harness.sampling.reproduction import ReproductionResult


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
    from harness.client.pool.retry import RetryPolicy
    from harness.core.errors import ConfigError
    from harness.runs.folder import RunFolder
    from harness.sampling.reproduction import reproduce_run

    policy = RetryPolicy(max_in_flight, retries, timeout, wait)
    manifest = RunFolder(run_folder).manifest()
    if manifest.config.ttt is not None:
        from harness.cli.workflows.ttt.answering.reproduce import reproduce_trained_tasks

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
