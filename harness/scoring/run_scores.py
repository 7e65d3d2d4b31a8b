"""Scores of saved predictions and run folders by the headline rule, and results.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.files import write_atomically
from harness.predictions.files.prediction_formats import ATTEMPT_FORMS
from harness.predictions.model_rescores import NOT_RESCORED
from harness.runs.folder import RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.results_schema import Results, TestTimeCost
from harness.runs.schemas.task_training import count_outcomes
from harness.scoring.headline_rule import by_headline_rule, headline_rule
from harness.scoring.model_scores import ModelScores, make_results, score_model
from harness.scoring.prediction_loader import SavedPredictions, open_predictions
from harness.scoring.rule_scores import RuleScores, parse_rules, score_rules, unusable_reason
from harness.stats.intervals import CONFIDENCE, RESAMPLES


def score_by_vote(saved: SavedPredictions) -> list[ModelScores]:
    """Score every model of saved predictions, in their order, with the vote as the rule.

    Raises:
        UnknownOutputError: the test output of a task is not known.
    """
    config = None if saved.manifest is None else saved.manifest.config
    temperature = None if config is None or config.search is not None else config.temperature
    is_cut = saved.manifest is not None and saved.manifest.cut_by is not None
    scored = [
        score_model(predictions, saved.tasks, saved.n, saved.schedule, is_cut=is_cut)
        for predictions in saved.predictions
    ]
    is_submission = saved.form in ATTEMPT_FORMS and saved.n <= 2
    return [
        replace(scores, temperature=temperature, members=saved.members, is_submission=is_submission)
        for scores in scored
    ]


def by_rule(saved: SavedPredictions, voted: Sequence[ModelScores], rule: str | None = None) -> list[ModelScores]:
    """Return the scores of saved predictions with vote_1 and vote_2 by the headline rule.

    Args:
        voted: the scores by the vote, as ``score_by_vote`` returns them.
        rule: the name of the headline rule; None takes the one that was recorded before sampling, else the vote.

    Raises:
        ConfigError: the rule is unknown, or not allowed after early stopping.
        UnusableRuleError: the predictions lack what the rule needs.
    """
    headline = headline_rule(saved.rule, rule)
    where = "" if saved.folder is None else f"{saved.folder.path}, "
    return [
        by_headline_rule(
            scores,
            predictions,
            saved.tasks,
            headline,
            saved.rescores,
            saved.schedule,
            where and f"{where}{scores.model}: ",
        )
        for scores, predictions in zip(voted, saved.predictions, strict=True)
    ]


def score_saved(saved: SavedPredictions, rule: str | None = None) -> list[ModelScores]:
    """Score every model of saved predictions by the headline rule; see ``score_by_vote`` and ``by_rule``."""
    return by_rule(saved, score_by_vote(saved), rule)


@dataclass(frozen=True, slots=True)
class UnusableRule:
    """A selection rule that cannot be applied to a model's predictions."""

    rule: str
    model: str
    reason: str


def score_usable_rules(
    saved: SavedPredictions, voted: Sequence[ModelScores]
) -> tuple[dict[str, list[RuleScores]], list[UnusableRule]]:
    """Apply every selection rule that the predictions of a model allow.

    Args:
        voted: the scores by the vote, as ``score_by_vote`` returns them.

    Returns:
        The scores of each rule by model, and the rules that cannot be applied.
    """
    rule_scores: dict[str, list[RuleScores]] = {}
    left_out: list[UnusableRule] = []
    for predictions, scores in zip(saved.predictions, voted, strict=True):
        rescores = saved.rescores.get(predictions.model, NOT_RESCORED)
        reasons = {rule: unusable_reason(rule, predictions, rescores) for rule in parse_rules("all")}
        left_out += [UnusableRule(rule.name, predictions.model, reason) for rule, reason in reasons.items() if reason]
        usable = [rule for rule, reason in reasons.items() if reason is None]
        rule_scores[predictions.model] = score_rules(predictions, scores, saved.tasks, usable, rescores)
    return rule_scores, left_out


def score_run(
    run: Path, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, rule: str | None = None
) -> Results:
    """Score a run folder and write its results.json; the run's seed seeds the intervals.

    Args:
        rule: the name of the headline rule; None takes the one that the run recorded, else the vote.

    Raises:
        DataError: a file of the run is missing or damaged, or the dataset is not the one that was sampled.
        UnusableRuleError: the predictions lack what the rule needs.
    """
    results = run_results(run, confidence, resamples, rule)
    write_results(RunFolder(run), results)
    return results


def run_results(
    run: Path, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, rule: str | None = None
) -> Results:
    """Return the results of a run folder without writing them; see ``score_run``."""
    saved = open_predictions(run)
    return saved_results(saved, score_saved(saved, rule), confidence, resamples)


def saved_results(
    saved: SavedPredictions,
    scored: Sequence[ModelScores],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Results:
    """Return the results of saved predictions, with what they cost.

    Args:
        scored: the scores of every model, as ``score_saved`` returns them.
    """
    results = make_results(scored, saved.n, saved.seed, confidence, resamples)
    trained = saved.manifest is not None and saved.manifest.config.ttt is not None
    training = _test_time_cost(saved.folder) if trained and saved.folder is not None else None
    more = {"cost": saved.costs, "sequential": saved.sequential, "test_time_training": training}
    return results.model_copy(update=more)


def _test_time_cost(folder: RunFolder) -> TestTimeCost:
    """Return the cost of the tasks in a run's ttt.jsonl."""
    records = TrainingLog(folder.path / TTT_LOG).records()
    return TestTimeCost(
        tasks=len(records),
        outcomes=count_outcomes(records),
        train_seconds=round(sum(record.train_seconds for record in records.values()), 3),
        sample_seconds=round(sum(record.sample_seconds for record in records.values()), 3),
    )


def write_results(folder: RunFolder, results: Results) -> None:
    """Replace results.json atomically, without the comparison of selection rules that ``bench score`` may add."""
    plain = Results.model_validate(results.model_dump(include=set(Results.model_fields)))
    write_atomically(folder.results_path, plain.model_dump_json(indent=2).encode() + b"\n")
