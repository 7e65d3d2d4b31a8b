"""The Python interface gives what the files hold and what the commands print, for runs of every kind."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest

from harness import api
from harness.api import Run, compare, load_dataset, load_run, score
from harness.core.errors import ConfigError, DataError, RunError
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from tests.support.commands import run_bench
from tests.support.runs.pools import write_submission
from tests.support.runs.run_folders import MakeRun
from tests.support.runs.view_runs import write_view_run

OUTPUT = ["model", "task_id", "test_index"]


def lines_of(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's predictions, in order."""
    return [orjson.loads(line) for line in (run / "predictions.jsonl").read_bytes().splitlines()]


def truths_of(run: Path) -> dict[tuple[str, int], list[list[int]]]:
    """Return the exact grids of a run's tasks."""
    tasks = iterate_tasks(open_dataset(RunFolder(run).manifest().config.dataset))
    return {(t.id, i): pair.output.to_rows() for t in tasks for i, pair in enumerate(t.test) if pair.output}


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame with None for missing values."""
    return [{k: None if v is pd.NA else v for k, v in row.items()} for row in frame.to_dict("records")]


def test_the_interface_is_what_is_documented() -> None:
    assert sorted(api.__all__) == api.__all__
    assert {"compare", "load_dataset", "load_run", "score"} <= set(api.__all__)
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    public = [name for name in vars(Run) if not name.startswith("_")]
    assert [name for name in [*api.__all__, *public] if f"`{name}" not in page and f".{name}" not in page] == []


def test_predictions_are_the_lines_of_the_file(drawn: Path) -> None:
    run, truths = load_run(drawn), truths_of(drawn)
    frame = run.table(grids=True, texts=True)
    for row, line in zip(rows_of(frame), lines_of(drawn), strict=True):
        same = ("model", "task_id", "test_index", "sample_index", "outcome", "cumulative_logprob", "n_tokens", "text")
        assert {name: row[name] for name in same} == {name: line[name] for name in same}
        assert row["symmetry"] == line["augmentation"]["symmetry"]
        assert row["seconds"] == line["seconds"]
        assert row["exact"] == (line["grid"] == truths[line["task_id"], line["test_index"]])
        assert (None if row["grid"] is None else row["grid"].tolist()) == line["grid"]
    assert frame["grid"].map(type).isin([np.ndarray, type(None)]).all()
    pd.testing.assert_frame_equal(run.predictions, frame.drop(columns=["grid", "text"]))
    assert not any(pd.api.types.is_object_dtype(dtype) for dtype in run.predictions.dtypes)
    keys = {(row["grid_id"], json.dumps(row["grid"].tolist())) for row in rows_of(frame) if row["grid"] is not None}
    assert len({key for key, _ in keys}) == len({grid for _, grid in keys}) == len(keys) > 1
    assert frame["grid_id"].isna().equals(frame["grid"].isna())


def test_answers_and_views_are_the_lines_of_the_file(rescored: Path) -> None:
    run, lines, truths = load_run(rescored), lines_of(rescored), truths_of(rescored)
    answers = [line for line in lines if "view" not in line]
    views = [line for line in lines if "view" in line]
    for row, line in zip(rows_of(run.predictions), answers, strict=True):
        same = ("model", "task_id", "test_index", "sample_index", "answer_index", "cumulative_logprob", "n_tokens")
        assert {name: row[name] for name in same} == {name: line[name] for name in same}
        assert row["exact"] == (line["grid"] == truths[line["task_id"], line["test_index"]])
    for row, line in zip(rows_of(run.views), views, strict=True):
        summary, greedy = line["view"], line["view"]["greedy"]
        same = ("outcome", "answers", "unexplored", "truncated", "dropped", "requests", "n_tokens", "seconds")
        assert {name: row[name] for name in same} == {name: summary[name] for name in same}
        block = [a for a in answers if all(a[key] == line[key] for key in (*OUTPUT, "sample_index"))]
        grid = block[greedy]["grid"] if isinstance(greedy, int) else greedy["grid"] if greedy else None
        assert row["exact"] == (None if greedy is None else grid == truths[line["task_id"], line["test_index"]])
    assert not {"answers", "unexplored"} & set(run.predictions)
    assert len(run.table()) == len(lines)


def test_a_pool_has_the_proposals_of_its_candidates(pool: Path) -> None:
    run = load_run(pool)
    records = [orjson.loads(line) for line in (pool / "candidates.jsonl").read_bytes().splitlines()]
    members = [member["name"] for member in orjson.loads((pool / "manifest.json").read_bytes())["members"]]
    expected = sorted(
        (members[p["member"]], record["task_id"], record["test_index"], p["view"], p["sample"], p["logprob"] or 0.0,
         json.dumps(record["grid"]))
        for record in records
        for p in record["proposals"]
    )  # fmt: skip
    names = ["member", "task_id", "test_index", "view", "sample_index", "cumulative_logprob"]
    rows = rows_of(run.table(grids=True))
    actual = [
        (*(row[name] for name in names[:-1]), row["cumulative_logprob"] or 0.0, json.dumps(row["grid"].tolist()))
        for row in rows
    ]
    assert sorted(actual) == expected
    assert list(run.config["member"]) == members
    assert len(run.candidates) == len(records)


@pytest.mark.parametrize("kind", ["drawn", "rescored", "pool"])
def test_candidates_are_the_distinct_grids_with_their_votes(request: pytest.FixtureRequest, kind: str) -> None:
    run = load_run(request.getfixturevalue(kind))
    table, candidates = run.predictions, run.candidates
    keys = [*OUTPUT, "grid_id"]
    distinct = ["view_space", "view"] if kind == "pool" else ["sample_index"]
    counts = table.dropna(subset="grid_id").drop_duplicates([*keys, *distinct]).groupby(keys, observed=True).size()
    pd.testing.assert_series_equal(
        candidates.set_index(keys)["votes"].sort_index(), counts.sort_index(), check_dtype=False, check_names=False,
        check_index_type=False,
    )  # fmt: skip
    ranks = candidates.groupby(OUTPUT, observed=True)["rank"]
    assert (ranks.cumcount() + 1 == candidates["rank"]).all()
    votes = candidates.groupby(OUTPUT, observed=True)["votes"]
    assert (votes.diff().fillna(0) <= 0).all()
    grids = run.ranked_candidates(grids=True)
    assert [grid.shape for grid in grids["grid"]] == list(zip(grids["height"], grids["width"], strict=True))


def test_rescored_candidates_are_ranked_by_the_rule(rescored: Path, drawn: Path) -> None:
    run = load_run(rescored, rule="poe")
    candidates = run.candidates
    lines = [orjson.loads(line) for line in (rescored / "rescores.jsonl").read_bytes().splitlines()[1:]]
    sums: dict[tuple[object, ...], float] = {}
    for line in lines:
        key = line["scorer"], line["task_id"], line["test_index"], json.dumps(line["grid"])
        sums[key] = math.fsum([sums.get(key, 0.0), line["logprob"]])
    for row in rows_of(run.ranked_candidates(grids=True)):
        key = row["model"], row["task_id"], row["test_index"], json.dumps(row["grid"].tolist())
        assert row["rescore"] == pytest.approx(sums[key], rel=1e-12)
    steps = candidates.groupby(OUTPUT, observed=True)["rescore"].diff().fillna(0)
    assert (steps <= 1e-9).all()
    assert set(run.scores["rule"]) == {"poe"}
    assert load_run(drawn).candidates["rescore"].isna().all()
    with pytest.raises(ConfigError, match="rule poe cannot be applied: the candidates were not rescored"):
        _ = load_run(drawn, rule="poe").scores


@pytest.mark.parametrize("kind", ["drawn", "rescored", "pool"])
def test_scores_are_those_of_the_command(
    request: pytest.FixtureRequest, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = request.getfixturevalue(kind)
    run = load_run(path)
    models = json.loads(run_bench(capsys, "score", path, "--json", "-")[1])["models"]
    expected = {(name, metric): values for name, model in models.items() for metric, values in model["metrics"].items()}
    actual = {(row["model"], row["metric"]): row for row in rows_of(run.scores)}
    assert list(actual) == list(expected)
    for key, values in expected.items():
        assert {name: actual[key][name] for name in values} == values
    means = run.tasks.groupby("model", observed=True)[list(dict.fromkeys(run.scores["metric"]))].mean()
    for model, metric in expected:
        assert means.loc[model, metric] == pytest.approx(expected[model, metric]["value"])


def test_comparisons_are_those_of_the_command(
    drawn: Path, rescored: Path, capsys: pytest.CaptureFixture[str], make_run: MakeRun
) -> None:
    other = make_run("other", RunFolder(drawn).manifest().config.dataset, {"x": 0.6}, 4)
    run = load_run(drawn)
    for names, options in (([drawn, other], []), ([drawn], []), ([other, f"{drawn}@base"], ["--metric", "vote_2"])):
        expected = json.loads(run_bench(capsys, "compare", *names, *options, "--json", "-")[1])
        metrics = ["vote_2"] if options else None
        loaded = [run if name == drawn else name for name in names]
        rows = rows_of(compare(*loaded, metrics=metrics).frame)
        for row, wanted in zip(rows, expected, strict=True):
            values = {**wanted, **wanted["comparison"], "difference": wanted["comparison"]["delta"]}
            counts = ("won", "lost", "tasks", "low", "high", "p", "p_holm", "verdict", "metric", "model", "baseline")
            assert {name: row[name] for name in (*counts, "difference")} == {
                name: values[name] for name in (*counts, "difference")
            }
            assert row["won_ids"] == tuple(wanted["won"])
    assert run.compare().frame.equals(compare(f"{drawn}@base", f"{drawn}@cross").frame)
    with pytest.raises(RunError, match="did not declare tasks"):
        run.compare(rescored)
    with pytest.raises(ConfigError, match="one model alone has nothing to be compared with"):
        compare(f"{drawn}@base")
    with pytest.raises(ConfigError, match="there is no metric 'f1'"):
        run.compare(metrics=["f1"])


def test_frames_score_like_the_run_that_they_come_from(drawn: Path, rescored: Path, pool: Path) -> None:
    for path in (drawn, rescored, pool):
        run = load_run(path)
        config = RunFolder(drawn if path == drawn else rescored).manifest().config
        spec = config.dataset if path != pool else run.manifest.dataset  # type: ignore[union-attr]
        shuffled = run.table(grids=True).sample(frac=1, random_state=1)
        again = score(shuffled, spec, n=run.saved.n)
        expected = {name: result.metrics for name, result in run.results.models.items()}
        assert {name: result.metrics for name, result in again.results.models.items()} == expected
        compared = run.compare(again, metrics=["vote_2"]).frame
        assert (compared.groupby("verdict", observed=True).size()).sum() == math.comb(2 * len(expected), 2)


def test_a_frame_made_by_hand_is_scored() -> None:
    spec = "toy/cross/evaluation#n=2"
    first, second = iterate_tasks(open_dataset(spec))
    assert first.test[0].output is not None
    right = first.test[0].output.to_rows()
    frame = pd.DataFrame(
        {
            "task_id": [first.id, first.id, second.id],
            "test_index": [0, 0, 0],
            "grid": [np.array(right), [np.array(row) for row in right], None],
            "cumulative_logprob": [np.nan, -1.0, np.nan],
            "note": "mine",
        }
    )
    run = score(frame, spec, name="by hand")
    assert run.tasks.set_index("task_id")["vote_1"].to_dict() == {first.id: 1.0, second.id: 0.0}
    assert run.tasks.set_index("task_id")["accuracy"].to_dict() == {first.id: 1.0, second.id: 0.0}
    assert run.predictions["exact"].tolist() == [True, True, False]
    assert list(run.config.columns) == ["model"]
    assert run.manifest is None
    assert str(run.path) == "by hand"
    with pytest.raises(DataError, match="by hand: column 'grid' is missing; a table of predictions has task_id"):
        _ = score(frame.drop(columns="grid"), spec, name="by hand").scores
    with pytest.raises(DataError, match=r"frame, row 1, grid, row 0, column 0: expected a colour 0-9, got 12"):
        _ = score(frame.assign(grid=[right, [[12]], None], outcome="grid"), spec).scores
    with pytest.raises(DataError, match="frame: a column occurs twice"):
        _ = score(pd.concat([frame, frame["grid"]], axis=1), spec).scores
    with pytest.raises(DataError, match="frame: holds no prediction"):
        _ = score(frame.iloc[:0], spec).scores


def test_files_of_other_programs_load_with_their_dataset(tmp_path: Path) -> None:
    spec = "toy/cross/evaluation#n=4"
    path = write_submission(tmp_path / "submission.json", spec, right=3)
    run = load_run(path, spec)
    assert run.scores.set_index("metric")["value"]["vote_2"] == 0.75
    assert len(run.predictions) == 8
    with pytest.raises(ConfigError, match="name the tasks that it answers"):
        load_run(path)


def test_what_does_not_exist_is_refused(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such run, pool or file"):
        load_run(tmp_path / "none")
    with pytest.raises(RunError, match=r"has no model 'nobody'; it has: base, cross"):
        _ = load_run(f"{drawn}@nobody").scores
    with pytest.raises(ConfigError, match="only runs with --search dfs have views"):
        _ = load_run(drawn).views
    with pytest.raises(DataError, match="task x is none of the 8 tasks"):
        load_run(drawn).show("x")
    with pytest.raises(DataError, match="has no task 'x'"):
        load_dataset("toy/cross")["x"]
    views = write_view_run(tmp_path, "views", "toy/cross/evaluation#n=1", {"m": 0.9}, 2)
    answers = load_run(views).table(grids=True).dropna(subset="answer_index").drop(columns="unexplored")
    with pytest.raises(DataError, match="column 'unexplored' is missing"):
        _ = score(answers, "toy/cross/evaluation#n=1").scores
