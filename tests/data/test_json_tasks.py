"""ARC's JSON files in every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import DataError
from harness.core.random_stream import Stream
from harness.data.dataset import SourceList, iterate_tasks
from harness.data.spec import open_dataset
from tests.data.json_files import PAIRS, TASKS, write
from tests.support.data_samples import task_json


@pytest.mark.parametrize("ending", [".json", ".json.gz"])
def test_combined_file(tmp_path: Path, ending: str) -> None:
    spec = write(tmp_path / f"set{ending}", {task.id: task_json(task) for task in TASKS})
    dataset = open_dataset(spec)
    assert list(iterate_tasks(dataset)) == TASKS
    assert dataset.task(2, Stream(1)) == TASKS[2]
    assert [len(pairs) for _, pairs in dataset.pairs_by_id()] == [4] * 6


@pytest.mark.parametrize("ending", [".json", ".json.gz"])
def test_challenges_take_outputs_from_the_solutions_file(tmp_path: Path, ending: str) -> None:
    challenges = {t.id: {**task_json(t), "test": [{"input": p.input.to_rows()} for p in t.test]} for t in TASKS}
    spec = write(tmp_path / f"arc_challenges{ending}", challenges)
    assert all(task.test[0].output is None for task in iterate_tasks(open_dataset(spec)))
    write(tmp_path / f"arc_solutions{ending}", {t.id: [p.output.to_rows() for p in t.test if p.output] for t in TASKS})
    assert list(iterate_tasks(open_dataset(spec))) == TASKS


def test_one_task_files_and_folders_of_them(tmp_path: Path) -> None:
    for task in TASKS:
        write(tmp_path / "folder" / task.id[:1] / f"{task.id}.json", {"name": "a name", **task_json(task), "uuid": 1})
    write(tmp_path / "folder" / ".hidden" / "x.json", {})
    assert list(iterate_tasks(open_dataset(str(tmp_path / "folder")))) == TASKS
    assert list(iterate_tasks(open_dataset(str(tmp_path / "folder" / "t" / "t3.json")))) == [TASKS[3]]


def test_re_arc_as_file_and_folder(tmp_path: Path) -> None:
    one = open_dataset(write(tmp_path / "re_arc.json", {"a": PAIRS, "b": PAIRS[:4]}))
    write(tmp_path / "re_arc" / "metadata.json", {"a": {"n": 1}})
    write(tmp_path / "re_arc" / "tasks" / "a.json", PAIRS)
    write(tmp_path / "re_arc" / "tasks" / "b.json.gz", PAIRS[:4])
    two = open_dataset(str(tmp_path / "re_arc"))
    assert one.ids == two.ids == ["a", "b"]
    assert one.digest() == two.digest()
    drawn = [one.task(0, Stream("draw", i)) for i in range(60)]
    assert drawn == [two.task(0, Stream("draw", i)) for i in range(60)]
    assert {len(task.train) for task in drawn} == {3, 4, 5}
    assert len({task.test for task in drawn}) == 12
    for task in drawn:
        assert len(task.test) == 1
        assert task.test[0] not in task.train
    assert {len(one.task(1, Stream(i)).train) for i in range(20)} == {3}
    assert one.task(0) == one.task(0) == two.task(0)


def test_tasks_without_test_and_variants(tmp_path: Path) -> None:
    data: dict[str, Any] = {
        "open": {"train": PAIRS, "n_train": 2},
        "forms": [task_json(TASKS[0]), task_json(TASKS[1]), {"train": PAIRS[:3], "n_train": 2}],
        "whole": task_json(TASKS[2]),
    }
    dataset = open_dataset(write(tmp_path / "mixed.json", data))
    assert dataset.ids == ["open", "forms", "whole"]
    drawn = [dataset.task(0, Stream(i)) for i in range(40)]
    assert {(len(task.train), len(task.test)) for task in drawn} == {(2, 1)}
    assert len(set(drawn)) > 30
    forms = {dataset.task(1, Stream(i)).train for i in range(40)}
    assert {TASKS[0].train, TASKS[1].train} < forms
    assert dataset.task(1, Stream(0)).id == "forms"
    assert (dataset.task(2, Stream(5)).train, dataset.task(2).test) == (TASKS[2].train, TASKS[2].test)
    assert dict(dataset.pairs_by_id())["forms"][:4] == TASKS[0].train + TASKS[0].test


def test_published_files(shared_data: Path) -> None:
    concept = open_dataset(str(shared_data / "conceptarc.json.gz"))
    assert (len(concept.ids), concept.ids[0]) == (528, "AboveBelow1_0")
    assert len(open_dataset(str(shared_data / "mini_arc.json.gz")).ids) == 149
    re_arc = open_dataset(str(shared_data / "re_arc_24.json.gz"))
    assert {len(pairs) for _, pairs in re_arc.pairs_by_id()} == {24}
    assert {len(task.train) for task in iterate_tasks(re_arc)} == {3, 4, 5}


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    data = {task.id: task_json(task) for task in TASKS}
    plain = open_dataset(write(tmp_path / "a.json", data))
    marked = tmp_path / "b.json"
    marked.write_bytes(b"\xef\xbb\xbf" + json.dumps(data).encode())
    assert open_dataset(str(marked)).digest() == plain.digest()
    ids = tmp_path / "ids.txt"
    ids.write_bytes(b"\xef\xbb\xbft2\r\nt0\r\n")
    assert open_dataset(f"{marked}#ids={ids}").ids == ["t2", "t0"]


@pytest.mark.parametrize("field", ["id", "task_id", "name"])
def test_a_list_of_tasks_with_ids(tmp_path: Path, field: str) -> None:
    spec = write(tmp_path / "list.json", [{field: task.id, **task_json(task)} for task in TASKS])
    assert list(iterate_tasks(open_dataset(spec))) == TASKS


def test_pairs_over_30x30_are_left_out_of_lists_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    large = {"input": [[0] * 31], "output": [[1]]}
    spec = write(tmp_path / "re_arc.json", {"a": PAIRS, "b": [*PAIRS[:3], large, *PAIRS[3:5]]})
    dataset = open_dataset(spec)
    assert "1 pairs with a side over 30 are left out, the first in task b" in caplog.text
    assert isinstance(dataset, SourceList)
    assert dataset.skipped == {"pair: a side over 30": 1}
    assert dataset.select_tasks([0], "x").skipped == {}
    plain = open_dataset(write(tmp_path / "plain.json", {"a": PAIRS, "b": PAIRS[:5]}))
    assert (plain.digest(), list(iterate_tasks(plain))) == (dataset.digest(), list(iterate_tasks(dataset)))
    with pytest.raises(DataError, match="task b, pair 3, field 'input': 1x31 is over 30x30"):
        open_dataset(spec, strict=True)
    with pytest.raises(DataError, match="task a: 3 pairs"):
        open_dataset(write(tmp_path / "few.json", {"a": [*PAIRS[:3], large]}))
