"""What a run of ``bench ttt`` does: its options, opened, and the plan that it writes before training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import orjson

from harness.cli.workflows.cluster.options import Placement
from harness.cli.workflows.ttt.training_data import find_training_data
from harness.core.deadline import Deadline
from harness.core.digests import content_hash
from harness.core.errors import ConfigError, DataError, RunError, format_ids
from harness.core.files import write_atomically
from harness.core.grid import Task
from harness.data.dataset import Dataset
from harness.data.spec import open_dataset
from harness.inspection.protocol import derive_protocol
from harness.runs.folder import TTT_PLAN, RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.manifest_schema import ServedModel
from harness.runs.schemas.task_training import Protocol, TttConfig, TttPlan
from harness.sampling.options.config_draft import load_tasks
from harness.sampling.options.run_options import RunOptions
from serve.registry.base_model import BaseModel
from trainers.model.inputs import RecipeInputs
from trainers.recipe.schema import Recipe
from trainers.recipe.ttt_recipe import task_values
from trainers.run.api import open_checked
from trainers.ttt.protocol import adapter_path, folder_name, read_recipe

Schedule = Literal["train-first", "resident"]
START_NAME = "start"
"""Name in the registry of the starting adapter, behind ``ADAPTER_PREFIX``; a task's is its folder's name."""
ADAPTER_PREFIX = "ttt-"


@dataclass(frozen=True)
class TttOptions:
    """The options of ``bench ttt``.

    Args:
        recipe: how every task is trained.
        sampling: the options that it shares with ``bench run``; its servers and prompts are set later.
        adapters: registry of the given servers; None for one in the run folder.
        schedule: None chooses.
        again: ids of tasks that are done again.
        discard: keep only the digests of adapters that have answered.
        rescore: number of fixed views under which every candidate is rescored at the end; None for no rescoring.
        task_deadline: seconds for the training of one task, beside the recipe's.
        training_deadline, deadline: after the first nothing more is trained; after the other nothing more is asked.
        dtype: of our own server.
        port: of our own server; None for a free one.
        gpu_memory: share of the GPU's memory for our own server; None for the default of ``bench serve``.
        serve_extra: further vLLM options of our own server.
        placement: the cluster that trains; None to train here.
        tasks_per_group: of one training on the cluster; None divides them evenly.
    """

    recipe: Recipe
    sampling: RunOptions
    adapters: Path | None = None
    schedule: Schedule | None = None
    again: tuple[str, ...] = ()
    discard: bool = False
    rescore: int | None = None
    task_deadline: float | None = None
    training_deadline: Deadline | None = None
    deadline: Deadline | None = None
    dtype: str | None = "exact"
    port: int | None = None
    gpu_memory: float | None = None
    serve_extra: tuple[str, ...] = ()
    placement: Placement | None = None
    tasks_per_group: int | None = None

    @property
    def servers(self) -> tuple[str, ...]:
        """Addresses of running servers; empty to start one."""
        return self.sampling.servers

    def check(self) -> None:
        """Reject options that are invalid or contradict each other.

        Raises:
            ConfigError, SpecError: the message names the option and says what to do.
        """
        sampling = self.sampling if self.servers else replace(self.sampling, servers=("http://127.0.0.1",))
        sampling.check()
        if bool(self.servers) != (self.adapters is not None):
            raise ConfigError("--server and --adapters belong together: the servers, and the registry they run on")
        if self.placement is not None and self.schedule is not None:
            raise ConfigError("--on trains all tasks on the cluster before the first is answered; leave --schedule out")
        if self.placement is None and self.tasks_per_group is not None:
            raise ConfigError("--tasks-per-group is of trainings on a cluster; give --on ray too")
        if self.servers and self.schedule == "train-first":
            raise ConfigError("--schedule train-first starts its server after the training; leave --server out")
        if self.servers and (self.port is not None or self.dtype != "exact" or self.gpu_memory is not None):
            raise ConfigError("--port, --dtype and --gpu-memory are of our own server; leave them out with --server")
        if self.deadline and self.training_deadline and self.training_deadline.seconds >= self.deadline.seconds:
            raise ConfigError("--training-deadline is not before --deadline, which ends trainings too; leave it out")
        if self.again and not self.sampling.resume:
            raise ConfigError("--task does tasks of an existing run again; use it with --resume")


@dataclass(frozen=True)
class TttJob:
    """A run of test-time training with everything that its options name, opened."""

    options: TttOptions
    dataset: Dataset
    tasks: tuple[Task, ...]
    """In the order of the dataset; those without a test input are left out."""
    inputs: RecipeInputs
    """The recipe with what it names, opened as the trainer does."""
    config: TttConfig

    @staticmethod
    def open(options: TttOptions) -> TttJob:
        """Check the options and open what they name.

        Raises:
            ConfigError, SpecError, DataError, AdapterError: something is wrong or missing.
        """
        options.check()
        recipe = options.recipe
        dataset = open_dataset(options.sampling.dataset)
        tasks = tuple(task for task in load_tasks(dataset, options.sampling.limit) if task.test)
        if unknown := sorted(set(options.again) - {task.id for task in tasks}):
            raise ConfigError(f"--task: the run has no task {', '.join(unknown)}")
        _check_names(tasks)
        inputs = open_checked(recipe, None)
        start = None if recipe.adapter is None else content_hash(Path(recipe.adapter))
        values = orjson.loads(orjson.dumps(task_values(recipe)))
        return TttJob(options, dataset, tasks, inputs, TttConfig(recipe=values, base=inputs.base_digest, start=start))

    @property
    def base(self) -> Path | str:
        """Folder of the base model, or its Hub id."""
        return self.inputs.base

    @cached_property
    def base_model(self) -> BaseModel:
        """The base model as the registry checks adapters against it."""
        return BaseModel.open(str(self.base))

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.options.sampling.out

    @property
    def folder(self) -> RunFolder:
        """The run folder as such."""
        return RunFolder(self.out)

    @property
    def model(self) -> str:
        """The name of the run's model."""
        return self.options.sampling.models[0]

    @property
    def start(self) -> Path | None:
        """Folder of the adapter from which every task starts; None for new LoRA weights."""
        return None if self.options.recipe.adapter is None else Path(self.options.recipe.adapter)

    @property
    def registry(self) -> Path:
        """The registry in which adapters are registered while they answer."""
        return self.options.adapters or self.out / "registry"

    @property
    def log(self) -> TrainingLog:
        """What became of each task."""
        return TrainingLog(self.out / TTT_LOG)

    def adapter(self, task: Task) -> Path:
        """Return the folder of a task's adapter, which exists once it is complete."""
        return adapter_path(self.out, task.id)

    def pending(self) -> list[Task]:
        """Return the tasks that are not answered, in order."""
        done = self.log.records()
        return [task for task in self.tasks if task.id not in done]

    def settings(self) -> ServedModel:
        """Return how all tasks are prompted: as the manifests of their adapters say."""
        inputs, recorded = self.inputs, read_recipe(self.out)  # with the date on which the run began
        return ServedModel(
            name=self.model,
            prompt=inputs.inference_prompt,
            encoder=recorded.encoder,
            stop_token_ids=inputs.stop_token_ids,
            chat_template_kwargs=dict(inputs.chat.settings.kwargs) or None,
            chat_template=inputs.chat.template if inputs.chat.overrides_model else None,
            template_date=None
            if inputs.chat.settings.date is None or recorded.template_date is None
            else recorded.template_date.isoformat(),
        )

    def write_plan(self, notice: Callable[[str], None]) -> Protocol:
        """Write ttt.json, or compare it with that of the run that is resumed; return what the model was trained on.

        Args:
            notice: shows a line before a long audit.

        Raises:
            RunError: the run to resume was begun with another recipe or dataset, or ttt.json is damaged.
        """
        path = self.out / TTT_PLAN
        before = TttPlan.read(path)
        if before is None:
            data = find_training_data(self.base, self.start)
            if data.digests:
                notice(f"comparing the tasks with {', '.join(data.digests)}, on which the model was trained")
            protocol = derive_protocol(self.tasks, data, at_test_time=True)
        else:
            protocol = before.protocol
        plan = TttPlan(
            format=1,
            model=self.model,
            dataset=self.options.sampling.dataset,
            dataset_digest=self.dataset.digest(),
            task_ids=[task.id for task in self.tasks],
            config=self.config,
            protocol=protocol,
        )
        if before is None:
            write_atomically(path, orjson.dumps(plan.model_dump(), option=orjson.OPT_INDENT_2) + b"\n")
        elif changes := before.changes(plan):
            raise RunError(
                f"{self.out} was begun with another configuration; changed: {'; '.join(changes)}. "
                "Resume it as it was begun, or choose another --out"
            )
        return protocol


def _check_names(tasks: Sequence[Task]) -> None:
    """Make sure that no two tasks have the same adapter folder, even where a file system ignores case.

    Raises:
        DataError: two do.
    """
    names: dict[str, str] = {}
    for task in tasks:
        other = names.setdefault(folder_name(task.id).casefold(), task.id)
        if other != task.id:
            raise DataError(f"tasks {format_ids([other, task.id])} would share a folder; rename one of them")
