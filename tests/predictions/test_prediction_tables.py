"""Damaged tables of predictions are refused with the row, the column and a remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.errors import DataError
from harness.data.spec import open_dataset
from harness.frames.export import export_predictions
from harness.predictions.files.prediction_formats import detect_format
from harness.scoring.prediction_loader import open_predictions
from tests.support.runs.run_folders import MakeRun
from tests.support.runs.view_runs import write_view_run

SPEC = "toy/cross/evaluation#n=2"
TASK = open_dataset(SPEC).ids[0]
HEADER = "task_id,test_index,grid,outcome,cumulative_logprob,n_tokens,symmetry,sample_index"


def read_csv(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")
    open_predictions(path, SPEC)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f'{TASK},0,"[[1,",grid,-1,2,identity,0', r"line 2, grid: '\[\[1,' is not JSON"),
        (f"{TASK},0,[[11]],grid,-1,2,identity,0", "line 2, grid, row 0, column 0: expected a colour 0-9"),
        (f"{TASK},0,[[1]],wrong,-1,2,identity,0", "line 2, outcome: expected grid or truncated"),
        (f"{TASK},0,,grid,-1,2,identity,0", "line 2: outcome 'grid' does not go with no grid"),
        (f"{TASK},0,[[1]],grid,x,2,identity,0", "line 2, cumulative_logprob: expected a number or null, got 'x'"),
        (f"{TASK},0,[[1]],grid,-1,2.5,identity,0", "line 2, n_tokens: expected a whole number from 0, got 2.5"),
        (f"{TASK},-1,[[1]],grid,-1,2,identity,0", "line 2, test_index: expected a whole number from 0, got -1"),
        (f"{TASK},0,[[1]],grid,-1,2,identity", "line 2: 7 values for the 8 columns of the header"),
        (f"{TASK},5,[[1]],grid,-1,2,identity,0", f"answers to task {TASK}, test 5, which the dataset lacks"),
        (f'{TASK},0,[[1]],grid,-1,2,"identity"x,0', "line 2: not CSV"),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_csv(tmp_path / "t.csv", HEADER, line)


def test_columns_that_are_missing_or_double_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: column 'test_index' is missing; a table of predictions has task_id"):
        read_csv(tmp_path / "t.csv", "task_id,grid", f"{TASK},[[1]]")
    with pytest.raises(DataError, match="line 1: a column occurs twice"):
        read_csv(tmp_path / "t.csv", "task_id,grid,grid", f"{TASK},[[1]],[[1]]")
    with pytest.raises(DataError, match="column 'model' is missing"):
        read_csv(tmp_path / "t.csv", "task_id,test_index,grid,answer_index", f"{TASK},0,[[1]],0")
    with pytest.raises(DataError, match="column 'task_id' is missing"):
        read_csv(tmp_path / "t.csv", "")


def test_only_three_columns_are_needed(tmp_path: Path) -> None:
    lines = [f"{TASK},0,[[1]]", f"{TASK},0,", f'{TASK},0,"[[1],[1,2]]"', f"{TASK},0.0,[[1]]"]
    read_csv(tmp_path / "t.csv", "task_id,test_index,grid", *lines)
    (model,) = open_predictions(tmp_path / "t.csv", SPEC).predictions
    output = model.outputs[TASK][0]
    assert sorted(output.samples()) == [0, 1, 2, 3]
    assert [len(votes) for votes in output.votes_by_grid.values()] == [2]
    assert model.failures == {"unparsed": 1, "bad_shape": 1}
    assert not model.has_views


@pytest.mark.parametrize("content", [b"PAR1 but no more", b""])
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet: is not a readable Parquet file"):
        open_predictions(tmp_path / "t.parquet", SPEC)


def test_a_parquet_file_with_damaged_pages_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    export_predictions(make_run("run", SPEC, {"m": 0.5}), path)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet"):
        open_predictions(path, SPEC)


def test_json_lines_of_a_table_are_told_from_the_log_of_a_run(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run", SPEC, {"m": 0.5})
    export_predictions(run, tmp_path / "t.jsonl")
    assert detect_format(tmp_path / "t.jsonl").name == "table"
    assert detect_format(run / "predictions.jsonl").name == "lines"
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    fields = json.loads(lines[1])
    del fields["n_tokens"]
    (tmp_path / "t.jsonl").write_text(f"{lines[0]}\n{json.dumps(fields)}\n")
    with pytest.raises(DataError, match="line 2: column 'n_tokens' is missing, which the first line has"):
        open_predictions(tmp_path / "t.jsonl", SPEC)


def test_answers_without_their_view_and_views_that_contradict_them_are_refused(tmp_path: Path) -> None:
    run = write_view_run(tmp_path, "run", SPEC, {"m": 0.8}, 3)
    export_predictions(run, tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    answered = next(i for i, row in enumerate(rows) if row["answers"])

    def refuse(changed: list[dict[str, object]], message: str) -> None:
        (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
        with pytest.raises(DataError, match=message):
            open_predictions(tmp_path / "t.jsonl", SPEC)

    refuse(rows[:answered], "the row of its view is missing")
    refuse([{**row, "unexplored": 0.5} if i == answered else row for i, row in enumerate(rows)], "view.unexplored: 0.5")
    refuse([{**row, "answers": 9} if i == answered else row for i, row in enumerate(rows)], "view.answers: 9, but")
    refuse([rows[answered - 1], *rows], "answer_index: expected 0|precedes it|view.answers|answer_index: expected 1")
