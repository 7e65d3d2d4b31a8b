"""Scores of run folders: compared with a count of the lines, and damaged or changed files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from harness.core.errors import DataError
from harness.core.grid import Task
from harness.core.random_stream import Stream
from harness.data.dataset import SHOWN_DIGITS, content_digest, iterate_tasks, without_test_outputs
from harness.data.spec import open_dataset
from harness.predictions.declared_tasks import declared_tasks
from harness.results.summary_table import summary_table
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_reader import read_predictions
from harness.scoring.model_scores import ModelScores
from harness.scoring.paired_comparison import all_pairs, compare_pairs
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_run, score_saved
from harness.scoring.run_selector import select_models
from harness.voting.metrics import METRICS, OutputScore, average_outputs
from tests.support.data_samples import random_task, task_json, tasks
from tests.support.runs.run_folders import MakeRun, edit_manifest

SPEC = "toy/cross/evaluation#n=24"


def test_accuracy_and_failures_equal_a_count_of_the_lines(make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"good": 0.9, "bad": 0.2})
    results = score_run(run)
    truth = {task.id: task.test[0].output for task in iterate_tasks(open_dataset(SPEC))}
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    for model, result in results.models.items():
        of_model = [line for line in lines if line["model"] == model]
        exact = [line["grid"] == truth[line["task_id"]].to_rows() for line in of_model if line["grid"]]
        assert result.metrics["accuracy"].value == pytest.approx(sum(exact) / len(of_model))
        assert result.failures == {"unparsed": sum(line["grid"] is None for line in of_model)}
        assert set(result.metrics) == set(METRICS)
        assert result.predictions == len(of_model) == 24 * 4
        for metric in result.metrics.values():
            assert 0 <= metric.low <= metric.value <= metric.high <= 1
            assert metric.low < metric.high
    assert RunFolder(run).results() == results


def test_results_do_not_depend_on_the_order_of_the_lines(make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"good": 0.9, "bad": 0.2})
    first = score_run(run)
    path = run / "predictions.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert score_run(run) == first


def test_a_task_without_predictions_counts_as_missing_and_wrong(make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"good": 1.0}, fails=0.0)
    path = run / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["task_id"] != "cross-000003"))
    result = score_run(run).models["good"]
    assert result.tasks == 24
    assert result.failures == {"missing": 4}
    assert result.metrics["accuracy"].value == pytest.approx(23 / 24)


def test_a_torn_last_line_is_skipped_and_a_broken_line_is_refused(make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"good": 1.0})
    path = run / "predictions.jsonl"
    whole = len(list(read_predictions(path)))
    with path.open("a") as file:
        file.write('{"model": "good", "task_')
    assert len(list(read_predictions(path))) == whole
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "nonsense\n", *lines[1:]]))
    with pytest.raises(DataError, match=r"line 2: not JSON"):
        list(read_predictions(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_id": "nobody"}, "task nobody, test 0, which the dataset lacks"),
        ({"test_index": 7}, "test 7, which the dataset lacks"),
        ({"grid": [[1, 2], [3]]}, "row 1: 1 cells, but row 0 has 2"),
        ({"grid": None}, "outcome 'grid' does not go with no grid"),
    ],
)
def test_impossible_predictions_are_refused(make_run: MakeRun, change: dict[str, object], message: str) -> None:
    run = make_run("a", SPEC, {"good": 1.0}, fails=0.0)
    path = run / "predictions.jsonl"
    lines = path.read_text().splitlines()
    lines[5] = json.dumps({**json.loads(lines[5]), **change})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=message):
        score_run(run)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (9, "good, task cross-000000, test 0: 5 answers where 4 were requested"),
        (0, "good, task cross-000000, test 0: sample 0 occurs twice"),
    ],
)
def test_more_predictions_than_requested_are_refused(make_run: MakeRun, sample: int, message: str) -> None:
    run = make_run("a", SPEC, {"good": 1.0})
    path = run / "predictions.jsonl"
    text = path.read_text()
    again = {**json.loads(text.splitlines()[0]), "sample_index": sample}
    path.write_text(text + json.dumps(again) + "\n")
    with pytest.raises(DataError, match=message):
        score_run(run)


def saved_tasks(path: Path, tasks: Sequence[Task]) -> Path:
    path.write_text(json.dumps({task.id: task_json(task) for task in tasks}))
    return path


@pytest.mark.parametrize("old", [False, True])
def test_a_changed_dataset_is_refused(make_run: MakeRun, tmp_path: Path, old: bool) -> None:
    declared = list(iterate_tasks(open_dataset(SPEC)))
    path = saved_tasks(tmp_path / "tasks.json", declared)
    run = make_run("a", str(path), {"good": 1.0})
    if old:  # what runs of older versions lack
        edit_manifest(run, task_digests=None)
    assert declared_tasks(RunFolder(run).manifest()) == declared
    for changed in (declared[:-1], [*declared[:-1], replace(declared[0], id=declared[-1].id)]):
        saved_tasks(path, changed)
        with pytest.raises(DataError, match="its content changed since"):
            declared_tasks(RunFolder(run).manifest())


def test_only_declared_tasks_must_be_as_they_were(make_run: MakeRun, tmp_path: Path) -> None:
    declared = list(iterate_tasks(open_dataset(SPEC)))
    path = saved_tasks(tmp_path / "tasks.json", declared)
    run = make_run("a", str(path), {"good": 1.0})
    saved_tasks(path, [*random_tasks(3), *reversed(declared)])  # others, and another order
    assert declared_tasks(RunFolder(run).manifest()) == declared


def test_test_outputs_that_become_known_later_are_used(make_run: MakeRun, tmp_path: Path) -> None:
    declared = list(iterate_tasks(open_dataset(SPEC)))
    path = saved_tasks(tmp_path / "tasks.json", declared)
    run = make_run("a", str(path), {"good": 1.0}, fails=0.0)
    edit_manifest(run, task_digests=[content_digest(without_test_outputs(task)) for task in declared])
    assert score_run(run).models["good"].metrics["accuracy"].value == 1.0


def random_tasks(count: int) -> list[Task]:
    return [random_task(Stream("more", k), 3, name=f"more-{k}") for k in range(count)]


@given(one=tasks(), two=tasks())
def test_equal_digests_mean_equal_content(one: Task, two: Task) -> None:
    assert (content_digest(one) == content_digest(two)) == (one == replace(two, id=one.id))
    assert content_digest(one) == content_digest(replace(one, id="other"))
    shown = content_digest(one)[:SHOWN_DIGITS]
    assert content_digest(without_test_outputs(one))[:SHOWN_DIGITS] == shown
    assert content_digest(without_test_outputs(one)) != content_digest(one)
    pairs = replace(one, train=one.train + one.test[:1], test=one.test[1:] or one.test)
    assert content_digest(pairs)[:SHOWN_DIGITS] != shown


def test_a_comparison_lists_the_tasks_won_and_its_verdict_follows_p(make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"bad": 0.1, "good": 0.9})
    scored = score_saved(open_predictions(run))
    rows = compare_pairs(all_pairs(scored), seed=0)
    assert [row.metric for row in rows] == ["accuracy", "pass_n", "vote_2", "vote_1"]
    for row in rows:
        assert (row.model, row.baseline) == ("good", "bad")
        assert len(row.won) == row.comparison.won
        assert len(row.lost) == row.comparison.lost
        assert (row.comparison.verdict == "not resolved") == (row.comparison.p_holm >= 0.05)
    assert rows[0].comparison.verdict == "better"


def test_rounding_differences_are_no_wins() -> None:
    def model(name: str, rows: list[tuple[int, ...]]) -> ModelScores:
        outputs = {
            f"t{i}": [OutputScore(10, e, (), 10 - e, e / 10, e / 10, 0.0, 0.0) for e in row]
            for i, row in enumerate(rows)
        }
        return ModelScores(name, average_outputs(outputs), outputs, {}, 0)

    pair = model("a", [(1, 2, 3), (9, 1, 6)]), model("b", [(3, 2, 1), (6, 7, 1)])
    (row,) = compare_pairs([pair], seed=0, metrics=("accuracy",))
    assert (row.won, row.lost) == (("t1",), ())
    assert (row.comparison.won, row.comparison.lost) == (1, 0)


def test_costs_count_only_the_requests_that_were_sent(make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"m": 0.5})
    path = run / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0] |= {"grid": None, "outcome": "too_long", "n_tokens": None}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    cost = score_run(run).cost
    assert cost is not None
    assert cost["m"].requests == len(lines) - 1
    assert cost["m"].tokens == 4 * (len(lines) - 1)


def test_the_seed_decides_intervals_and_comparisons(make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"m": 0.4, "k": 0.6})
    bounds, comparisons = [], []
    for seed in (0, 5, 5):
        edit_manifest(run, seed=seed)
        bounds.append([(metric.low, metric.high) for metric in score_run(run).models["m"].metrics.values()])
        scored = select_models((str(run),))
        assert scored.seed == seed
        rows = compare_pairs(all_pairs(scored.scored), scored.seed)
        comparisons.append([(row.comparison.low, row.comparison.high, row.comparison.p) for row in rows])
    for values in (bounds, comparisons):
        assert values[0] != values[1] == values[2]


def test_several_runs_are_compared_with_the_first_ones_seed(make_run: MakeRun) -> None:
    one, two = make_run("one", SPEC, {"m": 0.5}, seed=3), make_run("two", SPEC, {"m": 0.5}, seed=8)
    assert select_models((str(one), str(two))).seed == 3
    assert select_models((str(two), str(one))).seed == 8


def test_common_tasks_count_only_their_predictions(make_run: MakeRun) -> None:
    one, two = make_run("one", SPEC, {"m": 0.5}), make_run("two", "toy/cross/evaluation#n=10", {"m": 0.5})
    wide, narrow = select_models((str(one), str(two)), common=True).scored
    assert (wide.predictions, narrow.predictions) == (10 * 4, 10 * 4)
    assert set(wide.outputs) == set(narrow.outputs)


def test_runs_are_selected_by_name_and_their_differences_give_warnings(make_run: MakeRun) -> None:
    one = make_run("one", SPEC, {"m": 0.5, "k": 0.1})
    two = make_run("two", SPEC, {"m": 0.5}, n=2)
    selected = select_models((f"{one}@m", str(two)))
    assert [scores.model for scores in selected.scored] == ["one@m", "two@m"]
    assert selected.warnings == ["the runs differ in n (2, 4)"]


def test_the_summary_sorts_by_vote_2_and_flags_few_tasks(make_run: MakeRun, tmp_path: Path) -> None:
    text = summary_table(score_run(make_run("a", SPEC, {"bad": 0.1, "good": 0.9})))
    lines = text.splitlines()
    assert lines[2].startswith("| good")
    assert lines[3].startswith("| bad")
    assert "Fewer than 50 tasks" in text
    assert "9,999 resamples, seed 0" in text
