"""Samples of a task's test-time training: which pairs they leave out, and that nothing else decides them."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.augmentation import identity_view
from harness.core.errors import DataError
from harness.core.grid import Task
from harness.core.random_stream import Stream
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from tests.support.data_samples import random_task
from tests.support.training.mixtures import tiny_tokenizer
from trainers.recipe.schema import Recipe
from trainers.recipe.ttt_recipe import make_ttt_recipe
from trainers.ttt.task_samples import LeaveOutTask, Split, open_task, sample_order, splits

TOKENS = PromptTokenizer(tiny_tokenizer(), load_prompt("compact-v0"), parse_encoder("MinimalGridEncoder()"))


def _recipe(**changes: Any) -> Recipe:
    data = {"model": "tiny", "prompt": "compact-v0", "encoder": "MinimalGridEncoder()", "max_seq_len": 600}
    return make_ttt_recipe({**data, "batch_size": 4, **changes})


def _task(n_train: int, seed: int = 0) -> Task:
    return random_task(Stream("ttt", seed), n_train, 5, f"t{seed}")


@pytest.mark.parametrize("n_train", [2, 3, 5])
@pytest.mark.parametrize("left_out", [1, 2])
def test_splits_are_all_choices_of_pairs(n_train: int, left_out: int) -> None:
    expected = {
        (frozenset(range(n_train)) - set(dropped), dropped[0]) for dropped in permutations(range(n_train), left_out)
    }
    actual = splits(n_train, left_out)
    assert {(frozenset(s.shown), s.asked) for s in actual} == expected
    assert len(actual) == len(expected) == n_train * (n_train - 1) ** (left_out - 1)
    assert all(s.asked not in s.shown and list(s.shown) == sorted(s.shown) for s in actual)


@given(st.integers(0, 99), st.lists(st.integers(0, 10**6), min_size=1, max_size=5), st.sampled_from([1, 2, [1, 2]]))
@settings(max_examples=25, deadline=None)
def test_a_sample_depends_only_on_seed_task_and_index(seed: int, indices: list[int], left: Any) -> None:
    task, recipe = _task(4), _recipe(seed=seed, ttt={"leave_out": left})
    one, other = (open_task(recipe, TOKENS, task.id, task.train) for _ in range(2))
    assert [one.draw_sample(i) for i in indices] == [other.draw_sample(i) for i in reversed(indices)][::-1]
    renamed = open_task(recipe, TOKENS, "another", task.train)
    assert [renamed.draw_sample(i).sample.ids for i in range(9)] != [one.draw_sample(i).sample.ids for i in range(9)]


def test_every_pair_is_asked_for_and_no_sample_shows_its_answer() -> None:
    task = _task(4)
    data = LeaveOutTask(task.id, task.train, (1, 2), _recipe(ttt={"augment": {}}).ttt.augment)  # type: ignore[union-attr]
    plain = LeaveOutTask(
        task.id,
        task.train,
        (1, 2),
        data.augment.model_copy(update=dict.fromkeys(("symmetries", "colours", "order"), False)),
    )
    shown: set[Split] = set()
    for k in range(400):
        drawn = plain.task(0, Stream("draw", k))
        (test,) = drawn.test
        shown.add(Split(tuple(task.train.index(pair) for pair in drawn.train), task.train.index(test)))
        viewed = data.task(0, Stream("draw", k))
        assert (len(viewed.train), len(viewed.test)) == (len(drawn.train), 1)
    assert shown == {*splits(4, 1), *splits(4, 2)}


@pytest.mark.parametrize("part", ["symmetries", "colours", "order"])
def test_each_augmentation_can_be_turned_off(part: str) -> None:
    task = _task(4)
    augment = _recipe().ttt.augment.model_copy(update={part: False})  # type: ignore[union-attr]
    data = LeaveOutTask(task.id, task.train, (1,), augment)
    views = [data._view(Stream("view", k), 3) for k in range(40)]
    plain = identity_view(3)
    names = {"symmetries": "symmetry", "colours": "colours", "order": "order"}
    for key, name in names.items():
        values = {getattr(view, name) for view in views}
        assert (values == {getattr(plain, name)}) == (key == part)


def test_a_task_with_two_pairs_leaves_out_one_instead_of_two() -> None:
    recipe = _recipe(ttt={"leave_out": 2})
    assert [recipe.ttt.usable_leave_out(n) for n in (1, 2, 3)] == [[], [1], [2]]  # type: ignore[union-attr]
    task = _task(2)
    mixture = open_task(recipe, TOKENS, task.id, task.train)
    same = open_task(_recipe(ttt={"leave_out": 1}), TOKENS, task.id, task.train)
    assert mixture.draw_sample(3) == same.draw_sample(3)


def test_a_single_pair_and_too_long_samples_are_errors() -> None:
    task = _task(3)
    with pytest.raises(DataError, match=r"task t0: 1 train pair.*at least two"):
        open_task(_recipe(), TOKENS, task.id, task.train[:1])
    with pytest.raises(DataError, match=r"'train pairs of task t0' cannot supply.*raise max_seq_len"):
        open_task(_recipe(max_seq_len=20), TOKENS, task.id, task.train)


def test_the_order_has_every_sample_once_per_epoch() -> None:
    recipe = _recipe(ttt={"samples": 10, "epochs": 3})
    order = sample_order(recipe, "t")
    assert recipe.max_steps == 8
    assert [sorted(order[k : k + 10]) for k in (0, 10, 20)] == [list(range(10))] * 3
    assert order[:10] == list(range(10))
    assert order[10:20] != order[20:30]
    assert sample_order(_recipe(ttt={"steps": 3}), "t") == list(range(12))
