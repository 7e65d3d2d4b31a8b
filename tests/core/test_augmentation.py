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
from trainers.data.task_augmentation import KINDS, ProblemChange, random_change

views = st.builds(
    Augmentation, st.sampled_from(SYMMETRIES), st.permutations(range(COLOURS)).map(tuple), st.just((0, 1, 2))
)


@given(views, grids())
def test_invert_undoes_apply_on_any_grid(view: Augmentation, grid: Grid) -> None:
    assert view.invert(view.apply(grid)) == grid
    assert view.apply(view.invert(grid)) == grid


@given(tasks(), st.integers())
def test_a_view_of_a_task_maps_every_pair(task: Task, key: int) -> None:
    view = random_view(Stream(key), len(task.train))
    seen = view.apply_task(task)
    assert seen.id == task.id
    assert [view.invert(pair.input) for pair in seen.train] == [task.train[i].input for i in view.order]
    assert [view.apply(pair.input) for pair in task.test] == [pair.input for pair in seen.test]
    assert identity_view(len(task.train)).apply_task(task) == task


def test_unknown_outputs_stay_unknown() -> None:
    grid = Grid.from_rows([[1, 2]])
    task = Task("t", (Pair(grid, grid),), (Pair(grid, None),))
    assert sampling_view(0, "t", 5, 1).apply_task(task).test[0].output is None
    assert resplit(Stream(1), task) == task


def test_sampling_views_are_a_function_of_their_key() -> None:
    view = sampling_view(7, "00576224", 5, 3)
    assert view == Augmentation("flip_ud", (0, 9, 3, 8, 5, 7, 4, 1, 6, 2), (0, 1, 2))
    code = (
        "from harness.core.augmentation import sampling_view; "
        "print([sampling_view(7, t, v, 3) for v in reversed(range(9)) for t in ('b', 'a')])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == str([sampling_view(7, t, v, 3) for v in reversed(range(9)) for t in ("b", "a")])
    assert [sampling_view(0, "t", v, 3).symmetry for v in range(9)] == [*SYMMETRIES, SYMMETRIES[0]]


def test_the_background_moves_in_a_tenth_of_the_views() -> None:
    drawn = [random_colours(Stream("colours", i)) for i in range(4000)]
    assert all(sorted(colours) == list(range(COLOURS)) for colours in drawn)
    moved = sum(colours[0] != 0 for colours in drawn)
    assert 0.07 * 4000 < moved < 0.11 * 4000  # 0.1 x 9/10
    for place in range(1, COLOURS):
        assert len(Counter(colours[place] for colours in drawn)) == COLOURS


@given(tasks(), st.integers())
def test_resplit_keeps_all_pairs(task: Task, key: int) -> None:
    new = resplit(Stream(key), task)
    assert Counter(new.train + new.test) == Counter(task.train + task.test)
    assert (len(new.train), len(new.test)) == (len(task.train), len(task.test))


@given(tasks(max_side=30), st.integers())
def test_a_problem_change_touches_one_side_and_stays_within_30(task: Task, key: int) -> None:
    change = random_change(Stream(key), task)
    assert change is not None
    new = change.apply_task(task)
    kept, changed = ("output", "input") if change.side == "input" else ("input", "output")
    for old, made in zip(task.train + task.test, new.train + new.test, strict=True):
        assert getattr(made, kept) == getattr(old, kept)
        grid = getattr(made, changed)
        assert grid == change.apply(getattr(old, changed))
        assert max(grid.shape) <= 30
        assert Grid.from_rows(grid.to_rows()) == grid


def test_every_kind_of_problem_change_is_drawn() -> None:
    grid = Grid.from_rows([[1, 2]])
    task = Task("t", (Pair(grid, grid),), (Pair(grid, grid),))
    drawn = [random_change(Stream("kind", i), task) for i in range(400)]
    assert {(change.side, change.kind) for change in drawn if change} == {
        (s, k) for s in ("input", "output") for k in KINDS
    }
    assert {change.rows for change in drawn if change and change.kind == "padding"} == {1, 2, 3, 4, 5}
    assert {change.columns for change in drawn if change and change.kind == "upscale"} == {2, 3, 4}


def test_what_does_not_fit_is_not_drawn() -> None:
    grid = Grid(30, 29, bytes(870))
    task = Task("t", (Pair(grid, grid),), (Pair(grid, None),))
    assert random_change(Stream(0), task, {"padding": 1, "upscale": 1, "mirror": 1, "geometric": 0}) is None
    assert {c.kind for i in range(40) if (c := random_change(Stream(i), task))} == {"geometric"}


def test_problem_changes_by_hand() -> None:
    grid = Grid.from_rows([[1, 2]])
    assert ProblemChange("input", "padding", rows=1, columns=2, colour=5).apply(grid).to_rows() == [
        [5] * 6,
        [5, 5, 1, 2, 5, 5],
        [5] * 6,
    ]
    assert ProblemChange("input", "upscale", rows=2, columns=3).apply(grid).to_rows() == [[1, 1, 1, 2, 2, 2]] * 2
    assert ProblemChange("input", "mirror", symmetry="flip_lr").apply(grid).to_rows() == [[1, 2, 2, 1]]
    assert ProblemChange("input", "mirror", symmetry="flip_lr", first=False).apply(grid).to_rows() == [[2, 1, 1, 2]]
    assert ProblemChange("input", "mirror", symmetry="flip_ud").apply(grid).to_rows() == [[1, 2], [1, 2]]
    assert ProblemChange("input", "geometric", symmetry="transpose").apply(grid).to_rows() == [[1], [2]]
