"""Kaggle's submission.json, two attempts for every test output of every task: make it from a run, or check one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import GridError, RunError, UnusableRuleError, short_repr
from harness.core.files import write_atomically
from harness.core.grid import Grid, Rows, Task
from harness.core.json_stream import iterate_elements
from harness.core.random_stream import Stream
from harness.predictions.model_rescores import NOT_RESCORED, ModelRescores
from harness.scoring.early_stopped_scores import refuse_rules_after_early_stopping
from harness.scoring.rule_scores import unusable_reason
from harness.scoring.run_selector import SelectedModel
from harness.voting.ranking import choose_attempts
from harness.voting.selection_rules import VOTE, Rule

ATTEMPTS = ("attempt_1", "attempt_2")
PLACEHOLDER: Rows = [[0, 0], [0, 0]]
"""The grid of an attempt for which nothing was predicted, as in Kaggle's sample submission."""

SubmissionContent = dict[str, list[dict[str, Rows]]]
"""By task id: for each test output, the grids of ATTEMPTS."""


@dataclass(frozen=True, slots=True)
class KaggleSubmission:
    """A submission, and how many of its attempts are placeholders or repeated."""

    content: SubmissionContent
    outputs: int
    single: int
    """Outputs with one distinct predicted grid, which is both attempts."""
    empty: int
    """Outputs without any predicted grid: both attempts are placeholders."""
    unasked: int
    """Those of them without any prediction."""
    tasks_without: int
    """Tasks without any prediction."""


@dataclass(frozen=True, slots=True)
class SubmissionCheck:
    """The result of checking a submission."""

    problems: list[str]
    outputs: int
    placeholders: int
    """Outputs where both attempts are the placeholder."""


def make_submission(selected: SelectedModel, rule: Rule, rescores: ModelRescores = NOT_RESCORED) -> KaggleSubmission:
    """Take the two best-ranked grids of every test output as its attempts.

    Ties are broken at random, seeded by the run's seed, the task and the test output.

    Args:
        rescores: for a rule that needs them.

    Raises:
        ConfigError: the rule is not the vote, and the run stopped early.
        UnusableRuleError: the predictions lack what the rule needs.
    """
    if rule.name != VOTE:
        refuse_rules_after_early_stopping(selected.schedule, "--rule")
    if reason := unusable_reason(rule, selected.predictions, rescores):
        raise UnusableRuleError(f"rule {rule.name} cannot be applied: {reason}")
    content: SubmissionContent = {}
    single = empty = unasked = count = 0
    for task, outputs in selected.predictions.outputs.items():
        content[task] = []
        for index, output in enumerate(outputs):
            stream = Stream(selected.seed, "attempts", task, index)
            ranking = rescores.rank(rule, task, index, output.votes())
            chosen = [grid.to_rows() for grid in choose_attempts(ranking, stream, len(ATTEMPTS))]
            count, single, empty = count + 1, single + (len(chosen) == 1), empty + (not chosen)
            unasked += not output.count
            content[task].append(dict(zip(ATTEMPTS, (chosen or [PLACEHOLDER]) * 2, strict=False)))
    return KaggleSubmission(content, count, single, empty, unasked, len(selected.predictions.missing))


def write_submission(path: Path, submission: KaggleSubmission, tasks: Sequence[Task]) -> None:
    """Write a submission, read it back and check it.

    Args:
        tasks: the tasks that it must answer.

    Raises:
        RunError: it cannot be written, or the file does not hold what was written.
    """
    import orjson

    write_atomically(path, orjson.dumps(submission.content))
    problems = check_submission(path, tasks).problems
    if problems or {element.key: element.value for element in iterate_elements(path)} != submission.content:
        raise RunError(f"{path}: reads back otherwise than written ({'; '.join(problems[:3])}); check the disk")


def check_submission(path: Path, tasks: Sequence[Task]) -> SubmissionCheck:
    """Check whether a submission has two valid attempts for every test output of these tasks, and nothing else.

    Raises:
        DataError: the file is not JSON.
    """
    expected = {task.id: task for task in tasks}
    seen: set[str] = set()
    problems: list[str] = []
    count = placeholders = 0
    for element in iterate_elements(path):
        task = element.key
        if task is None:
            problems.append("the file is a list; expected an object of task id to test outputs")
            break
        where = f"line {element.line}, task {task}"
        if task in seen:
            problems.append(f"{where}: occurs twice")
        elif task not in expected:
            problems.append(f"{where}: the dataset lacks it")
        else:
            problems += [f"{where}{problem}" for problem in _task_problems(element.value, expected[task])]
        seen.add(task)
        outputs = element.value if isinstance(element.value, list) else []
        count += len(outputs)
        placeholders += sum(
            isinstance(attempts, dict) and all(attempts.get(name) == PLACEHOLDER for name in ATTEMPTS)
            for attempts in outputs
        )
    problems += [f"task {task}: missing" for task in expected if task not in seen]
    return SubmissionCheck(problems, count, placeholders)


def _task_problems(value: object, task: Task) -> Iterator[str]:
    """Yield the problems of one task's entry, each as the end of a message."""
    expected, long_rows = len(task.test), task.has_long_rows()
    if not isinstance(value, list):
        yield f": expected a list of {expected} test outputs, got {short_repr(value)}"
        return
    if len(value) != expected:
        yield f": {len(value)} test outputs, where the dataset has {expected}"
    for index, attempts in enumerate(value):
        where = f", test {index}"
        if not isinstance(attempts, Mapping):
            yield f"{where}: expected an object with attempt_1 and attempt_2, got {short_repr(attempts)}"
            continue
        yield from (f"{where}: {name} is missing" for name in ATTEMPTS if name not in attempts)
        yield from (f"{where}: {short_repr(name)} is one attempt too many" for name in attempts if name not in ATTEMPTS)
        for name in ATTEMPTS:
            if name in attempts:
                try:
                    Grid.from_rows(attempts[name], f"{where}, {name}", long_rows)
                except GridError as error:
                    yield str(error)
