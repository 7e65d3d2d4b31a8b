"""Runs that end once their models are told apart (``--until-resolved``): the design, and its result."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.runs.schemas.prediction_schema import Record

Share = Annotated[float, Field(gt=0, lt=1)]


class SequentialDesign(Record):
    """When a run compares its models; the tasks of its configuration are in the order in which they are sampled.

    Every model but the first is compared with the first one. The run ends at the first look at which all of these
    comparisons are decided.
    """

    metric: str
    looks: Annotated[list[int], Field(min_length=1)]
    """Numbers of tasks after which the models are compared, ascending; the last is the number of all tasks."""
    alpha: Share
    """Probability of a false alarm of one comparison over all looks."""
    smaller_than: Share | None
    """A comparison is also decided once its interval, with what unseen tasks may hide, lies within ± this share; None
    without a bound."""


class SequentialComparison(Record):
    """The comparison of one model with the first one, at the look that decided it or at the latest one."""

    verdict: str
    """``better``, ``worse``, ``smaller than d``, ``not resolved`` after all tasks, or ``undecided``."""
    tasks: int
    """Number of tasks at that look."""
    delta: float
    low: float | None
    high: float | None
    """Interval that holds under all looks; None where so few tasks give none."""


class SequentialResult(Record):
    """What a sequential design found."""

    metric: str
    baseline: str
    """The first model, with which the others are compared."""
    declared: int
    """Number of tasks that the run may sample."""
    reached: int
    """Number of tasks that were sampled; figures are over these."""
    smaller_than: Share | None = None
    """As in the design."""
    not_reached: list[str]
    """Ids of the other tasks, which are no part of any figure."""
    comparisons: dict[str, SequentialComparison]
    """By model; empty before the first look."""
