"""The headline rule: which selection rule gives vote_1 and vote_2 of all tables, and when it was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.core.errors import UnusableRuleError
from harness.core.grid import Task
from harness.predictions.model_rescores import NOT_RESCORED, ModelRescores
from harness.predictions.prediction_groups import ModelPredictions
from harness.runs.schemas.results_schema import HeadlineRule
from harness.scoring.early_stopped_scores import refuse_rules_after_early_stopping
from harness.scoring.model_scores import ModelScores
from harness.scoring.rule_scores import score_rules
from harness.voting.early_stopping import Schedule
from harness.voting.selection_rules import VOTE, get_rule


def headline_rule(recorded: str | None, given: str | None) -> HeadlineRule | None:
    """Return the headline rule; None for the vote where nothing else was chosen.

    Args:
        recorded: the rule that was recorded before sampling (``bench run --rule``).
        given: the rule that the command's option names; it takes precedence.

    Raises:
        ConfigError: no rule has this name.
    """
    if given is None or given == recorded:
        return None if recorded is None else HeadlineRule(name=get_rule(recorded).name, chosen="before_sampling")
    if given == VOTE and recorded is None:
        return None
    return HeadlineRule(name=get_rule(given).name, chosen="afterwards")


def by_headline_rule(
    scores: ModelScores,
    predictions: ModelPredictions,
    tasks: Sequence[Task],
    headline: HeadlineRule | None,
    rescores: Mapping[str, ModelRescores],
    schedule: Schedule | None = None,
    where: str = "",
) -> ModelScores:
    """Return the scores of a model with vote_1 and vote_2 by the headline rule.

    Args:
        scores: by the vote.
        rescores: by model, for a rule that needs them.
        schedule: the rounds of a run with early stopping, which allows the vote only.
        where: how messages about these predictions begin, such as ``runs/first, model: ``.

    Raises:
        ConfigError: the run stopped early.
        UnusableRuleError: the predictions lack what the rule needs.
    """
    if headline is None or headline.name == VOTE:
        return replace(scores, rule=headline)
    refuse_rules_after_early_stopping(schedule, "--rule")
    rule = get_rule(headline.name)
    try:
        (row,) = score_rules(predictions, scores, tasks, [rule], rescores.get(predictions.model, NOT_RESCORED))
    except UnusableRuleError as error:
        raise with_remedy(error, headline, where) from None
    return replace(row.scores, model=scores.model, rule=headline)


def with_remedy(error: UnusableRuleError, headline: HeadlineRule | None, where: str = "") -> UnusableRuleError:
    """Return the error of a headline rule that cannot be applied, with where the rule comes from and what to do.

    Args:
        where: how the message begins, such as ``runs/first, model: ``.
    """
    source = ""
    if headline is not None and headline.chosen == "before_sampling":
        source = f" ({headline.name} was recorded when the run began)"
    return UnusableRuleError(f"{where}{error}; another rule can be chosen, such as --rule {VOTE}{source}")


def rule_note(rules: Mapping[str, HeadlineRule | None]) -> str | None:
    """Say which rules give vote_1 and vote_2 and when they were chosen; None if all are the vote by default.

    Args:
        rules: by model, None for the vote by default.
    """
    if not any(rules.values()):
        return None
    models: dict[HeadlineRule | None, list[str]] = {}
    for model, rule in rules.items():
        models.setdefault(rule, []).append(model)
    parts = [
        _rule_text(rule) + (f" for {', '.join(names)}" if len(models) > 1 else "") for rule, names in models.items()
    ]
    return f"vote_1 and vote_2 are by {'; by '.join(parts)}"


def _rule_text(rule: HeadlineRule | None) -> str:
    if rule is None:
        return f"the default rule {VOTE}"
    if rule.chosen == "before_sampling":
        return f"the rule {rule.name} (chosen before sampling: it is in the run's manifest)"
    return f"the rule {rule.name} (chosen after sampling, with --rule: the best of several rules tried so is overrated)"
