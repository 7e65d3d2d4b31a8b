"""``bench submit``: submissions made from runs, and the check of submissions from elsewhere."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from harness.core.grid import Grid, Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.results.kaggle_submission import PLACEHOLDER, check_submission, make_submission
from harness.scoring.model_scores import score_model
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_run
from harness.scoring.run_selector import select_model
from harness.voting.selection_rules import get_rule
from tests.conftest import ROOT
from tests.support.commands import run_bench
from tests.support.runs.run_folders import MakeRun, edit_manifest

SAVED = ROOT / "tests" / "fixtures" / "saved"
TASKS = str(SAVED / "tasks.json")
SPEC = "toy/cross/evaluation#n=20"


def loaded(spec: str) -> list[Task]:
    return list(iterate_tasks(open_dataset(spec)))


def test_a_submission_scores_what_the_run_scored(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("a", SPEC, {"good": 0.4})
    path = tmp_path / "submission.json"
    status, out, _ = run_bench(capsys, "submit", run, "-o", path)
    assert status == 0
    assert "20 tasks, 20 test outputs, two attempts each; read back and checked" in out
    content = json.loads(path.read_text())
    assert list(content) == [task.id for task in loaded(SPEC)]
    assert all(list(attempts) == ["attempt_1", "attempt_2"] for outputs in content.values() for attempts in outputs)
    saved = open_predictions(path, SPEC, "kaggle")
    again = score_model(saved.predictions[0], saved.tasks, saved.n).tasks
    voted = score_run(run).models["good"].metrics["vote_2"].value
    # Log-probabilities leave no tie open here, so that the two attempts are what vote_2 counts.
    assert again.values_of("pass_n").mean() == pytest.approx(voted)
    first = path.read_bytes()
    run_bench(capsys, "submit", run, "-o", path)
    assert path.read_bytes() == first
    assert run_bench(capsys, "submit", "--check", path, "--dataset", SPEC)[0] == 0


def test_ties_are_drawn_by_seed_task_and_output(make_run: MakeRun) -> None:
    drawn: Counter[bytes] = Counter()
    contents = []
    for seed in range(6):
        run = make_run(f"s{seed}", SPEC, {"m": 0.0}, n=3, seed=seed, fails=0.0)
        path = run / "predictions.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["grid"], line["cumulative_logprob"] = [[line["sample_index"]]], None
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        submission = make_submission(select_model(str(run)), get_rule("vote"))
        assert submission == make_submission(select_model(str(run)), get_rule("vote"))
        contents.append(submission.content)
        drawn.update(bytes(attempts["attempt_1"][0]) for outputs in submission.content.values() for attempts in outputs)
    assert all(20 < drawn[bytes([i])] < 60 for i in range(3)), drawn
    assert all(one != two for one, two in itertools.combinations(contents, 2))


def test_outputs_without_two_grids_are_filled_and_reported(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("a", SPEC, {"m": 1.0}, fails=0.0)
    path = run / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["task_id"] != "cross-000003"))
    status, _, err = run_bench(capsys, "submit", run, "-o", tmp_path / "s.json")
    assert status == 0
    assert "warning: 1 outputs have no predicted grid and get placeholders" in err
    assert "19 outputs have one distinct grid; it is both attempts" in err
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["cross-000003"] == [{"attempt_1": PLACEHOLDER, "attempt_2": PLACEHOLDER}]
    assert content["cross-000004"][0]["attempt_1"] == content["cross-000004"][0]["attempt_2"]
    status, out, _ = run_bench(capsys, "submit", "--check", tmp_path / "s.json", "--dataset", SPEC)
    assert (status, "1 outputs hold only placeholders" in out) == (0, True)


def test_tasks_without_known_outputs_can_be_submitted(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    challenges = tmp_path / "test_challenges.json"
    combined = {
        task.id: {
            "train": [
                {"input": pair.input.to_rows(), "output": pair.output.to_rows()} for pair in task.train if pair.output
            ],
            "test": [{"input": pair.input.to_rows(), "output": pair.input.to_rows()} for pair in task.test],
        }
        for task in loaded(SPEC)
    }
    challenges.write_text(json.dumps(combined))
    run = make_run("a", str(challenges), {"m": 0.5})
    for task in combined.values():
        for pair in task["test"]:
            del pair["output"]
    challenges.write_text(json.dumps(combined))
    edit_manifest(run, dataset_digest=open_dataset(str(challenges)).digest(), task_digests=None)
    assert run_bench(capsys, "submit", run, "-o", tmp_path / "s.json")[0] == 0
    assert check_submission(tmp_path / "s.json", loaded(str(challenges))).problems == []


def test_an_unfinished_run_gives_a_warning(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("a", SPEC, {"m": 0.5})
    for finished in (None, "2026-01-01T00:00:00+00:00"):
        edit_manifest(run, finished=finished)
        status, _, err = run_bench(capsys, "submit", run, "-o", tmp_path / "s.json")
        assert status == 0
        assert ("is unfinished; what was not sampled counts as missing" in err) == (finished is None)


def test_another_rule_can_choose_the_attempts(make_run: MakeRun) -> None:
    selected = select_model(str(make_run("a", SPEC, {"m": 0.5})))
    submission = make_submission(selected, get_rule("first"))
    for task, outputs in selected.predictions.outputs.items():
        earliest = min(outputs[0].votes(), key=lambda vote: vote.sample, default=None)
        if earliest is not None:
            assert submission.content[task][0]["attempt_1"] == earliest.grid.to_rows()


def test_a_run_of_several_models_needs_a_model(make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"x": 0.5, "y": 0.5})
    with pytest.raises(ConfigError, match="holds several models; name one with RUN@MODEL: x, y"):
        select_model(str(run))
    assert select_model(f"{run}@y").predictions.model == "y"


G = [[1, 2], [3, 4]]
TWO = {"attempt_1": G, "attempt_2": G}
GOOD = {"a": [TWO], "b": [TWO, TWO], "c": [TWO], "d": [TWO]}


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ({"b": [TWO]}, ["line 1, task b: 1 test outputs, where the dataset has 2"]),
        ({"a": TWO}, ["line 1, task a: expected a list of 1 test outputs, got {'attempt_1': [[1, 2], [3, 4]]"]),
        ({"a": [[G, G]]}, ["line 1, task a, test 0: expected an object with attempt_1 and attempt_2, got"]),
        ({"a": [{"attempt_1": G}]}, ["line 1, task a, test 0: attempt_2 is missing"]),
        ({"a": [{**TWO, "attempt_3": G}]}, ["line 1, task a, test 0: 'attempt_3' is one attempt too many"]),
        (
            {"a": [{"attempt_1": [], "attempt_2": [[1], [2, 3]]}]},
            [
                "line 1, task a, test 0, attempt_1: expected a non-empty list of rows, got []",
                "line 1, task a, test 0, attempt_2, row 1: 2 cells, but row 0 has 1",
            ],
        ),
        (
            {"a": [{"attempt_1": G, "attempt_2": [[1, 10]]}]},
            ["attempt_2, row 0, column 1: expected a colour 0-9, got 10"],
        ),
        (
            {"a": [{"attempt_1": G, "attempt_2": [[1.0]]}]},
            ["attempt_2, row 0, column 0: expected a colour 0-9, got 1.0"],
        ),
        ({"a": [{"attempt_1": G, "attempt_2": [[0] * 31]}]}, ["attempt_2: 1x31 is over 30x30"]),
        ({"e": [TWO]}, ["line 1, task e: the dataset lacks it"]),
        ({"c": None, "d": None}, ["task c: missing", "task d: missing"]),
    ],
)
def test_every_problem_of_a_submission_is_reported(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: dict[str, object], problems: list[str]
) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({task: own for task, own in {**GOOD, **change}.items() if own is not None}))
    reported = check_submission(path, loaded(TASKS)).problems
    assert len(reported) == len(problems)
    assert all(problem in line for problem, line in zip(problems, reported, strict=True)), reported
    status, out, err = run_bench(capsys, "submit", "--check", path, "--dataset", TASKS)
    assert (status, out) == (1, "")
    assert f"{len(problems)} problems" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": [], "a": []', "expected a comma"),
        (json.dumps({"a": [TWO]})[:-1] + "," + json.dumps(GOOD)[1:], "task a: occurs twice"),
        ("[]", "task d: missing"),
        ("[[1]]", "the file is a list"),
        ("", "expected a list or an object"),
    ],
)
def test_damaged_submissions_are_reported(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "s.json"
    path.write_text(content)
    status, _, err = run_bench(capsys, "submit", "--check", path, "--dataset", TASKS)
    assert status == 1
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [[], ["run"], ["-o", "x"], ["run", "--check", str(SAVED / "submission.json")]])
def test_wrong_options_exit_with_2(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run_bench(capsys, "submit", *words)[0] == 2


def test_only_outputs_with_two_placeholders_are_counted(tmp_path: Path) -> None:
    filled = {"attempt_1": G, "attempt_2": PLACEHOLDER}
    empty = {"attempt_1": PLACEHOLDER, "attempt_2": PLACEHOLDER}
    path = tmp_path / "s.json"
    path.write_text(json.dumps({**GOOD, "b": [filled, empty]}))
    assert check_submission(path, loaded(TASKS)).placeholders == 1


def test_a_valid_submission_has_no_problems() -> None:
    assert check_submission(SAVED / "submission.json", loaded(TASKS)).problems == []
    assert Grid.from_rows(PLACEHOLDER).shape == (2, 2)
