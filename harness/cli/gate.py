"""The command ``bench gate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.entry import print_warnings
from harness.cli_options import rule_option, scorer_option

if TYPE_CHECKING:
    from harness.scoring.model_scores import ModelScores
    from harness.stats.gate import Gate


@click.command()
@click.argument("run", metavar="RUN[@MODEL]")
@click.option("--metric", default="vote_2", show_default=True, help="The metric to test.")
@click.option("--min", "minimum", type=click.FloatRange(0, 1), help="The share that the metric must reach.")
@click.option("--baseline", metavar="RUN[@MODEL]", help="The model to compare with, for --margin or --min-gain.")
@click.option("--margin", type=click.FloatRange(0, 1), help="The run must not lose more than this share.")
@click.option(
    "--min-gain", "gain", type=click.FloatRange(0, 1, min_open=True), help="The run must gain at least this share."
)
@click.option(
    "--common", is_flag=True, help="With --baseline: if the runs' tasks differ, use the tasks that both have."
)
@rule_option()
@scorer_option()
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write JUnit XML here.")
def gate(
    run: str,
    metric: str,
    minimum: float | None,
    baseline: str | None,
    margin: float | None,
    gain: float | None,
    common: bool,
    rule: str | None,
    scorer: str | None,
    junit: Path | None,
) -> int:
    """PASS (exit 0) if the whole interval meets the requirement, FAIL (1) if none of it does, else INCONCLUSIVE (3).

    The exit status is 4 if the metric cannot be computed, and 2 for wrong options.

    \b
    bench gate runs/mine@adapter --metric vote_2 --min 0.20
    bench gate runs/new --baseline runs/old --metric accuracy --margin 0.01 --junit gate.xml
    bench gate runs/ttt --baseline runs/adapter --min-gain 0.5
    """
    from harness.core.errors import ArcBenchError, ConfigError, NotComputableError
    from harness.results.junit_xml import write_junit

    if (minimum is None) == (baseline is None) or (baseline is not None) != ((margin is None) != (gain is None)):
        raise click.UsageError("give either --min, or --baseline with --margin or --min-gain")
    requirement = f"{run} {metric} {_requirement(minimum, baseline, margin, gain)}"
    try:
        if baseline is None:
            verdict, text = _test_minimum(run, metric, minimum or 0.0, rule, scorer)
        else:
            runs = _ComparedRuns(run, baseline, common, rule, scorer)
            verdict, text = _test_difference(runs, metric, margin or 0.0, gain)
    except (ArcBenchError, OSError) as error:
        if junit is not None:
            write_junit(junit, requirement, None, str(error))
        if isinstance(error, ConfigError):
            raise
        raise NotComputableError(str(error)) from error
    click.echo(f"{verdict.name}: {text}")
    if junit is not None:
        write_junit(junit, requirement, verdict, text)
    return verdict.value


def _test_minimum(run: str, metric: str, minimum: float, rule: str | None, scorer: str | None) -> tuple[Gate, str]:
    """Test whether the metric reaches a minimum; return the verdict and its reason."""
    from harness.core.errors import ConfigError
    from harness.results.table_format import percent, with_interval
    from harness.scoring.model_scores import score_intervals
    from harness.scoring.run_selector import require_measured, require_one_model, select_models
    from harness.stats.gate import gate_verdict
    from harness.voting.metrics import LOWER_IS_BETTER

    _check_metric(metric)
    if metric in LOWER_IS_BETTER:
        raise ConfigError(f"less of {metric} is better, so that --min does not apply; use --baseline and --margin")
    require_one_model(run)
    selected = select_models((run,), rule=rule, scorer=scorer)
    print_warnings(selected.warnings)
    require_measured(selected, metric)
    interval = score_intervals(selected.scored, selected.seed)[0][metric]
    verdict = gate_verdict(interval.low, interval.high, minimum)
    more = ""
    if metric == "accuracy" and (scores := selected.scored[0]).enumeration is not None:
        more = f" + at most {100 * scores.tasks.values_of('unexplored').mean():.1f} unexplored"
    name = _name_with_rule(metric, selected.scored)
    return verdict, f"{name} is {with_interval(interval)}{more}, asked for is at least {percent(minimum)}"


def _requirement(minimum: float | None, baseline: str | None, margin: float | None, gain: float | None) -> str:
    """Return in words what a metric must reach."""
    if baseline is None:
        return f">= {minimum:g}"
    return f"no worse than {baseline} - {margin:g}" if gain is None else f">= {baseline} + {gain:g}"


@dataclass(frozen=True)
class _ComparedRuns:
    """A run and its baseline, with the options that say how they are scored."""

    run: str
    baseline: str
    common: bool
    rule: str | None
    scorer: str | None


def _test_difference(runs: _ComparedRuns, metric: str, margin: float, gain: float | None) -> tuple[Gate, str]:
    """Test the difference of the metric from the baseline's; return the verdict and its reason.

    Args:
        margin: a loss that is allowed; used if ``gain`` is None.
        gain: a gain that must be shown.
    """
    from harness.core.errors import ConfigError
    from harness.results.table_format import points
    from harness.scoring.comparable_metrics import incomparable_reason
    from harness.scoring.paired_comparison import compare_pairs
    from harness.scoring.run_selector import require_measured, require_one_model, select_models
    from harness.stats.gate import gain_bounds, gain_verdict, margin_verdict
    from harness.voting.metrics import LOWER_IS_BETTER

    _check_metric(metric)
    for name in (runs.run, runs.baseline):
        require_one_model(name)
    selected = select_models((runs.baseline, runs.run), runs.common, runs.rule, runs.scorer)
    print_warnings(selected.warnings)
    old, new = selected.scored
    if (old.enumeration is None) == (new.enumeration is None):
        require_measured(selected, metric)
    comparisons = compare_pairs([(new, old)], selected.seed, (metric,))
    if not comparisons:
        raise ConfigError(incomparable_reason(metric, new, old))
    comparison = comparisons[0].comparison
    lower = metric in LOWER_IS_BETTER
    low, high = gain_bounds(comparison, lower)
    verdict = margin_verdict(comparison, margin, lower) if gain is None else gain_verdict(comparison, gain, lower)
    change = -comparison.delta if lower else comparison.delta
    note = comparison.note or ("nearly all tasks differ alike" if comparison.widest else "")
    why = f" (widest case: {note})" if note else ""
    name = _name_with_rule(metric, selected.scored)
    text = f"{name} gains {points(change)} points [{points(low)}, {points(high)}]{why} on {runs.baseline}"
    asked = (
        f"a loss of at most {100 * margin:g} points" if gain is None else f"a gain of at least {100 * gain:g} points"
    )
    return verdict, f"{text}, asked for is {asked}"


def _name_with_rule(metric: str, scored: Sequence[ModelScores]) -> str:
    """Return the name of a metric, of a vote with its rule if one was chosen for any of the models."""
    from harness.voting.selection_rules import VOTE

    if metric not in ("vote_1", "vote_2") or all(scores.rule is None for scores in scored):
        return metric
    rules = dict.fromkeys(VOTE if scores.rule is None else scores.rule.name for scores in scored)
    return f"{metric} by {' and '.join(rules)}"


def _check_metric(metric: str) -> None:
    from harness.core.errors import ConfigError
    from harness.voting.metrics import ENUMERATED_METRICS

    if metric not in ENUMERATED_METRICS:
        raise ConfigError(f"there is no metric {metric!r}; choose one of {', '.join(ENUMERATED_METRICS)}")
