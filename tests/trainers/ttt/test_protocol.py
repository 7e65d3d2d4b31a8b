"""The lines of test-time training carry train pairs only; folders and recipes of a work folder."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.core.errors import ConfigError, DataError, GridError
from harness.core.grid import Grid, Pair
from harness.core.random_stream import Stream
from serve.registry.adapter_version import NAME
from tests.support.data_samples import random_task
from tests.support.training.mixtures import without_outputs
from trainers.recipe.ttt_recipe import make_ttt_recipe
from trainers.ttt.protocol import (
    RECIPE_FILE,
    ReplyLine,
    StepLine,
    TaskLine,
    adapter_path,
    folder_name,
    pair_digest,
    parse_output,
    read_recipe,
    remove_adapter,
    write_recipe,
)

TASK = random_task(Stream("lines"), 3, 5, "lines")


def test_a_line_is_the_same_whatever_the_test_pairs_are() -> None:
    line = TaskLine.of(TASK).model_dump_json()
    others = [replace(pair, output=Grid(1, 1, b"\x07")) for pair in TASK.test]
    altered = replace(TASK, test=(*others, Pair(Grid(1, 1, b"\x05"), Grid(1, 1, b"\x07"))))
    for task in (altered, without_outputs(TASK), replace(TASK, test=())):
        assert TaskLine.of(task).model_dump_json() == line
    assert TaskLine.model_validate_json(line).pairs() == TASK.train
    assert set(json.loads(line)) == {"task_id", "train", "seconds", "until", "again"}


def test_a_line_has_no_place_for_test_pairs() -> None:
    data = {**TaskLine.of(TASK).model_dump(), "test": [[[1]]]}
    with pytest.raises(ValidationError, match="test"):
        TaskLine.model_validate(data)


def test_invalid_pairs_are_errors() -> None:
    with pytest.raises(DataError, match="task lines: train pair 1 has no output"):
        TaskLine.of(replace(TASK, train=(TASK.train[0], Pair(TASK.train[0].input, None))))
    line = TaskLine(task_id="x", train=[([[1]], [[1, 2], [3]])])
    with pytest.raises(GridError, match="task x, train pair 0, output, row 1: 1 cells"):
        line.pairs()


def test_outputs_are_parsed_by_kind() -> None:
    step = StepLine(task_id="a", step=2, loss=0.5)
    reply = ReplyLine(
        task_id="a", outcome="cut", adapter="adapters/a", steps=2, samples=8, seconds=1.5, digest="0" * 64, reason="r"
    )
    assert [parse_output(line.model_dump_json()) for line in (step, reply)] == [step, reply]
    for line in ("", "{}", "[1]", '{"outcome": 3}', "warning"):
        with pytest.raises(DataError, match="not a line of its protocol"):
            parse_output(line)


@given(st.text(min_size=1), st.text(min_size=1))
def test_folder_names_are_adapter_names_and_differ(one: str, other: str) -> None:
    names = folder_name(one), folder_name(other)
    assert (names[0] == names[1]) == (one == other)
    for name in names:
        assert NAME.fullmatch(f"ttt-{name}")
        assert ".." not in name


def test_ordinary_ids_stay_as_they_are() -> None:
    assert [folder_name(name) for name in ("00576224", "cross-000001", "a_b")] == ["00576224", "cross-000001", "a_b"]
    assert folder_name("a/b").startswith("a-b-")


def test_a_pair_s_digest_depends_on_both_grids() -> None:
    first = TASK.train[0]
    others = [
        TASK.train[1],
        replace(first, output=TASK.train[1].output),
        Pair(first.output or first.input, first.input),
    ]
    assert len({pair_digest(pair) for pair in (first, *others)}) == 4


def test_a_work_folder_keeps_one_recipe_and_its_first_date(tmp_path: Path) -> None:
    recipe = make_ttt_recipe({"model": "tiny", "ttt": {"steps": 3}})
    write_recipe(tmp_path, recipe)
    first = read_recipe(tmp_path)
    assert first.template_date == date.today()
    path = tmp_path / RECIPE_FILE
    path.write_text(path.read_text().replace(str(date.today()), "2020-02-02"))
    write_recipe(tmp_path, recipe)
    assert str(read_recipe(tmp_path).template_date) == "2020-02-02"
    write_recipe(tmp_path, make_ttt_recipe({"model": "tiny", "ttt": {"steps": 3, "task_deadline": 5}}))
    assert "5.0" in path.read_text()
    with pytest.raises(ConfigError, match=r"is of another recipe; changed: max_steps, ttt\.steps\."):
        write_recipe(tmp_path, make_ttt_recipe({"model": "tiny", "ttt": {"steps": 4}}))
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"ttt-recipe\.json: cannot be read"):
        read_recipe(tmp_path)


def test_a_removed_adapter_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    remove_adapter(tmp_path, "a")
    for _ in range(2):
        adapter_path(tmp_path, "a").mkdir(parents=True)
        (adapter_path(tmp_path, "a") / "manifest.json").write_text("{}")
        remove_adapter(tmp_path, "a")
        assert not list((tmp_path / "adapters").iterdir())
