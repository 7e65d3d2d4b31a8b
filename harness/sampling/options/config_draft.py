"""The configuration of a run, from the options of ``bench run`` and what the servers report.

``ConfigDraft.complete`` returns the frozen ``RunConfig`` that is saved with the run and that all later stages (plan,
request builder, recorder) are built from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from harness.client.pool.server_health import ServerHealth
from harness.core.errors import ConfigError, DataError, RunError
from harness.core.grid import Task
from harness.data.dataset import Dataset, iterate_tasks
from harness.runs.folder import config_changes
from harness.runs.schemas.manifest_schema import ModelConfig, RunConfig, ServedModel, StopConfig
from harness.runs.schemas.view_schema import SearchConfig
from harness.sampling.options.model_options import ModelChoices, model_configs, repeated_model_config
from harness.sampling.options.run_options import ApiChoice, RunOptions
from harness.sampling.options.search_options import search_config
from harness.sampling.options.sequential_options import in_sampling_order, sequential_design
from harness.sampling.options.task_part import without_hashes
from harness.sampling.plan import Plan
from harness.voting.early_stopping import StopRule, plan_rounds, view_cycle


def load_tasks(dataset: Dataset, limit: int | None) -> list[Task]:
    """Return the tasks of a run, the first ``limit`` of the dataset.

    Raises:
        DataError: no task has a test input, or two tasks have the same id.
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


def run_tasks(options: RunOptions, dataset: Dataset) -> list[Task]:
    """Return the tasks of a run in the order in which they are sampled.

    Raises:
        DataError: as ``load_tasks``. UnknownOutputError: as ``in_sampling_order``.
    """
    tasks = load_tasks(dataset, options.limit)
    return tasks if options.until_resolved is None else in_sampling_order(tasks, options.seed)


@dataclass(frozen=True)
class ConfigDraft:
    """Everything that determines a run's configuration except what the servers report.

    Args:
        repeated: the configuration of a run that is to be reproduced; its models' settings are used.
        resumed: the configuration of the run that is resumed.
    """

    options: RunOptions
    dataset: Dataset
    tasks: list[Task]
    repeated: RunConfig | None = None
    resumed: RunConfig | None = None

    @property
    def api(self) -> ApiChoice:
        """The requested API; a reproduced or resumed run keeps its own, unless the user chose one."""
        if self.repeated is not None:
            return self.repeated.api
        return self.resumed.api if self.options.api == "auto" and self.resumed is not None else self.options.api

    @property
    def _rule(self) -> str | None:
        """The headline rule; a reproduced run keeps its own, and so does a resumed one, unless the user names one."""
        if self.repeated is not None:
            return self.repeated.rule
        return self.resumed.rule if self.options.rule is None and self.resumed is not None else self.options.rule

    @property
    def _search(self) -> SearchConfig | None:
        """How the answers of views are enumerated; a reproduced run keeps its own configuration."""
        if self.repeated is not None:
            return self.repeated.search
        return search_config(
            self.options.search, self.options.min_prob, self.options.max_answers, self.options.keep_greedy
        )

    @property
    def is_continued(self) -> bool:
        """Whether the run was begun earlier, so that the settings of its models are kept."""
        return self.repeated is not None or self.resumed is not None

    def plan(self, config: RunConfig) -> Plan:
        """Return the plan of the run, which requests the tasks of this session only; with a deadline, in rounds."""
        part = self.options.part
        in_rounds = self.options.deadline is not None
        return Plan(config, self.tasks, None if part is None else part.task_ids, in_rounds)

    def complete(
        self, served: Mapping[str, ServedModel], *, without_system: bool = False
    ) -> tuple[RunConfig, list[str]]:
        """Return the run's configuration and warnings about it.

        ``api`` is provisional: ``negotiate_setup`` detects which one the servers accept.

        Args:
            served: the models that the servers list, by name.
            without_system: replace prompts by those with the same content and no system message.

        Raises:
            RunError: a run cannot be reproduced because its dataset, a prompt or a model has changed.
        """
        options = self.options
        warnings: list[str] = []
        models = self._models(served, without_system, warnings)
        stop = _stop_config(options, self.tasks, warnings) if self.repeated is None else self.repeated.stop
        config = RunConfig(
            ttt=None if options.part is None else options.part.config,
            models=models if options.part is None else without_hashes(models),
            dataset=options.dataset,
            dataset_digest=self.dataset.digest(),
            task_ids=[task.id for task in self.tasks],
            n=options.n,
            samples_per_view=options.samples_per_view,
            augment=options.augment,
            lenient=options.lenient,
            seed=options.seed,
            api="chat" if self.repeated is None else self.repeated.api,
            temperature=options.temperature,
            top_p=options.top_p,
            min_p=options.min_p,
            extra_body=dict(options.extra_body),
            chat_template_kwargs=dict(options.chat_template_kwargs),
            stop=stop,
            search=self._search,
            rule=self._rule,
            sequential=sequential_design(
                options.until_resolved, options.smaller_than, len(self.tasks), len(options.models), warnings
            ),
        )
        if self.repeated is not None and (changes := config_changes(self.repeated, config)):
            raise RunError(f"the run cannot be repeated: {'; '.join(changes)}")
        return config, list(dict.fromkeys(warnings))

    def _models(
        self, served: Mapping[str, ServedModel], without_system: bool, warnings: list[str]
    ) -> list[ModelConfig]:
        """Return the models' configurations; a reproduced run keeps its own. ``warnings`` gets lines about them."""
        options = self.options
        if self.repeated is None:
            choices = _model_choices(options, without_system)
            return model_configs(options.models, choices, served, self.resumed, warnings)
        return [
            repeated_model_config(model, options.max_tokens, served.get(model.name)) for model in self.repeated.models
        ]


def served_models(servers: Iterable[ServerHealth]) -> dict[str, ServedModel]:
    """Return the models that the servers list, by name; of a model that several have, the first entry with all dtypes.

    Raises:
        ConfigError: two servers have different weights under one name, so that they must not share a run.
    """
    models: dict[str, ServedModel] = {}
    for server in servers:
        for name, model in server.served.items():
            first = models.setdefault(name, model)
            if first.hash != model.hash:
                raise ConfigError(f"the servers hold different versions of {name}: {first.hash} and {model.hash}")
            models[name] = first.with_dtypes_of(model)
    return models


def models_at_once(options: RunOptions, served: Iterable[ServedModel]) -> int:
    """Return how many models' requests are mixed.

    It is the user's choice, else the smallest number of adapters that a server computes in one batch, else 1.
    """
    if options.models_at_once is not None:
        return options.models_at_once
    return max(1, min((model.max_loras for model in served if model.max_loras is not None), default=1))


def _model_choices(options: RunOptions, without_system: bool) -> ModelChoices:
    """Return what the user chose for all models."""
    return ModelChoices(
        prompt=options.prompt,
        encoder=options.encoder,
        max_tokens=options.max_tokens,
        sets_stop_tokens="stop_token_ids" in options.extra_body,
        chat_template_kwargs=options.chat_template_kwargs,
        without_system=without_system,
    )


def _stop_config(options: RunOptions, tasks: Sequence[Task], warnings: list[str]) -> StopConfig | None:
    """Return the stopping rule and its rounds; ``warnings`` gets a line if the rule cannot skip anything."""
    if options.stop is None:
        return None
    rule = StopRule.parse(options.stop)
    cycle = view_cycle(options.augment, options.samples_per_view)
    schedule = plan_rounds(rule, options.n, sum(len(task.test) for task in tasks), cycle)
    if not schedule.round_ends:
        warnings.append(f"--stop {rule} spares nothing with {options.n} predictions a test output")
    return StopConfig(rule=str(rule), rounds=list(schedule.round_ends))
