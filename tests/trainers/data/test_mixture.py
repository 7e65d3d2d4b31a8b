"""Mixtures: samples that depend on seed and index only, declared shares, skipped samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import DataError
from harness.core.random_stream import Stream
from harness.data.dataset import TaskList
from tests.support.data_samples import random_task
from tests.support.training.mixtures import half_too_long, make_mixture, without_outputs
from tests.support.training.recipes import SMALL
from trainers.data.mixture import CHECK_DRAWS, count_by_source
from trainers.model.inputs import open_inputs, open_recipe_mixture
from trainers.recipe.schema import make_recipe


@given(st.integers(0, 99), st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_a_sample_depends_only_on_seed_and_index(seed: int, indices: list[int]) -> None:
    one, other = half_too_long(seed), half_too_long(seed)
    in_order = [one.draw_sample(i) for i in indices]
    assert [other.draw_sample(i) for i in reversed(indices)] == in_order[::-1]


def test_seeds_differ_and_samples_are_augmented() -> None:
    one, other = ([make_mixture("toy/copy#n=1", seed=s).draw_sample(i).sample.ids for i in range(20)] for s in (0, 1))
    assert one != other
    assert len({tuple(ids) for ids in one}) > 15
    plain = make_mixture("toy/copy#n=1", augment=False)
    assert len({tuple(plain.draw_sample(i).sample.ids) for i in range(20)}) == 1


def test_samples_are_drawn_by_declared_or_implicit_weight() -> None:
    mix = make_mixture("toy/copy#n=30", "toy/cross#n=10", weights=[1, 3])
    assert mix.shares == [0.25, 0.75]
    share = sum(mix.source_index(i) for i in range(4000)) / 4000
    assert abs(share - 0.75) < 0.03
    assert make_mixture("toy/copy#n=30", "toy/cross#n=10").shares == [0.75, 0.25]


def test_skipped_samples_do_not_change_the_shares() -> None:
    mix = half_too_long(weights=[1, 1])
    draws = [mix.draw_sample(i) for i in range(600)]
    some, toys = count_by_source(draws, 2)
    assert some.too_long > 50
    assert toys.too_long == 0
    assert [d.source for d in draws] == [mix.source_index(i) for i in range(600)]
    assert max(len(d.sample.ids) for d in draws) <= 250
    assert some.tokens == sum(len(d.sample.ids) for d in draws if d.source == 0)
    assert some.drawn + toys.drawn == 600


def test_last_pairs_are_dropped_if_requested() -> None:
    skipping, dropping = half_too_long(), half_too_long(drop_pairs=True)
    skipped, dropped = (count_by_source([mix.draw_sample(i) for i in range(200)], 2) for mix in (skipping, dropping))
    assert skipped[0].dropped_pairs == 0
    assert dropped[0].dropped_pairs > 20
    assert dropped[0].too_long < skipped[0].too_long


def test_dropping_a_pair_leaves_the_others_and_the_test_unchanged() -> None:
    task = random_task(Stream("one"), 4, 6, "one")
    whole = make_mixture(TaskList("one", (task,)), max_seq_len=10_000, augment=False).draw_sample(0).sample
    room = len(whole.ids) - 1
    cut = make_mixture(TaskList("one", (task,)), max_seq_len=room, augment=False, drop_pairs=True).draw_sample(0)
    shorter = make_mixture(TaskList("one", (replace(task, train=task.train[:3]),)), max_seq_len=10_000, augment=False)
    assert cut.dropped_pairs == 1
    assert cut.sample == shorter.draw_sample(0).sample


def test_a_dataset_without_usable_samples_is_an_error() -> None:
    tasks = tuple(random_task(Stream("n", k), 2, 5, f"t{k}") for k in range(8))
    make_mixture(TaskList("half", (*tasks[:4], *map(without_outputs, tasks[4:])))).check()
    late = (*map(without_outputs, tasks[1:] * 3), tasks[0])
    with pytest.raises(DataError, match="'rare' cannot supply the mixture"):
        make_mixture(TaskList("rare", tuple(replace(task, id=f"r{k}") for k, task in enumerate(late)))).check()
    silent = make_mixture(TaskList("silent", tuple(map(without_outputs, tasks))))
    for act in (silent.check, lambda: silent.draw_sample(0)):
        with pytest.raises(DataError, match=r"'silent' cannot supply.* had no output; use a dataset with known"):
            act()
    with pytest.raises(DataError, match=f"of {CHECK_DRAWS} draws {CHECK_DRAWS} were over 20 tokens.*raise max_seq_len"):
        make_mixture("toy/copy#n=9", max_seq_len=20).check()
    with pytest.raises(DataError, match="'none' has no task"):
        make_mixture(TaskList("none", ()), "toy/copy#n=9").check()


def test_tasks_without_output_are_skipped_and_counted() -> None:
    tasks = tuple(random_task(Stream("n", k), 2, 5, f"t{k}") for k in range(8))
    mix = make_mixture(TaskList("half", (*tasks[:4], *map(without_outputs, tasks[4:]))))
    (counts,) = count_by_source([mix.draw_sample(i) for i in range(200)], 1)
    assert 100 < counts.no_output < 300


def test_the_recipe_s_options_reach_its_mixture() -> None:
    def samples(**changes: Any) -> list[list[int]]:
        data = {**SMALL, "prompt": "compact-v0", "encoder": "MinimalGridEncoder()", **changes}
        mixture = open_recipe_mixture(open_inputs(make_recipe(data)))
        return [mixture.draw_sample(i).sample.ids for i in range(6)]

    datasets = [{"spec": "toy/cross#n=20", "weight": 1}, {"spec": "toy/copy#n=20", "weight": 3}]
    expected = make_mixture("toy/cross#n=20", "toy/copy#n=20", weights=[1, 3], seed=5)
    assert samples(datasets=datasets, seed=5) == [expected.draw_sample(i).sample.ids for i in range(6)]
    plain = make_mixture("toy/cross#n=20", seed=5, augment=False)
    assert samples(datasets="toy/cross#n=20", seed=5, augment=False) == [
        plain.draw_sample(i).sample.ids for i in range(6)
    ]
    limit = max(map(len, samples(datasets="toy/cross#n=20"))) - 1
    short = make_mixture("toy/cross#n=20", max_seq_len=limit, drop_pairs=True)
    assert samples(datasets="toy/cross#n=20", max_seq_len=limit, too_long="drop_pairs") == [
        short.draw_sample(i).sample.ids for i in range(6)
    ]
