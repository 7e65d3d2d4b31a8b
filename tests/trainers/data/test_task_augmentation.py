"""New training tasks from old ones: pairs split again, and problem changes, as the recipe says."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import ConfigError
from harness.core.grid import Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.data.dataset import TaskList
from tests.support.data_samples import random_task, tasks
from tests.support.training.mixtures import half_too_long, make_mixture
from trainers.commands.preview import format_preview, preview
from trainers.data.mixture import count_by_source
from trainers.data.task_augmentation import EQUAL_WEIGHTS, KINDS, ProblemChange, TaskChanges, random_change
from trainers.model.inputs import open_inputs, open_recipe_mixture
from trainers.recipe.schema import make_recipe

TASKS = tuple(random_task(Stream("remake", k), 3, 4, f"t{k}") for k in range(6))
RECIPE: dict[str, Any] = {
    "model": "tiny",
    "output_dir": Path("out"),
    "max_steps": 25,
    "prompt": "compact-v0",
    "encoder": "MinimalGridEncoder()",
}


@pytest.mark.parametrize(("drop", "expected"), [(False, "81714a3cd4f081b1"), (True, "a89a51f05485b2d9")])
def test_without_task_changes_samples_equal_those_of_earlier_versions(drop: bool, expected: str) -> None:
    mix = half_too_long(3, drop_pairs=drop)
    drawn = [(d.task_id, d.sample.ids, d.too_long) for d in map(mix.draw_sample, range(60))]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest()[:16] == expected


@given(st.integers(0, 99), st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_a_changed_sample_depends_only_on_seed_and_index(seed: int, indices: list[int]) -> None:
    task_changes = [TaskChanges(True, 0.5), TaskChanges(False, 0.9, {"mirror": 1})]
    one, other = half_too_long(seed, task_changes=task_changes), half_too_long(seed, task_changes=task_changes)
    in_order = [one.draw_sample(i) for i in indices]
    assert [other.draw_sample(i) for i in reversed(indices)] == in_order[::-1]


def test_with_resplit_every_pair_becomes_the_test_pair() -> None:
    def answer_counts(resplit: bool) -> Counter[tuple[int, ...]]:
        mix = make_mixture(TaskList("one", TASKS[:1]), augment=False, task_changes=[TaskChanges(resplit)])
        draws = [mix.draw_sample(i) for i in range(200)]
        assert all(d.resplit == resplit for d in draws)
        return Counter(tuple(d.sample.ids[d.sample.prompt_length :]) for d in draws)

    assert len(answer_counts(False)) == 1
    shares = answer_counts(True)
    assert len(shares) == 4
    assert min(shares.values()) > 25


def test_a_task_with_an_unknown_output_is_not_split() -> None:
    open_end = replace(TASKS[0], test=(*TASKS[0].test, Pair(TASKS[1].test[0].input, None)))
    mix = make_mixture(TaskList("open", (open_end,)), task_changes=[TaskChanges(True)])
    (counts,) = count_by_source([mix.draw_sample(i) for i in range(20)], 1)
    assert (counts.drawn, counts.resplit) == (20, 0)


def test_problem_changes_have_the_requested_probability_and_are_counted() -> None:
    mix = make_mixture(
        TaskList("some", TASKS), max_seq_len=4000, augment=False, task_changes=[TaskChanges(probability=0.3)]
    )
    plain = make_mixture(TaskList("some", TASKS), max_seq_len=4000, augment=False)
    known = {tuple(plain.draw_sample(i).sample.ids) for i in range(100)}
    assert len(known) == len(TASKS)
    draws = [mix.draw_sample(i) for i in range(400)]
    (counts,) = count_by_source(draws, 1)
    assert 80 < counts.changed < 160
    assert all(tuple(d.sample.ids) in known for d in draws if not d.changed)
    # A few changes, such as the half turn of a single cell, leave a task as it is.
    assert sum(tuple(d.sample.ids) not in known for d in draws if d.changed) > 0.9 * counts.changed


def test_a_change_that_does_not_fit_leaves_the_task_unchanged() -> None:
    big = random_task(Stream("big"), 2, 1)
    tall = Pair(replace(big.train[0].input, height=30, width=1, cells=bytes(30)), big.train[0].output)
    task = Task("tall", (tall,) * 2, (Pair(tall.input, tall.input),))
    upscale = TaskChanges(probability=1, weights={"upscale": 1})
    drawn = [upscale.change(Stream(k), task) for k in range(20)]
    assert all(new is task for new in drawn)


def test_kinds_are_drawn_by_weight() -> None:
    weights = {"geometric": 0.0, "padding": 1.0, "upscale": 3.0}
    drawn = [random_change(Stream("weight", k), TASKS[0], weights) for k in range(800)]  # type: ignore[arg-type]
    kinds = Counter(change.kind for change in drawn if change)
    assert set(kinds) == {"padding", "upscale"}
    assert 0.68 < kinds["upscale"] / 800 < 0.82
    assert set(EQUAL_WEIGHTS) == set(KINDS)


def test_a_dataset_overrides_the_recipe_s_task_changes() -> None:
    datasets = [{"spec": "toy/cross#n=9"}, {"spec": "toy/copy#n=9", "resplit": False, "change_probability": 0}]
    recipe = make_recipe({**RECIPE, "datasets": datasets, "resplit": True, "change_probability": 1})
    inputs = open_inputs(recipe)
    mix = open_recipe_mixture(inputs)
    one, other = count_by_source([mix.draw_sample(i) for i in range(60)], 2)
    assert (one.resplit, one.changed) == (one.drawn, one.drawn)
    assert (other.resplit, other.changed) == (0, 0)
    text = format_preview(preview(recipe, draws=50))
    assert "split again" in text
    assert "changed to new tasks" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"change_probability": 1.5}, "change_probability: Input should be less than or equal to 1"),
        ({"change_weights": {"mirrored": 1}}, "did you mean 'change_weights.mirror'"),
        ({"change_weights": dict.fromkeys(KINDS, 0)}, "all kinds weigh 0; use change_probability: 0"),
    ],
)
def test_invalid_task_changes_are_explained(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_recipe({**RECIPE, "datasets": "toy/cross", **values})


@given(tasks(max_side=30), st.integers())
def test_a_problem_change_changes_inputs_or_outputs_and_stays_within_30(task: Task, key: int) -> None:
    change = random_change(Stream(key), task)
    assert change is not None
    new = change.apply_task(task)
    same, changed = ("output", "input") if change.side == "input" else ("input", "output")
    for old, changed_pair in zip(task.train + task.test, new.train + new.test, strict=True):
        assert getattr(changed_pair, same) == getattr(old, same)
        grid = getattr(changed_pair, changed)
        assert grid == change.apply(getattr(old, changed))
        assert max(grid.shape) <= 30
        assert Grid.from_rows(grid.to_rows()) == grid


def test_all_kinds_of_problem_changes_occur() -> None:
    grid = Grid.from_rows([[1, 2]])
    task = Task("t", (Pair(grid, grid),), (Pair(grid, grid),))
    changes = [random_change(Stream("kind", i), task) for i in range(400)]
    assert {(change.side, change.kind) for change in changes if change} == {
        (s, k) for s in ("input", "output") for k in KINDS
    }
    assert {change.rows for change in changes if change and change.kind == "padding"} == {1, 2, 3, 4, 5}
    assert {change.columns for change in changes if change and change.kind == "upscale"} == {2, 3, 4}


def test_changes_that_exceed_30_do_not_occur() -> None:
    grid = Grid(30, 29, bytes(870))
    task = Task("t", (Pair(grid, grid),), (Pair(grid, None),))
    assert random_change(Stream(0), task, {"padding": 1, "upscale": 1, "mirror": 1, "geometric": 0}) is None
    assert {c.kind for i in range(40) if (c := random_change(Stream(i), task))} == {"geometric"}


def test_problem_changes_of_one_grid() -> None:
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
