"""The results of a run, results.json, as pydantic models."""

from __future__ import annotations

from typing import Literal

from harness.runs.schemas.deadline_record import DeadlineResult
from harness.runs.schemas.prediction_schema import Record, omitted_if_none
from harness.runs.schemas.sequential_schema import SequentialResult
from harness.runs.schemas.view_schema import EnumerationResult


class Cost(Record):
    """Cost of the predictions of one model."""

    requests: int
    """Number of answers requested; at temperature 0 several may share one HTTP request."""
    tokens: int
    """Number of tokens in the answers."""
    seconds: float
    """Sum of the request durations; more than the wall time, as requests overlap."""


class TestTimeCost(Record):
    """Cost of test-time training and of answering, summed over the tasks that are answered."""

    tasks: int
    outcomes: dict[str, int]
    """Tasks by outcome of their training."""
    train_seconds: float
    sample_seconds: float
    """Wall time of answering the tasks, with loading and unloading their adapters."""


class Metric(Record):
    """One metric of one model; all values are in [0, 1]."""

    value: float
    """Mean over tasks."""
    low: float
    high: float
    """Confidence interval of ``value``."""
    method: str
    """Of the interval (harness.stats.intervals)."""
    per_output: float
    """Mean over test outputs."""
    strict: float | None
    """Share of tasks with every test output right; None for metrics without it."""


class HeadlineRule(Record):
    """The selection rule that gives vote_1 and vote_2, and when it was chosen."""

    name: str
    chosen: Literal["before_sampling", "afterwards"]
    """``before_sampling``: it is in the manifest. ``afterwards``: it was given to the command that scored."""


class EarlyStoppingResult(Record):
    """Effect of early stopping on the predictions and metrics of one model."""

    rule: str
    outputs: int
    """Number of test outputs that stopped early."""
    not_drawn: int
    """Number of predictions skipped because of it; they are no failures."""
    share: float
    """``not_drawn`` divided by the number of predictions without early stopping."""
    first_round: int
    """Number of samples in the first round; means over predictions use these only."""
    not_available: dict[str, str]
    """By metric that ``metrics`` lacks because of early stopping, the reason."""


class ModelResult(Record):
    """Results of one model of a run."""

    tasks: int
    outputs: int
    predictions: int
    """Number of predictions: n for each test output, minus those skipped by early stopping. Enumerated: of views."""
    failures: dict[str, int]
    metrics: dict[str, Metric]
    stopping: EarlyStoppingResult | None = None
    enumeration: EnumerationResult | None = omitted_if_none()
    rule: HeadlineRule | None = omitted_if_none()
    """None, and no field in the file, for the vote by default."""
    members: int | None = omitted_if_none()
    """Number of members of a pool; None, and no field in the file, for other predictions."""
    deadline: DeadlineResult | None = omitted_if_none()
    """What the run's deadline left out; None, and no field in the file, if no deadline cut the run."""

    @property
    def made(self) -> int:
        """``predictions`` without those that the deadline left out."""
        return self.predictions - (0 if self.deadline is None else self.deadline.missing)


class Results(Record):
    """results.json: results by model, and the parameters of their intervals."""

    models: dict[str, ModelResult]
    n: int
    seed: int
    confidence: float
    resamples: int
    cost: dict[str, Cost] | None = None
    sequential: SequentialResult | None = omitted_if_none()
    """What a sequential design found; None, and no field in the file, for a run without one."""
    test_time_training: TestTimeCost | None = omitted_if_none()


class RuleResult(Record):
    """Results of one selection rule on the predictions of one model; ``vote`` has no value in the last three fields."""

    vote_1: float
    vote_2: float
    found_not_chosen: float
    not_found: float
    rank: dict[str, float]
    """Share of test outputs by the rank of the right grid."""
    difference: float | None
    """Of vote_2 from that of the rule ``vote``."""
    p_holm: float | None
    verdict: str | None


class ResultsWithRules(Results):
    """Results with a comparison of selection rules."""

    rules: dict[str, dict[str, RuleResult]]
    """By model and rule."""
