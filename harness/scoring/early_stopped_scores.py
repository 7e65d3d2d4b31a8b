"""Scores of runs with early stopping: which metrics are still unbiased, and how many samples were skipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.predictions.prediction_groups import OutputPredictions
from harness.runs.schemas.results_schema import EarlyStoppingResult
from harness.voting.early_stopping import Schedule
from harness.voting.metrics import METRICS, STRICT_METRICS, OutputScore, score_votes

_UNSEEN = "an exact grid may be among the predictions that were not drawn"
_RATES = "the first {first} draws do not show every symmetry as often as {n} draws would; -n {better} would make it so"


def score_output(output: OutputPredictions, truth: Grid, n: int, schedule: Schedule | None = None) -> OutputScore:
    """Score one model's predictions for one test output.

    With early stopping, vote_1 and vote_2 use all samples, which gives the vote of the full run. The other metrics
    use the first round only: whether later rounds are sampled depends on earlier answers, so a mean over all
    samples would be biased.

    Args:
        n: requested predictions; those that are missing count as failures.
        schedule: the rounds of a run with early stopping.
    """
    votes = output.votes()
    full = score_votes(votes, truth, n)
    if schedule is None or schedule.first_round == n:
        return full
    first = score_votes([vote for vote in votes if vote.sample < schedule.first_round], truth, schedule.first_round)
    return replace(first, vote_1=full.vote_1, vote_2=full.vote_2)


def refuse_rules_after_early_stopping(schedule: Schedule | None, option: str) -> None:
    """Refuse selection rules other than the vote for a run that stopped early.

    Args:
        schedule: the rounds of a run with early stopping; None allows every rule.
        option: the command-line option that requested the rules, for the message.

    Raises:
        ConfigError: the run stopped early.
    """
    if schedule is not None:
        raise ConfigError(
            f"the run stopped early ({schedule.stop}) where the vote was decided; another rule could have chosen "
            f"among the predictions that were not drawn: leave out {option}"
        )


def skipped_samples(output: OutputPredictions, schedule: Schedule) -> int:
    """Return how many samples of a test output were skipped: 0 if it has all of them or is not finished."""
    drawn = output.count
    votes = [len(votes) for votes in output.votes_by_grid.values()]
    required = schedule.required_samples(votes, len(output.failed_samples))
    return schedule.n - drawn if required == drawn else 0


def early_stopping_result(outputs: Iterable[OutputPredictions], schedule: Schedule) -> EarlyStoppingResult:
    """Summarise for results.json what early stopping skipped for one model.

    Args:
        outputs: the model's predictions for every test output of the run.
    """
    skipped = [skipped_samples(output, schedule) for output in outputs]
    return EarlyStoppingResult(
        rule=str(schedule.stop),
        outputs=sum(count > 0 for count in skipped),
        not_drawn=sum(skipped),
        share=sum(skipped) / (schedule.n * len(skipped)),
        first_round=schedule.first_round,
        not_available=unavailable_metrics(schedule),
    )


def unavailable_metrics(schedule: Schedule) -> dict[str, str]:
    """Return the metrics that a run with these rounds cannot measure, each with the reason, in the order of METRICS."""
    if schedule.first_round == schedule.n:
        return {}
    reasons = {"pass_n": _UNSEEN}
    if not schedule.is_balanced:
        better = -(-schedule.n // (2 * schedule.cycle)) * 2 * schedule.cycle
        rates = _RATES.format(first=schedule.first_round, n=schedule.n, better=better)
        reasons |= {name: rates for name in METRICS if name not in STRICT_METRICS}
    return {name: reasons[name] for name in METRICS if name in reasons}


def unavailable_metrics_text(reasons: Mapping[str, str]) -> list[str]:
    """Write unavailable metrics as sentences, one for each reason.

    Args:
        reasons: by metric, as ``unavailable_metrics`` returns them.
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [
        f"{', '.join(metrics)} {'is' if len(metrics) == 1 else 'are'} not available, as {reason}"
        for reason, metrics in names.items()
    ]
