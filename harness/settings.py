"""What the user asks of a run, checked, and completed by what the servers say about their models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from harness.datasets import Dataset, iterate
from harness.encoding import DEFAULT_ENCODER, parse_encoder
from harness.errors import ConfigError, DataError, RunError, SpecError
from harness.grid import Task
from harness.jobs import Policy
from harness.plan import Asker
from harness.prompt import DEFAULT_PROMPT, load_prompt
from harness.records import ModelConfig, RunConfig, ServedModel, StopConfig
from harness.requests import RESERVED, Api
from harness.runs import config_changes
from harness.stopping import Stop, schedule, view_cycle

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
    """With ``resume``: ask again for the predictions that were given up with ``error``."""
    policy: Policy = field(default_factory=Policy)

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigError, SpecError: an option is wrong; the message says which and what to do.
        """
        if not self.servers:
            raise ConfigError("no server given; name one with --server URL")
        for kind, values in (("server", self.servers), ("model", self.models)):
            if repeated := next((v for v in values if values.count(v) > 1), None):
                raise ConfigError(f"--{kind} {repeated} is given twice")
        if wrong := next((url for url in self.servers if not url.startswith(("http://", "https://"))), None):
            raise ConfigError(f"--server {wrong!r} is not a URL such as http://127.0.0.1:8000")
        if any("@" in url for url in self.servers):
            raise ConfigError(
                "--server: an address with a user's name or password in it would be saved with the run; "
                "give a key in ARC_BENCH_API_KEY"
            )
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigError("the API key holds something else than printable ASCII characters")
        if self.retry_errors and not self.resume:
            raise ConfigError("--retry-errors completes an existing run; use it with --resume")
        if self.temperature == 0 and self.samples_per_view > 1:
            raise ConfigError("--samples-per-view above 1 repeats the same answer at temperature 0; set --temperature")
        if self.temperature == 0 and not self.augment and self.n > 1:
            raise ConfigError("--no-augment repeats the same answer at temperature 0; set -n 1 or --temperature")
        if reserved := [name for name in RESERVED if name in self.extra_body]:
            raise ConfigError(f"--extra-body must not set {', '.join(reserved)}; the run does, and records it")
        if self.stop is not None:
            Stop.parse(self.stop)
        if self.prompt is not None:
            load_prompt(self.prompt)
        if self.encoder is not None:
            parse_encoder(self.encoder)


def declare_tasks(dataset: Dataset, limit: int | None) -> list[Task]:
    """The tasks of a run, declared before sampling.

    Raises:
        DataError: there are none, or two have the same id.
    """
    tasks = list(islice(iterate(dataset), limit))
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
) -> tuple[RunConfig, list[str]]:
    """The configuration that decides the run's predictions, and warnings about it.

    Args:
        repeat: a configuration to come out again: it says how each model is asked.
        api: the route of its requests; what a run really takes may only be seen later.

    Raises:
        RunError: ``repeat`` cannot come out, as a dataset, prompt or model is another by now.
    """
    warnings: list[str] = []
    asked = _asked(options, served, warnings) if repeat is None else {m.name: m for m in repeat.models}
    config = RunConfig(
        models=[_model(name, asked[name], options.max_tokens, served.get(name)) for name in options.models],
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
    rule = Stop.parse(options.stop)
    cycle = view_cycle(options.augment, options.samples_per_view)
    plan = schedule(rule, options.n, sum(len(task.test) for task in tasks), cycle)
    if not plan.looks:
        warnings.append(f"--stop {rule} spares nothing with {options.n} predictions a test output")
    return StopConfig(rule=str(rule), rounds=list(plan.looks))


@dataclass(frozen=True)
class _Way:
    """How a model is to be asked."""

    prompt: str
    encoder: str
    max_tokens: int | None = None


def _asked(options: RunOptions, served: Mapping[str, ServedModel], warnings: list[str]) -> dict[str, _Way]:
    """By model: the user's choice, else its own manifest's, else what all others' manifests agree on, else the default.

    A model without a manifest is asked as the others are, so that a base and its adapters compare.
    """
    named = [served[name] for name in options.models if name in served]
    prompts = _common([m.prompt for m in named], DEFAULT_PROMPT)
    encoders = _common([m.encoder for m in named], DEFAULT_ENCODER)
    ways = {}
    for name in options.models:
        model = served.get(name, ServedModel(name=name))
        prompt = options.prompt or _usable(model.prompt, load_prompt, name, warnings) or prompts
        encoder = options.encoder or _usable(model.encoder, parse_encoder, name, warnings) or encoders
        for kind, chosen, trained in (("prompt", prompt, model.prompt), ("encoder", encoder, model.encoder)):
            if trained is not None and chosen != trained:
                warnings.append(f"{name} was trained with {kind} {trained}, but is asked with {chosen}")
            given = options.prompt if kind == "prompt" else options.encoder
            if trained is None and given is None and model.parent is not None:  # an adapter
                warnings.append(f"{name}: nothing says with which {kind} it was trained; it is asked with {chosen}")
        ways[name] = _Way(prompt, encoder)
    return ways


def _model(name: str, way: _Way | ModelConfig, max_tokens: int | None, served: ServedModel | None) -> ModelConfig:
    prompt = load_prompt(way.prompt)
    return ModelConfig(
        name=name,
        prompt=way.prompt,
        prompt_digest=prompt.digest,
        encoder=way.encoder,
        max_tokens=max_tokens or way.max_tokens or Asker(prompt, parse_encoder(way.encoder)).longest_answer,
        hash=None if served is None else served.hash,
    )


def _common(values: Sequence[str | None], default: str) -> str:
    given = {value for value in values if value is not None}
    return given.pop() if len(given) == 1 else default


def _usable(value: str | None, parse: Callable[[str], object], model: str, warnings: list[str]) -> str | None:
    """A manifest's prompt or encoder, or None with a warning where this version does not know it."""
    if value is None:
        return None
    try:
        parse(value)
    except SpecError as error:
        warnings.append(f"the manifest of {model} is not understood: {error}")
        return None
    return value


def models_at_once(options: RunOptions, served: Iterable[ServedModel]) -> int:
    """How many models' requests are mixed: what the user says, else what the servers can hold, else one by one."""
    if options.models_at_once is not None:
        return options.models_at_once
    return max(1, min((model.max_loras for model in served if model.max_loras is not None), default=1))
