"""The plan of a run: all samples that it draws, numbered, and the prompt of each. Pure: no input or output."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from harness.core.augmentation import Augmentation, identity_view, sampling_view
from harness.core.errors import GridError, SpecError
from harness.core.grid import MAX_SIDE, Grid, Pair, Task, is_long_row
from harness.core.random_stream import Stream
from harness.prompts.chat_template import TemplateSettings
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.grid_text import GridEncoder
from harness.prompts.prompt_template import Message, Prompt, load_prompt, prompt_names
from harness.prompts.table_tokenizer import SlottedText, SlotWriter, slot_grids, slot_task
from harness.runs.schemas.manifest_schema import ModelConfig, RunConfig
from harness.runs.schemas.prediction_schema import Outcome
from harness.sampling.request_order import RequestedSamples

_SEED_COUNT = 2**31
_CACHED_VIEWS = 1024
_TURN_TOKENS = 8
"""Tokens that end a turn, with some slack for an answer's first words that split into more tokens than expected."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One prediction to make: its number in the plan, and what its prompt is made of."""

    number: int
    index_in_model: int
    """Index within its model; equal indices mean the same view of the same task for every model."""
    model: str
    task: Task
    test_index: int
    sample_index: int
    augmentation: Augmentation
    seed: int


@dataclass(frozen=True, eq=False)
class PromptFormat:
    """Everything that turns a task into a prompt, and an answer into a grid; models that are prompted alike share it.

    Args:
        lenient: parse answers as the original scripts did (harness.prompts.lenient_decoder).
        settings: the variables of the chat template.
        template: the digest of the chat template that the model's adapter brings along; None for the base's.
    """

    prompt: Prompt
    encoder: GridEncoder
    lenient: bool = False
    settings: TemplateSettings = field(default_factory=TemplateSettings)
    template: str | None = None
    _slotted: dict[int, list[tuple[str, SlottedText]]] = field(default_factory=dict, repr=False)
    """By number of train pairs, role and text of each message with slots for the grids: rendered once for all tasks."""

    def messages(self, sample: Sample) -> tuple[Message, ...]:
        """Return the chat messages of a sample's prompt."""
        task = sample.augmentation.apply_task(sample.task)
        count = len(task.train)
        if count not in self._slotted:
            rendered = self.prompt.messages(slot_task(count), 0, SlotWriter())
            self._slotted[count] = [(m.role, SlottedText(m.content)) for m in rendered]
        grids = slot_grids(task, sample.test_index)
        return tuple(Message(role, text.fill_slots(grids, self.encoder)) for role, text in self._slotted[count])

    def parse_answer(self, text: str, sample: Sample) -> tuple[Outcome, Grid | None]:
        """Return ``grid`` and the answer in the original orientation and colours, or the kind of failure and None.

        An answer longer than 30 is ``bad_shape`` unless the task has such rows.
        """
        try:
            grid = sample.augmentation.invert(self.prompt.decode(text, self.encoder, lenient=self.lenient))
        except GridError as error:
            kinds: dict[str, Outcome] = {"bad_shape": "bad_shape", "bad_value": "bad_value"}
            return kinds.get(error.kind, "unparsed"), None
        if is_long_row(*grid.shape) and not sample.task.has_long_rows():
            return "bad_shape", None
        return "grid", grid

    @cached_property
    def max_answer_tokens(self) -> int:
        """Upper bound on the tokens of any answer: the UTF-8 bytes of a 30x30 grid's, plus the end of the turn.

        A single row of MAX_ROW cells, or a column of them, has fewer.

        A byte-level tokenizer needs at most one token per byte.
        """
        grid = Grid(MAX_SIDE, MAX_SIDE, bytes(MAX_SIDE * MAX_SIDE))
        task = Task("longest", (Pair(grid, grid),), (Pair(grid, grid),))
        return len(self.prompt.answer(task, 0, self.encoder).encode()) + _TURN_TOKENS


class Plan:
    """All samples of a run, numbered by model, then test output, then sample index.

    Args:
        requested_tasks: ids of the tasks whose samples are requested in this session; None for all.
        in_rounds: whether ``blocks`` goes over all test outputs again and again, instead of completing one by one.

    Attributes:
        in_rounds: as the argument.
        formats: the prompt format of each model, by name.

    Raises:
        SpecError: a prompt is unknown, or never shows the test input.
    """

    def __init__(
        self,
        config: RunConfig,
        tasks: Sequence[Task],
        requested_tasks: Collection[str] | None = None,
        in_rounds: bool = False,
    ) -> None:
        self.in_rounds = in_rounds
        self._config = config
        self._tasks = tuple(tasks)
        self._outputs = [(i, j) for i, task in enumerate(self._tasks) for j in range(len(task.test))]
        """Index of the task and of the test pair, by test output."""
        self._requested = [
            k
            for k, (i, _) in enumerate(self._outputs)
            if requested_tasks is None or self._tasks[i].id in requested_tasks
        ]
        """Test outputs whose samples are requested."""
        self._model_index = {model.name: i for i, model in enumerate(config.models)}
        self._output_index = {(self._tasks[i].id, j): k for k, (i, j) in enumerate(self._outputs)}
        for prompt in {model.prompt for model in config.models}:
            _check_shows_test_input(load_prompt(prompt))
        shared: dict[tuple[object, ...], PromptFormat] = {}
        self.formats = {m.name: shared.setdefault(_format_key(m), _make_format(m, config)) for m in config.models}
        self._view_and_seed = lru_cache(_CACHED_VIEWS)(self._compute_view_and_seed)

    def __len__(self) -> int:
        return len(self._model_index) * self.per_model

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of the run, in order."""
        return self._tasks

    @property
    def per_model(self) -> int:
        """Number of samples of each model."""
        return len(self._outputs) * self._config.n

    def number(self, key: tuple[str, str, int, int]) -> int | None:
        """Return a sample's number from its key (model, task id, test index, sample index); None if not planned."""
        model, task_id, test_index, sample_index = key
        output = self._output_index.get((task_id, test_index))
        if model not in self._model_index or output is None or not 0 <= sample_index < self._config.n:
            return None
        return (self._model_index[model] * len(self._outputs) + output) * self._config.n + sample_index

    def sample(self, number: int) -> Sample:
        """Return the sample with a number: a pure function of the configuration and the tasks."""
        model, index_in_model = divmod(number, self.per_model)
        output, sample_index = divmod(index_in_model, self._config.n)
        task_index, test_index = self._outputs[output]
        view, seed = self._view_and_seed(task_index, sample_index)
        name, task = self._config.models[model].name, self._tasks[task_index]
        return Sample(number, index_in_model, name, task, test_index, sample_index, view, seed)

    def true_output(self, number: int) -> Grid | None:
        """Return the right answer to a sample, None if the dataset does not have it."""
        task_index, test_index = self._outputs[number % self.per_model // self._config.n]
        return self._tasks[task_index].test[test_index].output

    def outputs_of_first(self, tasks: int) -> int:
        """Return how many test outputs the first ``tasks`` tasks have; test outputs are numbered in this order."""
        return sum(len(task.test) for task in self._tasks[:tasks])

    def number_ranges(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return for each model the first number, and the one after the last, of test outputs ``start`` to ``end``."""
        firsts = range(0, len(self), self.per_model)
        return [(first + start * self._config.n, first + end * self._config.n) for first in firsts]

    def first_numbers(self) -> list[int]:
        """Return the number of the first sample of each model that is requested."""
        first = self._requested[0] * self._config.n
        return [index * self.per_model + first for index in range(len(self._model_index))]

    def requested_numbers(self) -> Iterator[int]:
        """Yield the numbers of the samples that are requested in this session."""
        for block in self.blocks(1, self._config.n):
            yield from block

    def blocks(self, models_at_once: int, size: int, outputs: range | None = None) -> Iterator[Sequence[int]]:
        """Return the numbers of all requested samples, each once, in blocks that each fit into one request.

        Args:
            models_at_once: models whose requests are mixed.
            size: samples per block at most; all are of one model, and of one test output unless ``in_rounds``.
            outputs: return the samples of these test outputs only; None for all that are requested.
        """
        requested = [k for k in self._requested if outputs is None or k in outputs]
        models, n = len(self._model_index), self._config.n
        samples = RequestedSamples(models, requested, n, self.per_model, models_at_once, size)
        return samples.in_rounds() if self.in_rounds else samples.by_output()

    def _compute_view_and_seed(self, task_index: int, sample_index: int) -> tuple[Augmentation, int]:
        """Return the view and the seed of one sample of a task, the same for every model and test output."""
        task = self._tasks[task_index]
        seed = Stream("sample", self._config.seed, task.id, sample_index).below(_SEED_COUNT)
        if not self._config.augment:
            return identity_view(len(task.train)), seed
        view = sample_index // self._config.samples_per_view
        return sampling_view(self._config.seed, task.id, view, len(task.train)), seed


def _format_key(model: ModelConfig) -> tuple[object, ...]:
    """Return what determines a model's prompts: models with equal keys share a ``PromptFormat``."""
    kwargs = json.dumps(model.chat_template_kwargs, sort_keys=True)
    return model.prompt, model.encoder, kwargs, model.chat_template, model.template_date


def _make_format(model: ModelConfig, config: RunConfig) -> PromptFormat:
    """Return a model's prompt format; the run's template variables override the model's."""
    settings = TemplateSettings({**model.chat_template_kwargs, **config.chat_template_kwargs}, model.template_date)
    encoder = parse_encoder(model.encoder)
    return PromptFormat(load_prompt(model.prompt), encoder, config.lenient, settings, model.chat_template)


def _check_shows_test_input(prompt: Prompt) -> None:
    """Reject a prompt that leaves out the test input, so that every answer would be a guess.

    Raises:
        SpecError: it does.
    """
    if not prompt.shows_test_input:
        others = ", ".join(name for name in prompt_names() if load_prompt(name).shows_test_input)
        raise SpecError(
            f"prompt {prompt.name} never shows the test input, so that its output cannot be predicted (it is for "
            f"training only); choose one with --prompt: {others}"
        )
