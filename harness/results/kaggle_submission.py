"""Kaggle's submission.json: two attempts for every test output of every task, made from a run and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import GridError, RunError, short_repr
from harness.core.files import write_atomically
from harness.core.grid import Grid, Rows, Task
from harness.core.json_stream import iterate_elements
from harness.core.random_stream import Stream
from harness.scoring.early_stopped_scores import refuse_rules_after_early_stopping
from harness.scoring.run_selector import SelectedModel
from harness.voting.ranking import choose_attempts
from harness.voting.selection_rules import Rule

ATTEMPTS = ("attempt_1", "attempt_2")
PLACEHOLDER: Rows = [[0, 0], [0, 0]]
"""What stands where nothing was predicted, as in Kaggle's own sample."""

SubmissionContent = dict[str, list[dict[str, Rows]]]


@dataclass(frozen=True, slots=True)
class KaggleSubmission:
    """A submission, and how much of it is real."""

    content: SubmissionContent
    outputs: int
    single: int
    """Outputs for which only one distinct grid was predicted, so that the second attempt repeats the first."""
    empty: int
    """Outputs without any grid: placeholders."""


@dataclass(frozen=True, slots=True)
class SubmissionCheck:
    """What a check of a submission found."""

    problems: list[str]
    outputs: int
    placeholders: int
    """Outputs where both attempts are the placeholder."""


def make_submission(selected: SelectedModel, rule: Rule) -> KaggleSubmission:
    """The two best-ranked grids for each test output; ties are drawn by the run's seed, the task and the output.

    Raises:
        ConfigError: a rule other than the vote, and the run stopped early.
    """
    if rule.name != "vote":
        refuse_rules_after_early_stopping(selected.schedule, "--rule")
    content: SubmissionContent = {}
    single = empty = outputs = 0
    for task, own in selected.predictions.outputs.items():
        content[task] = []
        for index, output in enumerate(own):
            stream = Stream(selected.seed, "attempts", task, index)
            drawn = [grid.to_rows() for grid in choose_attempts(rule.rank(output.votes()), stream, len(ATTEMPTS))]
            outputs, single, empty = outputs + 1, single + (len(drawn) == 1), empty + (not drawn)
            filled = (drawn or [PLACEHOLDER]) * 2
            content[task].append(dict(zip(ATTEMPTS, filled, strict=False)))
    return KaggleSubmission(content, outputs, single, empty)


def write_submission(path: Path, made: KaggleSubmission, tasks: Sequence[Task]) -> None:
    """Write a submission and read it back.

    Raises:
        RunError: it cannot be written, or what is read back is not what was written.
    """
    import orjson

    write_atomically(path, orjson.dumps(made.content))
    problems = check_submission(path, tasks).problems
    if problems or {element.key: element.value for element in iterate_elements(path)} != made.content:
        raise RunError(f"{path}: reads back otherwise than written ({'; '.join(problems[:3])}); check the disk")


def check_submission(path: Path, tasks: Sequence[Task]) -> SubmissionCheck:
    """Hold anybody's submission against the tasks that it must answer.

    Raises:
        DataError: the file is not JSON.
    """
    expected = {task.id: len(task.test) for task in tasks}
    seen: set[str] = set()
    problems: list[str] = []
    outputs = placeholders = 0
    for element in iterate_elements(path):
        task = element.key
        if task is None:
            problems.append("the file is a list; expected an object of task id to test outputs")
            break
        place = f"line {element.line}, task {task}"
        if task in seen:
            problems.append(f"{place}: there twice")
        elif task not in expected:
            problems.append(f"{place}: the dataset lacks it")
        else:
            problems += [f"{place}{what}" for what in _task_problems(element.value, expected[task])]
        seen.add(task)
        found = element.value if isinstance(element.value, list) else []
        outputs += len(found)
        placeholders += sum(
            isinstance(own, dict) and all(own.get(name) == PLACEHOLDER for name in ATTEMPTS) for own in found
        )
    problems += [f"task {task}: missing" for task in expected if task not in seen]
    return SubmissionCheck(problems, outputs, placeholders)


def _task_problems(value: object, expected: int) -> Iterator[str]:
    if not isinstance(value, list):
        yield f": expected a list of {expected} test outputs, got {short_repr(value)}"
        return
    if len(value) != expected:
        yield f": {len(value)} test outputs, where the dataset has {expected}"
    for index, own in enumerate(value):
        if not isinstance(own, Mapping):
            yield f", test {index}: expected an object with attempt_1 and attempt_2, got {short_repr(own)}"
            continue
        yield from (f", test {index}: {name} is missing" for name in ATTEMPTS if name not in own)
        yield from (
            f", test {index}: {short_repr(name)} is one attempt too many" for name in own if name not in ATTEMPTS
        )
        for name in ATTEMPTS:
            if name in own:
                try:
                    Grid.from_rows(own[name], f", test {index}, {name}")
                except GridError as error:
                    yield str(error)
