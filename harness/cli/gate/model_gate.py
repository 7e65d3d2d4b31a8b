"""``bench gate`` of one model: whether the interval over tasks reaches what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.cli.entry import print_warnings
from harness.cli.gate.gate_requirement import Requirement
from harness.core.errors import ConfigError

if TYPE_CHECKING:
    from harness.scoring.matched_runs import SelectedModels
    from harness.scoring.model_scores import ModelScores
    from harness.stats.gate import Gate


@dataclass(frozen=True)
class ScoringChoices:
    """How runs are scored, for all that ``bench gate`` tests."""

    common: bool
    """Whether the tasks that all runs have are used, if their tasks differ."""
    rule: str | None
    scorer: str | None
    dataset: str | None = None
    """Of files of predictions."""

    def select(self, names: Sequence[str]) -> SelectedModels:
        """Return the scored models that the strings name, one each, and print the warnings."""
        from harness.scoring.run_selector import require_one_each, require_one_model, select_models

        for name in names:
            require_one_model(name)
        selected = select_models(names, self.common, self.rule, self.scorer, self.dataset)
        require_one_each(selected, names)
        print_warnings(selected.warnings)
        return selected


def gate_minimum(run: str, requirement: Requirement, choices: ScoringChoices) -> tuple[Gate, str]:
    """Test whether the metric reaches the minimum; return the verdict and its reason.

    Raises:
        ConfigError: the metric does not apply.
        RunError, DataError: the run is missing or broken.
    """
    from harness.results.table_format import with_interval
    from harness.scoring.model_scores import score_intervals
    from harness.scoring.run_selector import require_measured
    from harness.stats.gate import gate_verdict

    metric, minimum = requirement.metric, requirement.minimum or 0.0
    if requirement.lower_is_better:
        raise ConfigError(f"less of {metric} is better, so that --min does not apply; use --baseline and --margin")
    selected = choices.select((run,))
    require_measured(selected, metric)
    interval = score_intervals(selected.scored, selected.seed)[0][metric]
    verdict = gate_verdict(interval.low, interval.high, minimum)
    more = ""
    if metric == "accuracy" and (scores := selected.scored[0]).enumeration is not None:
        more = f" + at most {100 * scores.tasks.values_of('unexplored').mean():.1f} unexplored"
    name = _name_with_rule(metric, selected.scored)
    return verdict, f"{name} is {with_interval(interval)}{more}, asked for is at least {100 * minimum:g} %"


def gate_difference(run: str, baseline: str, requirement: Requirement, choices: ScoringChoices) -> tuple[Gate, str]:
    """Test the difference of the metric from the baseline's; return the verdict and its reason.

    Raises:
        ConfigError: the metric cannot be compared.
        RunError, DataError: a run is missing or broken.
    """
    from harness.scoring.comparable_metrics import comparable_values, incomparable_reason
    from harness.scoring.paired_comparison import compare_pairs
    from harness.scoring.run_selector import require_measured

    metric = requirement.metric
    selected = choices.select((baseline, run))
    old, new = selected.scored
    if (old.enumeration is None) == (new.enumeration is None):
        require_measured(selected, metric)
    comparisons = compare_pairs([(new, old)], selected.seed, (metric,))
    values = comparable_values(metric, new, old)
    if not comparisons or values is None:
        raise ConfigError(incomparable_reason(metric, new, old))
    comparison = comparisons[0].comparison
    verdict, gain = requirement.verdict_on_difference(comparison)
    print_warnings(requirement.notes_beside(verdict, comparison, values[0] - values[1]))
    return verdict, f"{_name_with_rule(metric, selected.scored)} {gain} on {baseline}, {requirement.asked_for}"


def _name_with_rule(metric: str, scored: Sequence[ModelScores]) -> str:
    """Return the name of a metric, of a vote with its rule if one was chosen for any of the models."""
    from harness.voting.metrics import VOTE_METRICS
    from harness.voting.selection_rules import VOTE

    if metric not in VOTE_METRICS or all(scores.rule is None for scores in scored):
        return metric
    rules = dict.fromkeys(VOTE if scores.rule is None else scores.rule.name for scores in scored)
    return f"{metric} by {' and '.join(rules)}"
