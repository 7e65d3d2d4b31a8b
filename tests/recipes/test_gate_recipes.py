"""``bench gate`` of recipes: verdicts, exit statuses and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.scoring.run_selector import select_models
from harness.stats.gate import gain_bounds
from harness.stats.intervals import wilson
from harness.stats.paired_test import compare
from harness.stats.recipe_interval import recipe_interval
from harness.stats.recipes import compare_recipes
from tests.support.commands import run_bench
from tests.support.runs.recipe_runs import write_recipe_runs
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=40"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Return the runs of three training runs of each of two recipes."""
    return write_recipe_runs(tmp_path, SPEC)


def scores(runs: list[Path]) -> np.ndarray:
    """Return the accuracy of runs, shape (runs, tasks)."""
    return np.stack([s.tasks.values_of("accuracy") for s in select_models(list(map(str, runs))).scored])


@pytest.mark.parametrize(
    ("minimum", "status", "word"), [(0.2, 0, "PASS"), (0.55, 3, "INCONCLUSIVE"), (0.99, 1, "FAIL")]
)
@pytest.mark.parametrize("named", [True, False])
def test_a_minimum(
    capsys: Capture, runs: list[Path], tmp_path: Path, minimum: float, status: int, word: str, named: bool
) -> None:
    words = ["--recipe", "a=" + ",".join(map(str, runs[:3]))] if named else runs[:3]
    actual, out, _ = run_bench(
        capsys, "gate", *words, "--metric", "accuracy", "--min", minimum, "--junit", tmp_path / "gate.xml"
    )
    interval = recipe_interval(scores(runs[:3]))
    assert (actual, out.split(":")[0]) == (status, word)
    assert (
        f"accuracy of recipe a is {100 * interval.value:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
        in out
    )
    assert "over 40 tasks and 3 training runs" in out
    assert (tmp_path / "gate.xml").exists()


@pytest.mark.parametrize(("margin", "status"), [(0.9, 0), (0.26, 3), (0.0, 1)])
def test_a_margin(capsys: Capture, runs: list[Path], margin: float, status: int) -> None:
    baseline = [word for run in runs[:3] for word in ("--baseline", run)]
    options = ["--metric", "accuracy", "--margin", margin]
    actual, out, _ = run_bench(capsys, "gate", *runs[3:], *baseline, *options)
    low, high = gain_bounds(compare_recipes(scores(runs[3:]), scores(runs[:3])))
    assert actual == status
    assert f"[{100 * low:+.1f}, {100 * high:+.1f}] on recipe a, over 40 tasks and 3 and 3 training runs" in out
    recipes = ["--recipe", "b=" + ",".join(map(str, runs[3:])), "--recipe", "a=" + ",".join(map(str, runs[:3]))]
    assert run_bench(capsys, "gate", *recipes, *options)[:2] == (actual, out)


@pytest.mark.parametrize(("gain", "status"), [(0.01, 0), (0.25, 3), (0.9, 1)])
def test_a_gain(capsys: Capture, runs: list[Path], gain: float, status: int) -> None:
    baseline = [word for run in runs[3:] for word in ("--baseline", run)]
    options = ["--metric", "accuracy", "--min-gain", gain]
    actual, out, _ = run_bench(capsys, "gate", *runs[:3], *baseline, *options)
    low, high = gain_bounds(compare_recipes(scores(runs[:3]), scores(runs[3:])))
    assert f"[{100 * low:+.1f}, {100 * high:+.1f}] on recipe b, over 40 tasks and 3 and 3 training runs" in out
    assert out.strip().endswith(f"asked for is a gain of at least {100 * gain:g} points")
    assert actual == status, out


def test_recipes_that_differ_alike_on_all_tasks_have_the_bounds_of_adapters_that_do() -> None:
    zeros, ones = np.zeros((3, 40)), np.ones((3, 40))
    assert gain_bounds(compare_recipes(ones, zeros)) == pytest.approx(gain_bounds(compare(ones[0], zeros[0])[0]))
    with_training = ones * np.array([[1.0], [0.75], [0.5]])
    comparison = compare_recipes(with_training, zeros)
    low, high = gain_bounds(comparison)
    assert comparison.low is not None
    assert low <= min(comparison.low, 0.75 - 1.75 * wilson(0.0, 40)[1] + 1e-9)
    assert high >= 1.0


def test_bounds_without_an_interval_contain_both_widest_cases() -> None:
    a = np.zeros((3, 40))
    b = a.copy()
    b[:, 0] = [0.0, 0.5, 1.0]
    comparison = compare_recipes(b, a)
    assert comparison.low is None
    low, high = gain_bounds(comparison)
    assert low < -0.02
    assert high > 0.1


def test_one_model_is_labelled_as_that(capsys: Capture, make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"m": 0.9})
    _, out, _ = run_bench(capsys, "gate", run, "--metric", "accuracy", "--min", 0.2)
    assert out.strip().endswith("(this model alone, not other training runs of its recipe)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--min", "0.1"], "name the run to test"),
        (["RUN0", "RUN3", "--min", "0.1"], "are not training runs of one recipe"),
        (["RUN0", "--baseline", "RUN3", "--baseline", "RUN4", "--margin", "0.1"], "has one training run"),
        (["--recipe", "a=RUN0", "--min", "0.1"], "has one training run"),
        (["--recipe", "a=RUN0,RUN1", "--margin", "0.1"], "give one --recipe with --min, or two with --margin"),
        (["--recipe", "a=RUN0,RUN1", "--baseline", "RUN3", "--margin", "0.1"], "is a second --recipe"),
        (["RUN0", "RUN1", "--min", "0.1", "--paired-seeds"], "needs two recipes"),
        (["RUN0", "--min", "0.1", "--paired-seeds"], "needs two recipes"),
        (["RUN0", "--baseline", "RUN3", "--margin", "0.1", "--paired-seeds"], "needs two recipes"),
        (["RUN0", "RUN1", "--metric", "unanswered", "--min", "0.1"], "less of unanswered is better"),
        (["RUN0", "RUN1", "--metric", "greedy", "--min", "0.1"], "enumerated views only"),
    ],
)
def test_wrong_use_is_refused(capsys: Capture, runs: list[Path], words: list[str], message: str) -> None:
    for k, run in enumerate(runs):
        words = [word.replace(f"RUN{k}", str(run)) for word in words]
    status, _, error = run_bench(capsys, "gate", *words)
    assert status == 2, error
    assert message in error


def test_unknown_recipes_are_refused_with_the_remedy(capsys: Capture, make_run: MakeRun) -> None:
    runs = [make_run(name, SPEC, {name: 0.5}) for name in ("x", "y")]
    status, _, error = run_bench(capsys, "gate", *runs, "--min", 0.1)
    assert status == 2
    assert "the recipe of x@x, y@y is unknown" in error
    assert "--training" in error
