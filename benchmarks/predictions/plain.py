"""Compute the same metrics by a straightforward script: -m benchmarks.predictions.plain FILE."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from benchmarks.predictions.files import load_tasks
from harness.voting.metrics import METRICS


def plain_script(path: Path) -> dict[str, float]:
    """Return every metric of the project with its interval."""
    from scipy.stats import bootstrap

    truths = {task.id: [pair.output.to_rows() for pair in task.test if pair.output] for task in load_tasks()}
    votes: dict[tuple[str, int], list[tuple[tuple[tuple[int, ...], ...], float]]] = defaultdict(list)
    counts: Counter[tuple[str, int]] = Counter()
    with path.open() as lines:
        for line in lines:
            row = json.loads(line)
            key = row["task_id"], row["test_index"]
            counts[key] += 1
            if row["grid"]:
                grid = tuple(map(tuple, row["grid"]))
                votes[key].append((grid, row["cumulative_logprob"] / row["n_tokens"]))
    n = max(counts.values())
    values = []
    for task, outputs in truths.items():
        output_values = [plain_output(votes[task, i], tuple(map(tuple, truth)), n) for i, truth in enumerate(outputs)]
        values.append(np.mean(output_values, axis=0))
    table = np.array(values)
    for column in table.T:
        bootstrap((column,), np.mean, rng=np.random.default_rng(0))
    return dict(zip(METRICS, table.mean(axis=0).tolist(), strict=True))


def plain_output(
    votes: list[tuple[tuple[tuple[int, ...], ...], float]], truth: tuple[tuple[int, ...], ...], n: int
) -> list[float]:
    """Return the metrics of one test output."""
    counter = Counter(grid for grid, _ in votes)
    sums: dict[tuple[tuple[int, ...], ...], float] = defaultdict(float)
    for grid, logprob in votes:
        sums[grid] += logprob
    order = sorted(counter, key=lambda grid: (-counter[grid], -sums[grid] / counter[grid]))
    size = [grid for grid, _ in votes if (len(grid), len(grid[0])) == (len(truth), len(truth[0]))]
    pixels = sum(float((np.array(grid) == np.array(truth)).mean()) for grid in size)
    rates = [counter[truth] / n, len(size) / n, pixels / n, float(truth in counter)]
    return [*rates, float(truth in order[:1]), float(truth in order[:2]), 1 - len(votes) / n]


if __name__ == "__main__":
    print(json.dumps(plain_script(Path(sys.argv[1]))))
