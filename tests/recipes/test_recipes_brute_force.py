"""``bench compare`` and ``bench gate`` of recipes against plain loops over the lines of the runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, variance

import numpy as np
import pytest
from scipy.stats import bootstrap
from scipy.stats import t as student

from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from tests.support.commands import run_bench
from tests.support.runs.recipe_runs import write_recipe_runs

Capture = pytest.CaptureFixture[str]
Table = list[list[float]]
CASES = [
    (15, 4, {"a-s0": 0.5, "a-s1": 0.6, "b-s0": 0.4, "b-s1": 0.45}),
    (22, 3, {"a-s0": 0.2, "a-s1": 0.7, "a-s2": 0.5, "b-s0": 0.45, "b-s1": 0.4}),
    (30, 2, {"a-s0": 0.5, "a-s1": 0.5, "a-s2": 0.5, "a-s3": 0.5, "b-s0": 0.3, "b-s1": 0.6, "b-s2": 0.1}),
    (18, 5, {"a-s0": 0.9, "a-s1": 0.8, "a-s2": 0.85, "b-s0": 0.5, "b-s1": 0.55, "b-s2": 0.6}),
]


def accuracy_table(runs: list[Path], spec: str, n: int) -> Table:
    """Return the accuracy of every run (rows) on every task, counted from the lines of predictions.jsonl."""
    truths = {
        task.id: [pair.output.to_rows() for pair in task.test if pair.output]
        for task in iterate_tasks(open_dataset(spec))
    }
    table = []
    for run in runs:
        right = dict.fromkeys(truths, 0.0)
        for line in (run / "predictions.jsonl").read_text().splitlines():
            fields = json.loads(line)
            truth = truths[fields["task_id"]]
            right[fields["task_id"]] += (fields["grid"] == truth[fields["test_index"]]) / (n * len(truth))
        table.append([right[task] for task in sorted(right)])
    return table


def by_hand(table: Table) -> tuple[float, float]:
    """Return variance of the runs' means / runs, and residual mean square / (runs × tasks)."""
    runs, tasks = len(table), len(table[0])
    row_means = [mean(row) for row in table]
    column_means = [mean(row[t] for row in table) for t in range(tasks)]
    whole = mean(row_means)
    residual = sum(
        (table[s][t] - row_means[s] - column_means[t] + whole) ** 2 for s in range(runs) for t in range(tasks)
    )
    return variance(row_means) / runs, residual / ((runs - 1) * (tasks - 1)) / (runs * tasks)


def interval_by_hand(a: Table, b: Table | None, tasks: int) -> tuple[float, float, float, float]:
    """Return the mean of b − a (or of a alone), its interval and p, by the formulas of docs/statistics.md."""
    tables = [a] if b is None else [a, b]
    column = [[mean(row[t] for row in table) for t in range(tasks)] for table in tables]
    values = column[0] if b is None else [theirs - ours for ours, theirs in zip(*column, strict=True)]
    delta, over_tasks = mean(values), variance(values) / tasks
    parts = [(over_tasks, tasks - 1)]
    few = any(len(table) == 2 for table in tables)
    training = []
    for table in tables:
        between, interaction = by_hand(table)
        training.append(max(between - interaction, 0.0))
        parts.append((between if few else training[-1], len(table) - 1))
    error = (over_tasks + sum(training)) ** 0.5
    total = sum(part for part, _ in parts)
    freedom = total / sum(v / f for v, f in parts) if few else total**2 / sum(v * v / f for v, f in parts)
    half = float(student.ppf(0.975, freedom)) * error
    p = 2 * float(student.sf(abs(delta) / error, freedom))
    return delta, max(delta - half, -1.0), min(delta + half, 1.0), p


@pytest.mark.parametrize(("tasks", "n", "skill"), CASES)
def test_compare_is_that_of_plain_loops(
    capsys: Capture, tmp_path: Path, tasks: int, n: int, skill: dict[str, float]
) -> None:
    spec = f"toy/cross/evaluation#n={tasks}"
    runs = write_recipe_runs(tmp_path, spec, skill, n)
    a, b = (accuracy_table([run for run in runs if run.name.startswith(name)], spec, n) for name in "ab")
    status, out, error = run_bench(capsys, "compare", *runs, "--metric", "accuracy", "--json", "-")
    assert status == 0, error
    comparison = json.loads(out)[0]["comparison"]
    delta, low, high, p = interval_by_hand(a, b, tasks)
    assert comparison["p_method"] == "t"
    assert comparison["delta"] == pytest.approx(delta)
    assert (comparison["low"], comparison["high"]) == (pytest.approx(low), pytest.approx(high))
    assert (comparison["p"], comparison["p_holm"]) == (pytest.approx(p), pytest.approx(p))
    assert comparison["verdict"] == ("not resolved" if p >= 0.05 else "better" if delta > 0 else "worse")


@pytest.mark.parametrize(("tasks", "n", "skill"), CASES)
def test_gates_are_those_of_plain_loops(
    capsys: Capture, tmp_path: Path, tasks: int, n: int, skill: dict[str, float]
) -> None:
    spec = f"toy/cross/evaluation#n={tasks}"
    runs = write_recipe_runs(tmp_path, spec, skill, n)
    a, b = (accuracy_table([run for run in runs if run.name.startswith(name)], spec, n) for name in "ab")
    groups = {name: f"{name}=" + ",".join(str(run) for run in runs if run.name.startswith(name)) for name in "ab"}
    value, low, high, _ = interval_by_hand(b, None, tasks)
    if tasks >= 30:
        means = [mean(row[t] for row in b) for t in range(tasks)]
        over_tasks = bootstrap((means,), np.mean, method="BCa", rng=np.random.default_rng(0)).confidence_interval
        low, high = min(low, over_tasks.low), max(high, over_tasks.high)
    low = max(low, 0.0)
    for minimum, expected in ((low - 0.1, 0), ((low + high) / 2, 3), (high + 0.1, 1)):
        if not 0 <= minimum <= 1:
            continue
        words = ["--recipe", groups["b"], "--metric", "accuracy", "--min", f"{minimum:.6f}"]
        status, out, _ = run_bench(capsys, "gate", *words)
        assert status == expected, out
    shown = [float(number) for number in re.findall(r"\d+\.\d", out)]
    assert shown[0] == pytest.approx(100 * value, abs=0.051)
    if tasks >= 30:
        assert shown[1:3] == pytest.approx([100 * low, 100 * high], abs=0.051)
    else:  # the interval over tasks may reach further
        assert shown[1] <= 100 * low + 0.051
        assert shown[2] >= 100 * high - 0.051
    delta, low, high, _ = interval_by_hand(a, b, tasks)
    for margin, expected in ((-low + 0.01, 0), ((-low - high) / 2, 3), (-high - 0.01, 1)):
        if not 0 <= margin <= 1:
            continue
        words = ["--recipe", groups["b"], "--recipe", groups["a"], "--metric", "accuracy", "--margin", f"{margin:.6f}"]
        status, out, _ = run_bench(capsys, "gate", *words)
        assert status == expected, out
        shown = [float(number) for number in re.findall(r"[-+]\d+\.\d", out)]
        assert shown[:3] == pytest.approx([100 * delta, 100 * low, 100 * high], abs=0.051)
