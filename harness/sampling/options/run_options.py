"""The options of ``bench run``: what the user typed, and which options contradict each other.

``harness.sampling.options.config_draft`` turns them, once the servers have listed their models, into the configuration
of the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from harness.client.http.address import check_servers
from harness.client.pool.retry import RetryPolicy
from harness.client.protocol.parameters import RESERVED_FIELDS, SamplingParameters
from harness.core.deadline import Deadline
from harness.core.errors import ConfigError
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.sampling.options.search_options import Search, check_enumeration, check_search
from harness.sampling.options.sequential_options import check_design
from harness.sampling.options.task_part import TaskPart
from harness.voting.early_stopping import StopRule
from harness.voting.selection_rules import VOTE, get_rule

ApiChoice = Literal["auto", "chat", "completions"]


@dataclass(frozen=True)
class RunOptions:
    """The options of ``bench run``. None leaves a choice to the adapter's manifest or to the default."""

    servers: tuple[str, ...]
    models: tuple[str, ...]
    dataset: str
    n: int
    """Samples per model and test output."""
    out: Path
    resume: bool = False
    limit: int | None = None
    """Number of tasks from the beginning of the dataset; None for all."""
    seed: int = 0
    augment: bool = True
    lenient: bool = False
    """Parse answers as the original scripts did."""
    samples_per_view: int = 1
    stop: str | None = None
    """When a test output needs no further samples: ``decided`` or ``risk=0.01``."""
    until_resolved: str | None = None
    """Metric by which the models are compared after some of the tasks, to end the run once they are told apart."""
    smaller_than: float | None = None
    """With ``until_resolved``: points; a difference that is smaller also ends the run, with 95 % confidence."""
    search: Search | None = None
    """None for ``greedy`` at temperature 0, else ``sample``."""
    min_prob: float | None = None
    max_answers: int | None = None
    keep_greedy: bool = False
    """With ``dfs``: keep the answer that temperature 0 gives, whatever its probability."""
    rule: str | None = None
    """The selection rule of the headline; None for that of the run that is resumed, else the vote."""
    prompt: str | None = None
    encoder: str | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int | None = None
    extra_body: Mapping[str, JsonValue] = field(default_factory=dict)
    chat_template_kwargs: Mapping[str, JsonValue] = field(default_factory=dict)
    api: ApiChoice = "auto"
    api_key: str | None = field(default=None, repr=False)
    models_at_once: int | None = None
    """How many models' requests are mixed; None for as many adapters as the servers compute in one batch."""
    retry_errors: bool = False
    """With ``resume``: also replace predictions that were given up or refused."""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    deadline: Deadline | None = None
    """After it nothing is requested, and what is missing is recorded; None for no limit."""
    part: TaskPart | None = None
    """The tasks to answer and by which served model; None for all tasks and the models of these names."""

    @property
    def sampling(self) -> SamplingParameters:
        """The parameters that all requests share."""
        return SamplingParameters(self.temperature, self.top_p, self.min_p, self.extra_body)

    def check(self) -> None:
        """Reject options that are invalid or contradict each other.

        Raises:
            ConfigError, SpecError: the message names the option and says what to do.
        """
        check_servers(self.servers, self.api_key)
        if repeated := next((name for name in self.models if self.models.count(name) > 1), None):
            raise ConfigError(f"--model {repeated} is given twice")
        if self.retry_errors and not self.resume:
            raise ConfigError("--retry-errors completes an existing run; use it with --resume")
        check_search(self.search, self.min_prob, self.max_answers, self.keep_greedy, self.temperature)
        if self.search == "dfs":
            self._check_enumeration()
        for name in ("temperature", "top_p", "min_p"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)} is not a finite number")
        if self.temperature == 0 and self.samples_per_view > 1:
            raise ConfigError("--samples-per-view above 1 repeats the same answer at temperature 0; set --temperature")
        if self.temperature == 0 and not self.augment and self.n > 1:
            raise ConfigError("--no-augment repeats the same answer at temperature 0; set -n 1 or --temperature")
        if reserved := [name for name in RESERVED_FIELDS if name in self.extra_body]:
            raise ConfigError(f"--extra-body must not set {', '.join(reserved)}; the run does, and records it")
        if self.stop is not None:
            StopRule.parse(self.stop)
        check_design(self.until_resolved, self.smaller_than, self.models, self.stop, self.search, self.rule)
        if self.rule is not None and get_rule(self.rule).name != VOTE and self.stop is not None:
            raise ConfigError(f"--stop ends where the vote is decided, so that --rule {self.rule} may lack its choice")
        if self.prompt is not None:
            load_prompt(self.prompt)
        if self.encoder is not None:
            parse_encoder(self.encoder)

    def _check_enumeration(self) -> None:
        """Reject options that do not go with ``--search dfs``.

        Raises:
            ConfigError: the message names the option.
        """
        check_enumeration(
            temperature=self.temperature,
            top_p=self.top_p,
            min_p=self.min_p,
            samples_per_view=self.samples_per_view,
            stop=self.stop,
            api=self.api,
            extra_body=self.extra_body,
        )
