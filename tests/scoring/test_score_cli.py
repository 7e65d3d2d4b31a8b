"""``bench score``: what it prints and writes, and what it warns of and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.schemas.results_schema import Results, ResultsWithRules
from harness.scoring.run_scores import score_run
from harness.voting.metrics import METRICS
from tests.conftest import ROOT
from tests.support.commands import run_bench
from tests.support.data_samples import task_json
from tests.support.runs.run_folders import MakeRun, edit_manifest

SAVED = ROOT / "tests" / "fixtures" / "saved"
TASKS = str(SAVED / "tasks.json")
SPEC = "toy/cross/evaluation#n=12"
TRUTH = {"a": [[[1, 2], [3, 4]]], "b": [[[1, 2], [3, 4]], [[5, 6]]], "c": [[[7, 8, 9]]], "d": [[[5, 6]]]}


def results(capsys: pytest.CaptureFixture[str], *words: object) -> Results:
    """Return the JSON of ``bench score``."""
    status, out, err = run_bench(capsys, "score", *words, "--json", "-")
    assert status == 0, err
    return Results.model_validate_json(out)


def test_the_json_is_results_json_under_an_unnamed_model(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run_bench(capsys, "score", SAVED / "arc24.json", "--dataset", TASKS, "--json", "-")
    assert status == 0
    scored = json.loads(out)
    assert (list(scored["models"]), scored["n"], scored["seed"], scored["confidence"]) == (["-"], 3, 0, 0.95)
    model = scored["models"]["-"]
    assert (model["tasks"], model["outputs"], model["predictions"]) == (4, 5, 15)
    assert model["failures"] == {"bad_shape": 1, "bad_value": 1, "missing": 4, "unparsed": 2}
    assert list(model["metrics"]) == list(METRICS)
    accuracy = model["metrics"]["accuracy"]
    assert accuracy["value"] == pytest.approx((2 / 3 + (1 / 3 + 1 / 3) / 2) / 4)
    assert accuracy["per_output"] == pytest.approx((2 + 1 + 1) / 15)
    assert set(accuracy) == {"value", "low", "high", "method", "per_output", "strict"}
    assert model["metrics"]["pass_n"]["strict"] == 0.5
    assert "of 4 tasks 1 (d) have no prediction and count as wrong\n" in err


def test_kaggles_score_is_vote_2_per_output(capsys: pytest.CaptureFixture[str]) -> None:
    scored = results(capsys, SAVED / "submission.json", "--dataset", TASKS, "--format", "kaggle")
    assert scored.models["-"].metrics["vote_2"].per_output == pytest.approx(4 / 5)


def test_the_tables_and_the_json_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out_file = tmp_path / "results.json"
    status, out, _ = run_bench(
        capsys, "score", SAVED / "arc24_task_results.json", "--dataset", TASKS, "--rules", "all", "--json", out_file
    )
    assert status == 0
    assert out == (SAVED / "score.txt").read_text()
    rules = ResultsWithRules.model_validate_json(out_file.read_bytes()).rules["-"]
    assert list(rules) == ["vote", "logprob", "first", "marc", "count-nll"]
    assert (rules["vote"].difference, rules["vote"].verdict) == (None, None)
    for own in rules.values():
        assert own.vote_2 + own.found_not_chosen + own.not_found == pytest.approx(1)
        assert sum(own.rank.values()) == pytest.approx(1)
        assert own.rank["1"] == pytest.approx(own.vote_1)
        assert own.rank["1"] + own.rank["2"] == pytest.approx(own.vote_2)


def test_a_run_needs_no_dataset_and_its_results_are_rewritten(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun
) -> None:
    run = make_run("a", SPEC, {"good": 0.9, "bad": 0.2})
    scored = results(capsys, run)
    assert RunFolder(run).results() == scored == score_run(run)
    assert scored.cost is not None
    assert scored.cost["good"].requests == 12 * 4
    assert results(capsys, run / "predictions.jsonl") == scored
    status, _, _ = run_bench(capsys, "score", run, "--rules", "logprob,first")
    assert status == 0
    assert RunFolder(run).results() == scored


def test_a_warning_lists_five_tasks_and_counts_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tasks = {f"t{k:03}": task_json(t) for k, t in enumerate(iterate_tasks(open_dataset("toy/copy/evaluation#n=80")))}
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    answer: Any = tasks["t000"]
    (tmp_path / "s.json").write_text(json.dumps({"t000": [{"attempt_1": answer["test"][0]["output"]}]}))
    _, _, err = run_bench(capsys, "score", tmp_path / "s.json", "--dataset", tmp_path / "tasks.json")
    assert "of 80 tasks 79 (t001, t002, t003, t004, t005, …) have no prediction and count as wrong\n" in err


def test_scoring_a_run_on_another_dataset_does_not_write_its_results(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun
) -> None:
    run = make_run("a", SPEC, {"good": 0.9})
    wider = results(capsys, run, "--dataset", "toy/cross/evaluation#n=14")
    assert wider.models["good"].tasks == 14
    assert wider.models["good"].failures["missing"] == 2 * 4
    assert not (run / "results.json").exists()
    status, out, err = run_bench(capsys, "score", run, "--dataset", "toy/cross/evaluation#n=10")
    assert (status, out) == (1, "")
    assert "answers to task cross-000010, test 0, which the dataset lacks" in err


def test_other_tasks_under_the_ids_of_a_run_are_refused(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("a", "toy/copy/evaluation#n=8", {"m": 0.9})
    for old in (False, True):
        if old:  # what runs of older versions lack
            edit_manifest(run, task_digests=None)
        status, out, err = run_bench(capsys, "score", run, "--dataset", "toy/copy/training#n=8#seed=2")
        assert (status, out) == (1, "")
        assert "was asked other tasks than toy/copy/training#n=8#seed=2 has under the ids 8 (copy-000000" in err
        assert run_bench(capsys, "score", run, "--dataset", "toy/copy/evaluation#n=9")[0] == 0
    edit_manifest(run, dataset=str(tmp_path / "gone.json"))
    status, _, err = run_bench(capsys, "score", run, "--dataset", "toy/copy/evaluation#n=9")
    assert status == 0
    assert "it cannot be checked that toy/copy/evaluation#n=9 has the tasks that were asked" in err


def test_other_outputs_for_the_same_inputs_are_scored(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("a", "toy/copy/evaluation#n=8", {"m": 1.0}, fails=0.0)
    corrected = {task.id: task_json(task) for task in iterate_tasks(open_dataset("toy/copy/evaluation#n=8"))}
    first: Any = corrected["copy-000000"]
    first["test"][0]["output"] = [[0]]
    (tmp_path / "corrected.json").write_text(json.dumps(corrected))
    scored = results(capsys, run, "--dataset", tmp_path / "corrected.json")
    assert scored.models["m"].metrics["accuracy"].value == pytest.approx(7 / 8)


def test_saved_lines_of_several_models_are_scored_by_name(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("a", SPEC, {"b": 0.9, "a": 0.2})
    lines = tmp_path / "saved.jsonl"
    lines.write_bytes((run / "predictions.jsonl").read_bytes())
    scored = results(capsys, lines, "--dataset", SPEC)
    assert list(scored.models) == ["a", "b"]
    assert scored.models == results(capsys, run).models


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["submission.json"], 2, "name the tasks that it answers with --dataset"),
        (["submission.json", "--dataset", "toy/nobody"], 2, "toy/nobody"),
        (["submission.json", "--dataset", "toy/cross#n=2"], 1, "task a: the dataset lacks it"),
        (["submission.json", "--dataset", TASKS, "--rules", "median"], 2, "no selection rule 'median'"),
        (["submission.json", "--dataset", TASKS, "--rules", "logprob"], 2, "have no log-probabilities"),
        (["submission.json", "--dataset", TASKS, "--rules", "marc"], 2, "do not say which view"),
        (["submission.json", "--dataset", TASKS, "-n", "1"], 1, "task a, test 0: 2 answers where 1 were requested"),
        (["tasks.json", "--dataset", TASKS], 1, "task a: expected a list of test outputs"),
        (["submission.json", "--dataset", "arc-missing.json"], 2, "arc-missing.json"),
    ],
)
def test_wrong_options_and_wrong_files(
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    scored, out, err = run_bench(capsys, "score", SAVED / words[0], *words[1:])
    assert (scored, out) == (status, "")
    assert message in err


def test_n_is_refused_for_a_run(capsys: pytest.CaptureFixture[str], make_run: MakeRun) -> None:
    status, _, err = run_bench(capsys, "score", make_run("a", SPEC, {"good": 0.9}), "-n", "3")
    assert status == 2
    assert "leave out -n" in err


GRIDS = [[[1, 2], [3, 4]], [[5, 6]], [[7, 8, 9]], [[1, 2], [3, 0]], []]


@given(
    st.fixed_dictionaries(
        {
            task: st.lists(st.lists(st.sampled_from(GRIDS), max_size=4), min_size=len(outputs), max_size=len(outputs))
            for task, outputs in TRUTH.items()
        }
    ).filter(lambda attempts_by_task: any(any(own) for own in attempts_by_task.values()))
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scores_of_any_file_equal_a_count_by_hand(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, attempts_by_task: dict[str, list[list[list[list[int]]]]]
) -> None:
    path = tmp_path / "made.json"
    path.write_text(
        json.dumps(
            {t: [{f"attempt_{k + 1}": g for k, g in enumerate(own)} for own in o] for t, o in attempts_by_task.items()}
        )
    )
    n = max(len(own) for outputs in attempts_by_task.values() for own in outputs)
    scored = results(capsys, path, "--dataset", TASKS).models["-"]
    rates = {
        task: [
            (own.count(true) / n, float(true in own), (own.count([]) + n - len(own)) / n)
            for own, true in zip(attempts_by_task[task], trues, strict=True)
        ]
        for task, trues in TRUTH.items()
    }
    for column, metric in enumerate(("accuracy", "pass_n", "unanswered")):
        values = [sum(rate[column] for rate in own) / len(own) for own in rates.values()]
        assert scored.metrics[metric].value == pytest.approx(sum(values) / 4)
        assert scored.metrics[metric].per_output == pytest.approx(
            sum(rate[column] for own in rates.values() for rate in own) / 5
        )
    assert sum(scored.failures.values()) == round(scored.metrics["unanswered"].per_output * 5 * n)
