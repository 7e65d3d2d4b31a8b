from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import ConfigError, DataError
from harness.core.grid import Pair, Task
from harness.core.random_stream import Stream
from harness.data.dataset import Dataset, TaskList
from harness.data.spec import open_dataset
from harness.prompts.grid_encoder import DEFAULT_ENCODER
from harness.prompts.prompt_template import DEFAULT_PROMPT
from tests.support.data_samples import random_task
from trainers.data.micro_batches import (
    IGNORED,
    Collator,
    MicroBatchLimits,
    cut_micro_batches,
    pad_samples,
    samples_per_process,
    split_micro_batches,
)
from trainers.data.mixture import CHECK_DRAWS, Mixture, SampleCounts, count_by_source, open_mixture
from trainers.store.checkpoints import newest_complete
from trainers.store.digests import DIGESTS_FILE, write_digests
from trainers.tiny.tokenizer import build_tokenizer


@cache
def tokenizer() -> Any:
    return build_tokenizer()


def mixture(
    *datasets: Dataset | str,
    weights: Sequence[float | None] = (),
    seed: int = 0,
    prompt: str = "compact-v0",
    **options: Any,
) -> Mixture:
    opened = [open_dataset(d) if isinstance(d, str) else d for d in datasets]
    options = {"encoder": "MinimalGridEncoder()", "max_seq_len": 400, **options}
    chosen = weights or [None] * len(opened)
    return open_mixture(opened, [prompt] * len(opened), chosen, tokenizer(), seed=seed, **options)


@cache
def some_tasks() -> TaskList:
    return TaskList("some", tuple(random_task(Stream("mixed", k), 1 + k % 4, 8, f"t{k}") for k in range(30)))


def mixed_lengths(seed: int = 0, **options: Any) -> Mixture:
    """A dataset in which about half the tasks do not fit, beside one that always fits."""
    return mixture(some_tasks(), "toy/copy#n=9", seed=seed, max_seq_len=250, **options)


@given(st.integers(0, 99), st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_a_sample_depends_on_seed_and_index_alone(seed: int, indices: list[int]) -> None:
    one, other = mixed_lengths(seed), mixed_lengths(seed)
    there = [one.draw_sample(i) for i in indices]
    assert [other.draw_sample(i) for i in reversed(indices)] == there[::-1]


def test_seeds_differ_and_samples_are_augmented() -> None:
    one, other = ([mixture("toy/copy#n=1", seed=s).draw_sample(i).sample.ids for i in range(20)] for s in (0, 1))
    assert one != other
    assert len({tuple(ids) for ids in one}) > 15
    plain = mixture("toy/copy#n=1", augment=False)
    assert len({tuple(plain.draw_sample(i).sample.ids) for i in range(20)}) == 1


def test_declared_and_implicit_weights_are_realised() -> None:
    mix = mixture("toy/copy#n=30", "toy/cross#n=10", weights=[1, 3])
    assert mix.shares == [0.25, 0.75]
    share = sum(mix.source_index(i) for i in range(4000)) / 4000
    assert abs(share - 0.75) < 0.03
    assert mixture("toy/copy#n=30", "toy/cross#n=10").shares == [0.75, 0.25]


def test_skipped_samples_do_not_change_the_shares() -> None:
    mix = mixed_lengths(weights=[1, 1])
    draws = [mix.draw_sample(i) for i in range(600)]
    some, toys = count_by_source(draws, 2)
    assert some.too_long > 50
    assert toys.too_long == 0
    assert [d.source for d in draws] == [mix.source_index(i) for i in range(600)]
    assert max(len(d.sample.ids) for d in draws) <= 250
    assert some.tokens == sum(len(d.sample.ids) for d in draws if d.source == 0)
    assert some.drawn + toys.drawn == 600


def test_trailing_pairs_are_dropped_where_asked() -> None:
    skipping, dropping = mixed_lengths(), mixed_lengths(drop_pairs=True)
    kept, counts = (count_by_source([mix.draw_sample(i) for i in range(200)], 2) for mix in (skipping, dropping))
    assert kept[0].dropped_pairs == 0
    assert counts[0].dropped_pairs > 20
    assert counts[0].too_long < kept[0].too_long


def test_dropping_a_pair_keeps_the_others_and_the_test() -> None:
    task = random_task(Stream("one"), 4, 6, "one")
    whole = mixture(TaskList("one", (task,)), max_seq_len=10_000, augment=False).draw_sample(0).sample
    room = len(whole.ids) - 1
    cut = mixture(TaskList("one", (task,)), max_seq_len=room, augment=False, drop_pairs=True).draw_sample(0)
    shorter = mixture(TaskList("one", (replace(task, train=task.train[:3]),)), max_seq_len=10_000, augment=False)
    assert cut.dropped_pairs == 1
    assert cut.sample == shorter.draw_sample(0).sample


def _without_outputs(task: Task) -> Task:
    return replace(task, test=tuple(Pair(p.input, None) for p in task.test))


def test_datasets_that_cannot_supply() -> None:
    tasks = tuple(random_task(Stream("n", k), 2, 5, f"t{k}") for k in range(8))
    mixture(TaskList("half", (*tasks[:4], *map(_without_outputs, tasks[4:])))).check()
    late = (*map(_without_outputs, tasks[1:] * 3), tasks[0])
    with pytest.raises(DataError, match="'rare' cannot supply the mixture"):
        mixture(TaskList("rare", tuple(replace(task, id=f"r{k}") for k, task in enumerate(late)))).check()
    silent = mixture(TaskList("silent", tuple(map(_without_outputs, tasks))))
    for act in (silent.check, lambda: silent.draw_sample(0)):
        with pytest.raises(DataError, match=r"'silent' cannot supply.* had no output; use a dataset with known"):
            act()
    with pytest.raises(DataError, match=f"of {CHECK_DRAWS} draws {CHECK_DRAWS} were over 20 tokens.*raise max_seq_len"):
        mixture("toy/copy#n=9", max_seq_len=20).check()
    with pytest.raises(DataError, match="'none' has no task"):
        mixture(TaskList("none", ()), "toy/copy#n=9").check()


def test_half_answered_dataset_counts_what_it_skipped() -> None:
    tasks = tuple(random_task(Stream("n", k), 2, 5, f"t{k}") for k in range(8))
    mix = mixture(TaskList("half", (*tasks[:4], *map(_without_outputs, tasks[4:]))))
    (counts,) = count_by_source([mix.draw_sample(i) for i in range(200)], 1)
    assert 100 < counts.no_output < 300


LIMITS = st.builds(
    MicroBatchLimits, st.integers(1, 900), st.none() | st.integers(1, 5), st.sampled_from([0.0, 0.05, 0.9])
)


@given(st.lists(st.integers(1, 400), max_size=40), LIMITS)
@settings(deadline=None)
def test_passes_hold_every_sample_once_within_their_limits(lengths: list[int], limits: MicroBatchLimits) -> None:
    passes = cut_micro_batches(lengths, limits)
    assert sorted(k for ks in passes for k in ks) == list(range(len(lengths)))
    cut = [[lengths[k] for k in ks] for ks in passes]
    assert [n for part in cut for n in part] == sorted(lengths, reverse=True)
    for part in cut:
        places = part[0] * len(part)
        assert len(part) == 1 or (places <= limits.tokens and places - sum(part) <= limits.padding * places + 1e-6)
        assert limits.samples is None or len(part) <= limits.samples


def padding(batches: list[list[int]]) -> float:
    return 1 - sum(map(sum, batches)) / sum(max(b) * len(b) for b in batches)


@cache
def arc_lengths(longest: int) -> list[int]:
    """The lengths of 480 samples of ARC-AGI-1's training tasks, as training draws them by default."""
    mix = mixture("arc1/training", prompt=DEFAULT_PROMPT, encoder=DEFAULT_ENCODER, max_seq_len=longest)
    assert mix.sources[0].tokens.method == "cells"  # by table, not by the tokenizer
    return [len(mix.draw_sample(i).sample.ids) for i in range(480)]


@pytest.mark.parametrize("batch", [8, 16])
@pytest.mark.parametrize("longest", [4096, 8192])
def test_padding_on_real_tasks_stays_under_a_twentieth(longest: int, batch: int) -> None:
    lengths = arc_lengths(longest)
    assert max(lengths) > 0.9 * longest
    steps = [lengths[k : k + batch] for k in range(0, len(lengths), batch)]
    assert padding(steps) > 0.43  # each step as one padded batch, in the order drawn
    passes = [[step[k] for k in ks] for step in steps for ks in cut_micro_batches(step, MicroBatchLimits(16_384))]
    assert padding(passes) < 0.05
    assert len(passes) < 0.8 * len(lengths)


def test_a_step_is_spread_evenly() -> None:
    assert samples_per_process(12, 3) == 4
    with pytest.raises(ConfigError, match="cannot be spread over 5"):
        samples_per_process(12, 5)


def test_the_loss_covers_answer_and_end_of_turn_even_where_padding_is_that_token() -> None:
    mix = mixed_lengths()
    draws = [mix.draw_sample(i) for i in range(6)]
    end = tokenizer().eos_token_id
    batch: dict[str, Any] = Collator(end, 2, MicroBatchLimits(10_000, padding=0.9))([{"draw": d} for d in draws])
    (one,) = batch["micro_batches"]
    draws.sort(key=lambda d: -len(d.sample.ids))
    longest = len(draws[0].sample.ids)
    assert one["input_ids"].shape == one["labels"].shape == (6, longest)
    for k, d in enumerate(draws):
        ids, start, labels = d.sample.ids, d.sample.prompt_length, one["labels"][k].tolist()
        assert one["input_ids"][k].tolist() == ids + [end] * (longest - len(ids))
        assert labels == [IGNORED] * start + ids[start:] + [IGNORED] * (longest - len(ids))
        assert labels[len(ids) - 1] == end
        assert one["position_ids"][k].tolist() == list(range(longest))
    assert [SampleCounts(*c) for c in batch["counts"]] == count_by_source(draws, 2)


def test_flat_labels_count_the_answer_tokens_of_all_passes() -> None:
    mix = mixed_lengths()
    draws = [mix.draw_sample(i) for i in range(12)]
    batch: dict[str, Any] = Collator(0, 2, MicroBatchLimits(300))([{"draw": d} for d in draws])
    assert len(batch["micro_batches"]) > 2
    answers = sum(len(d.sample.ids) - d.sample.prompt_length for d in draws)
    assert int((batch["labels"][1:] != IGNORED).sum()) == answers
    assert batch["input_ids"].numel() == sum(p["input_ids"].numel() for p in batch["micro_batches"])


@given(st.integers(3, 12))
@settings(deadline=None)
def test_split_passes_hold_the_same_samples(number: int) -> None:
    passes = [pad_samples([[k] * 4 for k in range(a, b)], [2] * (b - a), 0) for a, b in ((0, 7), (7, 8), (8, 12))]
    parts = split_micro_batches(passes, number)
    assert len(parts) == number
    assert [row[0] for part in parts for row in part["input_ids"].tolist()] == list(range(12))
    assert all(len(part["labels"]) == len(part["input_ids"]) > 0 for part in parts)


def test_padded_shapes() -> None:
    out = pad_samples([[1, 2, 3], [4]], [2, 0], 9)
    assert out["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert out["labels"].tolist() == [[-100, -100, 3], [4, -100, -100]]


def _checkpoint(folder: Path, step: int) -> Path:
    """A checkpoint as transformers writes it, as far as completeness goes."""
    import torch
    from safetensors.torch import save_file

    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"w": torch.zeros(200)}, path / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": step, "moment": torch.zeros(200)}, path / name)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    write_digests(path)
    return path


TORN = [
    "trainer_state.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "adapter_model.safetensors",
    DIGESTS_FILE,
]


@pytest.mark.parametrize("name", TORN)
@pytest.mark.parametrize("share", [None, 0.0, 0.5])
def test_torn_checkpoints_are_skipped(
    tmp_path: Path, name: str, share: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert newest_complete(tmp_path / "none") is None
    whole, torn = _checkpoint(tmp_path, 9), _checkpoint(tmp_path, 10)
    assert newest_complete(tmp_path) == torn
    content = (torn / name).read_bytes()
    (torn / name).unlink()
    if share is not None:
        (torn / name).write_bytes(content[: int(len(content) * share)])
    assert newest_complete(tmp_path) == whole
    assert "checkpoint-10" in caplog.text
