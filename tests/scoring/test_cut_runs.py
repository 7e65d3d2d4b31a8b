"""Runs that their deadline cut, as ``bench score``, ``compare``, ``report``, ``pool`` and ``submit`` read them."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.results.kaggle_submission import PLACEHOLDER
from harness.runs.folder import RunFolder
from harness.scoring.run_scores import run_results, score_run
from tests.support.commands import run_bench
from tests.support.runs.cut_runs import cut_run
from tests.support.runs.pools import make_pool
from tests.support.runs.run_folders import MakeRun, edit_manifest
from tests.support.runs.view_runs import write_view_run

Capture = pytest.CaptureFixture[str]
SPEC = "toy/cross/evaluation#n=10"
IDS = [task.id for task in iterate_tasks(open_dataset(SPEC))]


def keep(task: str, test: int, sample: int) -> bool:
    """Keep 5 of 8 predictions of the first seven tasks, 4 of the eighth, and none of the last two."""
    return sample < (5, 5, 5, 5, 5, 5, 5, 4, 0, 0)[IDS.index(task)]


MISSING = 80 - 7 * 5 - 4


@pytest.fixture
def cut(tmp_path: Path, make_run: MakeRun) -> Path:
    """A run of two models that a deadline cut in the same way."""
    run = make_run("cut", SPEC, {"good": 0.6, "bad": 0.1}, n=8)
    assert cut_run(run, keep) == 2 * MISSING
    return run


def bench(capsys: Capture, *words: object) -> tuple[str, str]:
    status, out, err = run_bench(capsys, *words)
    assert status == 0, err
    return out, err


def test_what_is_missing_is_no_failure(capsys: Capture, cut: Path) -> None:
    out, err = bench(capsys, "score", cut)
    text = f"missing by the deadline: {MISSING} of 80 predictions (51.2 %), on 10 of 10 test outputs; 2 of 10 tasks"
    assert f"good: {text} have none. They count as wrong and are no failures." in out
    assert f"bad: {text}" in out
    assert "of 10 tasks 2 (cross-000008, cross-000009) have no prediction" in err
    saved = orjson.loads((cut / "results.json").read_bytes())["models"]["good"]
    assert saved["deadline"] == {"missing": MISSING, "outputs": 10, "tasks_without": 2}
    assert saved["predictions"] == 80
    assert "missing" not in saved["failures"]


def test_the_metrics_are_those_of_the_same_predictions_without_a_deadline(cut: Path) -> None:
    by_deadline = run_results(cut).models
    edit_manifest(cut, deadline=None)
    unfinished = run_results(cut).models
    for name, result in unfinished.items():
        assert result.deadline is None
        assert result.failures["missing"] == MISSING
        assert result.metrics == by_deadline[name].metrics
        others = {kind: count for kind, count in result.failures.items() if kind != "missing"}
        assert others == by_deadline[name].failures


def test_models_that_are_cut_alike_have_equal_counts(capsys: Capture, cut: Path) -> None:
    _, err = bench(capsys, "compare", cut)
    assert (
        f"cut: missing by the deadline (12h): {2 * MISSING} of 160 predictions (good {MISSING}, bad {MISSING})" in err
    )
    assert "unequal" not in err
    assert "unfinished" not in err


def test_unequal_counts_are_a_warning(capsys: Capture, cut: Path, make_run: MakeRun) -> None:
    make_run("whole", SPEC, {"good": 0.6}, n=8)
    _, err = bench(capsys, "compare", f"{cut}@good", cut.with_name("whole"))
    unequal = f"(cut@good lacks {MISSING} of 80, whole@good lacks 0 of 80)"
    assert f"the models have unequal numbers of predictions for a task {unequal}; what is missing counts as" in err
    other = make_run("other", SPEC, {"good": 0.6}, n=8)
    assert cut_run(other, lambda task, test, sample: keep(IDS[-1 - IDS.index(task)], test, sample)) == MISSING
    _, err = bench(capsys, "compare", f"{cut}@good", other)
    assert f"(cut@good lacks {MISSING} of 80, other@good lacks {MISSING} of 80)" in err


def test_only_the_tasks_that_are_compared_count(capsys: Capture, make_run: MakeRun) -> None:
    long = make_run("long", SPEC, {"good": 0.6}, n=8)
    short = make_run("short", "toy/cross/evaluation#n=7", {"good": 0.6}, n=8)
    cut_run(long, lambda task, test, sample: IDS.index(task) < 7)
    _, err = bench(capsys, "compare", long, short, "--common")
    assert "unequal" not in err
    assert "missing by the deadline (12h): 24 of 80 predictions" in err


def test_a_report_says_it(capsys: Capture, cut: Path, make_run: MakeRun, tmp_path: Path) -> None:
    whole = make_run("whole", SPEC, {"other": 0.6}, n=8)
    page = tmp_path / "report.md"
    bench(capsys, "report", cut, whole, "-o", page)
    text = page.read_text()
    phrase = f"missing by the deadline (12h): {2 * MISSING} of 160 predictions (good {MISSING}, bad {MISSING})"
    assert f"**Cut by its deadline**: cut: {phrase}. They count as wrong here" in text
    assert f"(not finished), {phrase};" in text
    assert "Unfinished" not in text
    assert "the models have unequal numbers of predictions for a task" in text


@pytest.mark.parametrize("outcome", ["grid", "unparsed"])
def test_what_is_said_of_all_predictions_is_said_of_those_that_were_made(
    capsys: Capture, make_run: MakeRun, tmp_path: Path, outcome: str
) -> None:
    run = make_run("cut", SPEC, {"m": 0.6}, n=8, fails=0)
    if outcome == "unparsed":
        path = RunFolder(run).predictions_path
        lines = [orjson.loads(line) | {"outcome": outcome, "grid": None} for line in path.read_bytes().splitlines()]
        path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    cut_run(run, keep)
    out, err = bench(capsys, "score", run)
    page = tmp_path / "report.md"
    bench(capsys, "report", run, "-o", page)
    made = 80 - MISSING
    if outcome == "grid":
        assert f"every prediction of the {made} that were made is a grid" in out
        assert f"Every one of the {made} predictions that were made is a grid." in page.read_text()
        assert f"None of the {made} predictions failed." in page.read_text()
    else:
        assert f"none of its {made} answers could be read as a grid ({made} unparsed)" in err
        assert f"{made} of the {made} predictions (100.0 %) failed" in page.read_text()
    assert "`bench run … --resume`" in page.read_text()


def check_submission(capsys: Capture, path: Path, spec: str = SPEC) -> dict[str, list[dict[str, list[list[int]]]]]:
    """Check the file as ``bench submit --check`` and by hand, and return it."""
    bench(capsys, "submit", "--check", path, "--dataset", spec)
    content: dict[str, list[dict[str, list[list[int]]]]] = json.loads(path.read_text())
    tasks = list(iterate_tasks(open_dataset(spec)))
    assert {task: len(outputs) for task, outputs in content.items()} == {task.id: len(task.test) for task in tasks}
    assert {tuple(attempts) for outputs in content.values() for attempts in outputs} == {("attempt_1", "attempt_2")}
    return content


def test_a_submission_answers_every_task(capsys: Capture, cut: Path, tmp_path: Path) -> None:
    path = tmp_path / "submission.json"
    _, err = bench(capsys, "submit", f"{cut}@good", "-o", path)
    content = check_submission(capsys, path)
    empty = [task for task, outputs in content.items() if outputs[0] == dict.fromkeys(outputs[0], PLACEHOLDER)]
    assert empty == IDS[8:]
    assert f"missing by the deadline (12h): {2 * MISSING} of 160 predictions" in err
    assert "2 outputs have no predicted grid and get placeholders; 2 of them have no prediction (2 tasks have" in err


def test_a_run_without_any_prediction_has_a_submission_of_placeholders(
    capsys: Capture, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("none", SPEC, {"good": 0.6}, n=8)
    cut_run(run, lambda task, test, sample: False)
    path = tmp_path / "submission.json"
    _, err = bench(capsys, "submit", run, "-o", path)
    assert "10 of them have no prediction (10 tasks have none)" in err
    assert all(outputs[0]["attempt_1"] == PLACEHOLDER for outputs in check_submission(capsys, path).values())


def test_a_pool_of_cut_runs(capsys: Capture, cut: Path, make_run: MakeRun, tmp_path: Path) -> None:
    second = make_run("second", SPEC, {"good": 0.5}, n=8, seed=3)
    cut_run(second, lambda task, test, sample: IDS.index(task) != 9)
    pool = make_pool(tmp_path / "pool", cut, second)
    _, err = bench(capsys, "score", pool)
    assert f"cut@good: {cut}: missing by the deadline (12h): {2 * MISSING} of 160 predictions" in err
    assert f"second@good: {second}: missing by the deadline (12h): 8 of 80 predictions" in err
    path = tmp_path / "submission.json"
    _, err = bench(capsys, "submit", pool, "-o", path)
    content = check_submission(capsys, path)
    assert content[IDS[9]][0]["attempt_1"] == PLACEHOLDER
    assert content[IDS[8]][0]["attempt_1"] != PLACEHOLDER


def test_missing_views_are_called_views(capsys: Capture, tmp_path: Path) -> None:
    run = write_view_run(tmp_path, "views", SPEC, {"good": 0.6}, n=8)
    assert cut_run(run, keep) == MISSING
    out, _ = bench(capsys, "score", run)
    assert f"good: missing by the deadline: {MISSING} of 80 views" in out
    assert score_run(run).models["good"].deadline is not None
    assert RunFolder(run).manifest().cut_text() == f"missing by the deadline (12h): {MISSING} of 80 views"
    path = tmp_path / "submission.json"
    bench(capsys, "submit", run, "-o", path)
    check_submission(capsys, path)
