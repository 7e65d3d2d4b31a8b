"""Draw training samples from weighted datasets, each as a pure function of (seed, index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Protocol

from harness.core.augmentation import identity_view, random_view
from harness.core.errors import ConfigError, DataError
from harness.core.grid import Task
from harness.core.random_stream import Stream
from harness.data.dataset import Dataset
from harness.prompts.chat_template import DEFAULT_SETTINGS, ChatTokenizer, TemplateSettings
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.prompts.training_sample import TrainingSample
from trainers.data.task_augmentation import NO_CHANGES, TaskChanges

MAX_DRAWS = 200
"""Attempts at one sample before its dataset is reported as unable to supply."""
CHECK_DRAWS = 50
"""Attempts per dataset when a mixture is checked before training."""
MAX_SKIPPED = 0.9
"""Largest share of attempts that may be too long or without output in that check."""


class DrawnTasks(Protocol):
    """Tasks to draw from: the part of a ``Dataset`` that a mixture needs."""

    @property
    def spec(self) -> str:
        """The name of the tasks in error messages."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """The task ids."""
        ...

    def task(self, index: int, stream: Stream | None = None) -> Task:
        """Return task ``index``, drawn from the stream where it has several forms."""
        ...


@dataclass(frozen=True)
class Source:
    """One dataset of a mixture, with its prompt tokenizer and weight."""

    dataset: DrawnTasks
    tokens: PromptTokenizer
    weight: float
    task_changes: TaskChanges = NO_CHANGES


@dataclass(frozen=True, slots=True)
class DrawnSample:
    """One training sample and how it was drawn."""

    index: int
    source: int
    """Index of its dataset in the mixture."""
    task_id: str
    sample: TrainingSample
    too_long: int = 0
    """Attempts before it that were skipped because they did not fit."""
    no_output: int = 0
    """Attempts before it that were skipped because the task has no known test output."""
    dropped_pairs: int = 0
    """Train pairs dropped to make it fit."""
    resplit: bool = False
    """Whether its pairs were split again."""
    changed: bool = False
    """Whether a problem change made it a new task."""


@dataclass
class SampleCounts:
    """Totals over the samples drawn from one dataset.

    The order of the fields is the order of the numbers under ``counts`` in log.jsonl.
    """

    drawn: int = 0
    too_long: int = 0
    no_output: int = 0
    dropped_pairs: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    """Tokens in the loss: the answers, and with ``loss_on: outputs`` the outputs that are shown."""
    resplit: int = 0
    changed: int = 0

    def add(self, other: SampleCounts) -> None:
        """Add the totals of other samples."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Mixture:
    """Weighted datasets as an endless sequence of training samples.

    Sample ``i`` depends on (seed, i) only, so that a run can stop at any step and resume exactly. Its dataset is drawn
    first: a sample that does not fit is replaced by another one of the same dataset, which keeps the declared weights.
    """

    sources: Sequence[Source]
    seed: int
    max_seq_len: int
    drop_pairs: bool = False
    augment: bool = True
    loss_on_outputs: bool = False
    """The loss also covers the outputs of the train pairs that a sample shows after the first."""
    _bounds: list[float] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._bounds.extend(accumulate(source.weight for source in self.sources))

    @property
    def shares(self) -> list[float]:
        """Return the declared share of each dataset."""
        return [source.weight / self._bounds[-1] for source in self.sources]

    def source_index(self, index: int) -> int:
        """Return the index of the dataset of sample ``index``."""
        point = Stream("mixture", self.seed, index).uniform() * self._bounds[-1]
        return next((k for k, bound in enumerate(self._bounds) if point < bound), len(self._bounds) - 1)

    def draw_sample(self, index: int) -> DrawnSample:
        """Return sample ``index``.

        Raises:
            DataError: its dataset gave no usable sample in MAX_DRAWS attempts.
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
        """Draw CHECK_DRAWS samples from every dataset, to find unusable ones before training.

        Raises:
            DataError: a dataset is empty, or more than MAX_SKIPPED of its samples have no output or do not fit.
        """
        for which, source in enumerate(self.sources):
            if not len(source.dataset.ids):
                raise DataError(f"dataset {source.dataset.spec!r} has no task")
            results = [self._attempt(which, Stream("check", self.seed, which, k), -1) for k in range(CHECK_DRAWS)]
            too_long, no_output = results.count("too_long"), results.count("no_output")
            if too_long + no_output > MAX_SKIPPED * CHECK_DRAWS:
                raise self._cannot_supply(which, CHECK_DRAWS, too_long, no_output)

    def _attempt(self, which: int, stream: Stream, index: int) -> DrawnSample | str:
        """Draw one sample from dataset ``which``; return it, or the reason why it is skipped."""
        source = self.sources[which]
        drawn = source.dataset.task(stream.below(len(source.dataset.ids)), stream)
        split = source.task_changes.split(stream, drawn)
        answered = [k for k, pair in enumerate(split.test) if pair.output is not None]
        if not answered:
            return "no_output"
        test_index = stream.choice(answered)
        view = random_view(stream, len(split.train)) if self.augment else identity_view(len(split.train))
        viewed = view.apply_task(split)
        task = changed = source.task_changes.change(stream, viewed)
        draw_ids = source.tokens.sample_with_outputs if self.loss_on_outputs else source.tokens.sample
        sample, dropped = draw_ids(task, test_index), 0
        while len(sample.ids) > self.max_seq_len:
            if not self.drop_pairs or len(task.train) < 2:
                return "too_long"
            task, dropped = _without_last(task), dropped + 1
            sample = draw_ids(task, test_index)
        flags = {"resplit": split is not drawn, "changed": changed is not viewed}
        return DrawnSample(index, which, task.id, sample, dropped_pairs=dropped, **flags)

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
    """Return the totals of some samples for each of ``n_sources`` datasets."""
    counts = [SampleCounts() for _ in range(n_sources)]
    for d in draws:
        length, learned = len(d.sample.ids), d.sample.loss_length
        one = SampleCounts(1, d.too_long, d.no_output, d.dropped_pairs, length, learned, int(d.resplit), int(d.changed))
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
    loss_on_outputs: bool = False,
) -> Mixture:
    """Build the mixture of opened datasets.

    Args:
        datasets: with ``prompts``, ``weights`` and, unless empty, ``task_changes`` of the same length.
        weights: None stands for the dataset's number of task ids.
        drop_pairs: drop a too long sample's last train pairs before drawing another one.

    Raises:
        SpecError, ConfigError: an unknown prompt or encoder, a chat template that cannot be trained on, or no weight.
    """
    grids = parse_encoder(encoder)
    tokens = {
        name: PromptTokenizer(tokenizer, load_prompt(name), grids, settings=settings) for name in dict.fromkeys(prompts)
    }
    sources = [
        Source(dataset, tokens[prompt], float(len(dataset.ids)) if weight is None else weight, remake)
        for dataset, prompt, weight, remake in zip(
            datasets, prompts, weights, task_changes or [NO_CHANGES] * len(datasets), strict=True
        )
    ]
    if not sources or sum(s.weight for s in sources) <= 0:
        raise ConfigError("the mixture has no dataset with a weight above 0")
    return Mixture(tuple(sources), seed, max_seq_len, drop_pairs, augment, loss_on_outputs)
