"""Every format of saved predictions: what is read from it, and what is refused with file, place and remedy."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from harness.core.errors import ConfigError, DataError
from harness.core.grid import Grid
from harness.predictions.files.prediction_formats import FORMATS, detect_format, format_named
from harness.predictions.saved_folder import FORM_NAMES
from harness.runs.logs.prediction_reader import Prediction
from harness.scoring.prediction_loader import SavedPredictions, open_predictions
from tests.conftest import ROOT

SAVED = ROOT / "tests" / "fixtures" / "saved"
TASKS = str(SAVED / "tasks.json")
OUTPUTS = {"a": 1, "b": 2, "c": 1, "d": 1}


def read_predictions_of(name: str, form: str) -> list[Prediction]:
    problems: list[str] = []
    predictions = list(FORMATS[form].read(SAVED / name, OUTPUTS, problems))
    assert problems == []
    return predictions


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("arc24_task_results.json", "arc24"),
        ("arc24.json", "attempts"),
        ("submission.json", "attempts"),
        ("arcprize", "arcprize"),
        ("predictions.jsonl", "lines"),
    ],
)
def test_the_format_is_detected(name: str, form: str) -> None:
    assert detect_format(SAVED / name) is FORMATS[form]


def test_arc24_task_results_tell_grids_views_and_logprobs() -> None:
    predictions = read_predictions_of("arc24_task_results.json", "arc24")
    assert Counter(a.outcome for a in predictions) == {"grid": 7, "unparsed": 2, "bad_shape": 1, "bad_value": 1}
    first = next(a for a in predictions if (a.task_id, a.sample) == ("a", 0))
    assert first.grid is not None
    assert first.grid.to_rows() == [[1, 2], [3, 4]]
    assert (first.sum_logprob, first.n_tokens, first.mean_logprob, first.view) == (-0.5, 4, -0.125, "identity")
    views = [a.view for a in predictions if a.task_id == "a"]
    assert views == ["identity", "1 x rot90", "2 x rot90"]
    assert [a.sample for a in predictions if (a.task_id, a.test_index) == ("b", 1)] == [0, 1]


def test_the_same_predictions_are_read_from_every_format() -> None:
    full = open_predictions(SAVED / "arc24_task_results.json", TASKS)
    ours = open_predictions(SAVED / "predictions.jsonl", TASKS)
    plain = open_predictions(SAVED / "arc24.json", TASKS)
    assert (full.n, ours.n, plain.n) == (3, 3, 3)
    assert ours.predictions[0].model == "mine"

    def grids(saved: SavedPredictions) -> list[tuple[str, int, Counter[bytes], int]]:
        model = saved.predictions[0].outputs
        return [
            (task, i, Counter(vote.grid.cells for vote in output.votes()), len(output.failed_samples))
            for task, cast in model.items()
            for i, output in enumerate(cast)
        ]

    assert grids(full) == grids(ours) == grids(plain)
    assert full.predictions[0].failures == ours.predictions[0].failures == plain.predictions[0].failures
    assert full.predictions[0].missing == ["d"]
    assert (full.predictions[0].has_views, ours.predictions[0].has_views, plain.predictions[0].has_views) == (
        True,
        True,
        False,
    )


def test_the_arc_prize_folder_goes_by_pair_index_and_names_the_model() -> None:
    saved = open_predictions(SAVED / "arcprize", TASKS)
    model = saved.predictions[0]
    assert (model.model, saved.n, model.missing) == ("some-model", 2, ["d"])
    # The file lists output 1 first; the metadata say which is which.
    assert [vote.grid.to_rows() for vote in model.outputs["b"][1].votes()] == [[[5, 6]]]
    assert [vote.grid.to_rows() for vote in model.outputs["b"][0].votes()] == [[[1, 2], [3, 0]], [[1, 2], [3, 4]]]
    assert model.failures == {"error": 1, "unparsed": 2}


@pytest.mark.parametrize("index", ["0", "[1]"])
def test_without_one_pair_index_for_each_output_the_order_decides(tmp_path: Path, index: str) -> None:
    folder = tmp_path / "prize"
    shutil.copytree(SAVED / "arcprize", folder)
    path = folder / "b.json"
    path.write_text(path.read_text().replace('"pair_index": 1', f'"pair_index": {index}'))
    model = open_predictions(folder, TASKS).predictions[0]
    assert [vote.grid.to_rows() for vote in model.outputs["b"][0].votes()] == [[[5, 6]]]


def test_a_folder_of_several_models_has_no_model_name(tmp_path: Path) -> None:
    folder = tmp_path / "prize"
    shutil.copytree(SAVED / "arcprize", folder)
    path = folder / "a.json"
    path.write_text(path.read_text().replace("some-model", "other-model"))
    assert [model.model for model in open_predictions(folder, TASKS).predictions] == ["-"]


def test_kaggle_has_two_attempts_and_n_can_be_given(tmp_path: Path) -> None:
    assert open_predictions(SAVED / "submission.json", TASKS, "kaggle").n == 2
    assert open_predictions(SAVED / "submission.json", TASKS, n=5).n == 5
    with pytest.raises(DataError, match=r"arc24\.json:\n  task a, test 0: 3 answers where 2 were requested\n  task b"):
        open_predictions(SAVED / "arc24.json", TASKS, "kaggle")
    with pytest.raises(DataError, match="task a, test 0: 3 answers where 2 were requested"):
        open_predictions(SAVED / "arc24_task_results.json", TASKS, n=2)


def test_an_attempt_number_over_what_the_form_allows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", {"a": [{"attempt_1": [[1]], "attempt_3": [[2]]}]})
    for form, n in (("kaggle", None), ("attempts", 2)):
        with pytest.raises(DataError, match="task a, test 0: answer 3 where 2 were requested"):
            open_predictions(path, TASKS, form, n)
    assert open_predictions(path, TASKS, "attempts").predictions[0].outputs["a"][0].count == 2


@pytest.mark.parametrize("form", ["lines", "arc24", "attempts", "kaggle"])
def test_a_folder_is_refused_for_a_format_of_one_file(form: str) -> None:
    with pytest.raises(DataError, match=f"arcprize: is a folder; --format {form} reads a file"):
        open_predictions(SAVED / "arcprize", TASKS, form)


def test_all_extra_tasks_and_wrong_numbers_of_outputs_are_reported(tmp_path: Path) -> None:
    value = {"a": [{}, {}], "b": [{}], "e": [{}], "f": [{}], "c": [{"attempt_1": [[1]]}]}
    with pytest.raises(DataError) as caught:
        open_predictions(write(tmp_path / "x.json", value), TASKS)
    assert str(caught.value).splitlines()[1:] == [
        "  task a: 2 test outputs, where the dataset has 1",
        "  task b: 1 test outputs, where the dataset has 2",
        "  task e: the dataset lacks it",
        "  task f: the dataset lacks it",
        "(mend it, or name the dataset that it answers)",
    ]


def test_a_long_list_of_problems_is_cut(tmp_path: Path) -> None:
    value = [{"task_id": f"t{i:02}", "idx": 0, "grid": [[1]]} for i in range(30)]
    with pytest.raises(DataError, match=r"and 10 more\n\(mend it"):
        open_predictions(write(tmp_path / "x.json", value), TASKS)


A = {"attempt_1": [[1]]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"task_id": "a", "idx": 1, "grid": [[1]]}], "task a, test 1, which the dataset lacks"),
        ([{"task_id": "a", "idx": -1, "grid": [[1]]}], "line 1, entry 0, idx: expected a whole number from 0, got -1"),
        ([{"task_id": 7, "idx": 0, "grid": [[1]]}], "entry 0, task_id: expected a text, got 7"),
        ([{"task_id": "a", "idx": 0}], "entry 0: field 'grid' is missing"),
        ([[1]], "entry 0: expected an object, got"),
        ([{"task_id": "a", "idx": 0, "grid": [[1]], "n_tokens": "3"}], "n_tokens: expected a whole number"),
        ([{"task_id": "a", "idx": 0, "grid": [[1]], "n_tokens": 10**400}], "n_tokens: expected a whole number"),
        ([{"task_id": "a", "idx": 0, "grid": [[1]], "cumulative_logprob": -(10**400)}], "logprob: .* is too large"),
        ([{"task_id": "a", "idx": 0, "grid": [[1]], "cumulative_logprob": "x"}], "cumulative_logprob: expected a num"),
        ([{"task_id": "a", "idx": 0, "grid": {"answer": [[1]]}}], r"--format arcprize"),
        ([A], "one task's file of the ARC Prize layout; name the folder"),
        ([], "holds no prediction for the tasks of"),
        ({}, "holds no prediction for the tasks of"),
        ({"a": A}, "task a: expected a list of test outputs, got"),
        ({"a": [[[1]]]}, "task a, test 0: expected an object, got"),
        ({"a": [{"attempt_1": {"answer": [[1]]}}]}, r"attempt_1: expected a grid, got an object.*--format arcprize"),
        ({"a": [{"try": [[1]]}]}, "task a, test 0: expected attempt_1, attempt_2, …, got 'try'"),
        ({"a": [{"attempt_0": [[1]]}]}, "got 'attempt_0'"),
        ("text", "begins like none of the known forms; name one with --format"),
    ],
)
def test_impossible_files_are_refused(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_predictions(write(tmp_path / "x.json", value), TASKS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": [{"attempt_1": [[1]]}], "a": [{"attempt_1": [[1]]}]}', "task a occurs twice"),
        ('{"a": [{"attempt_1": [[1]], "attempt_1": [[2]]}]}', "'attempt_1' occurs twice"),
        ('{"a": [{"attempt_1": [[1]]}]', "expected a comma or '}'"),
    ],
)
def test_repeated_names_and_torn_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        open_predictions(path, TASKS)


def test_failures_keep_their_names(tmp_path: Path) -> None:
    grids = [[], None, "text", [[1, 2], [3]], [[10]], [[1.0]], [[True]], [[1] * 31], 5, [[]]]
    value = {"a": [{f"attempt_{i + 1}": grid for i, grid in enumerate(grids)}]}
    model = open_predictions(write(tmp_path / "x.json", value), TASKS).predictions[0]
    assert model.failures == {"unparsed": 3, "bad_shape": 4, "bad_value": 3}


@pytest.mark.parametrize(("end", "lost"), [("\n", 0), ("", 0), ("\n{", 0), (None, 1)])
def test_a_last_line_without_its_break_counts_if_it_is_whole(tmp_path: Path, end: str | None, lost: int) -> None:
    text = (SAVED / "predictions.jsonl").read_text().rstrip("\n")
    path = tmp_path / "x.jsonl"
    path.write_text(text[:-1] if end is None else text + end)
    assert len(list(FORMATS["lines"].read(path, OUTPUTS, []))) == len(text.splitlines()) - lost


def test_missing_or_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name the tasks that it answers with --dataset"):
        open_predictions(SAVED / "submission.json")
    with pytest.raises(ConfigError, match="no format 'csv'; choose one of lines, table, arc24, attempts,"):
        format_named("csv")
    with pytest.raises(DataError, match="expected a folder with a file for each task"):
        open_predictions(SAVED / "submission.json", TASKS, "arcprize")
    assert FORM_NAMES == ("run", "pool", "lines", "table", "arc24", "attempts", "kaggle", "arcprize")


@pytest.mark.parametrize(("indices", "answered"), [([1], {1}), ([0], {0}), ([1, 0], {0, 1})])
def test_an_arc_prize_file_without_some_pairs_leaves_them_missing(
    tmp_path: Path, indices: list[int], answered: set[int]
) -> None:
    (tmp_path / "s").mkdir()
    entries = [{"attempt_1": {"answer": [[i]], "metadata": {"pair_index": i}}} for i in indices]
    write(tmp_path / "s" / "b.json", entries)
    predictions = {a.test_index: a.grid for a in FORMATS["arcprize"].read(tmp_path / "s", OUTPUTS, [])}
    assert predictions == {i: Grid.from_rows([[i]]) for i in answered}


@pytest.mark.parametrize(("at", "place"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_an_arc_prize_entry_that_is_null_is_missing(tmp_path: Path, at: int, place: int) -> None:
    (tmp_path / "s").mkdir()
    entries: list[object] = [None, None]
    entries[at] = {"attempt_1": {"answer": [[place]], "metadata": {"pair_index": place}}}
    write(tmp_path / "s" / "b.json", entries)
    (predictions,) = FORMATS["arcprize"].read(tmp_path / "s", OUTPUTS, [])
    assert (predictions.test_index, predictions.grid) == (place, Grid.from_rows([[place]]))


@pytest.mark.parametrize("indices", [[2], [-1], [None], [0, 0, 1], [0, 1, 2]])
def test_pair_indices_that_the_dataset_lacks_are_reported(tmp_path: Path, indices: list[int | None]) -> None:
    (tmp_path / "s").mkdir()
    entries = [{"attempt_1": {"answer": [[1]], "metadata": {"pair_index": i}}} for i in indices]
    write(tmp_path / "s" / "b.json", entries)
    problems: list[str] = []
    assert list(FORMATS["arcprize"].read(tmp_path / "s", OUTPUTS, problems)) == []
    assert problems == [f"task b: {len(indices)} test outputs, where the dataset has 2"]


def test_a_byte_order_mark_loses_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + (SAVED / "predictions.jsonl").read_bytes())
    assert list(FORMATS["lines"].read(path, OUTPUTS, [])) == read_predictions_of("predictions.jsonl", "lines")
