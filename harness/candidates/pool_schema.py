"""The files of a pool as pydantic models: manifest.json with its members, and the lines of candidates.jsonl."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from harness.runs.schemas.manifest_schema import Environment, ModelConfig
from harness.runs.schemas.prediction_schema import Record

Count = Annotated[int, Field(ge=0)]


class PoolMember(Record):
    """One model of a run, or one file, whose predictions a pool has."""

    name: str
    """Its name in tables, unique in the pool."""
    path: str
    """The run folder or file that it was read from."""
    form: str
    """``run``, or a format of harness.predictions.files.prediction_formats."""
    model: str
    digest: str
    """Of its predictions: 32 hex digits. Members with equal digests are one."""
    dataset: str
    """The spec by which its tasks were read."""
    dataset_digest: str
    seed: int | None
    """Of the run; None for a file."""
    n: Annotated[int, Field(gt=0)]
    """Requested predictions per test output."""
    views: Annotated[int, Field(gt=0)]
    """Requested views per test output. Every attempt of a file is a separate view."""
    view_space: str
    """Members with the same one have the same views: ``seed 0``, ``unaugmented``, or ``file DIGEST``."""
    names_views: bool
    """Whether its predictions name the symmetry under which the prompt showed the task."""
    settings: ModelConfig | None
    """The settings with which the run prompted the model; None for a file."""
    chat_template_kwargs: dict[str, JsonValue]
    """Variables of the chat template that the run set for all of its models."""
    warnings: list[str]
    """What is missing from the run, if it is unfinished or stopped early."""


class PoolManifest(Record):
    """Content of a pool's manifest.json."""

    format: Literal[1]
    kind: Literal["pool"]
    members: Annotated[list[PoolMember], Field(min_length=1)]
    """Sorted by digest, so that the order of the command line changes nothing."""
    dataset: str
    dataset_digest: str
    task_ids: list[str]
    task_digests: list[str]
    """``content_digest`` of each task, in the order of ``task_ids``."""
    seed: int
    """The smallest seed of the runs, 0 without any: of intervals, of ties and of the views of rescoring."""
    candidates: Count
    """Number of lines of candidates.jsonl."""
    candidates_sha256: str
    """SHA-256 of candidates.jsonl."""
    environment: Environment
    created: str
    """UTC time in ISO 8601."""

    @model_validator(mode="after")
    def _check(self) -> PoolManifest:
        if len(self.task_digests) != len(self.task_ids):
            raise ValueError(f"{len(self.task_digests)} task_digests for {len(self.task_ids)} task_ids")
        for field, values in (
            ("name", [member.name for member in self.members]),
            ("digest", [(member.digest, member.view_space) for member in self.members]),
        ):
            if len(set(values)) < len(values):
                raise ValueError(f"members: two have the same {field}")
        return self


class Proposal(Record):
    """One prediction of a candidate, or one enumerated view that proposed it."""

    member: Count
    """Index in the manifest's members."""
    view: Count
    """Index among the views of the member's view space."""
    sample: Count
    """Index of the prediction in its member."""
    symmetry: str
    """Of the view; ``identity`` if it is not known."""
    logprob: float | None
    """Log-probability of the answer, or of the view's answers with this grid; None if unknown."""
    mean_logprob: float | None
    """``logprob`` divided by the number of tokens; None if unknown."""


class CandidateRecord(Record):
    """A candidate with its proposals: a line of candidates.jsonl."""

    task_id: str
    test_index: Count
    grid: list[list[int]]
    proposals: Annotated[list[Proposal], Field(min_length=1)]
    """Sorted by member and sample."""
