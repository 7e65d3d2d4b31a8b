"""What a pool gains over its members, as pydantic models: the table of ``bench pool`` for another program."""

from __future__ import annotations

from pydantic import Field

from harness.runs.schemas.prediction_schema import Record
from harness.runs.schemas.results_schema import Metric, Results, RuleResult


class ChosenResult(Record):
    """The attempts that one rule chooses from a pool."""

    vote_1: Metric
    vote_2: Metric


class MemberResult(Record):
    """One member alone, its attempts chosen by the vote over its own predictions."""

    pass_n: Metric
    vote_1: Metric
    vote_2: Metric


class PoolDifference(Record):
    """The vote_2 of a rule's attempts minus that of a member, paired by task."""

    rule: str
    member: str
    difference: float
    low: float | None
    high: float | None
    """Interval; None where too few tasks differ."""
    won: list[str]
    lost: list[str]
    """Ids of the tasks."""
    p: float
    p_holm: float
    """With Holm's correction over all of ``differences``."""
    verdict: str


class PoolResult(Record):
    """A pool compared with its members."""

    oracle: Metric
    """pass_n of the pool: any member proposed the exact grid."""
    chosen: dict[str, ChosenResult]
    """By selection rule."""
    left_out: dict[str, str]
    """By selection rule that these predictions do not allow, the reason."""
    headline: str
    """The rule that is compared with every member; the others are compared with the best."""
    best_member: str
    """The member with the highest vote_2. It was chosen on the same tasks, which favours it."""
    members: dict[str, MemberResult]
    """The best first."""
    differences: list[PoolDifference]


class ResultsOfPool(Results):
    """Results of a pool: those of all its predictions together, and the comparison with its members."""

    rules: dict[str, dict[str, RuleResult]] | None = Field(default=None, exclude_if=lambda value: value is None)
    """By model and rule; None if the rules were not compared."""
    pool: PoolResult
