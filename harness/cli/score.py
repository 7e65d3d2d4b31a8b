"""The command ``bench score``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.entry import print_warnings
from harness.cli.parameters import predictions_options
from harness.cli.report_to import report_scores, report_to_option
from harness.cli_options import FloatRange, json_option, print_result, rule_option, scorer_option


@click.command()
@click.argument("predictions", type=click.Path(exists=True, path_type=Path))
@predictions_options
@click.option(
    "-n", type=click.IntRange(1), help="Requested predictions per test output; default: the largest number in the file."
)
@rule_option()
@click.option("--rules", help="Selection rules to compare with the vote: all, or names such as logprob,first.")
@scorer_option()
@json_option("the results", was_flag=False)
@report_to_option
@click.option("--confidence", type=FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True)
@click.option("--resamples", type=click.IntRange(100), default=9_999, show_default=True, help="Bootstrap resamples.")
def score(
    predictions: Path,
    dataset: str | None,
    form: str | None,
    n: int | None,
    rule: str | None,
    rules: str | None,
    scorer: str | None,
    json_file: Path | None,
    confidence: float,
    resamples: int,
    report_to: tuple[str, ...],
) -> None:
    """Vote on and score saved predictions offline: a run folder, whose results.json is rewritten, a pool, or with
    --dataset a file or folder in another format.

    \b
    lines     our predictions.jsonl
    table     a table of bench export: .parquet, .csv or .jsonl
    arc24     its *_task_results.json: a list of {task_id, idx, grid, ...}
    attempts  {id: [{attempt_1: grid, ...}, ...]}; kaggle is the same with two attempts
    arcprize  a folder with a file for each task

    \b
    bench score runs/mine --rules all
    bench score submission.json --dataset arc1/evaluation --json results.json
    """
    from harness.results.score_sheet import score_saved_predictions
    from harness.scoring.prediction_loader import open_predictions
    from harness.scoring.run_scores import write_results

    saved = open_predictions(predictions, dataset, form, n, scorer)
    sheet = score_saved_predictions(saved, rules, confidence, resamples, rule)
    print_warnings(sheet.warnings)
    if saved.folder is not None:
        write_results(saved.folder, sheet.results)
    print_result(sheet.text, sheet.results.model_dump_json(indent=2), json_file)
    report_scores(report_to, "score", predictions, sheet.results, dataset=dataset)
