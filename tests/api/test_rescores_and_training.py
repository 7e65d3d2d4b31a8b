"""The frames of rescores and of test-time training are the lines of their files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import orjson
import pandas as pd
import pytest

from harness.api import load_run, score
from harness.core.errors import ConfigError, DataError
from harness.core.grid import Grid
from harness.frames.prediction_frame import grid_id
from harness.runs.logs.task_training_log import TTT_LOG
from tests.support.commands import run_bench
from tests.support.runs.run_folders import MakeRun
from tests.support.runs.trained_runs import trained_run


def test_rescores_are_the_lines_of_the_file(rescored: Path) -> None:
    lines = [orjson.loads(line) for line in (rescored / "rescores.jsonl").read_bytes().splitlines()[1:]]
    frame = load_run(rescored).rescores
    assert set(frame.itertuples(index=False, name=None)) == {
        (
            line["scorer"], line["task_id"], line["test_index"], grid_id(Grid.from_rows(line["grid"])), line["view"],
            line["logprob"],
        )
        for line in lines
    }  # fmt: skip
    assert len(frame) == len(lines)
    assert frame["scorer"].nunique() == 2
    sums = frame.groupby(["scorer", "task_id", "test_index", "grid_id"], observed=True)["logprob"].sum()
    for row in load_run(rescored).candidates.to_dict("records"):
        key = row["model"], row["task_id"], row["test_index"], row["grid_id"]
        assert row["rescore"] == pytest.approx(sums.loc[key], rel=1e-12)


def test_a_model_has_the_rescores_of_its_candidates(rescored: Path) -> None:
    run = load_run(rescored)
    for model in run.config["model"]:
        alone = load_run(f"{rescored}@{model}")
        key = ["task_id", "test_index", "grid_id"]
        expected = {tuple(row) for row in alone.candidates[key].to_numpy().tolist()}
        assert {tuple(row) for row in alone.rescores[key].to_numpy().tolist()} == expected
        assert len(expected) < len(run.rescores[key].drop_duplicates())
        table = run.table()
        assert alone.table().equals(_recoded(table[table["model"] == model]))


def _recoded(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows with an index of their own, and without the categories of other rows."""
    frame = frame.reset_index(drop=True)
    names = frame.select_dtypes("category").columns
    return frame.assign(**{name: frame[name].cat.remove_unused_categories() for name in names})


def test_rescores_of_other_predictions_are_refused(rescored: Path, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no rescores; bench rescore makes them"):
        _ = load_run(drawn).rescores
    named = score(load_run(rescored).table(grids=True), load_run(rescored).config["dataset"][0], name=str(rescored))
    with pytest.raises(ConfigError, match="has no rescores"):
        _ = named.rescores
    shutil.copytree(drawn, tmp_path / "run")
    shutil.copy(rescored / "rescores.jsonl", tmp_path / "run")
    with pytest.raises(DataError, match=r"rescores\.jsonl is of other predictions than there are now"):
        _ = load_run(tmp_path / "run").rescores


def test_training_is_the_lines_of_the_file(make_run: MakeRun, drawn: Path) -> None:
    path = trained_run(make_run, "ttt", 0.9, 8.0)
    last = {}
    for line in (path / TTT_LOG).read_text().splitlines():
        record = json.loads(line)
        last[record["task_id"]] = record
    run = load_run(path)
    rows = run.training.astype(object).where(run.training.notna(), None).to_dict("records")
    assert {row["task_id"]: row for row in rows} == last
    assert run.training["outcome"].value_counts().to_dict() == {"trained": 19, "not_finite": 1}
    (config,) = run.config.to_dict("records")
    assert config["ttt_learning_rate"] == 0.004
    assert config["trained_on"] == "demonstrations of these tasks at test time"
    assert run.results.test_time_training is not None
    assert run.results.test_time_training.train_seconds == pytest.approx(160.0)
    with pytest.raises(ConfigError, match="only runs of bench ttt train an adapter for every task"):
        _ = load_run(drawn).training


def test_scoring_again_keeps_the_cost_of_training(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained_run(make_run, "ttt", 0.9, 8.0)
    assert run_bench(capsys, "score", path)[0] == 0
    assert json.loads((path / "results.json").read_text())["test_time_training"]["train_seconds"] == 160.0
