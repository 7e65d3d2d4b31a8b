"""The plan of a run: which predictions it makes, numbered, and what each one asks. No input or output happens here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from harness.core.augmentation import Augmentation, identity_view, sampling_view
from harness.core.errors import GridError, SpecError
from harness.core.grid import MAX_SIDE, Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.prompts.chat_template import TemplateSettings
from harness.prompts.grid_encoder import GridEncoder, parse_encoder
from harness.prompts.prompt_template import Message, Prompt, load_prompt, prompt_names
from harness.prompts.table_tokenizer import SlottedText, SlotWriter, slot_grids, slot_task
from harness.runs.schema import ModelConfig, Outcome, RunConfig

_SEEDS = 2**31
_REMEMBERED = 1024
_TURN_TOKENS = 8
"""Tokens that end a turn, and slack for a lead that splits into more tokens than expected."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One prediction to make: its place in the plan, and the view under which it is asked for."""

    number: int
    place: int
    """Its number among those of its model: models at one place are asked the same."""
    model: str
    task: Task
    test_index: int
    sample_index: int
    augmentation: Augmentation
    seed: int


@dataclass(frozen=True, eq=False)
class PromptFormat:
    """How models are asked: their prompt and encoder."""

    prompt: Prompt
    encoder: GridEncoder
    lenient: bool = False
    """Read answers as the original scripts did (harness.prompts.lenient_decoder)."""
    settings: TemplateSettings = field(default_factory=TemplateSettings)
    """The variables of the chat template."""
    template: str | None = None
    """The digest of a chat template that the models bring along."""
    _layouts: dict[int, list[tuple[str, SlottedText]]] = field(default_factory=dict, repr=False)
    """By number of train pairs, the messages with slots for grids: a template is rendered once for all tasks."""

    def messages(self, draw: Sample) -> tuple[Message, ...]:
        """The chat that asks for a draw's answer."""
        task = draw.augmentation.apply_task(draw.task)
        count = len(task.train)
        if count not in self._layouts:
            rendered = self.prompt.messages(slot_task(count), 0, SlotWriter())
            self._layouts[count] = [(m.role, SlottedText(m.content)) for m in rendered]
        grids = slot_grids(task, draw.test_index)
        return tuple(Message(role, layout.fill(grids, self.encoder)) for role, layout in self._layouts[count])

    def read(self, text: str, augmentation: Augmentation) -> tuple[Outcome, Grid | None]:
        """The answer's grid in the original orientation and colours, or the name of its failure."""
        try:
            return "grid", augmentation.invert(self.prompt.decode(text, self.encoder, lenient=self.lenient))
        except GridError as error:
            return _failure(error), None

    @cached_property
    def max_answer_tokens(self) -> int:
        """A bound on the tokens of any answer: the UTF-8 bytes of a 30x30 one, and the end of the turn.

        No byte-level tokenizer needs more tokens than bytes.
        """
        grid = Grid(MAX_SIDE, MAX_SIDE, bytes(MAX_SIDE * MAX_SIDE))
        task = Task("longest", (Pair(grid, grid),), (Pair(grid, grid),))
        return len(self.prompt.answer(task, 0, self.encoder).encode()) + _TURN_TOKENS


class Plan:
    """All predictions of a run, numbered model by model, test output by test output, sample by sample."""

    def __init__(self, config: RunConfig, tasks: Sequence[Task]) -> None:
        """Number the predictions of a configuration.

        Raises:
            SpecError: a prompt is not known, or never shows the test input.
        """
        self._config = config
        self._tasks = tuple(tasks)
        self._outputs = [(i, j) for i, task in enumerate(self._tasks) for j in range(len(task.test))]
        self._models = {model.name: i for i, model in enumerate(config.models)}
        self._first = {(self._tasks[i].id, j): k for k, (i, j) in enumerate(self._outputs)}
        for prompt in {model.prompt for model in config.models}:
            _check_asks(load_prompt(prompt))
        asked: dict[tuple[object, ...], PromptFormat] = {}
        self.formats = {m.name: asked.setdefault(_way(m), _asker(m, config)) for m in config.models}
        """How each model is asked; models that are asked alike share one."""
        self._drawn = lru_cache(_REMEMBERED)(self._view_and_seed)

    def __len__(self) -> int:
        return len(self._models) * self.per_model

    @property
    def per_model(self) -> int:
        """Predictions that each model makes."""
        return len(self._outputs) * self._config.n

    def number(self, key: tuple[str, str, int, int]) -> int | None:
        """The place of the prediction with that key; None where the plan has none such."""
        model, task_id, test_index, sample = key
        output = self._first.get((task_id, test_index))
        if model not in self._models or output is None or not 0 <= sample < self._config.n:
            return None
        return (self._models[model] * len(self._outputs) + output) * self._config.n + sample

    def sample(self, number: int) -> Sample:
        """What prediction ``number`` asks; a pure function of the configuration and the tasks."""
        model, place = divmod(number, self.per_model)
        output, sample = divmod(place, self._config.n)
        index, test_index = self._outputs[output]
        view, seed = self._drawn(index, sample)
        task = self._tasks[index]
        return Sample(number, place, self._config.models[model].name, task, test_index, sample, view, seed)

    def truth(self, number: int) -> Grid | None:
        """The right answer to prediction ``number``; None where nobody knows it."""
        index, test_index = self._outputs[number % self.per_model // self._config.n]
        return self._tasks[index].test[test_index].output

    def blocks(self, models_at_once: int, size: int) -> Iterator[range]:
        """Every number once, in blocks that one request may ask for: up to ``size`` samples of one output and model.

        Groups of models come in turn, and within a group the same samples of each model together.
        """
        n = self._config.n
        for start in range(0, len(self._models), models_at_once):
            group = range(start, min(start + models_at_once, len(self._models)))
            for place in range(0, self.per_model, n):
                for sample in range(0, n, size):
                    for model in group:
                        first = model * self.per_model + place
                        yield range(first + sample, first + min(sample + size, n))

    def _view_and_seed(self, index: int, sample: int) -> tuple[Augmentation, int]:
        """View and seed of one sample of a task."""
        task = self._tasks[index]
        seed = Stream("sample", self._config.seed, task.id, sample).below(_SEEDS)
        if not self._config.augment:
            return identity_view(len(task.train)), seed
        view = sample // self._config.samples_per_view
        return sampling_view(self._config.seed, task.id, view, len(task.train)), seed


def _way(model: ModelConfig) -> tuple[object, ...]:
    """What decides the prompts of a model: models of one way are asked alike."""
    kwargs = json.dumps(model.chat_template_kwargs, sort_keys=True)
    return model.prompt, model.encoder, kwargs, model.chat_template, model.template_date


def _asker(model: ModelConfig, config: RunConfig) -> PromptFormat:
    settings = TemplateSettings({**model.chat_template_kwargs, **config.chat_template_kwargs}, model.template_date)
    return PromptFormat(
        load_prompt(model.prompt), parse_encoder(model.encoder), config.lenient, settings, model.chat_template
    )


def _check_asks(prompt: Prompt) -> None:
    """Refuse a prompt under which every answer would be a guess.

    Raises:
        SpecError: it never shows the test input.
    """
    if not prompt.shows_test_input:
        others = ", ".join(name for name in prompt_names() if load_prompt(name).shows_test_input)
        raise SpecError(
            f"prompt {prompt.name} never shows the test input, so that its output cannot be predicted (it is for "
            f"training only); choose one with --prompt: {others}"
        )


def _failure(error: GridError) -> Outcome:
    if error.kind == "bad_shape":
        return "bad_shape"
    return "bad_value" if error.kind == "bad_value" else "unparsed"
