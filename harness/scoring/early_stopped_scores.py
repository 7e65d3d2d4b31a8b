"""Scores of test outputs that were left early: what can still be told, and what cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.runs.schema import EarlyStoppingResult
from harness.scoring.prediction_groups import OutputPredictions
from harness.voting.early_stopping import Schedule
from harness.voting.metrics import METRICS, STRICT_METRICS, OutputScore, score_votes

_UNSEEN = "an exact grid may be among the predictions that were not drawn"
_RATES = "the first {first} draws do not show every symmetry as often as {n} draws would; -n {better} would make it so"


def score_output(output: OutputPredictions, truth: Grid, n: int, schedule: Schedule | None = None) -> OutputScore:
    """Score what one model answered to one test output, of which n predictions were due.

    Where it may have been left early, all draws vote, which gives the full run's vote, and all else is of the
    first round alone: whether later rounds are drawn depends on what the earlier ones said, so that a mean over
    all that was drawn would be biased.
    """
    votes = output.votes()
    every = score_votes(votes, truth, n)
    if schedule is None or schedule.first_round == n:
        return every
    first = score_votes([vote for vote in votes if vote.sample < schedule.first_round], truth, schedule.first_round)
    return replace(first, vote_1=every.vote_1, vote_2=every.vote_2)


def refuse_rules_after_early_stopping(schedule: Schedule | None, option: str) -> None:
    """Refuse selection rules beside the vote, which ``option`` names, for a run that stopped early.

    Raises:
        ConfigError: it did (``schedule`` is not None).
    """
    if schedule is not None:
        raise ConfigError(
            f"the run stopped early ({schedule.stop}) where the vote was decided; another rule could have chosen "
            f"among the predictions that were not drawn: leave out {option}"
        )


def skipped_samples(output: OutputPredictions, schedule: Schedule) -> int:
    """How many draws of a test output the rule spared: 0 where it was drawn to the end, or is not finished."""
    drawn = output.count
    due = schedule.required_samples([len(own) for own in output.votes_by_grid.values()], len(output.failed_samples))
    return schedule.n - drawn if due == drawn else 0


def early_stopping_result(predictions: Iterable[OutputPredictions], schedule: Schedule) -> EarlyStoppingResult:
    """What stopping early did to the test outputs of one model."""
    counts = [skipped_samples(output, schedule) for output in predictions]
    return EarlyStoppingResult(
        rule=str(schedule.stop),
        outputs=sum(count > 0 for count in counts),
        not_drawn=sum(counts),
        share=sum(counts) / (schedule.n * len(counts)),
        first_round=schedule.first_round,
        not_available=unavailable_metrics(schedule),
    )


def unavailable_metrics_text(reasons: Mapping[str, str]) -> list[str]:
    """Metrics that are not available, in words, one line a reason."""
    names: dict[str, list[str]] = {}
    for name, why in reasons.items():
        names.setdefault(why, []).append(name)
    return [
        f"{', '.join(own)} {'is' if len(own) == 1 else 'are'} not available, as {why}" for why, own in names.items()
    ]


def unavailable_metrics(schedule: Schedule) -> dict[str, str]:
    """By metric, why a run with these rounds cannot tell it; in the order of METRICS."""
    if schedule.first_round == schedule.n:
        return {}
    reasons = {"pass_n": _UNSEEN}
    if not schedule.is_balanced:
        better = -(-schedule.n // (2 * schedule.cycle)) * 2 * schedule.cycle
        why = _RATES.format(first=schedule.first_round, n=schedule.n, better=better)
        reasons |= dict.fromkeys([name for name in METRICS if name not in STRICT_METRICS], why)
    return {name: reasons[name] for name in METRICS if name in reasons}
