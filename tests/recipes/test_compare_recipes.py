"""``bench compare`` of recipes: grouping, figures against harness.stats called directly, labels and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.recipes.half_splits import half_scores
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_selector import select_models
from harness.stats.paired_test import holm
from harness.stats.recipes import compare_recipes, sampling_variance
from harness.voting.metrics import LOWER_IS_BETTER, METRICS
from tests.support.commands import run_bench
from tests.support.runs.recipe_runs import SKILL, record_training, training_of, write_recipe_runs
from tests.support.runs.run_folders import MakeRun
from tests.support.training.adapter_folders import write_adapter_folder

SPEC = "toy/cross/evaluation#n=40"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Return the runs of three training runs of each of two recipes."""
    return write_recipe_runs(tmp_path, SPEC)


def compare(capsys: Capture, *words: object) -> list[dict[str, Any]]:
    """Return the JSON of ``bench compare``."""
    status, out, error = run_bench(capsys, "compare", *words, "--json", "-")
    assert status == 0, error
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


def matrices(runs: list[Path], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the runs of a and of b, shape (runs, tasks)."""
    values = [s.tasks.values_of(metric) for s in select_models(list(map(str, runs))).scored]
    return np.stack(values[:3]), np.stack(values[3:])


def test_runs_are_grouped_and_figures_are_those_of_the_statistics(capsys: Capture, runs: list[Path]) -> None:
    rows = compare(capsys, *runs)
    assert [(row["metric"], row["recipe"], row["baseline"]) for row in rows] == [(m, "b", "a") for m in METRICS]
    assert rows[0]["recipe_runs"] == [f"b-s{k}@b-s{k}" for k in range(3)]
    direct = []
    for metric in METRICS:
        a, b = matrices(runs, metric)
        direct.append(compare_recipes(b, a, lower_is_better=metric in LOWER_IS_BETTER))
    for row, expected in zip(rows, direct, strict=True):
        c = row["comparison"]
        for name in ("delta", "low", "high", "p", "p_method", "standard_error", "degrees_of_freedom", "won", "lost"):
            assert c[name] == getattr(expected, name), (row["metric"], name)
        assert c["runs"] == [3, 3]
        assert (len(row["won"]), len(row["lost"])) == (c["won"], c["lost"])
        if c["shares"] is not None:
            known = [share for share in c["shares"].values() if share is not None]
            assert sum(known) == pytest.approx(1)
        assert (row["metric"] in ("pass_n", "vote_1", "vote_2")) == (
            c["shares"] is None or c["shares"]["sampling"] is None
        )
    assert [row["comparison"]["p_holm"] for row in rows] == holm([c.p for c in direct])
    assert rows[0]["comparison"]["verdict"] == "worse"


def test_the_share_of_sampling_is_from_half_splits(capsys: Capture, runs: list[Path]) -> None:
    (row,) = compare(capsys, *runs, "--metric", "accuracy")
    halves = [half_scores(open_predictions(run))[run.name] for run in runs]
    first, second = (np.stack([getattr(h, side).values_of("accuracy") for h in halves]) for side in ("first", "second"))
    a, b = matrices(runs, "accuracy")
    assert (first + second) / 2 == pytest.approx(np.concatenate([a, b]))
    sampling = sampling_variance(first, second)
    assert row["comparison"]["shares"] == pytest.approx(vars_of(compare_recipes(b, a, sampling=sampling).shares))


def vars_of(shares: Any) -> dict[str, float]:
    """Return the shares of variance by name."""
    return {name: getattr(shares, name) for name in ("tasks", "training", "training_tasks", "sampling")}


def test_an_odd_number_of_predictions_has_halves_without_the_last(tmp_path: Path) -> None:
    (run,) = write_recipe_runs(tmp_path, SPEC, {"a-s0": 0.5}, n=5)
    half = half_scores(open_predictions(run))["a-s0"]
    assert half.used == 0.8
    assert half.first.values_of("accuracy") * 2 == pytest.approx((half.first.values_of("accuracy") * 2).round())
    (single,) = write_recipe_runs(tmp_path, SPEC, {"c-s0": 0.5}, n=1)
    assert half_scores(open_predictions(single)) == {}


def test_named_recipes_give_the_same_figures(capsys: Capture, runs: list[Path]) -> None:
    automatic = compare(capsys, *runs, "--metric", "accuracy")
    words = [
        f"{name}=" + ",".join(f"{run}@{run.name}" for run in side) for name, side in (("a", runs[:3]), ("b", runs[3:]))
    ]
    assert compare(capsys, "--recipe", words[0], "--recipe", words[1], "--metric", "accuracy") == automatic
    assert compare(capsys, *runs, "--metric", "accuracy", "--metric", "accuracy") == automatic


def test_pairs_are_made_only_where_declared_and_by_seed(capsys: Capture, runs: list[Path]) -> None:
    shuffled = [runs[2], runs[0], runs[1], *runs[3:]]
    a, b = matrices(runs, "accuracy")
    (row,) = compare(capsys, *shuffled, "--metric", "accuracy", "--paired-seeds")
    assert row["comparison"]["paired"]
    assert row["comparison"]["p"] == pytest.approx(compare_recipes(b, a, paired=True).p)
    (row,) = compare(capsys, *runs, "--metric", "accuracy")
    assert not row["comparison"]["paired"]


def test_text_lists_recipes_shares_and_verdicts(capsys: Capture, runs: list[Path]) -> None:
    status, out, error = run_bench(capsys, "compare", *runs, "--metric", "accuracy", "--metric", "vote_2")
    assert status == 0
    assert "a: 3 training runs (a-s0@a-s0, a-s1@a-s1, a-s2@a-s2)" in out
    assert "over tasks and training runs" in out
    assert "not measured" in next(
        line for line in out.splitlines() if line.startswith("| vote_2") and "measured" in line
    )
    assert "accuracy: recipe b against a: worse" in out
    assert "the recipes differ in learning_rate" in error


@pytest.mark.parametrize("models", [["a-s0", "b-s0"], ["a-s0", "a-s1"], ["a-s0", "a-s1", "b-s0"]])
def test_single_training_runs_are_compared_as_adapters_and_labelled(
    capsys: Capture, tmp_path: Path, models: list[str]
) -> None:
    runs = write_recipe_runs(tmp_path, SPEC, {name: SKILL[name] for name in models})
    rows = compare(capsys, *runs)
    assert len(rows) == len(METRICS) * len(models) * (len(models) - 1) // 2
    assert "model" in rows[0]
    _, out, _ = run_bench(capsys, "compare", *runs)
    assert "nothing is known about other training runs" in out
    assert "are unknown" not in out


def test_unknown_recipes_are_named_with_the_remedy(capsys: Capture, make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"x": 0.4, "y": 0.5})
    _, out, _ = run_bench(capsys, "compare", run)
    assert (
        "The recipes of x, y are unknown; to compare recipes, name the folders of their training with --training" in out
    )
    assert "--recipe NAME=RUN@MODEL" in out
    _, out, _ = run_bench(capsys, "compare", run, "--per-adapter")
    assert "are unknown" not in out


def test_per_adapter_compares_every_pair(capsys: Capture, runs: list[Path]) -> None:
    assert len(compare(capsys, *runs, "--per-adapter", "--metric", "accuracy")) == 15


def test_a_single_run_beside_recipes_is_left_out_with_a_warning(capsys: Capture, tmp_path: Path) -> None:
    runs = write_recipe_runs(tmp_path, SPEC)
    (other,) = write_recipe_runs(tmp_path, SPEC, {"c-s0": 0.5}, rate_of=())
    record_training(other, {"c-s0": training_of(0, data="d2")})
    status, out, error = run_bench(capsys, "compare", *runs, other, "--metric", "accuracy", "--json", "-")
    assert (status, len(json.loads(out))) == (0, 1)
    assert "not compared, as no training runs of their recipe are beside them: c-s0@c-s0" in error


def test_folders_of_one_name_are_told_apart(capsys: Capture, make_run: MakeRun, tmp_path: Path) -> None:
    """A run of another server has only the names of its models: two different adapters of a name are refused."""
    runs = [make_run(name, SPEC, {name: 0.5}) for name in ("x-s0", "x-s1")]
    for seed, name in enumerate(("x-s0", "x-s1")):
        write_adapter_folder(tmp_path / "trained" / name, seed, name.encode())
    write_adapter_folder(tmp_path / "copy" / "x-s1", 1, b"x-s1")
    words = ["compare", *runs, "--training", tmp_path / "trained"]
    status, out, _ = run_bench(capsys, *words, "--training", tmp_path / "copy")
    assert status == 0
    assert "unknown" not in out
    other = write_adapter_folder(tmp_path / "other" / "x-s1", 1, b"another")
    status, _, error = run_bench(capsys, *words, "--training", tmp_path / "other")
    assert status == 2
    assert f"{other} and {tmp_path / 'trained' / 'x-s1'} are different adapters" in error


def test_the_same_weights_twice_are_no_two_training_runs(capsys: Capture, runs: list[Path]) -> None:
    for run in runs[:2]:
        record_training(run, {run.name: training_of(0)}, {run.name: "f" * 64})
    _, out, _ = run_bench(capsys, "compare", *runs)
    assert "Models with the same weights are one training run (a-s0@a-s0 and a-s1@a-s1), so that" in out
    words = ["--recipe", "a=" + ",".join(map(str, runs[:3])), "--recipe", "b=" + ",".join(map(str, runs[3:]))]
    status, _, error = run_bench(capsys, "compare", *words)
    assert status == 2
    assert "they are one training run of a, not two" in error


def test_the_same_weights_in_two_recipes_are_refused(capsys: Capture, runs: list[Path], tmp_path: Path) -> None:
    record_training(runs[1], {runs[1].name: training_of(1)}, {runs[1].name: "f" * 64})
    copy = tmp_path / "copy"
    shutil.copytree(runs[1], copy)
    words = ["--recipe", f"a={runs[0]},{runs[1]}", "--recipe", f"b={copy},{runs[4]}"]
    status, _, error = run_bench(capsys, "compare", *words)
    assert status == 2
    assert "have the same weights: they are one training run of a or b, not two" in error


def test_a_run_named_twice_is_refused(capsys: Capture, runs: list[Path]) -> None:
    """Comparisons with itself would enter Holm's correction of all others."""
    status, _, errors = run_bench(capsys, "compare", *runs, runs[0], "--metric", "accuracy")
    assert (status, f"{runs[0]}: named twice" in errors) == (2, True)


def test_recipes_with_one_task_are_refused(capsys: Capture, make_run: MakeRun) -> None:
    names = [make_run(f"one{i}", "toy/cross/evaluation#n=1", {"m": 0.5}) for i in range(4)]
    sides = ["--recipe", f"a={names[0]},{names[1]}", "--recipe", f"b={names[2]},{names[3]}"]
    for words, expected in (
        (["compare", *sides], 1),
        (["gate", *sides, "--margin", 0.2], 4),
        (["gate", *sides[:2], "--min", 0.2], 4),
    ):
        status, _, errors = run_bench(capsys, *words)
        assert status == expected, errors
        assert "intervals of recipes need at least 2 tasks" in errors


def test_recipes_of_one_training_run_are_refused_in_words(capsys: Capture, runs: list[Path]) -> None:
    status, _, error = run_bench(capsys, "compare", "--recipe", f"a={runs[0]}", "--recipe", f"b={runs[3]},{runs[4]}")
    assert status == 2
    assert "recipe a has one training run (a-s0@a-s0): nothing is known about how training runs" in error


def test_mixed_recipes_are_named(capsys: Capture, runs: list[Path]) -> None:
    words = ["--recipe", f"x={runs[0]},{runs[3]}", "--recipe", f"y={runs[1]},{runs[4]}"]
    status, _, error = run_bench(capsys, "compare", *words)
    assert status == 0
    assert "training runs of x were trained by recipes that differ in learning_rate" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the runs to compare"),
        (["--recipe", "a=RUN0,RUN1"], "one recipe alone"),
        (["--recipe", "a"], "write NAME=RUN@MODEL"),
        (["--recipe", "a=RUN0,", "--recipe", "b=RUN3,RUN4"], "write NAME=RUN@MODEL"),
        (["--recipe", "a=RUN0,RUN1", "--recipe", "a=RUN3,RUN4"], "is given twice"),
        (["--recipe", "a=RUN0,RUN1", "--recipe", "b=RUN1,RUN4"], "is named twice"),
        (["RUN0", "--recipe", "a=RUN0,RUN1"], "name the runs to compare"),
        (["--recipe", "a=RUN0,RUN1", "--recipe", "b=RUN3,RUN4,RUN5", "--paired-seeds"], "numbers of training runs"),
        (["RUN0", "RUN1", "RUN3", "RUN5", "--paired-seeds"], "need the same training seeds"),
        (["RUN0", "RUN3", "--paired-seeds"], "--paired-seeds needs two recipes"),
        (["RUN0", "RUN1", "RUN3", "RUN4", "--plan", "1"], "for recipes use bench plan"),
        (["RUN0", "RUN1", "--per-adapter", "--paired-seeds"], "--per-adapter compares no recipes"),
    ],
)
def test_wrong_use_is_refused(capsys: Capture, runs: list[Path], words: list[str], message: str) -> None:
    for k, run in enumerate(runs):
        words = [word.replace(f"RUN{k}", str(run)) for word in words]
    status, _, error = run_bench(capsys, "compare", *words)
    assert status == 2, error
    assert message in error
