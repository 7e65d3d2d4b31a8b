"""Mixtures: training samples drawn from weighted datasets, each a pure function of (seed, index)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.core.augmentation import identity_view, random_view, resplit
from harness.core.errors import ConfigError, DataError
from harness.core.grid import Task
from harness.core.random_stream import Stream
from harness.data.dataset import Dataset
from harness.prompts.chat_template import DEFAULT_SETTINGS, ChatTokenizer, TemplateSettings
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer, TrainingSample
from trainers.data.task_augmentation import EQUAL_WEIGHTS, Kind, random_change

MAX_DRAWS = 200
"""Draws of one sample before its dataset counts as unable to supply."""
CHECK_DRAWS = 50
"""Draws from each dataset with which a mixture is checked before training."""
MAX_SKIPPED = 0.9
"""A dataset of which more than this share is too long or without an output cannot supply."""


@dataclass(frozen=True)
class TaskChanges:
    """How the tasks of a dataset become further tasks, for training only; by default they stay as they are."""

    resplit: bool = False
    """Split the pairs anew into train and test."""
    probability: float = 0.0
    """Of a problem change."""
    weights: Mapping[Kind, float] = field(default_factory=lambda: EQUAL_WEIGHTS)
    """Of the kinds of problem change."""

    def split(self, stream: Stream, task: Task) -> Task:
        """The task with its pairs split anew, where that is asked for and all outputs are known; else the same one."""
        return resplit(stream, task) if self.resplit else task

    def change(self, stream: Stream, task: Task) -> Task:
        """The task after a problem change, where one is drawn and fits; else the same one."""
        if not self.probability or stream.uniform() >= self.probability:
            return task
        change = random_change(stream, task, self.weights)
        return task if change is None else change.apply_task(task)


@dataclass(frozen=True)
class Source:
    """One dataset of a mixture with how it is rendered and how much it weighs."""

    dataset: Dataset
    tokens: PromptTokenizer
    weight: float
    task_changes: TaskChanges = TaskChanges()


@dataclass(frozen=True, slots=True)
class DrawnSample:
    """One training sample and how it came about."""

    index: int
    source: int
    task_id: str
    sample: TrainingSample
    too_long: int = 0
    """Draws that were skipped before it because they did not fit."""
    no_output: int = 0
    """Draws that were skipped before it because the task has no known test output."""
    dropped_pairs: int = 0
    """Train pairs that were left out to make it fit."""
    resplit: bool = False
    """Its pairs were split anew."""
    changed: bool = False
    """It is a new task, made by a problem change."""


@dataclass
class SampleCounts:
    """What a dataset really gave: the mixture as realised."""

    drawn: int = 0
    too_long: int = 0
    no_output: int = 0
    dropped_pairs: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    resplit: int = 0
    changed: int = 0

    def add(self, other: SampleCounts) -> None:
        """Add the counts of other samples."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Mixture:
    """Weighted datasets as an endless sequence of samples.

    Sample ``i`` depends on (seed, i) alone, so that a run can stop anywhere and go on exactly. Its dataset is drawn
    first and kept: a sample that does not fit is replaced by another of the same dataset, never by one of
    another, so that the declared weights hold.
    """

    sources: Sequence[Source]
    seed: int
    max_seq_len: int
    drop_pairs: bool = False
    augment: bool = True
    _bounds: list[float] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        total = 0.0
        for source in self.sources:
            total += source.weight
            self._bounds.append(total)

    @property
    def shares(self) -> list[float]:
        """The declared share of each dataset."""
        return [source.weight / self._bounds[-1] for source in self.sources]

    def source_index(self, index: int) -> int:
        """Which dataset sample ``index`` comes from."""
        point = Stream("mixture", self.seed, index).uniform() * self._bounds[-1]
        return next((k for k, bound in enumerate(self._bounds) if point < bound), len(self._bounds) - 1)

    def draw_sample(self, index: int) -> DrawnSample:
        """Sample ``index``.

        Raises:
            DataError: its dataset gave none in MAX_DRAWS draws.
        """
        which = self.source_index(index)
        too_long = no_output = 0
        for attempt in range(MAX_DRAWS):
            drawn = self._attempt(which, Stream("sample", self.seed, index, attempt), index)
            if isinstance(drawn, DrawnSample):
                return replace(drawn, too_long=too_long, no_output=no_output)
            too_long, no_output = too_long + (drawn == "too_long"), no_output + (drawn == "no_output")
        raise self._cannot_supply(which, MAX_DRAWS, too_long, no_output)

    def check(self) -> None:
        """Try every dataset before training.

        Raises:
            DataError: a dataset is empty, or too few of its samples have an output and fit.
        """
        for which, source in enumerate(self.sources):
            if not len(source.dataset.ids):
                raise DataError(f"dataset {source.dataset.spec!r} has no task")
            found = [self._attempt(which, Stream("check", self.seed, which, k), -1) for k in range(CHECK_DRAWS)]
            too_long, no_output = found.count("too_long"), found.count("no_output")
            if too_long + no_output > MAX_SKIPPED * CHECK_DRAWS:
                raise self._cannot_supply(which, CHECK_DRAWS, too_long, no_output)

    def _attempt(self, which: int, stream: Stream, index: int) -> DrawnSample | str:
        """One try at a sample: the sample, or why there is none."""
        source = self.sources[which]
        drawn = source.dataset.task(stream.below(len(source.dataset.ids)), stream)
        split = source.task_changes.split(stream, drawn)
        answered = [k for k, pair in enumerate(split.test) if pair.output is not None]
        if not answered:
            return "no_output"
        test_index = stream.choice(answered)
        view = random_view(stream, len(split.train)) if self.augment else identity_view(len(split.train))
        seen = view.apply_task(split)
        task = changed = source.task_changes.change(stream, seen)
        sample, dropped = source.tokens.sample(task, test_index), 0
        while len(sample.ids) > self.max_seq_len:
            if not self.drop_pairs or len(task.train) < 2:
                return "too_long"
            task, dropped = _without_last(task), dropped + 1
            sample = source.tokens.sample(task, test_index)
        remade = {"resplit": split is not drawn, "changed": changed is not seen}
        return DrawnSample(index, which, task.id, sample, dropped_pairs=dropped, **remade)

    def _cannot_supply(self, which: int, draws: int, too_long: int, no_output: int) -> DataError:
        spec = self.sources[which].dataset.spec
        longer, known = "raise max_seq_len, set too_long: drop_pairs", "use a dataset with known test outputs"
        remedy = ", ".join([longer] * (too_long > 0) + [known] * (no_output > 0))
        return DataError(
            f"dataset {spec!r} cannot supply the mixture: of {draws} draws {too_long} were over "
            f"{self.max_seq_len} tokens and {no_output} had no output; {remedy}, or leave it out"
        )


def _without_last(task: Task) -> Task:
    return Task(task.id, task.train[:-1], task.test)


def count_by_source(draws: Sequence[DrawnSample], n_sources: int) -> list[SampleCounts]:
    """The counts of some samples, per dataset."""
    counts = [SampleCounts() for _ in range(n_sources)]
    for d in draws:
        length = len(d.sample.ids)
        answer = length - d.sample.prompt_length
        one = SampleCounts(1, d.too_long, d.no_output, d.dropped_pairs, length, answer, int(d.resplit), int(d.changed))
        counts[d.source].add(one)
    return counts


def open_mixture(
    datasets: Sequence[Dataset],
    prompts: Sequence[str],
    weights: Sequence[float | None],
    tokenizer: ChatTokenizer,
    *,
    encoder: str,
    settings: TemplateSettings = DEFAULT_SETTINGS,
    seed: int,
    max_seq_len: int,
    drop_pairs: bool = False,
    augment: bool = True,
    task_changes: Sequence[TaskChanges] = (),
) -> Mixture:
    """A mixture of opened datasets; a weight of None stands for the number of task ids, no remakes for none.

    Raises:
        SpecError, ConfigError: an unknown prompt or encoder, or a chat template that cannot be trained on.
    """
    grids = parse_encoder(encoder)
    tokens = {
        name: PromptTokenizer(tokenizer, load_prompt(name), grids, settings=settings) for name in dict.fromkeys(prompts)
    }
    sources = [
        Source(dataset, tokens[prompt], float(len(dataset.ids)) if weight is None else weight, remake)
        for dataset, prompt, weight, remake in zip(
            datasets, prompts, weights, task_changes or [TaskChanges()] * len(datasets), strict=True
        )
    ]
    if not sources or sum(s.weight for s in sources) <= 0:
        raise ConfigError("the mixture has no dataset with a weight above 0")
    return Mixture(tuple(sources), seed, max_seq_len, drop_pairs, augment)
