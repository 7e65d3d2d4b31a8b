"""The configuration of a run and its manifest.json, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from harness.runs.schemas.deadline_record import RunDeadline
from harness.runs.schemas.prediction_schema import Record, omitted_if_none
from harness.runs.schemas.sequential_schema import SequentialDesign
from harness.runs.schemas.task_training import Protocol, TttConfig
from harness.runs.schemas.tracker_run import TrackerRun
from harness.runs.schemas.training_record import TrainingRecord
from harness.runs.schemas.view_schema import SearchConfig


class ModelConfig(Record):
    """One model of a run and how it is prompted."""

    name: str
    """Its name in requests: the base model, an adapter, or ``NAME@VERSION``."""
    prompt: str
    prompt_digest: str
    encoder: str
    max_tokens: Annotated[int, Field(gt=0)]
    hash: str | None
    """Content hash that the server reports; None if it reports none."""
    stop_token_ids: list[int] | None = None
    """Sent with every request; None if the end-of-turn token is unknown, and in runs of older versions."""
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    """Chat template variables of the adapter's manifest; those of the run take precedence."""
    chat_template: str | None = None
    """Digest of the chat template that comes with the adapter; None if the server's own is used."""
    template_date: str | None = None
    """Date that the chat template gets; None if the template has no date, or uses the server's clock."""


class StopConfig(Record):
    """Early stopping of a run (harness.voting.early_stopping)."""

    rule: str
    """``decided`` or ``risk=0.01``."""
    rounds: list[int]
    """Numbers of samples of a test output after which the rule is applied."""


class RunConfig(Record):
    """Every input that determines a run's predictions. To resume a run it must be the same."""

    models: list[ModelConfig]
    dataset: str
    dataset_digest: str
    task_ids: list[str]
    n: Annotated[int, Field(gt=0)]
    """Predictions per model and test output."""
    samples_per_view: Annotated[int, Field(gt=0)]
    augment: bool
    lenient: bool = False
    """Whether answers are parsed as the original scripts did, instead of strictly."""
    seed: int
    api: Literal["chat", "completions"]
    temperature: float
    top_p: float
    min_p: float
    extra_body: dict[str, JsonValue]
    chat_template_kwargs: dict[str, JsonValue]
    stop: StopConfig | None = None
    """None without early stopping: every test output gets n samples."""
    search: SearchConfig | None = omitted_if_none()
    """How the answers of every view are enumerated; None, and no field in the file, for one drawn answer per sample."""
    ttt: TttConfig | None = omitted_if_none()
    """How an adapter was trained for every task; None, and no field in the file, without test-time training."""
    rule: str | None = omitted_if_none()
    """The selection rule that gives vote_1 and vote_2 of the run; None, and no field in the file, for the vote."""
    sequential: SequentialDesign | None = omitted_if_none()
    """When the run ends before all tasks are sampled; None, and no field in the file, if it samples all."""


class ServedModel(Record):
    """A model as a server lists it; fields that the server does not report are None."""

    name: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None
    hash: str | None = None
    rank: int | None = None
    base: str | None = None
    prompt: str | None = None
    encoder: str | None = None
    stop_token_ids: list[int] | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    chat_template: str | None = None
    """Chat template with which the adapter was trained; None if it is the base model's."""
    template_date: str | None = None
    max_loras: int | None = None
    """Number of adapters that the server can use in one batch."""
    dtype: str | None = omitted_if_none()
    """In which the server computes, such as ``bfloat16``; of several servers or sessions of a run all, separated by
    commas. None, and no field in the file, if no server says so."""
    tracker_runs: dict[str, TrackerRun] | None = omitted_if_none()
    """By experiment tracker, where the adapter's training was reported; None, and no field in the file, if nowhere."""
    training: TrainingRecord | None = omitted_if_none()
    """Recipe of an adapter; None, and no field in the file, if the server does not report its manifest."""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes in which it was computed, sorted."""
        return () if self.dtype is None else tuple(sorted(self.dtype.split(", ")))

    def with_dtypes_of(self, other: ServedModel) -> ServedModel:
        """Return it as served by two servers, or in two sessions, which may compute in different dtypes."""
        known = sorted({*self.dtypes, *other.dtypes})
        return self.model_copy(update={"dtype": ", ".join(known) or None})


class Environment(Record):
    """Software and host of a run."""

    version: str
    commit: str | None
    dirty: bool | None
    python: str
    packages: dict[str, str]
    host: str
    platform: str


class Manifest(Record):
    """Content of manifest.json, which is written before the first request and updated during and after the run."""

    format: Literal[1]
    config: RunConfig
    environment: Environment
    servers: list[str]
    served: list[ServedModel]
    """The run's models, and the base models of its adapters."""
    server_versions: dict[str, str] = Field(default_factory=dict)
    """By URL, the version of the server's software that it last reported."""
    warnings: list[str]
    without: list[str]
    """Request parameters that a server rejected, and that requests therefore omit."""
    answered_as: dict[str, list[str]]
    """By model, the names in the servers' responses (``NAME@VERSION`` from ``bench serve``)."""
    started: str
    """UTC time in ISO 8601, as the next two."""
    resumed: list[str]
    finished: str | None
    """None until the run has finished."""
    task_digests: list[str] | None = None
    """``content_digest`` of each task, in the order of ``config.task_ids``; None in older runs."""
    predictions_sha256: str | None = None
    """SHA-256 of predictions.jsonl when the run finished; None before."""
    protocol: Protocol | None = omitted_if_none()
    """What the model was trained on, compared with the tasks; only of runs with test-time training."""
    deadline: RunDeadline | None = omitted_if_none()
    """The deadline of the last session; None, and no field in the file, without one."""

    @model_validator(mode="after")
    def _check_task_digests(self) -> Manifest:
        if self.task_digests is not None and len(self.task_digests) != len(self.config.task_ids):
            raise ValueError(f"{len(self.task_digests)} task_digests for {len(self.config.task_ids)} task_ids")
        return self

    @property
    def cut_by(self) -> RunDeadline | None:
        """The deadline that ended the run's last session before every prediction was there; None if none did."""
        return None if self.deadline is None or self.deadline.passed is None else self.deadline

    def cut_text(self) -> str:
        """Return what the deadline left out, as a phrase; empty if none cut the run."""
        return "" if self.cut_by is None else self.cut_by.text("predictions" if self.config.search is None else "views")


class SourceFileRecord(Record):
    """A file that a configuration was read from."""

    path: str
    """As the user wrote it, or as another file names it."""
    sha256: str
    """Of its bytes."""
