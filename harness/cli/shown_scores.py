"""Score the run that a command has just finished, and print its table."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from harness.runs.schemas.results_schema import Results


def show_scores(out: Path, unscored: str) -> Results | None:
    """Score a run folder and print its table; return None, and print why, if it cannot be scored. Its run is complete.

    Args:
        unscored: commands for a run whose test outputs are not known, with ``{run}`` for the folder.
    """
    # Imported here: they import numpy and scipy, for which the first request does not wait.
    from harness.core.errors import UnknownOutputError, UnusableRuleError
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
    click.echo(f"written: {RunFolder(out).results_path}")
    return results
