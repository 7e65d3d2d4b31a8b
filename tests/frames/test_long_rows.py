"""A row longer than 30 in a frame or table is a grid where its task has such rows, and a failure elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from harness.api import load_run, score
from harness.frames.export import export_predictions


def test_long_rows_are_grids_of_tasks_that_have_them(tmp_path: Path) -> None:
    def pair(length: int) -> dict[str, list[list[int]]]:
        return {"input": [[1] * length], "output": [[2] * length]}

    tasks = {name: {"train": [pair(length)] * 2, "test": [pair(length)]} for name, length in (("l", 100), ("s", 20))}
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    spec = str(tmp_path / "tasks.json")
    frame = pd.DataFrame({"task_id": ["l", "s"], "test_index": [0, 0], "grid": [[[2] * 100], [[2] * 100]]})
    frame.to_json(tmp_path / "table.jsonl", orient="records", lines=True)
    for run in (score(frame, spec), load_run(tmp_path / "table.jsonl", spec, form="table")):
        assert run.predictions["outcome"].tolist() == ["grid", "bad_shape"]
        assert run.predictions["exact"].tolist() == [True, False]
        assert run.candidates[["task_id", "height", "width"]].to_numpy().tolist() == [["l", 1, 100]]
        assert run.tasks.set_index("task_id")["vote_1"].to_dict() == {"l": 1.0, "s": 0.0}
        assert "viewBox" in run.show("l")._repr_html_()
    assert export_predictions(tmp_path / "table.jsonl", tmp_path / "again.csv", spec, "table") == 2
    again = load_run(tmp_path / "again.csv", spec)
    assert again.predictions["outcome"].tolist() == ["grid", "bad_shape"]
