"""``bench score`` as its users meet it: what it prints, writes, warns of and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cli import cli
from harness.cli.entry import run_cli
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.schema import Results, ResultsWithRules
from harness.scoring.run_scores import score_run
from harness.voting.metrics import METRICS
from tests.conftest import ROOT
from tests.support.data_samples import task_json
from tests.support.run_folders import MakeRun, edit_manifest

SAVED = ROOT / "tests" / "fixtures" / "saved"
TASKS = str(SAVED / "tasks.json")
SPEC = "toy/cross/evaluation#n=12"
TRUTH = {"a": [[[1, 2], [3, 4]]], "b": [[[1, 2], [3, 4]], [[5, 6]]], "c": [[[7, 8, 9]]], "d": [[[5, 6]]]}


def score(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """The exit status of bench score, and what it wrote to the two outputs."""
    status = run_cli(cli, ["score", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def results(capsys: pytest.CaptureFixture[str], *words: object) -> Results:
    status, out, err = score(capsys, *words, "--json", "-")
    assert status == 0, err
    return Results.model_validate_json(out)


def test_the_json_is_results_json_under_an_unnamed_model(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = score(capsys, SAVED / "arc24.json", "--dataset", TASKS, "--json", "-")
    assert status == 0
    found = json.loads(out)
    assert (list(found["models"]), found["n"], found["seed"], found["confidence"]) == (["-"], 3, 0, 0.95)
    model = found["models"]["-"]
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
    found = results(capsys, SAVED / "submission.json", "--dataset", TASKS, "--format", "kaggle")
    assert found.models["-"].metrics["vote_2"].per_output == pytest.approx(4 / 5)


def test_what_is_printed_for_people(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out_file = tmp_path / "results.json"
    status, out, _ = score(
        capsys, SAVED / "arc24_task_results.json", "--dataset", TASKS, "--rules", "all", "--json", out_file
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
    found = results(capsys, run)
    assert RunFolder(run).results() == found == score_run(run)
    assert found.cost is not None
    assert found.cost["good"].requests == 12 * 4
    assert results(capsys, run / "predictions.jsonl") == found
    status, _, _ = score(capsys, run, "--rules", "logprob,first")
    assert status == 0
    assert RunFolder(run).results() == found


def test_a_warning_names_five_tasks_and_counts_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tasks = {f"t{k:03}": task_json(t) for k, t in enumerate(iterate_tasks(open_dataset("toy/copy/evaluation#n=80")))}
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    answer: Any = tasks["t000"]
    (tmp_path / "s.json").write_text(json.dumps({"t000": [{"attempt_1": answer["test"][0]["output"]}]}))
    _, _, err = score(capsys, tmp_path / "s.json", "--dataset", tmp_path / "tasks.json")
    assert "of 80 tasks 79 (t001, t002, t003, t004, t005, …) have no prediction and count as wrong\n" in err


def test_a_run_held_against_another_dataset_leaves_its_results_alone(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun
) -> None:
    run = make_run("a", SPEC, {"good": 0.9})
    wider = results(capsys, run, "--dataset", "toy/cross/evaluation#n=14")
    assert wider.models["good"].tasks == 14
    assert wider.models["good"].failures["missing"] == 2 * 4
    assert not (run / "results.json").exists()
    status, out, err = score(capsys, run, "--dataset", "toy/cross/evaluation#n=10")
    assert (status, out) == (1, "")
    assert "answers to task cross-000010, test 0, which the dataset lacks" in err


def test_a_run_says_nothing_about_other_tasks_under_its_ids(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("a", "toy/copy/evaluation#n=8", {"m": 0.9})
    for old in (False, True):
        if old:  # what runs of older versions lack
            edit_manifest(run, task_digests=None)
        status, out, err = score(capsys, run, "--dataset", "toy/copy/training#n=8#seed=2")
        assert (status, out) == (1, "")
        assert "was asked other tasks than toy/copy/training#n=8#seed=2 has under the ids 8 (copy-000000" in err
        assert score(capsys, run, "--dataset", "toy/copy/evaluation#n=9")[0] == 0
    edit_manifest(run, dataset=str(tmp_path / "gone.json"))
    status, _, err = score(capsys, run, "--dataset", "toy/copy/evaluation#n=9")
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
    found = results(capsys, run, "--dataset", tmp_path / "corrected.json")
    assert found.models["m"].metrics["accuracy"].value == pytest.approx(7 / 8)


def test_saved_lines_of_several_models_are_scored_by_name(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("a", SPEC, {"b": 0.9, "a": 0.2})
    lines = tmp_path / "saved.jsonl"
    lines.write_bytes((run / "predictions.jsonl").read_bytes())
    found = results(capsys, lines, "--dataset", SPEC)
    assert list(found.models) == ["a", "b"]
    assert found.models == results(capsys, run).models


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["submission.json"], 2, "name the tasks that it answers with --dataset"),
        (["submission.json", "--dataset", "toy/nobody"], 2, "toy/nobody"),
        (["submission.json", "--dataset", "toy/cross#n=2"], 1, "task a: the dataset lacks it"),
        (["submission.json", "--dataset", TASKS, "--rules", "median"], 2, "no selection rule 'median'"),
        (["submission.json", "--dataset", TASKS, "--rules", "logprob"], 2, "have no log-probabilities"),
        (["submission.json", "--dataset", TASKS, "--rules", "marc"], 2, "do not say which view"),
        (["submission.json", "--dataset", TASKS, "-n", "1"], 1, "task a, test 0: 2 answers where 1 were due"),
        (["tasks.json", "--dataset", TASKS], 1, "task a: expected a list of test outputs"),
        (["submission.json", "--dataset", "arc-missing.json"], 2, "arc-missing.json"),
    ],
)
def test_wrong_use_and_wrong_files(
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    found, out, err = score(capsys, SAVED / words[0], *words[1:])
    assert (found, out) == (status, "")
    assert message in err


def test_a_run_knows_its_n(capsys: pytest.CaptureFixture[str], make_run: MakeRun) -> None:
    status, _, err = score(capsys, make_run("a", SPEC, {"good": 0.9}), "-n", "3")
    assert status == 2
    assert "leave out -n" in err


GRIDS = [[[1, 2], [3, 4]], [[5, 6]], [[7, 8, 9]], [[1, 2], [3, 0]], []]


@given(
    st.fixed_dictionaries(
        {
            task: st.lists(st.lists(st.sampled_from(GRIDS), max_size=4), min_size=len(outputs), max_size=len(outputs))
            for task, outputs in TRUTH.items()
        }
    ).filter(lambda made: any(any(own) for own in made.values()))
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scores_of_any_file_equal_a_count_by_hand(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, made: dict[str, list[list[list[list[int]]]]]
) -> None:
    path = tmp_path / "made.json"
    path.write_text(
        json.dumps({t: [{f"attempt_{k + 1}": g for k, g in enumerate(own)} for own in o] for t, o in made.items()})
    )
    n = max(len(own) for outputs in made.values() for own in outputs)
    found = results(capsys, path, "--dataset", TASKS).models["-"]
    rates = {
        task: [
            (own.count(true) / n, float(true in own), (own.count([]) + n - len(own)) / n)
            for own, true in zip(made[task], trues, strict=True)
        ]
        for task, trues in TRUTH.items()
    }
    for column, metric in enumerate(("accuracy", "pass_n", "unanswered")):
        values = [sum(rate[column] for rate in own) / len(own) for own in rates.values()]
        assert found.metrics[metric].value == pytest.approx(sum(values) / 4)
        assert found.metrics[metric].per_output == pytest.approx(
            sum(rate[column] for own in rates.values() for rate in own) / 5
        )
    assert sum(found.failures.values()) == round(found.metrics["unanswered"].per_output * 5 * n)
