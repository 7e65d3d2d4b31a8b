"""Augmentations are invertible and depend on their key only."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from harness.core.augmentation import Augmentation, identity_view, random_colours, random_view, resplit, sampling_view
from harness.core.grid import COLOURS, Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.core.symmetry import SYMMETRIES
from tests.support.data_samples import grids, tasks

views = st.builds(
    Augmentation, st.sampled_from(SYMMETRIES), st.permutations(range(COLOURS)).map(tuple), st.just((0, 1, 2))
)


@given(views, grids())
def test_invert_undoes_apply(view: Augmentation, grid: Grid) -> None:
    assert view.invert(view.apply(grid)) == grid
    assert view.apply(view.invert(grid)) == grid


@given(tasks(), st.integers())
def test_apply_task_augments_every_pair(task: Task, key: int) -> None:
    view = random_view(Stream(key), len(task.train))
    augmented = view.apply_task(task)
    assert augmented.id == task.id
    assert [view.invert(pair.input) for pair in augmented.train] == [task.train[i].input for i in view.order]
    assert [view.apply(pair.input) for pair in task.test] == [pair.input for pair in augmented.test]
    assert identity_view(len(task.train)).apply_task(task) == task


def test_unknown_test_outputs_stay_unknown() -> None:
    grid = Grid.from_rows([[1, 2]])
    task = Task("t", (Pair(grid, grid),), (Pair(grid, None),))
    assert sampling_view(0, "t", 5, 1).apply_task(task).test[0].output is None
    assert resplit(Stream(1), task) == task


def test_sampling_views_depend_on_seed_task_and_index_only() -> None:
    view = sampling_view(7, "00576224", 5, 3)
    assert view == Augmentation("flip_ud", (0, 9, 3, 8, 5, 7, 4, 1, 6, 2), (0, 1, 2))
    code = (
        "from harness.core.augmentation import sampling_view; "
        "print([sampling_view(7, t, v, 3) for v in reversed(range(9)) for t in ('b', 'a')])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == str([sampling_view(7, t, v, 3) for v in reversed(range(9)) for t in ("b", "a")])
    assert [sampling_view(0, "t", v, 3).symmetry for v in range(9)] == [*SYMMETRIES, SYMMETRIES[0]]
    keys = [(seed, task, view) for seed in (0, 1) for task in ("a", "b") for view in (0, 8)]
    assert len({sampling_view(*key, 9) for key in keys}) == len(keys)


def test_a_tenth_of_the_colour_permutations_may_move_the_background() -> None:
    permutations = [random_colours(Stream("colours", i)) for i in range(4000)]
    assert all(sorted(colours) == list(range(COLOURS)) for colours in permutations)
    moved = sum(colours[0] != 0 for colours in permutations)
    assert 0.07 * 4000 < moved < 0.11 * 4000  # 0.1 x 9/10
    for position in range(1, COLOURS):
        assert len(Counter(colours[position] for colours in permutations)) == COLOURS


@given(tasks(), st.integers())
def test_resplit_keeps_all_pairs(task: Task, key: int) -> None:
    new = resplit(Stream(key), task)
    assert Counter(new.train + new.test) == Counter(task.train + task.test)
    assert (len(new.train), len(new.test)) == (len(task.train), len(task.test))
