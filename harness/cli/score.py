"""The command ``bench score``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the results here."
)
@click.option(
    "--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True
)
@click.option("--resamples", type=click.IntRange(100), default=9_999, show_default=True, help="Bootstrap resamples.")
def score(run: Path, json_file: Path | None, confidence: float, resamples: int) -> None:
    """Vote and score the predictions of a run again, offline; rewrites its results.json.

    \b
    bench score runs/mine
    bench score runs/mine --json results.json --confidence 0.9
    """
    from harness.scoring import score_run
    from harness.summary import summary_table

    results = score_run(run, confidence, resamples)
    click.echo(summary_table(results))
    if json_file is not None:
        json_file.write_text(results.model_dump_json(indent=2) + "\n")
