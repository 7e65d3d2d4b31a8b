"""Predictions as others save them: arc24's two files, Kaggle's submission, and the ARC Prize folder."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import ConfigError, DataError, GridError, short_repr
from harness.core.grid import Grid
from harness.core.json_stream import first_character, iterate_elements
from harness.runs.prediction_reader import Prediction, check_index, check_number, check_text, read_predictions
from harness.scoring.prediction_groups import UNNAMED

Reader = Callable[[Path, Mapping[str, int], list[str]], Iterator[Prediction]]
"""Reads a file: its path, the number of test outputs of each task, and where to add what is wrong with its content."""

_ATTEMPT = re.compile(r"attempt_([1-9]\d{0,8})")
_NOT_TASKS = ("results.json",)
"""What the ARC Prize scorer writes beside the files of tasks."""


@dataclass(frozen=True, slots=True)
class Format:
    """One form of saved predictions."""

    name: str
    summary: str
    read: Reader
    attempts: int | None = None
    """Predictions a test output that the form allows; None for any number."""


def read_lines(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """Our predictions.jsonl, with or without the run folder around it."""
    return read_predictions(path, accept_unended=True)


def read_task_results(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """arc24's ``*_task_results.json``: a list of ``{task_id, idx, grid, cumulative_logprob, n_tokens, …}``.

    An empty grid is an answer without one (``unparsed``); ``data_augmentation_kwargs`` tells the view.
    """
    seen: Counter[tuple[str, int]] = Counter()
    for element in iterate_elements(path):
        where = f"{path}, line {element.line}, entry {element.index}"
        entry = _object(element.value, where)
        if "attempt_1" in entry:
            raise DataError(f"{where}: this is one task's file of the ARC Prize layout; name the folder it lies in")
        for name in ("task_id", "idx", "grid"):
            if name not in entry:
                raise DataError(f"{where}: field {name!r} is missing")
        task, index = check_text(entry["task_id"], where, "task_id"), check_index(entry["idx"], where, "idx")
        tokens = entry.get("n_tokens")
        outcome, grid = read_grid(entry["grid"], f"{where}, grid")
        yield Prediction(
            model=UNNAMED,
            task_id=task,
            test_index=index,
            outcome=outcome,
            grid=grid,
            sum_logprob=check_number(entry.get("cumulative_logprob"), where, "cumulative_logprob"),
            n_tokens=None if tokens is None else check_index(tokens, where, "n_tokens"),
            view=_view(entry.get("data_augmentation_kwargs")),
            sample=seen[task, index],
        )
        seen[task, index] += 1


def read_attempts(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """``{id: [{"attempt_1": grid, …}, …]}``, an object for each test output, as arc24 and Kaggle have it."""
    seen: set[str] = set()
    for element in iterate_elements(path):
        where = f"{path}, line {element.line}"
        if element.key is None:
            raise DataError(f"{where}: expected an object of task id to test outputs, found a list")
        if element.key in seen:
            problems.append(f"task {element.key} is there twice")
        seen.add(element.key)
        where += f", task {element.key}"
        found = _outputs(element.value, where)
        if _right_number(element.key, len(found), outputs, problems):
            for index, attempts in enumerate(found):
                for sample, value in _attempts(attempts, f"{where}, test {index}"):
                    place = f"{where}, test {index}, attempt_{sample + 1}"
                    yield _answer(element.key, index, sample, *read_grid(value, place))


def read_arcprize(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """The ARC Prize layout: a folder with a file for each task, ``[{"attempt_1": {"answer": grid, …}, …}, …]``.

    An attempt that is null was given up after retries (``error``); an entry that is null has none. The test output is
    that of ``metadata.pair_index`` where all have one, else of their order; ``metadata.model`` names the model. Where
    the indices name some outputs only, the others are missing: older runners left out pairs without any attempt.
    """
    for file in _task_files(path):
        task = file.name.removesuffix(".json")
        entries = [
            {} if e.value is None else _object(e.value, f"{file}, test {e.index}") for e in iterate_elements(file)
        ]
        places = _pair_indices(entries, outputs.get(task, 0))
        if places is None:
            _right_number(task, len(entries), outputs, problems)
            continue
        for index, attempts in zip(places, entries, strict=True):
            for sample, value in _attempts(attempts, f"{file}, test {index}"):
                where = f"{file}, test {index}, attempt_{sample + 1}"
                if value is None:
                    yield _answer(task, index, sample, "error", None)
                    continue
                attempt = _object(value, where)
                if "answer" not in attempt:
                    raise DataError(f"{where}: field 'answer' is missing")
                outcome, grid = read_grid(_parsed(attempt["answer"]), f"{where}, answer")
                yield _answer(task, index, sample, outcome, grid, _metadata(attempt, "model"))


FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format("lines", "our predictions.jsonl", read_lines),
        Format("arc24", "arc24's *_task_results.json", read_task_results),
        Format("attempts", "{id: [{attempt_1: grid, …}, …]}, any number of attempts", read_attempts),
        Format("kaggle", "Kaggle's submission.json: the same with two attempts", read_attempts, attempts=2),
        Format("arcprize", "the ARC Prize folder: a file for each task", read_arcprize),
    )
}
"""Every form of saved predictions that is read, beside run folders."""


def detect_format(path: Path) -> Format:
    """The form of a file or folder, from its name and first character.

    Raises:
        DataError: it is none of them.
    """
    if path.is_dir():
        if not any(_task_files(path)):
            raise DataError(f"{path}: neither a run (no manifest.json) nor an ARC Prize folder (no .json files)")
        return FORMATS["arcprize"]
    if path.name.endswith(".jsonl"):
        return FORMATS["lines"]
    forms = {"[": "arc24", "{": "attempts"}
    if (start := first_character(path)) not in forms:
        raise DataError(f"{path}: begins like none of the known forms; name one with --format ({', '.join(FORMATS)})")
    return FORMATS[forms[start]]


def format_named(name: str) -> Format:
    """The form of that name.

    Raises:
        ConfigError: there is no such form.
    """
    if name not in FORMATS:
        raise ConfigError(f"there is no format {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def read_grid(value: object, where: str) -> tuple[str, Grid | None]:
    """An outcome and the grid of an answer: what is no grid is a failure by its name, not an error.

    Raises:
        DataError: an object where a grid should be, which no form has.
    """
    if isinstance(value, dict):
        raise DataError(f"{where}: expected a grid, got an object; is this the ARC Prize layout? (--format arcprize)")
    if value is None or value == [] or isinstance(value, str):
        return "unparsed", None
    try:
        return "grid", Grid.from_rows(value, where)
    except GridError as error:
        return error.kind, None


def _answer(task: str, index: int, sample: int, outcome: str, grid: Grid | None, model: object = UNNAMED) -> Prediction:
    name = model if isinstance(model, str) and model else UNNAMED
    return Prediction(name, task, index, outcome, grid, None, None, None, sample)


def _outputs(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a list of test outputs, got {short_repr(value)}")
    return value


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {short_repr(value)}")
    return value


def _attempts(value: object, where: str) -> Iterator[tuple[int, object]]:
    """The attempts of one test output with their places from 0."""
    for name, attempt in _object(value, where).items():
        match = _ATTEMPT.fullmatch(name)
        if match is None:
            raise DataError(f"{where}: expected attempt_1, attempt_2, …, got {short_repr(name)}")
        yield int(match[1]) - 1, attempt


def _right_number(task: str, found: int, outputs: Mapping[str, int], problems: list[str]) -> bool:
    """Whether a known task has as many test outputs as the dataset says; what is wrong goes to ``problems``."""
    if task not in outputs:
        problems.append(f"task {task}: the dataset lacks it")
    elif outputs[task] != found:
        problems.append(f"task {task}: {found} test outputs, where the dataset has {outputs[task]}")
    return outputs.get(task) == found


def _task_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder with a file for each task")
    names = sorted(path for path in folder.glob("*.json") if path.is_file())
    return [path for path in names if path.name not in _NOT_TASKS and not path.name.startswith(".")]


def _metadata(attempt: object, name: str) -> object:
    metadata = attempt.get("metadata") if isinstance(attempt, dict) else None
    return metadata.get(name) if isinstance(metadata, dict) else None


def _pair_indices(entries: list[dict[str, object]], outputs: int) -> list[int] | None:
    """Which test output each entry answers: what the metadata say where they do for each, else the order.

    Returns:
        Indices below ``outputs``; None where there are fewer or more entries than outputs and nothing says which.
    """
    told = [[_metadata(attempt, "pair_index") for attempt in entry.values() if attempt] for entry in entries if entry]
    named = [own[0] for own in told if own and type(own[0]) is int and all(index == own[0] for index in own)]
    if len(named) == len(told) == len(set(named)) and named and min(named) >= 0 and max(named) < outputs:
        places = iter(named)
        return [next(places) if entry else 0 for entry in entries]  # an empty entry answers nothing
    return list(range(outputs)) if len(entries) == outputs else None


def _parsed(answer: object) -> object:
    """An answer that was saved as text holds its grid as JSON; any other text stays."""
    if isinstance(answer, str):
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            return answer
    return answer


def _view(kwargs: object) -> str | None:
    """A name for arc24's geometric augmentation, ``identity`` where it changes nothing."""
    if not isinstance(kwargs, dict) or not {"hflip", "n_rot90"} <= kwargs.keys():
        return None
    flipped, turns = bool(kwargs["hflip"]), kwargs["n_rot90"]
    if not flipped and turns in (0, None):
        return "identity"
    return f"{'flip ' if flipped else ''}{turns} x rot90"
