"""The command ``bench compare``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.entry import print_warnings
from harness.cli.report_to import report_comparisons, report_to_option
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
@report_to_option
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
    report_to: tuple[str, ...],
) -> None:
    """Compare models in pairs on the same tasks: difference, interval, p value, and a verdict in words.

    \b
    bench compare runs/mine
    bench compare runs/mine@base runs/mine@adapter --metric vote_2
    """
    import json

    from harness.core.errors import ConfigError
    from harness.results.comparison_table import (
        comparison_footnote,
        comparison_table,
        comparison_text,
        comparisons_json,
        plan_table,
    )
    from harness.scoring.comparable_metrics import compared_metrics, incomparable_reason
    from harness.scoring.paired_comparison import all_pairs, compare_pairs, pairs_with_first
    from harness.scoring.run_selector import select_models
    from harness.voting.metrics import ENUMERATED_METRICS, METRICS

    if unknown := [name for name in metrics if name not in ENUMERATED_METRICS]:
        raise click.UsageError(f"there is no metric {unknown[0]!r}; choose of {', '.join(ENUMERATED_METRICS)}")
    selected = select_models(runs, common, rule, scorer)
    print_warnings(selected.warnings)
    pairs = pairs_with_first(selected.scored) if baseline else all_pairs(selected.scored)
    if not pairs:
        raise click.UsageError("one model alone has nothing to be compared with; name a second one")
    chosen = metrics or compared_metrics(selected.scored, METRICS)
    comparisons = compare_pairs(pairs, selected.seed, chosen)
    if not comparisons:
        raise ConfigError("; ".join(incomparable_reason(name, *pairs[0]) for name in chosen))
    texts = [comparison_text(row, None if all_ids else SHOWN_IDS) for row in comparisons]
    parts = [comparison_table(comparisons), comparison_footnote(comparisons), "\n".join(texts)]
    if plan is not None:
        parts.append(plan_table(comparisons, plan / 100))
    content = json.dumps(comparisons_json(comparisons), indent=2)
    print_result("\n\n".join(parts), content, json_file)
    report_comparisons(report_to, runs, content, selected.seed)
