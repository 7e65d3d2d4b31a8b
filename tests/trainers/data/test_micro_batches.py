"""Micro-batches: every sample once, within the limits, with little padding, and the right labels."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import ConfigError
from harness.prompts.grid_encoder import DEFAULT_ENCODER
from harness.prompts.prompt_template import DEFAULT_PROMPT
from harness.prompts.training_sample import TrainingSample
from tests.support.training.mixtures import half_too_long, make_mixture, tiny_tokenizer
from trainers.data.micro_batches import (
    IGNORED,
    Collator,
    MicroBatchLimits,
    cut_micro_batches,
    pad_samples,
    samples_per_process,
    split_micro_batches,
)
from trainers.data.mixture import SampleCounts, count_by_source

LIMITS = st.builds(
    MicroBatchLimits, st.integers(1, 900), st.none() | st.integers(1, 5), st.sampled_from([0.0, 0.05, 0.9])
)


@given(st.lists(st.integers(1, 400), max_size=40), LIMITS)
@settings(deadline=None)
def test_micro_batches_hold_every_sample_once_within_the_limits(lengths: list[int], limits: MicroBatchLimits) -> None:
    passes = cut_micro_batches(lengths, limits)
    assert sorted(k for ks in passes for k in ks) == list(range(len(lengths)))
    cut = [[lengths[k] for k in ks] for ks in passes]
    assert [n for part in cut for n in part] == sorted(lengths, reverse=True)
    for part in cut:
        places = part[0] * len(part)
        assert len(part) == 1 or (places <= limits.tokens and places - sum(part) <= limits.padding * places + 1e-6)
        assert limits.samples is None or len(part) <= limits.samples


def padding_share(batches: list[list[int]]) -> float:
    return 1 - sum(map(sum, batches)) / sum(max(b) * len(b) for b in batches)


@cache
def arc_lengths(longest: int) -> list[int]:
    """Return the lengths of 480 samples of ARC-AGI-1's training tasks, drawn as training does by default."""
    mix = make_mixture("arc1/training", prompt=DEFAULT_PROMPT, encoder=DEFAULT_ENCODER, max_seq_len=longest)
    assert mix.sources[0].tokens.method == "cells"  # by table, not by the tokenizer
    return [len(mix.draw_sample(i).sample.ids) for i in range(480)]


@pytest.mark.parametrize("batch", [8, 16])
@pytest.mark.parametrize("longest", [4096, 8192])
def test_padding_of_arc_tasks_is_below_5_percent(longest: int, batch: int) -> None:
    lengths = arc_lengths(longest)
    assert max(lengths) > 0.9 * longest
    steps = [lengths[k : k + batch] for k in range(0, len(lengths), batch)]
    assert padding_share(steps) > 0.43  # each step as one padded batch, in the order drawn
    passes = [[step[k] for k in ks] for step in steps for ks in cut_micro_batches(step, MicroBatchLimits(16_384))]
    assert padding_share(passes) < 0.05
    assert len(passes) < 0.8 * len(lengths)


def test_a_step_is_divided_evenly_among_processes() -> None:
    assert samples_per_process(12, 3) == 4
    with pytest.raises(ConfigError, match="cannot be spread over 5"):
        samples_per_process(12, 5)


def test_the_loss_covers_answer_and_end_of_turn_even_if_that_token_is_the_padding() -> None:
    mix = half_too_long()
    draws = [mix.draw_sample(i) for i in range(6)]
    end = tiny_tokenizer().eos_token_id
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


def test_flat_labels_count_the_answer_tokens_of_all_micro_batches() -> None:
    mix = half_too_long()
    draws = [mix.draw_sample(i) for i in range(12)]
    batch: dict[str, Any] = Collator(0, 2, MicroBatchLimits(300))([{"draw": d} for d in draws])
    assert len(batch["micro_batches"]) > 2
    answers = sum(len(d.sample.ids) - d.sample.prompt_length for d in draws)
    assert int((batch["labels"][1:] != IGNORED).sum()) == answers
    assert batch["input_ids"].numel() == sum(p["input_ids"].numel() for p in batch["micro_batches"])


@given(st.integers(3, 12))
@settings(deadline=None)
def test_split_micro_batches_hold_the_same_samples(number: int) -> None:
    passes = [pad_samples([TrainingSample([k] * 4, 2) for k in range(a, b)], 0) for a, b in ((0, 7), (7, 8), (8, 12))]
    parts = split_micro_batches(passes, number)
    assert len(parts) == number
    assert [row[0] for part in parts for row in part["input_ids"].tolist()] == list(range(12))
    assert all(len(part["labels"]) == len(part["input_ids"]) > 0 for part in parts)


def test_samples_are_padded_on_the_right() -> None:
    out = pad_samples([TrainingSample([1, 2, 3], 2), TrainingSample([4], 0)], 9)
    assert out["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert out["labels"].tolist() == [[-100, -100, 3], [4, -100, -100]]
