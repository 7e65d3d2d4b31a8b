"""Score the run that a command has just finished, and print its table; or say what its deadline left out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.entry import print_warnings
from harness.cli.parameters import resume_command

if TYPE_CHECKING:
    from harness.runs.schemas.results_schema import Results


def show_scores(out: Path, unscored: str) -> Results | None:
    """Score a run folder and print its table; return None, and print why, if it cannot be scored. Its run is complete.

    Args:
        unscored: commands for a run whose test outputs are not known, with ``{run}`` for the folder.
    """
    # Imported here: they import numpy and scipy, for which the first request does not wait.
    from harness.core.errors import UnknownOutputError, UnusableRuleError
    from harness.results.score_sheet import unreadable_warnings
    from harness.results.summary_table import summary_table
    from harness.runs.folder import RunFolder
    from harness.scoring.run_scores import score_run

    where = shlex.quote(str(out))
    try:
        results = score_run(out)
    except UnknownOutputError as error:  # as in Kaggle's test challenges
        click.echo(f"not scored: {error}: {unscored.replace('{run}', where)}", err=True)
        return None
    except UnusableRuleError as error:  # such as one on rescores, which are made next
        click.echo(f"not scored: {error}; then bench score {where}", err=True)
        return None
    click.echo(summary_table(results))
    print_warnings(unreadable_warnings(results))
    click.echo(f"written: {RunFolder(out).results_path}")
    return results


def show_missing(missing: str, *without: str, is_everything: bool) -> None:
    """Say what the deadline left out of a run, and how to ask for it.

    Args:
        missing: the counts, as a phrase.
        without: as in ``resume_command``.
        is_everything: whether nothing was answered.

    Raises:
        RunError: nothing was answered before the deadline.
    """
    from harness.core.errors import RunError

    click.echo(f"{missing}; to ask for them: {resume_command(*without)}", err=True)
    if is_everything:
        raise RunError("nothing was answered before the deadline (--deadline), so that there is nothing to score")
