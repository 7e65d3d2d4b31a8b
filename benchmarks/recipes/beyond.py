"""Coverage beyond the acceptance grid: training that dominates, and training runs that are not normal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common.population import SEED, Floats
from benchmarks.recipes.methods import half_widths
from harness.results.table_format import markdown_table
from harness.stats.crossed_variance import DifferenceVariance, difference_variance

TASKS = 100
INTERACTION = 0.3
"""Contribution of training × task as a multiple of that of recipe × task."""
RATIOS = (1.0, 4.0)
DESIGNS = ((2, 2), (3, 3), (5, 5), (10, 10), (3, 10))
FAILING = 0.1
EFFECTS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "Student's t, 3 degrees": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3),
    "exponential": lambda rng, shape: rng.exponential(1, shape) - 1,
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape) * np.sqrt(3),
    "one run in ten fails": lambda rng, shape: (
        (FAILING - (rng.random(shape) < FAILING)) / np.sqrt(FAILING * (1 - FAILING))
    ),
}
"""Effects of training runs with mean 0 and variance 1."""


def variance(
    effects: str, runs: tuple[int, int], ratio: float, replicates: int, rng: np.random.Generator
) -> DifferenceVariance:
    """Draw normal scores with such effects of training runs and return their mean squares, for a true difference of 0.

    Args:
        ratio: training's contribution to the variance as a multiple of that of recipe × task.
    """
    total = sum(1 / number for number in runs)
    scores = [
        rng.normal(0, np.sqrt(TASKS / 2), (replicates, 1, TASKS))
        + np.sqrt(ratio / total) * EFFECTS[effects](rng, (replicates, number, 1))
        + rng.normal(0, np.sqrt(INTERACTION * TASKS / total), (replicates, number, TASKS))
        for number in runs
    ]
    return difference_variance(scores[0], scores[1])


def measure(replicates: int) -> dict[str, Any]:
    """Return the table of coverage by the harness and, in brackets, by the control over tasks alone."""
    rows = []
    for name in EFFECTS:
        for ratio in RATIOS:
            row = [name, f"{ratio:g}"]
            for runs in DESIGNS:
                rng = np.random.default_rng([SEED, *runs, round(ratio), len(name)])
                v = variance(name, runs, ratio, replicates, rng)
                covered = {key: 100 * float(np.mean(np.abs(v.delta) <= half)) for key, half in half_widths(v).items()}
                row.append(f"{covered['harness']:.1f} ({covered['tasks only']:.1f})")
            rows.append(row)
    head = ["training runs", "training", *(str(a) if a == b else f"{a} and {b}" for a, b in DESIGNS)]
    return {"text": f"{_HEAD}\n\n{markdown_table(head, rows)}\n"}


_HEAD = """\
Beyond the grid: coverage where training contributes as much as recipe × task or four times as much, and where training
runs are not normal (100 tasks, training × task 0.3 times recipe × task; in brackets `tasks only`)."""
