"""``bench compare`` and ``bench gate`` of a run with a file of predictions, such as somebody's submission."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.api import compare
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.scoring.run_selector import select_models
from harness.voting.metrics import METRICS
from tests.support.commands import run_bench
from tests.support.runs.run_folders import MakeRun, edit_manifest, load_records, wrong_grid

SPEC = "toy/cross/evaluation#n=40"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def mine(make_run: MakeRun) -> Path:
    return make_run("mine", SPEC, {"adapter": 0.9})


def write_submission(path: Path, solved: Sequence[int]) -> Path:
    """Write two attempts at each task; the second is right for the tasks of ``solved``, the others are wrong."""
    entries = {}
    for number, task in enumerate(iterate_tasks(open_dataset(SPEC))):
        truths = [pair.output for pair in task.test if pair.output is not None]
        entries[task.id] = [
            {
                "attempt_1": wrong_grid(truth, 0).to_rows(),
                "attempt_2": (truth if number in solved else wrong_grid(truth, 1)).to_rows(),
            }
            for truth in truths
        ]
    path.write_text(json.dumps(entries))
    return path


def compared(capsys: Capture, *words: object) -> tuple[list[dict[str, Any]], str]:
    status, out, errors = run_bench(capsys, "compare", *words, "--json", "-")
    assert status == 0, errors
    return json.loads(out), errors


@pytest.mark.parametrize("more", [[], ["--dataset", SPEC]])
def test_a_run_is_compared_with_a_submission_by_vote_2(
    capsys: Capture, mine: Path, tmp_path: Path, more: list[str]
) -> None:
    """The tasks are those of the run, and the difference is that of a recount."""
    theirs = write_submission(tmp_path / "theirs.json", range(10))
    (row,), errors = compared(capsys, mine, theirs, *more)
    assert (row["metric"], row["model"], row["baseline"]) == ("vote_2", "theirs.json", "mine@adapter")
    ours = select_models([str(mine)]).scored[0].tasks.values_of("vote_2")
    assert row["comparison"]["delta"] == pytest.approx((sum(i < 10 for i in range(40)) - ours.sum()) / 40)
    assert "theirs.json has the attempts that were submitted" in errors
    assert compare(mine, theirs_run(theirs)).rows[0].comparison.delta == row["comparison"]["delta"]
    status, _, errors = run_bench(capsys, "compare", mine, theirs, "--metric", "vote_1")
    assert status == 2
    assert "vote_1 is not compared: theirs.json has the attempts" in errors


def theirs_run(path: Path) -> Any:
    from harness.api import load_run

    return load_run(path, SPEC)


def test_what_a_file_does_not_answer_is_pointed_out(capsys: Capture, mine: Path, tmp_path: Path) -> None:
    """It counts as wrong, in a comparison and in a gate."""
    theirs = write_submission(tmp_path / "theirs.json", range(40))
    entries = json.loads(theirs.read_text())
    theirs.write_text(json.dumps(dict(list(entries.items())[:30])))
    text = "have no prediction and count as wrong"
    (row,), errors = compared(capsys, mine, theirs, "--metric", "vote_2")
    assert f"theirs.json: of 40 tasks 10 ({list(entries)[30]}, " in errors
    assert errors.count(text) == 1
    ours = select_models([str(mine)]).scored[0].tasks.values_of("vote_2")
    assert row["comparison"]["delta"] == pytest.approx((30 - ours.sum()) / 40)
    assert text in run_bench(capsys, "gate", theirs, "--dataset", SPEC, "--min", 0.5)[2]
    assert any(text in warning for warning in compare(mine, theirs_run(theirs)).warnings)


def test_files_are_of_no_recipe(capsys: Capture, make_run: MakeRun, mine: Path, tmp_path: Path) -> None:
    """A comparison of recipes that names one is refused, and one that would group runs says that it does not."""
    one, two, three, four = (write_submission(tmp_path / f"s{n}.json", range(n)) for n in range(4))
    named = ["--recipe", f"a={one},{two}", "--recipe", f"b={three},{four}", "--dataset", SPEC]
    sides = [one, two, "--baseline", three, "--baseline", four, "--dataset", SPEC]
    for words in (["compare", *named], ["gate", *named, "--margin", 0.1], ["gate", *sides, "--margin", 0.1]):
        status, out, errors = run_bench(capsys, *words)
        assert (status, out) == (2, ""), errors
        assert "s0.json is a file of predictions, which does not say how its model was trained" in errors
    second = make_run("second", SPEC, {"adapter": 0.5})
    status, out, errors = run_bench(capsys, "compare", mine, second, three)
    assert (status, "s2.json is a file, so that runs are not grouped by recipe" in out) == (0, True), errors
    assert "grouped by recipe" not in run_bench(capsys, "compare", mine, three)[1]
    status, _, errors = run_bench(capsys, "compare", mine, three, "--training", tmp_path)
    assert (status, "--training finds the recipes of runs" in errors) == (2, True)
    assert "s0.json, s1.json have the attempts" in run_bench(capsys, "compare", mine, one, two)[2]


def test_the_predictions_of_a_run_name_the_run(capsys: Capture, make_run: MakeRun, mine: Path, tmp_path: Path) -> None:
    second = make_run("second", SPEC, {"a": 0.5, "b": 0.2})
    by_folder, _ = compared(capsys, mine, f"{second}@b")
    by_file, _ = compared(capsys, mine / "predictions.jsonl", f"{second}/predictions.jsonl@b")
    assert by_file == by_folder
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "ttt-recipe.json").write_text("{}")
    status, _, errors = run_bench(capsys, "compare", mine, begun)
    assert (status, "is not a run, or it did not get that far" in errors) == (1, True), errors


def test_two_submissions_are_compared_in_every_metric(capsys: Capture, tmp_path: Path) -> None:
    one, two = (write_submission(tmp_path / f"{n}.json", range(n)) for n in (10, 30))
    rows, errors = compared(capsys, one, two, "--dataset", SPEC)
    assert [row["metric"] for row in rows] == list(METRICS)
    assert {(row["model"], row["baseline"]) for row in rows} == {("30.json", "10.json")}
    assert "submitted" not in errors


@pytest.mark.parametrize(("solved", "verdict"), [(range(5), 0), (range(40), 1)])
def test_a_gate_against_a_submission(
    capsys: Capture, mine: Path, tmp_path: Path, solved: Sequence[int], verdict: int
) -> None:
    theirs = write_submission(tmp_path / "theirs.json", solved)
    status, out, errors = run_bench(capsys, "gate", mine, "--baseline", theirs, "--min-gain", 0.1)
    assert status == verdict, errors
    assert re.match(r"(PASS|FAIL): vote_2 (gains|loses)", out)
    assert run_bench(capsys, "gate", theirs, "--dataset", SPEC, "--min", 0.5)[0] == (0 if len(solved) == 40 else 1)


def test_what_cannot_be_compared_says_why(capsys: Capture, make_run: MakeRun, mine: Path, tmp_path: Path) -> None:
    theirs = write_submission(tmp_path / "theirs.json", range(5))
    one, two = (str(write_submission(tmp_path / f"{n}.json", range(n))) for n in (1, 2))
    status, _, errors = run_bench(capsys, "compare", one, two)
    assert (status, "name the tasks that it answers with --dataset" in errors) == (2, True)
    status, _, errors = run_bench(capsys, "compare", mine, f"{theirs}@other")
    assert (status, "has no model 'other'; it has: -" in errors) == (1, True)
    status, _, errors = run_bench(capsys, "compare", mine, "--dataset", SPEC)
    assert (status, "--dataset is the dataset of files" in errors) == (2, True)
    status, _, errors = run_bench(capsys, "compare", mine, tmp_path / "absent.json")
    assert (status, "absent.json" in errors) == (1, True)
    table = tmp_path / "both.jsonl"
    both = make_run("both", SPEC, {"a": 0.2, "b": 0.4})
    assert run_bench(capsys, "export", both, "-o", table)[0] == 0
    status, _, errors = run_bench(capsys, "gate", mine, "--baseline", table, "--margin", 0.1)
    assert (status, "name one with FILE@MODEL: both.jsonl@a, both.jsonl@b" in errors) == (2, True)
    rows, _ = compared(capsys, mine, f"{table}@a", "--metric", "accuracy")
    assert rows[0]["model"] == "both.jsonl@a"


def test_answers_that_cannot_be_read_are_pointed_out(capsys: Capture, make_run: MakeRun) -> None:
    """As with a prompt that the model was not trained with: the run ends, and every answer is text."""
    runs = [make_run(name, SPEC, {"base": 0.5}) for name in ("unread", "one_read")]
    for run in runs:
        lines = RunFolder(run).predictions_path.read_bytes().splitlines(keepends=True)
        records = load_records(run)
        assert len(lines) == len(records)
        kept = 1 if run.name == "one_read" else 0
        edited = [
            record.model_copy(update={"outcome": "unparsed", "grid": None}) if i >= kept else record
            for i, record in enumerate(records)
        ]
        RunFolder(run).predictions_path.write_bytes(b"".join(r.model_dump_json().encode() + b"\n" for r in edited))
        edit_manifest(run, finished=None, predictions_sha256=None)
    text = "none of its 160 answers could be read as a grid (160 unparsed)"
    for words in (["score", runs[0]], ["compare", *runs]):
        status, _, errors = run_bench(capsys, *words)
        assert status == 0, errors
        assert errors.count(text) == 1
    assert text not in run_bench(capsys, "score", runs[1])[2]
