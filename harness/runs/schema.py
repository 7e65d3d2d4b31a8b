"""The lines and files of a run folder as typed records (pydantic at the border of the program)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Outcome = Literal["grid", "truncated", "unparsed", "bad_shape", "bad_value", "too_long", "refused", "error", "missing"]
FAILURES: tuple[Outcome, ...] = (
    "truncated", "unparsed", "bad_shape", "bad_value", "too_long", "refused", "error", "missing",
)  # fmt: skip


class Record(BaseModel):
    """Base of all records: unknown fields are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AugmentationRecord(Record):
    """The view under which a prediction was asked for (harness.core.augmentation.Augmentation as JSON)."""

    symmetry: str
    colours: list[int]
    order: list[int]


class PredictionRecord(Record):
    """One line of predictions.jsonl; its key is (model, task_id, test_index, sample_index)."""

    model: str
    task_id: str
    test_index: Annotated[int, Field(ge=0)]
    sample_index: Annotated[int, Field(ge=0)]
    augmentation: AugmentationRecord
    outcome: Outcome
    grid: list[list[int]] | None
    """The answer in the original orientation and colours; None unless ``outcome`` is ``grid``."""
    text: str | None
    """The answer as the server sent it; None where nothing came."""
    cumulative_logprob: float | None
    n_tokens: int | None
    finish_reason: str | None
    seed: int
    seconds: float
    """From sending the request to its last byte, divided among the predictions that shared it; the last try only."""

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What makes the prediction unique in its run."""
        return self.model, self.task_id, self.test_index, self.sample_index


class ModelConfig(Record):
    """One model of a run and how it is asked."""

    name: str
    """As requests name it: the base, an adapter, or ``NAME@VERSION``."""
    prompt: str
    prompt_digest: str
    encoder: str
    max_tokens: Annotated[int, Field(gt=0)]
    hash: str | None
    """The content hash that the server gives, None where it gives none."""
    stop_token_ids: list[int] | None = None
    """Sent with every request; None where the end of a turn is not known, and in runs of older versions."""
    chat_template_kwargs: dict[str, JsonValue] = {}
    """Of the adapter's manifest; those of the run overrule them."""
    chat_template: str | None = None
    """The digest of a chat template that the adapter brings along; None leaves the server its own."""
    template_date: str | None = None
    """What a chat template that asks for the date is told; None where it does not, or is left the clock."""


class StopConfig(Record):
    """When a run leaves a test output before all of its draws (harness.voting.early_stopping)."""

    rule: str
    """``decided`` or ``risk=0.01``."""
    rounds: list[int]
    """After how many draws of a test output the rule is asked."""


class RunConfig(Record):
    """Every input that decides which predictions a run makes. A resumed run must have the same."""

    models: list[ModelConfig]
    dataset: str
    dataset_digest: str
    task_ids: list[str]
    n: Annotated[int, Field(gt=0)]
    """Predictions per model and test output."""
    samples_per_view: Annotated[int, Field(gt=0)]
    augment: bool
    lenient: bool = False
    """Whether answers were read as the original scripts did, instead of strictly."""
    seed: int
    api: Literal["chat", "completions"]
    temperature: float
    top_p: float
    min_p: float
    extra_body: dict[str, JsonValue]
    chat_template_kwargs: dict[str, JsonValue]
    stop: StopConfig | None = None
    """None: every test output gets all n draws."""


class ServedModel(Record):
    """A model as a server lists it; fields that the server does not give are None."""

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
    """The text of a chat template that the adapter was trained with instead of its base's."""
    template_date: str | None = None
    max_loras: int | None = None
    """How many adapters the server computes in one batch."""


class Environment(Record):
    """What the harness ran on."""

    version: str
    commit: str | None
    dirty: bool | None
    python: str
    packages: dict[str, str]
    host: str
    platform: str


class Manifest(Record):
    """manifest.json: written before the first request and again when the run has finished."""

    format: Literal[1]
    config: RunConfig
    environment: Environment
    servers: list[str]
    served: list[ServedModel]
    """The run's models, and the bases of its adapters."""
    server_versions: dict[str, str] = {}
    """By URL, the version of the server's software where it gives one; the last one seen."""
    warnings: list[str]
    without: list[str]
    """Request parameters that a server refused, so that requests went without them."""
    answered_as: dict[str, list[str]]
    """Per model, the names under which servers answered (``NAME@VERSION`` on our server)."""
    started: str
    resumed: list[str]
    finished: str | None
    """UTC times in ISO 8601."""
    task_digests: list[str] | None = None
    """``content_digest`` of each of the configuration's tasks, in its order; None in older runs."""
    predictions_sha256: str | None = None
    """Of predictions.jsonl as the run left it; None until it has finished."""

    @model_validator(mode="after")
    def _one_digest_per_task(self) -> Manifest:
        if self.task_digests is not None and len(self.task_digests) != len(self.config.task_ids):
            raise ValueError(f"{len(self.task_digests)} task_digests for {len(self.config.task_ids)} task_ids")
        return self


class Metric(Record):
    """One metric of one model with its interval over tasks; all values are shares in [0, 1]."""

    value: float
    low: float
    high: float
    method: str
    per_output: float
    strict: float | None


class EarlyStoppingResult(Record):
    """What stopping early spared one model, and what it leaves unknown."""

    rule: str
    outputs: int
    """Test outputs that were left early."""
    not_drawn: int
    """Predictions that were not made because of it, which is no failure."""
    share: float
    """Of all n predictions of all test outputs."""
    first_round: int
    """The first draws of every test output: means over predictions are over these alone."""
    not_available: dict[str, str]
    """Metrics that the run cannot tell, which ``metrics`` lacks, and why."""


class ModelResult(Record):
    """What one model reached in a run."""

    tasks: int
    outputs: int
    predictions: int
    """Due: n for each test output, but for those that stopping early spared."""
    failures: dict[str, int]
    metrics: dict[str, Metric]
    stopping: EarlyStoppingResult | None = None


class Results(Record):
    """results.json: metrics per model and how their intervals were made."""

    models: dict[str, ModelResult]
    n: int
    seed: int
    confidence: float
    resamples: int
    cost: dict[str, Cost] | None = None


class RuleResult(Record):
    """What one selection rule makes of a model's predictions; the last three are None for the vote itself."""

    vote_1: float
    vote_2: float
    found_not_chosen: float
    not_found: float
    rank: dict[str, float]
    """Shares of the places at which the rule ranks the exact grid."""
    difference: float | None
    """In vote_2, to the vote."""
    p_holm: float | None
    verdict: str | None


class ResultsWithRules(Results):
    """Results with selection rules compared, by model and rule."""

    rules: dict[str, dict[str, RuleResult]]


class Cost(Record):
    """What the predictions of one model cost."""

    requests: int
    """Answers asked for; at temperature 0 several may share one HTTP request."""
    tokens: int
    """Tokens of the answers."""
    seconds: float
    """Sum of request times; requests overlap, so that this is more than the wall time."""


class SweepRow(Record):
    """One mixture: its label in the table, and the adapters that were trained on it, one a training seed."""

    label: str
    models: Annotated[list[str], Field(min_length=1)]


class SweepRecord(Record):
    """sweep.json: the rows in the order of the table; every row is compared with the first."""

    header: str
    """What the labels are, such as ``original datasets weight``."""
    rows: Annotated[list[SweepRow], Field(min_length=1)]
    seeds: list[int]
    """Training seeds, in the order of each row's models."""


Results.model_rebuild()
ResultsWithRules.model_rebuild()
