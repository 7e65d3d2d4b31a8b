"""1D-ARC: tasks whose grids all have one row, which may be longer than 30; from the file to scores and prompts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.submit import submit
from harness.core.augmentation import identity_view, random_view
from harness.core.errors import DataError
from harness.core.grid import MAX_ROW, MAX_SIDE, Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.data.dataset import find_task
from harness.data.export import export_dataset
from harness.data.spec import open_dataset
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.sampling.plan import Plan, PromptFormat, Sample
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_run
from tests.support.data_samples import random_grid, task_json
from tests.support.runs.run_folders import load_records, run_manifest
from tests.support.runs.sampling_runs import run_options, run_sampling
from tests.support.servers.chat_server import ChatServer
from trainers.data.task_augmentation import random_change
from trainers.tiny.tokenizer import build_tokenizer
from trainers.ttt.protocol import TaskLine

ENCODERS = (
    "MinimalGridEncoder()",
    "GridWithSeparationEncoder('|')",
    "RepeatNumberEncoder(3)",
    "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    "ReplaceNumberEncoder(MinimalGridEncoder())",
)


RULE = "rows of up to 128 cells need a task whose grids all have one row"


def row_task(length: int, name: str = "1d_move_1p_0") -> Task:
    """Return a task with three train pairs and a test pair of single rows, in which the output is the input."""
    rows = [random_grid(Stream("row", length, k), 1, length) for k in range(4)]
    pairs = tuple(Pair(row, row) for row in rows)
    return Task(name, pairs[:3], pairs[3:])


def write(folder: Path, *tasks: Task) -> str:
    """Write a folder as 1D-ARC has it: a folder per kind, a file per task, each with a uuid."""
    for task in tasks:
        path = folder / task.id.rpartition("_")[0] / f"{task.id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**task_json(task), "uuid": "-12-34"}))
    return str(folder)


def sample_of(task: Task) -> Sample:
    """Return a sample that shows the task as it is."""
    return Sample(0, 0, "base", task, 0, 0, identity_view(len(task.train)), 1)


@pytest.mark.parametrize("length", [1, 8, 30, 31, 54, MAX_ROW])
def test_rows_up_to_the_limit_are_read_and_written(tmp_path: Path, length: int) -> None:
    dataset = open_dataset(write(tmp_path / "dataset", row_task(length), row_task(length, "1d_fill_3")))
    assert list(dataset.ids) == ["1d_fill_3", "1d_move_1p_0"]
    assert find_task(dataset, "1d_move_1p_0") == row_task(length)
    assert dataset.task(1).has_long_rows() == (length > MAX_SIDE)
    (written,) = export_dataset(dataset, tmp_path / "all.json")
    assert open_dataset(str(written)).digest() == dataset.digest()


def test_challenges_without_outputs_have_long_rows_too(tmp_path: Path) -> None:
    task = row_task(54)
    data = {task.id: {**task_json(task), "test": [{"input": task.test[0].input.to_rows()}]}}
    path = tmp_path / "challenges.json"
    path.write_text(json.dumps(data))
    assert open_dataset(str(path)).task(0).has_long_rows()


@pytest.mark.parametrize(
    ("where", "grid", "expected"),
    [
        ("input", [[0] * (MAX_ROW + 1)], "train 1, field 'input': 1x129 is over 1x128, the longest single row"),
        ("output", [[0] * 31], ""),
        ("output", [[0] * 31] * 2, f"train 0, field 'input': 1x54 is over 30x30; {RULE}"),
        ("output", [[0]] * 31, f"train 0, field 'input': 1x54 is over 30x30; {RULE}"),
        ("input", [[0, 10]], "train 1, field 'input', row 0, column 1: expected a colour 0-9, got 10"),
    ],
)
def test_only_tasks_of_single_rows_may_be_longer_than_30(
    tmp_path: Path, where: str, grid: list[list[int]], expected: str
) -> None:
    data: dict[str, Any] = task_json(row_task(54))
    data["train"][1][where] = grid
    path = tmp_path / "t.json"
    path.write_text(json.dumps(data))
    if not expected:
        assert open_dataset(str(path)).task(0).has_long_rows()
        return
    with pytest.raises(DataError) as caught:
        open_dataset(str(path))
    assert str(caught.value) == f"{path}, task t, {expected}"


@pytest.mark.parametrize("name", ENCODERS)
@given(st.data())
def test_answers_of_any_view_are_read_back(name: str, data: st.DataObject) -> None:
    task = row_task(data.draw(st.integers(1, MAX_ROW)))
    view = random_view(Stream("view", data.draw(st.integers(0, 99))), 3)
    format_, prompt = PromptFormat(load_prompt("compact-v0"), parse_encoder(name)), load_prompt("compact-v0")
    answer = prompt.answer(view.apply_task(task), 0, format_.encoder)
    assert format_.parse_answer(answer, replace(sample_of(task), augmentation=view)) == ("grid", task.test[0].output)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_long_answer_is_a_bad_shape_in_other_tasks_as_it_always_was(name: str) -> None:
    encoder = parse_encoder(name)
    format_ = PromptFormat(load_prompt("compact-v0"), encoder)
    for grid in (Grid(1, 31, bytes(31)), Grid(31, 1, bytes(31)), Grid(1, MAX_ROW, bytes(MAX_ROW))):
        assert format_.parse_answer(encoder.encode(grid), sample_of(row_task(30))) == ("bad_shape", None)
        assert format_.parse_answer(encoder.encode(grid), sample_of(row_task(31))) == ("grid", grid)
    for grid in (Grid(2, 31, bytes(62)), Grid(1, MAX_ROW + 1, bytes(MAX_ROW + 1))):
        assert format_.parse_answer(encoder.encode(grid), sample_of(row_task(54))) == ("bad_shape", None)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_default_token_limit_is_enough_for_the_longest_row(name: str) -> None:
    for shape in ((1, MAX_ROW), (MAX_ROW, 1)):
        grid = Grid(*shape, bytes(MAX_ROW))
        task = Task("longest", (Pair(grid, grid),), (Pair(grid, grid),))
        for prompt in map(load_prompt, ("compact-v0", "output-from-examples-v1")):
            encoder = parse_encoder(name)
            assert len(prompt.answer(task, 0, encoder).encode()) < PromptFormat(prompt, encoder).max_answer_tokens


@pytest.mark.parametrize("name", ["MinimalGridEncoder()", "RowNumberEncoder(MinimalGridEncoder())"])
def test_token_ids_are_the_tokenizer_s_in_every_view(name: str) -> None:
    """The tables of ids, which number at most 30 rows, are not used."""
    tokenizer, prompt, encoder = build_tokenizer(), load_prompt("compact-v0"), parse_encoder(name)
    fast, plain = (PromptTokenizer(tokenizer, prompt, encoder, fast=fast) for fast in (True, False))
    assert fast.method != "tokenizer"
    for k, length in enumerate((30, 31, 54, MAX_ROW) * 4):
        task = random_view(Stream("ids", k), 3).apply_task(row_task(length))
        assert fast.sample(task, 0) == plain.sample(task, 0)
        assert fast.prompt_ids(task, 0) == plain.prompt_ids(task, 0)
        assert fast.answer_ids(task, 0) == plain.answer_ids(task, 0)
        assert fast.sample_with_outputs(task, 0) == plain.sample_with_outputs(task, 0)


def test_test_time_training_takes_long_rows() -> None:
    task = row_task(54)
    assert TaskLine.model_validate_json(TaskLine.of(task).model_dump_json()).pairs() == task.train


def test_training_s_changes_of_tasks_take_long_rows() -> None:
    task = row_task(54)
    for k in range(50):
        change = random_change(Stream("change", k), task)
        assert change is not None
        assert change.kind == "geometric"  # the only kind that makes no grid larger


def test_a_run_on_long_rows_is_scored_and_submitted(tmp_path: Path) -> None:
    spec = write(tmp_path / "dataset", *(row_task(length, f"1d_fill_{length}") for length in (12, 31, 54)))
    with ChatServer() as server:
        run_sampling(run_options(server, tmp_path / "run", dataset=spec, n=8, models=("base",)))
    assert {record.outcome for record in load_records(tmp_path / "run")} == {"grid"}
    scores = score_run(tmp_path / "run").models["base"]
    assert scores.metrics["vote_2"].value == 1
    output = tmp_path / "submission.json"
    assert CliRunner().invoke(submit, [str(tmp_path / "run"), "-o", str(output)]).exit_code == 0
    attempts = json.loads(output.read_bytes())["1d_fill_54"][0]
    assert attempts["attempt_1"] == row_task(54, "").test[0].input.to_rows()


def test_predictions_made_elsewhere_may_be_as_long_as_the_task_s_rows(tmp_path: Path) -> None:
    spec = write(tmp_path / "dataset", row_task(12, "a_12"), row_task(54, "a_54"))
    row = row_task(54).test[0].input.to_rows()
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps({name: [{"attempt_1": row, "attempt_2": row}] for name in ("a_12", "a_54")}))
    (predictions,) = open_predictions(path, spec).predictions
    assert predictions.failures == {"bad_shape": 2}
    assert [len(predictions.outputs[name][0].votes()) for name in ("a_12", "a_54")] == [0, 2]


def test_the_plan_draws_views_of_long_rows(tmp_path: Path) -> None:
    plan = Plan(run_manifest(write(tmp_path, row_task(54)), ["base"], 8).config, [row_task(54)])
    shapes = {plan.sample(k).augmentation.apply(row_task(54).test[0].input).shape for k in range(8)}
    assert shapes == {(1, 54), (54, 1)}
