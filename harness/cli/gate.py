"""The command ``bench gate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.entry import print_warnings
from harness.cli.recipe_gate import gate_recipes
from harness.cli.recipe_selection import recipe_options
from harness.cli_options import rule_option, scorer_option

if TYPE_CHECKING:
    from harness.scoring.model_scores import ModelScores
    from harness.stats.gate import Gate


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN[@MODEL] …")
@click.option("--metric", default="vote_2", show_default=True, help="The metric to test.")
@click.option("--min", "minimum", type=click.FloatRange(0, 1), help="The share that the metric must reach.")
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="RUN[@MODEL]",
    help="The model, or with several the training runs of the recipe, than which it must not be worse ...",
)
@click.option("--margin", type=click.FloatRange(0, 1), help="... by more than this share.")
@recipe_options
@click.option(
    "--common", is_flag=True, help="With --baseline: if the runs' tasks differ, use the tasks that both have."
)
@rule_option()
@scorer_option()
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write JUnit XML here.")
def gate(
    runs: tuple[str, ...],
    metric: str,
    minimum: float | None,
    baselines: tuple[str, ...],
    margin: float | None,
    recipes: tuple[str, ...],
    training: tuple[Path, ...],
    paired_seeds: bool,
    common: bool,
    rule: str | None,
    scorer: str | None,
    junit: Path | None,
) -> int:
    """PASS (exit 0) if the whole interval meets the requirement, FAIL (1) if none of it does, else INCONCLUSIVE (3).

    The exit status is 4 if the metric cannot be computed, and 2 for wrong options. Several runs are training runs of
    one recipe; with --recipe the first recipe is tested, with --margin against the second. Their intervals are over
    tasks and training runs.

    \b
    bench gate runs/mine@adapter --metric vote_2 --min 0.20
    bench gate runs/new --baseline runs/old --metric accuracy --margin 0.01 --junit gate.xml
    bench gate runs/new-s0 runs/new-s1 --baseline runs/old-s0 --baseline runs/old-s1 --margin 0.01
    bench gate --recipe new=runs/new-s0,runs/new-s1 --metric accuracy --min 0.10
    """
    from harness.core.errors import ArcBenchError, ConfigError, NotComputableError
    from harness.results.junit_xml import write_junit

    _check_usage(runs, minimum, baselines, margin, recipes)
    tested = ", ".join(runs or recipes[:1])
    against = ", ".join(baselines or recipes[1:])
    requirement = f"{tested} {metric} " + (
        f">= {minimum:g}" if not against else f"no worse than {against} - {margin:g}"
    )
    several = bool(recipes) or len(runs) > 1 or len(baselines) > 1
    try:
        if several:
            _check_metric(metric)
            verdict, text = gate_recipes(
                runs, baselines, recipes, metric, minimum, margin, training, paired_seeds, common, rule, scorer
            )
        elif minimum is not None:
            verdict, text = _test_minimum(tested, metric, minimum, rule, scorer)
        else:
            verdict, text = _test_margin(tested, against, metric, margin or 0.0, common, rule, scorer)
    except (ArcBenchError, OSError) as error:
        if junit is not None:
            write_junit(junit, requirement, None, str(error))
        if isinstance(error, ConfigError):
            raise
        raise NotComputableError(str(error)) from error
    text += "" if several else " (this model alone, not other training runs of its recipe)"
    click.echo(f"{verdict.name}: {text}")
    if junit is not None:
        write_junit(junit, requirement, verdict, text)
    return verdict.value


def _check_usage(
    runs: Sequence[str],
    minimum: float | None,
    baselines: Sequence[str],
    margin: float | None,
    recipes: Sequence[str],
) -> None:
    """Raise UsageError unless the options say what is tested, and against what."""
    if bool(runs) == bool(recipes):
        raise click.UsageError("name the run to test, or recipes with --recipe NAME=RUN@MODEL,RUN@MODEL")
    if recipes:
        if baselines:
            raise click.UsageError("with --recipe, the baseline of --margin is a second --recipe, not --baseline")
        if (minimum is None) == (margin is None) or len(recipes) != (2 if minimum is None else 1):
            raise click.UsageError("give one --recipe with --min, or two with --margin: the second is the baseline")
    elif (minimum is None) == (not baselines) or (not baselines) != (margin is None):
        raise click.UsageError("give either --min, or --baseline with --margin")


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


def _test_margin(
    run: str, baseline: str, metric: str, margin: float, common: bool, rule: str | None, scorer: str | None
) -> tuple[Gate, str]:
    """Test whether the metric is worse than the baseline's by at most ``margin``; return the verdict and its reason."""
    from harness.core.errors import ConfigError
    from harness.results.table_format import points
    from harness.scoring.comparable_metrics import incomparable_reason
    from harness.scoring.paired_comparison import compare_pairs
    from harness.scoring.run_selector import require_measured, require_one_model, select_models
    from harness.stats.gate import gain_bounds, margin_verdict
    from harness.voting.metrics import LOWER_IS_BETTER

    _check_metric(metric)
    for name in (run, baseline):
        require_one_model(name)
    selected = select_models((baseline, run), common, rule, scorer)
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
    verdict = margin_verdict(comparison, margin, lower)
    gain = -comparison.delta if lower else comparison.delta
    why = f" (widest case: {comparison.note})" if comparison.note else ""
    name = _name_with_rule(metric, selected.scored)
    text = f"{name} gains {points(gain)} points [{points(low)}, {points(high)}]{why} on {baseline}"
    return verdict, f"{text}, asked for is a loss of at most {100 * margin:g} points"


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
