"""JSON files that are refused: each error names the file, the task and the field."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import DataError
from harness.core.files import read_uncompressed
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from tests.data.json_files import PAIRS, TASKS, write
from tests.support.data_samples import task_json

Change = Callable[[dict[str, Any]], object]


def remove(*path: str | int) -> Change:
    """Return a change that removes the value at a path of keys."""

    def change(data: dict[str, Any]) -> None:
        where: Any = data
        for key in path[:-1]:
            where = where[key]
        del where[path[-1]]

    return change


def replace(value: object, *path: str | int) -> Change:
    """Return a change that sets the value at a path of keys."""

    def change(data: dict[str, Any]) -> None:
        where: Any = data
        for key in path[:-1]:
            where = where[key]
        where[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove("t1", "train"), ["task t1", "'train'"]),
        (remove("t1", "test"), ["task t1", "'test'"]),
        (replace([], "t1", "test"), ["task t1", "'test'", "at least one"]),
        (replace([], "t1", "train"), ["task t1", "'train'", "at least one"]),
        (remove("t1", "train", 2, "output"), ["task t1", "train 2", "'output'", "missing"]),
        (remove("t1", "test", 0, "input"), ["task t1", "test 0", "'input'", "missing"]),
        (replace([[1], [1, 2]], "t1", "train", 0, "input"), ["task t1", "train 0", "'input'", "row 1"]),
        (replace([[11]], "t1", "test", 0, "output"), ["task t1", "test 0", "'output'", "colour 0-9"]),
        (replace([[0] * 31], "t1", "test", 0, "output"), ["task t1", "30x30"]),
        (replace("x", "t1", "train", 0), ["task t1", "train 0", "object"]),
        (replace("x", "t1"), ["task t1", "a text"]),
        (replace([], "t1"), ["task t1"]),
        (replace(PAIRS[:3], "t1"), ["task t1", "3 pairs", "needs 4"]),
        (replace({"train": PAIRS[:3], "n_train": 3}, "t1"), ["task t1", "'n_train'", "1 to 2"]),
        (replace({"train": PAIRS[:3], "n_train": "2"}, "t1"), ["task t1", "'n_train'"]),
        (lambda d: d["t1"]["test"].append({"input": [[1]]}), ["task t1", "test 1", "'output'", "missing"]),
    ],
)
def test_bad_tasks_are_errors_of_one_line_that_name_the_field(tmp_path: Path, change: Change, words: list[str]) -> None:
    data = {task.id: task_json(task) for task in TASKS}
    change(data)
    spec = write(tmp_path / "bad.json", data)
    with pytest.raises(DataError) as error:
        open_dataset(spec)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in [spec, *words]), message


@pytest.mark.parametrize(
    ("solutions", "words"),
    [
        ([], ["object of task id"]),
        ({"t0": [[[1]]]}, ["task t1", "1 outputs"]),
        ({"t0": [[[1]], [[2]]], "t1": [[[1]]]}, ["task t0", "1 outputs", "2 outputs"]),
        ({"t0": [[[1]]], "t1": [[[1]]], "t9": []}, ["t9"]),
        ({"t0": [[[1]]], "t1": [[[1, 10]]]}, ["task t1", "'output'", "colour 0-9"]),
    ],
)
def test_solutions_that_do_not_fit_are_errors(tmp_path: Path, solutions: object, words: list[str]) -> None:
    open_ = {t.id: {**task_json(t), "test": [{"input": [[1]]}]} for t in TASKS[:2]}
    spec = write(tmp_path / "a_challenges.json", open_)
    write(tmp_path / "a_solutions.json", solutions)
    with pytest.raises(DataError) as error:
        open_dataset(spec)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_contradicting_outputs_are_an_error(tmp_path: Path) -> None:
    spec = write(tmp_path / "a_challenges.json", {TASKS[0].id: task_json(TASKS[0])})
    write(tmp_path / "a_solutions.json", {TASKS[0].id: [[[9, 9]]]})
    with pytest.raises(DataError, match="another output"):
        open_dataset(spec)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.json", b"", "is empty"),
        ("blank.json", b" \n", "is empty"),
        ("broken.json", b'{"a":\n 1,,}', "line 2, column 4: not JSON"),
        ("number.json", b"12", "expected an object of task id"),
        ("nothing.json", b"{}", "expected an object of task id"),
        ("text.json.gz", b"not gzip", "not a whole gzip file"),
        ("torn.json.gz", gzip.compress(b'{"a": 1}' * 99, mtime=0)[:-9], "not a whole gzip file"),
    ],
)
def test_bad_files_are_errors(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        open_dataset(str(path))
    assert str(path) in str(error.value)


def test_bad_folders_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.json files"):
        open_dataset(str(tmp_path / "empty"))
    write(tmp_path / "kaggle" / "arc_challenges.json", {t.id: task_json(t) for t in TASKS})
    with pytest.raises(DataError, match="name the file itself"):
        open_dataset(str(tmp_path / "kaggle"))
    for part in ("one", "two"):
        write(tmp_path / "twice" / part / "same.json", task_json(TASKS[0]))
    with pytest.raises(DataError, match="task id same is taken"):
        open_dataset(str(tmp_path / "twice"))
    with pytest.raises(DataError, match="nowhere"):
        read_uncompressed(tmp_path / "nowhere.json")


def test_lists_of_tasks_without_distinct_ids_are_errors(tmp_path: Path) -> None:
    named = [{"id": task.id, **task_json(task)} for task in TASKS]
    for name, content, words in (
        ("unnamed", [task_json(task) for task in TASKS], "needs an 'id' in each"),
        ("one-unnamed", [*named, task_json(TASKS[0])], "entry 6: a list of tasks needs an 'id'"),
        ("twice", [*named, named[2]], "entry 6: task id t2 occurs twice"),
        ("splits", {"training": named}, "training: holds tasks with ids of their own"),
    ):
        with pytest.raises(DataError, match=words):
            open_dataset(write(tmp_path / f"{name}.json", content))
    write(tmp_path / "folder" / "list.json", named)
    with pytest.raises(DataError, match="name the file itself"):
        open_dataset(str(tmp_path / "folder"))


def test_linked_folders_are_read_once_and_dangling_links_are_errors(tmp_path: Path) -> None:
    for task in TASKS[1:]:
        write(tmp_path / "real" / f"{task.id}.json", task_json(task))
    write(tmp_path / "set" / "t0.json", task_json(TASKS[0]))
    (tmp_path / "set" / "evaluation").symlink_to("../real")
    (tmp_path / "real" / "around").symlink_to("../set")
    assert {task.id for task in iterate_tasks(open_dataset(str(tmp_path / "set")))} == {task.id for task in TASKS}
    (tmp_path / "set" / "t9.json").symlink_to("gone.json")
    with pytest.raises(DataError, match=r"t9\.json: a link to gone\.json, which is not there"):
        open_dataset(str(tmp_path / "set"))


def test_a_repeated_field_is_an_error(tmp_path: Path) -> None:
    task = json.dumps(task_json(TASKS[0]))
    for name, text in (
        ("ids", f'{{"a": {task}, "a": {task}}}'),
        ("fields", f'{{"a": {task[:-1]}, "test": []}}}}'),
        ("solutions_challenges", f'{{"a": {task}}}'),
    ):
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "solutions_solutions.json").write_text('{"a": [[[1]]], "a": [[[1]]]}')
    for name in ("ids", "fields", "solutions_challenges"):
        with pytest.raises(DataError, match="occurs twice"):
            open_dataset(str(tmp_path / f"{name}.json"))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\rb", "\ud800"])
def test_ids_that_cannot_be_a_line_are_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="an id must be"):
        open_dataset(write(tmp_path / "ids.json", {name: task_json(TASKS[0])}))
