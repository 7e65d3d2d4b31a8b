"""Predictions grouped by model, task and test output, and checked against the declared tasks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from harness.core.errors import DataError
from harness.core.grid import Grid
from harness.runs.logs.prediction_reader import Prediction
from harness.voting.ranking import Vote

UNNAMED = "-"
"""The model name of predictions whose file names no model."""

_SHOWN_PROBLEMS = 20


class Located(Protocol):
    """A prediction or a view of a test output."""

    @property
    def model(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def test_index(self) -> int: ...


@dataclass(slots=True)
class OutputPredictions:
    """One model's predictions for one test output."""

    votes_by_grid: dict[Grid, list[Vote]] = field(default_factory=dict)
    """The votes for each distinct predicted grid."""
    failed_samples: list[int] = field(default_factory=list)
    """Sample indices of the predictions without a grid."""

    def votes(self) -> list[Vote]:
        """Return the predictions that have a grid, grouped by grid."""
        return [vote for votes in self.votes_by_grid.values() for vote in votes]

    @property
    def count(self) -> int:
        """The number of predictions, failures included."""
        return sum(map(len, self.votes_by_grid.values())) + len(self.failed_samples)

    @property
    def last_sample(self) -> int:
        """The highest sample index, from 0; -1 without predictions."""
        return max(self.samples(), default=-1)

    def samples(self) -> list[int]:
        """Return the sample indices of all predictions."""
        return [vote.sample for vote in self.votes()] + self.failed_samples

    def repeated_sample(self) -> int | None:
        """Return a sample index that occurs more than once; None if there is none."""
        counts = Counter(self.samples())
        return next((sample for sample, count in counts.items() if count > 1), None)

    def add(self, prediction: Prediction, samples_per_view: int = 1) -> None:
        """Add one prediction; equal grids share one ``Grid`` object to save memory."""
        if prediction.grid is None:
            self.failed_samples.append(prediction.sample)
            return
        votes = self.votes_by_grid.setdefault(prediction.grid, [])
        grid = votes[0].grid if votes else prediction.grid
        view = "identity" if prediction.view is None else sys.intern(prediction.view)
        index = prediction.sample // samples_per_view
        votes.append(Vote(grid, prediction.mean_logprob, prediction.sum_logprob, view, prediction.sample, index))


OutputT = TypeVar("OutputT", bound=OutputPredictions)


@dataclass(frozen=True, slots=True)
class ModelPredictions:
    """One model's predictions for every declared task."""

    model: str
    outputs: dict[str, tuple[OutputPredictions, ...]]
    """By task id in the order of the dataset: the predictions for each test output."""
    failures: dict[str, int]
    """Failures by kind; predictions that were never sampled are not counted."""
    has_views: bool
    """Whether the predictions name the view of the task that the model saw."""

    @property
    def largest(self) -> int:
        """The largest number of predictions for one test output."""
        return max((output.count for outputs in self.outputs.values() for output in outputs), default=0)

    @property
    def missing(self) -> list[str]:
        """Ids of the tasks without any prediction."""
        return [task for task, outputs in self.outputs.items() if not any(output.count for output in outputs)]


def group_predictions(
    predictions: Iterable[Prediction],
    outputs: Mapping[str, int],
    models: Sequence[str] | None,
    where: str,
    problems: Sequence[str] = (),
    samples_per_view: int = 1,
) -> list[ModelPredictions]:
    """Group predictions, in any order, by model, task and test output.

    Memory: each distinct grid of a test output once, and about 150 bytes per prediction.

    Args:
        outputs: the number of test outputs of each declared task, by task id in the order of the dataset.
        models: the models of the result, in order; predictions of other models are refused. None accepts every
            model and sorts by name.
        where: the file that the predictions come from, for messages.
        problems: problems that the file's reader noticed; it may append to this while ``predictions`` is consumed.
        samples_per_view: this many successive samples have the same view.

    Raises:
        DataError: predictions of undeclared models, tasks or test outputs, or a sample that occurs twice, with the
            ids; or any problem of the reader.
    """
    groups = OutputGroups(OutputPredictions, outputs, models)
    for prediction in predictions:
        if (output := groups.output_of(prediction)) is None:
            continue
        output.add(prediction, samples_per_view)
        if prediction.grid is None:
            groups.failures[prediction.model][prediction.outcome] += 1
        if prediction.view is not None:
            groups.with_views.add(prediction.model)
    return groups.models(where, problems)


class OutputGroups(Generic[OutputT]):
    """Predictions or views while they are grouped by model, task and test output.

    Args:
        new_output: makes the empty group of a test output.
        outputs: as for ``group_predictions``, like ``models``.

    Attributes:
        failures: by model, the failures by kind.
        with_views: models whose predictions name the view.
    """

    def __init__(
        self, new_output: Callable[[], OutputT], outputs: Mapping[str, int], models: Sequence[str] | None
    ) -> None:
        self.failures: dict[str, Counter[str]] = {model: Counter() for model in models or ()}
        self.with_views: set[str] = set()
        self._new_output = new_output
        self._counts = outputs
        self._order = models
        self._grouped = {model: self._empty() for model in models or ()}
        self._undeclared: dict[str, None] = {}

    def output_of(self, prediction: Located) -> OutputT | None:
        """Return the group of a prediction; None, which is noted as a problem, if it is not declared."""
        model, task, index = prediction.model, prediction.task_id, prediction.test_index
        if model not in self._grouped:
            if self._order is not None:
                self._undeclared[f"answers of {model}, which the run lacks"] = None
                return None
            self._grouped[model], self.failures[model] = self._empty(), Counter()
        outputs = self._grouped[model].get(task, ())
        if index >= len(outputs):
            self._undeclared[f"answers to task {task}, test {index}, which the dataset lacks"] = None
            return None
        return outputs[index]

    def models(self, where: str, problems: Sequence[str] = ()) -> list[ModelPredictions]:
        """Return the groups of every model; raise DataError as ``group_predictions`` does."""
        grouped = self._grouped
        repeated = [_prefix(model) + problem for model in grouped for problem in _repeated_samples(grouped[model])]
        undeclared = self._undeclared
        raise_problems([*problems, *undeclared, *repeated], where, "mend it, or name the dataset that it answers")
        return [
            ModelPredictions(model, dict(grouped[model]), dict(self.failures[model]), model in self.with_views)
            for model in (sorted(grouped) if self._order is None else self._order)
        ]

    def _empty(self) -> dict[str, tuple[OutputT, ...]]:
        return {task: tuple(self._new_output() for _ in range(count)) for task, count in self._counts.items()}


def check_counts(predictions: Sequence[ModelPredictions], n: int, where: str) -> None:
    """Check that no test output has more than ``n`` predictions, nor a sample index of ``n`` or more.

    Raises:
        DataError: some have, with the ids.
    """
    located = [
        (f"{_prefix(model.model)}task {task}, test {index}", output)
        for model in predictions
        for task, outputs in model.outputs.items()
        for index, output in enumerate(outputs)
    ]
    problems = [
        f"{place}: {output.count} answers where {n} were requested" for place, output in located if output.count > n
    ]
    problems += [
        f"{place}: answer {output.last_sample + 1} where {n} were requested"
        for place, output in located
        if output.count <= n <= output.last_sample
    ]
    raise_problems(problems, where, "more answers than it claims to hold (the run's N, --format kaggle, or -n)")


def raise_problems(problems: Sequence[str], where: str, remedy: str) -> None:
    """Raise one error that lists all problems; return if there are none.

    Raises:
        DataError: one line per problem, at most twenty, and the remedy.
    """
    if not problems:
        return
    rest = len(problems) - _SHOWN_PROBLEMS
    lines = [*problems[:_SHOWN_PROBLEMS], *([f"and {rest} more"] if rest > 0 else [])]
    if len(lines) == 1:
        raise DataError(f"{where}: {lines[0]} ({remedy})")
    raise DataError("\n  ".join([f"{where}:", *lines]) + f"\n({remedy})")


def _repeated_samples(grouped: Mapping[str, Sequence[OutputPredictions]]) -> Iterator[str]:
    for task, outputs in grouped.items():
        for index, output in enumerate(outputs):
            if (sample := output.repeated_sample()) is not None:
                yield f"task {task}, test {index}: sample {sample} occurs twice"


def _prefix(model: str) -> str:
    """Return how a message about a model begins: empty if the file names no model."""
    return "" if model == UNNAMED else f"{model}, "
