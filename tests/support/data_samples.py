"""Grids, tasks, dataset files and arrays of scores for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import bootstrap

from harness.core.grid import COLOURS, MAX_SIDE, Grid, Pair, Task
from harness.core.random_stream import Stream

Floats = NDArray[np.float64]


@st.composite
def grids(draw: st.DrawFn, max_side: int = MAX_SIDE) -> Grid:
    """Draw a grid of any shape up to ``max_side`` and any colours."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    raw = draw(st.binary(min_size=height * width, max_size=height * width))
    return Grid(height, width, bytes(c % COLOURS for c in raw))


def pairs(max_side: int = MAX_SIDE) -> st.SearchStrategy[Pair]:
    """Draw any pair with a known output."""
    return st.builds(Pair, grids(max_side), grids(max_side))


def tasks(max_side: int = 8) -> st.SearchStrategy[Task]:
    """Draw any small task."""
    some = st.lists(pairs(max_side), min_size=1, max_size=4).map(tuple)
    return st.builds(Task, st.just("any"), some, some)


def random_grid(stream: Stream, height: int, width: int) -> Grid:
    """Return a random grid of this shape."""
    return Grid(height, width, bytes(stream.below(COLOURS) for _ in range(height * width)))


def random_task(stream: Stream, n_train: int, side: int = 6, name: str = "random") -> Task:
    """Return a random task with one test, whose grids have sides up to ``side``."""

    def grid() -> Grid:
        return random_grid(stream, stream.between(1, side), stream.between(1, side))

    pairs = [Pair(grid(), grid()) for _ in range(n_train + 1)]
    return Task(name, tuple(pairs[:-1]), (pairs[-1],))


def pair_json(pair: Pair) -> dict[str, object]:
    """Return a pair in the form of ARC's files."""
    assert pair.output is not None
    return {"input": pair.input.to_rows(), "output": pair.output.to_rows()}


def task_json(task: Task) -> dict[str, object]:
    """Return a task in the form of ARC's files."""
    return {"train": [pair_json(p) for p in task.train], "test": [pair_json(p) for p in task.test]}


def barc_row(stream: Stream, n_pairs: int, side: int = 6) -> dict[str, object]:
    """Return a random row in the form of BARC's files."""
    task = random_task(stream, n_pairs, side)
    examples = [[p.input.to_rows(), p.output.to_rows()] for p in task.train if p.output is not None]
    return {"source": "# program", "examples": examples, "seeds": ["a.py", "b.py"]}


def barc_lines(n: int, n_pairs: int = 8) -> list[str]:
    """Return the lines of a BARC file."""
    return [json.dumps(barc_row(Stream("row", i), n_pairs)) for i in range(n)]


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    """Write lines into a file and return its path."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def solved_and_unsolved(solved: int, tasks: int) -> Floats:
    """Return the scores of ``solved`` solved tasks followed by those of the unsolved ones."""
    return np.r_[np.ones(solved), np.zeros(tasks - solved)]


def random_scores(rng: np.random.Generator, tasks: int, n: int) -> Floats:
    """Return scores like those of a benchmark: half the tasks at 0, the rest anywhere, in multiples of 1 / n."""
    chance = np.where(rng.random(tasks) < 0.5, 0, rng.beta(0.6, 0.9, tasks))
    return rng.binomial(n, chance) / n


def scipy_interval(units: Floats, seed: int, method: str) -> tuple[float, float]:
    """Return the ends of the interval that scipy.stats.bootstrap computes for the mean."""
    interval = bootstrap((units,), np.mean, method=method, rng=np.random.default_rng(seed)).confidence_interval
    return float(interval.low), float(interval.high)
