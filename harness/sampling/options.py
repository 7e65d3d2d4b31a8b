"""What the user asks of a run, checked, and completed by what the servers say about their models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from harness.client.address import canonical_url
from harness.client.request import RESERVED_FIELDS, Api
from harness.client.retry import RetryPolicy
from harness.core.errors import ConfigError, DataError, RunError
from harness.core.grid import Task
from harness.data.dataset import Dataset, iterate_tasks
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.runs.folder import config_changes
from harness.runs.schema import RunConfig, ServedModel, StopConfig
from harness.sampling.model_options import ModelChoices, again, model_configs
from harness.voting.early_stopping import StopRule, plan_rounds, view_cycle

ApiChoice = Literal["auto", "chat", "completions"]


@dataclass(frozen=True)
class RunOptions:
    """The options of ``bench run``; None leaves a choice to the adapter's manifest or the default."""

    servers: tuple[str, ...]
    models: tuple[str, ...]
    dataset: str
    n: int
    out: Path
    resume: bool = False
    limit: int | None = None
    seed: int = 0
    augment: bool = True
    lenient: bool = False
    samples_per_view: int = 1
    stop: str | None = None
    """``decided`` or ``risk=0.01``: when a test output needs no further draws."""
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
    """How many models' requests are mixed; None for as many adapters as the servers say they compute at once."""
    retry_errors: bool = False
    """With ``resume``: ask again for the predictions that were given up or refused."""
    policy: RetryPolicy = field(default_factory=RetryPolicy)

    def wanted(self, no_system: bool = False) -> ModelChoices:
        """How the user wants all models to be asked."""
        own_stops = "stop_token_ids" in self.extra_body
        return ModelChoices(self.prompt, self.encoder, self.max_tokens, own_stops, self.chat_template_kwargs, no_system)

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigError, SpecError: an option is wrong; the message says which and what to do.
        """
        if not self.servers:
            raise ConfigError("no server given; name one with --server URL")
        servers = tuple(map(canonical_url, self.servers))
        for kind, values in (("server", servers), ("model", self.models)):
            if repeated := next((v for v in values if values.count(v) > 1), None):
                raise ConfigError(f"--{kind} {repeated} is given twice")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigError("the API key holds something else than printable ASCII characters")
        if self.retry_errors and not self.resume:
            raise ConfigError("--retry-errors completes an existing run; use it with --resume")
        if self.temperature == 0 and self.samples_per_view > 1:
            raise ConfigError("--samples-per-view above 1 repeats the same answer at temperature 0; set --temperature")
        if self.temperature == 0 and not self.augment and self.n > 1:
            raise ConfigError("--no-augment repeats the same answer at temperature 0; set -n 1 or --temperature")
        if reserved := [name for name in RESERVED_FIELDS if name in self.extra_body]:
            raise ConfigError(f"--extra-body must not set {', '.join(reserved)}; the run does, and records it")
        if self.stop is not None:
            StopRule.parse(self.stop)
        if self.prompt is not None:
            load_prompt(self.prompt)
        if self.encoder is not None:
            parse_encoder(self.encoder)


def declare_tasks(dataset: Dataset, limit: int | None) -> list[Task]:
    """The tasks of a run, declared before sampling.

    Raises:
        DataError: there are none, or two have the same id.
    """
    tasks = list(islice(iterate_tasks(dataset), limit))
    if not any(task.test for task in tasks):
        raise DataError(f"dataset {dataset.spec} has no test inputs to answer")
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise DataError(
                f"dataset {dataset.spec}: two tasks are named {task.id}, so that predictions cannot be told apart"
            )
        seen.add(task.id)
    return tasks


def complete(
    options: RunOptions,
    dataset: Dataset,
    tasks: Sequence[Task],
    served: Mapping[str, ServedModel],
    repeat: RunConfig | None = None,
    api: Api = "chat",
    begun: RunConfig | None = None,
    no_system: bool = False,
) -> tuple[RunConfig, list[str]]:
    """The configuration that decides the run's predictions, and warnings about it.

    Args:
        repeat: a configuration to come out again: it says how each model is asked.
        api: the route of its requests; what a run really takes may only be seen later.
        begun: the configuration of a run that is resumed.
        no_system: prompts are replaced by those that ask the same without a system message.

    Raises:
        RunError: ``repeat`` cannot come out, as a dataset, prompt or model is another by now.
    """
    warnings: list[str] = []
    if repeat is None:
        models = model_configs(options.models, options.wanted(no_system), served, begun, warnings)
    else:
        models = [again(model, options.max_tokens, served.get(model.name)) for model in repeat.models]
    config = RunConfig(
        models=models,
        dataset=options.dataset,
        dataset_digest=dataset.digest(),
        task_ids=[task.id for task in tasks],
        n=options.n,
        samples_per_view=options.samples_per_view,
        augment=options.augment,
        lenient=options.lenient,
        seed=options.seed,
        api=api if repeat is None else repeat.api,
        temperature=options.temperature,
        top_p=options.top_p,
        min_p=options.min_p,
        extra_body=dict(options.extra_body),
        chat_template_kwargs=dict(options.chat_template_kwargs),
        stop=_stop(options, tasks, warnings) if repeat is None else repeat.stop,
    )
    if repeat is not None and (changes := config_changes(repeat, config)):
        raise RunError(f"the run cannot be repeated: {'; '.join(changes)}")
    return config, list(dict.fromkeys(warnings))


def _stop(options: RunOptions, tasks: Sequence[Task], warnings: list[str]) -> StopConfig | None:
    if options.stop is None:
        return None
    rule = StopRule.parse(options.stop)
    cycle = view_cycle(options.augment, options.samples_per_view)
    plan = plan_rounds(rule, options.n, sum(len(task.test) for task in tasks), cycle)
    if not plan.round_ends:
        warnings.append(f"--stop {rule} spares nothing with {options.n} predictions a test output")
    return StopConfig(rule=str(rule), rounds=list(plan.round_ends))


def models_at_once(options: RunOptions, served: Iterable[ServedModel]) -> int:
    """How many models' requests are mixed: what the user says, else what the servers can hold, else one by one."""
    if options.models_at_once is not None:
        return options.models_at_once
    return max(1, min((model.max_loras for model in served if model.max_loras is not None), default=1))
