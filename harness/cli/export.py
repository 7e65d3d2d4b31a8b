"""The command ``bench export``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.parameters import predictions_options
from harness.cli_options import output_option


@click.command()
@click.argument("predictions", type=click.Path(exists=True, path_type=Path))
@output_option(required=True, help="The table; its ending chooses the form: .parquet, .csv or .jsonl.")
@predictions_options
@click.option("--texts", is_flag=True, help="Also write the servers' answers.")
def export(predictions: Path, output: Path, dataset: str | None, form: str | None, texts: bool) -> None:
    """Write the predictions of a run, a pool, or a file of any form that bench score reads, as a table.

    The table has a row for each prediction, with its grid, log-probability and whether it is exact; docs/python.md
    lists the columns. bench score reads it with --dataset. Parquet needs the extra export.

    \b
    bench export runs/mine -o predictions.parquet
    bench export runs/mine -o predictions.csv
    bench score predictions.csv --dataset arc1/evaluation
    """
    from harness.frames.export import export_predictions

    rows = export_predictions(predictions, output, dataset, form, texts)
    click.echo(f"wrote {output}: {rows:,} rows")
