"""The command ``bench rescore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.entry import INTERRUPTED
from harness.cli.parameters import api_key_option, deadline_option, policy_options, servers_option

if TYPE_CHECKING:
    from harness.core.deadline import Deadline
    from harness.rescoring.options import RescoreSummary


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@servers_option
@click.option(
    "--model", help="The model or adapter that scores all candidates. Default: each model of the run scores its own."
)
@click.option("--views", type=click.IntRange(1), help="Fixed views of each task. Default: 8.")
@click.option("--top", type=click.IntRange(1), help="Only so many of the best candidates by vote. Default: all.")
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be requested, and stop.")
@api_key_option
@deadline_option("Ask nothing")
@policy_options
def rescore(
    run: Path,
    servers: tuple[str, ...],
    model: str | None,
    views: int | None,
    top: int | None,
    dry_run: bool,
    api_key: str | None,
    deadline: Deadline | None,
    max_in_flight: int,
    timeout: float,
    retries: int,
    wait: float,
) -> int:
    """Compute the log-probability of every candidate of a run under the same views, for the rules poe and kgmon.

    They are appended to RUN/rescores.jsonl; the same command completes what an interrupted one left. Exit status 1 if
    servers failed on some; 0 if there is no candidate or a deadline left some out, which is said.

    \b
    Example:
      bench rescore runs/first --server http://127.0.0.1:8000 --model judge
      bench score runs/first --rules all
    """
    from harness.client.pool.retry import RetryPolicy
    from harness.rescoring.options import NoCandidatesError, RescoreOptions
    from harness.rescoring.session import estimate_rescore
    from harness.rescoring.session import rescore as run_session

    policy = RetryPolicy(max_in_flight, retries, timeout, wait)
    options = RescoreOptions(run, servers, model, views, top, api_key, policy, deadline)
    try:
        if dry_run:
            click.echo(estimate_rescore(options).text())
            return 0
        summary = run_session(options)
    except NoCandidatesError as error:
        click.echo(str(error), err=True)
        return 0
    return _show_summary(summary)


def _show_summary(summary: RescoreSummary) -> int:
    """Print what was scored and what is missing, and return the exit status.

    Raises:
        RunError: nothing was answered before the deadline.
    """
    from harness.core.errors import RunError

    click.echo(
        f"{summary.scored} log-probabilities in {summary.seconds:.1f} s; {summary.done} of {summary.total} are in "
        f"{summary.path}"
    )
    for kind, count in summary.failures.items():
        click.echo(f"{count} answers could not be scored ({kind}), which is recorded", err=True)
    if summary.is_cut:
        missing = summary.total - summary.done - summary.given_up
        text = f"missing by the deadline: {missing} of {summary.total} log-probabilities"
        click.echo(f"{text}; the same command asks for them", err=True)
        if not summary.done:
            raise RunError("nothing was answered before the deadline (--deadline)")
    if summary.interrupted:
        click.echo("the same command completes them", err=True)
        return INTERRUPTED
    if summary.given_up:
        click.echo(f"error: servers failed on {summary.given_up} answers; the same command asks again", err=True)
        return 1
    return 0
