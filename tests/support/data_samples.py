"""Grids, tasks and files that several tests of the data side make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from harness.core.grid import COLOURS, MAX_SIDE, Grid, Pair, Task
from harness.core.random_stream import Stream


@st.composite
def grids(draw: st.DrawFn, max_side: int = MAX_SIDE) -> Grid:
    """Any grid: every shape up to 30x30, every colour."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    raw = draw(st.binary(min_size=height * width, max_size=height * width))
    return Grid(height, width, bytes(c % COLOURS for c in raw))


def pairs(max_side: int = MAX_SIDE) -> st.SearchStrategy[Pair]:
    """Any pair with a known output."""
    return st.builds(Pair, grids(max_side), grids(max_side))


def tasks(max_side: int = 8) -> st.SearchStrategy[Task]:
    """Any small task."""
    some = st.lists(pairs(max_side), min_size=1, max_size=4).map(tuple)
    return st.builds(Task, st.just("any"), some, some)


def random_grid(stream: Stream, height: int, width: int) -> Grid:
    """A grid of that shape."""
    return Grid(height, width, bytes(stream.below(COLOURS) for _ in range(height * width)))


def random_task(stream: Stream, n_train: int, side: int = 6, name: str = "random") -> Task:
    """A task of grids with sides up to ``side``."""

    def grid() -> Grid:
        return random_grid(stream, stream.between(1, side), stream.between(1, side))

    made = [Pair(grid(), grid()) for _ in range(n_train + 1)]
    return Task(name, tuple(made[:-1]), (made[-1],))


def pair_json(pair: Pair) -> dict[str, object]:
    """A pair as in ARC's files."""
    assert pair.output is not None
    return {"input": pair.input.to_rows(), "output": pair.output.to_rows()}


def task_json(task: Task) -> dict[str, object]:
    """A task as in ARC's files."""
    return {"train": [pair_json(p) for p in task.train], "test": [pair_json(p) for p in task.test]}


def barc_row(stream: Stream, n_pairs: int, side: int = 6) -> dict[str, object]:
    """A row in BARC's form."""
    task = random_task(stream, n_pairs, side)
    examples = [[p.input.to_rows(), p.output.to_rows()] for p in task.train if p.output is not None]
    return {"source": "# program", "examples": examples, "seeds": ["a.py", "b.py"]}


def barc_lines(n: int, n_pairs: int = 8) -> list[str]:
    """Lines of a BARC file."""
    return [json.dumps(barc_row(Stream("row", i), n_pairs)) for i in range(n)]


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    """A file of these lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
