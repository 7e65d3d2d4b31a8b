"""Answers gathered by model, task and test output, and checked against the tasks that were declared."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.errors import DataError
from harness.core.grid import Grid
from harness.runs.prediction_reader import Prediction
from harness.voting.ranking import Vote

UNNAMED = "-"
"""The model of answers whose file names none."""

_SHOWN = 20


@dataclass(slots=True)
class OutputPredictions:
    """What one model answered to one test output: the votes of each distinct grid, and the places of the failures."""

    votes_by_grid: dict[Grid, list[Vote]] = field(default_factory=dict)
    failed_samples: list[int] = field(default_factory=list)

    def votes(self) -> list[Vote]:
        """Every prediction that has a grid."""
        return [vote for own in self.votes_by_grid.values() for vote in own]

    @property
    def count(self) -> int:
        """How many predictions were given, failures included."""
        return sum(map(len, self.votes_by_grid.values())) + len(self.failed_samples)

    @property
    def last(self) -> int:
        """The highest place of a prediction, from 0; -1 where there is none."""
        return max(
            [vote.sample for own in self.votes_by_grid.values() for vote in own] + self.failed_samples, default=-1
        )

    def repeated(self) -> int | None:
        """A sample that is there more than once, None where each is there once."""
        samples = [vote.sample for vote in self.votes()] + self.failed_samples
        return next((s for s, times in Counter(samples).items() if times > 1), None)

    def add(self, answer: Prediction) -> None:
        """Take one answer; equal grids are kept once."""
        if answer.grid is None:
            self.failed_samples.append(answer.sample)
            return
        own = self.votes_by_grid.setdefault(answer.grid, [])
        grid = own[0].grid if own else answer.grid
        view = "identity" if answer.view is None else sys.intern(answer.view)
        own.append(Vote(grid, answer.mean_logprob, answer.sum_logprob, view, answer.sample))


@dataclass(frozen=True, slots=True)
class ModelPredictions:
    """What one model answered to every declared task."""

    model: str
    outputs: dict[str, tuple[OutputPredictions, ...]]
    """By task id in the order of the dataset, a ballot for each test output."""
    failures: dict[str, int]
    """Failures by kind, those never drawn not counted."""
    has_views: bool
    """Whether the answers say under which view the task was shown."""

    @property
    def largest(self) -> int:
        """The largest number of predictions for a test output."""
        return max((output.count for own in self.outputs.values() for output in own), default=0)

    @property
    def missing(self) -> list[str]:
        """Ids of the tasks without any prediction."""
        return [task for task, own in self.outputs.items() if not any(output.count for output in own)]


def group_predictions(
    answers: Iterable[Prediction],
    outputs: Mapping[str, int],
    models: Sequence[str] | None,
    where: str,
    problems: Sequence[str] = (),
) -> list[ModelPredictions]:
    """Gather answers, in any order. Memory: a grid for each distinct one, some 150 bytes a prediction.

    Args:
        outputs: how many test outputs each declared task has, by task id in the order of the dataset.
        models: whose answers, in order; answers of others are refused. None takes every model, by name.
        where: what the answers were read from, for messages.
        problems: what their reader found wrong; it may add to this while ``answers`` is read.

    Raises:
        DataError: answers of models, or to tasks or outputs, that were not declared, or a sample given twice, with
            the ids; or any problem of the reader.
    """
    gathered: dict[str, dict[str, tuple[OutputPredictions, ...]]] = {model: _empty(outputs) for model in models or ()}
    failures: dict[str, Counter[str]] = {model: Counter() for model in models or ()}
    views: set[str] = set()
    undeclared: dict[str, None] = {}
    for answer in answers:
        if answer.model not in gathered:
            if models is not None:
                undeclared[f"answers of {answer.model}, which the run lacks"] = None
                continue
            gathered[answer.model], failures[answer.model] = _empty(outputs), Counter()
        own = gathered[answer.model].get(answer.task_id, ())
        if answer.test_index >= len(own):
            undeclared[f"answers to task {answer.task_id}, test {answer.test_index}, which the dataset lacks"] = None
            continue
        own[answer.test_index].add(answer)
        if answer.grid is None:
            failures[answer.model][answer.outcome] += 1
        if answer.view is not None:
            views.add(answer.model)
    found = list(undeclared)
    found += [f"{_of(model)}{problem}" for model in gathered for problem in _repeated(gathered[model])]
    raise_problems([*problems, *found], where, "mend it, or name the dataset that it answers")
    return [
        ModelPredictions(model, gathered[model], dict(failures[model]), model in views)
        for model in (sorted(gathered) if models is None else models)
    ]


def check_counts(predictions: Sequence[ModelPredictions], n: int, where: str) -> None:
    """Refuse more predictions for a test output than ``n``, and one whose place among them is over ``n``.

    Raises:
        DataError: with the ids.
    """
    found = [
        f"{_of(own.model)}task {task}, test {index}: {output.count} answers where {n} were due"
        for own in predictions
        for task, cast in own.outputs.items()
        for index, output in enumerate(cast)
        if output.count > n
    ]
    found += [
        f"{_of(own.model)}task {task}, test {index}: answer {output.last + 1} where {n} were due"
        for own in predictions
        for task, cast in own.outputs.items()
        for index, output in enumerate(cast)
        if output.count <= n <= output.last
    ]
    raise_problems(found, where, "more answers than it claims to hold (the run's N, --format kaggle, or -n)")


def raise_problems(problems: Sequence[str], where: str, remedy: str) -> None:
    """Raise what was found wrong, if anything.

    Raises:
        DataError: one line a problem, cut after twenty, and what to do.
    """
    if not problems:
        return
    rest = len(problems) - _SHOWN
    lines = [*problems[:_SHOWN], *([f"and {rest} more"] if rest > 0 else [])]
    if len(lines) == 1:
        raise DataError(f"{where}: {lines[0]} ({remedy})")
    raise DataError("\n  ".join([f"{where}:", *lines]) + f"\n({remedy})")


def _empty(outputs: Mapping[str, int]) -> dict[str, tuple[OutputPredictions, ...]]:
    return {task: tuple(OutputPredictions() for _ in range(count)) for task, count in outputs.items()}


def _repeated(gathered: Mapping[str, Sequence[OutputPredictions]]) -> Iterator[str]:
    for task, own in gathered.items():
        for index, output in enumerate(own):
            if (sample := output.repeated()) is not None:
                yield f"task {task}, test {index}: sample {sample} is there twice"


def _of(model: str) -> str:
    return "" if model == UNNAMED else f"{model}, "
