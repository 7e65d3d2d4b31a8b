"""The command ``bench compare``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.entry import print_warnings
from harness.cli_options import json_option, print_result, rule_option, scorer_option

SHOWN_IDS = 8
"""Ids of tasks won and of tasks lost that are listed without ``--all-ids``."""


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN[@MODEL] …")
@click.option("--baseline", is_flag=True, help="Compare each model with the first only, not every pair.")
@click.option("--common", is_flag=True, help="If the runs declared different tasks, compare the tasks that all have.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="Compare this metric only; repeat it. Fewer comparisons make Holm's correction smaller.",
)
@rule_option()
@scorer_option()
@click.option("--all-ids", is_flag=True, help=f"List all tasks won and lost, not the first {SHOWN_IDS}.")
@click.option(
    "--plan",
    type=click.FloatRange(0, 100, min_open=True),
    help="Also print how many tasks resolve a difference of this many points.",
)
@json_option("the comparisons with all ids", was_flag=False)
def compare(
    runs: tuple[str, ...],
    baseline: bool,
    common: bool,
    metrics: tuple[str, ...],
    rule: str | None,
    scorer: str | None,
    all_ids: bool,
    plan: float | None,
    json_file: Path | None,
) -> None:
    """Compare models in pairs on the same tasks: difference, interval, p value, and a verdict in words.

    \b
    bench compare runs/mine
    bench compare runs/mine@base runs/mine@adapter --metric vote_2
    """
    import json

    from harness.results.comparison_table import (
        comparison_footnote,
        comparison_table,
        comparison_text,
        comparisons_json,
        plan_table,
    )
    from harness.scoring.matched_runs import compare_matched
    from harness.scoring.run_selector import select_models
    from harness.voting.metrics import ENUMERATED_METRICS

    if unknown := [name for name in metrics if name not in ENUMERATED_METRICS]:
        raise click.UsageError(f"there is no metric {unknown[0]!r}; choose of {', '.join(ENUMERATED_METRICS)}")
    selected = select_models(runs, common, rule, scorer)
    print_warnings(selected.warnings)
    comparisons = compare_matched(selected, metrics, baseline)
    texts = [comparison_text(row, None if all_ids else SHOWN_IDS) for row in comparisons]
    parts = [comparison_table(comparisons), comparison_footnote(comparisons), "\n".join(texts)]
    if plan is not None:
        parts.append(plan_table(comparisons, plan / 100))
    print_result("\n\n".join(parts), json.dumps(comparisons_json(comparisons), indent=2), json_file)
