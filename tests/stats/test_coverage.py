"""Coverage of the intervals by simulation (benchmarks/coverage.py does more), with wrong methods that must fail."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import coverage as simulation
from harness.voting.metrics import METRICS, OUTPUTS_MULTIPLE


@pytest.fixture(scope="module")
def target() -> np.ndarray:
    return simulation.truth(simulation.Population(), 32, tasks=1_000_000)


@pytest.mark.slow
def test_simulated_coverage_of_400_tasks_and_of_a_wrong_method(target: np.ndarray) -> None:
    population, n, replicates = simulation.Population(), 32, 1_000
    assert target[[0, 3, 5]] == pytest.approx([0.13, 0.34, 0.24], abs=0.01)
    coverage = simulation.coverage(simulation.simulate(population, replicates, 400, n, 1), target, n)
    slack = 3 * math.sqrt(0.95 * 0.05 / replicates)
    assert np.all((coverage.ours > 0.95 - slack) & (coverage.ours < 0.95 + slack)), dict(
        zip(METRICS, coverage.ours, strict=True)
    )
    assert coverage.per_prediction < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [10, 20, 50, 120])
def test_simulated_coverage_with_few_tasks(target: np.ndarray, tasks: int) -> None:
    population, n, replicates = simulation.Population(), 32, 1_000
    coverage = simulation.coverage(simulation.simulate(population, replicates, tasks, n, 1), target, n)
    slack = 3 * math.sqrt(0.93 * 0.07 / replicates)
    assert np.all(coverage.ours > 0.93 - slack), dict(zip(METRICS, coverage.ours, strict=True))
    if tasks == 10:
        # Without the fallback and the small-sample level the same check fails.
        assert coverage.plain_bca.min() < 0.93 - slack


def test_the_simulation_scores_as_the_harness_does() -> None:
    population = simulation.Population(two_outputs=0.0)
    values = simulation.simulate(population, 2, 300, 8, 3)
    assert values.shape == (len(METRICS), 2, 300)
    table = dict(zip(METRICS, values, strict=True))
    assert np.all((values >= 0) & (values <= 1))
    assert np.array_equal(table["pass_n"], table["accuracy"] > 0)
    assert np.all(table["vote_1"] <= table["vote_2"])
    assert np.all(table["accuracy"] <= table["correct_pixels"] + 1e-12)
    units = table["accuracy"] * 8 * OUTPUTS_MULTIPLE
    assert np.array_equal(units, np.rint(units))


def published(title: str) -> list[dict[str, str]]:
    """Return the rows of the first table in benchmarks/coverage.md after a paragraph that begins with ``title``."""
    text = (Path(__file__).parents[2] / "benchmarks" / "coverage.md").read_text(encoding="utf-8")
    (after,) = [part for part in text.split("\n\n") if part.startswith(title)]
    head, _, *rows = text[text.index(after) + len(after) :].strip().split("\n\n")[0].splitlines()
    names = [cell.strip() for cell in head.strip("|").split("|")]
    return [dict(zip(names, map(str.strip, row.strip("|").split("|")), strict=True)) for row in rows]


def test_the_published_coverage_is_near_the_nominal_one() -> None:
    text = (Path(__file__).parents[2] / "benchmarks" / "coverage.md").read_text(encoding="utf-8")
    assert "over 2000 replicates" in text
    large = published("400 tasks;")
    assert [row["N"] for row in large] == ["8", "32", "128"]
    for row in large:
        assert all(93 <= float(row[name]) <= 97 for name in METRICS), row
        assert float(row["per prediction"]) < (50 if int(row["N"]) >= 32 else 93), row
    few = [row for row in published("Few tasks") if row["interval"] == "harness"]
    assert {"10", "20", "30", "50", "120"} <= {row["tasks"] for row in few}
    for row in few:
        assert all(float(row[name]) >= 93 for name in METRICS), row
    plain = [row for row in published("Few tasks") if row["interval"] == "BCa always" and row["tasks"] == "10"]
    assert min(float(plain[0][name]) for name in METRICS) < 93  # the bound can fail
