"""Which tokens of a prompt are learned besides the answer: exactly those that write the outputs after the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError
from harness.core.grid import Task
from harness.core.random_stream import Stream
from harness.prompts.chat_template import decode_ids
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.prompt_template import load_prompt, prompt_names
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.prompts.token_ranges import count_leading, count_trailing, ranges_by_offset
from tests.families.make import make_tokenizer
from tests.support.data_samples import random_task
from tests.support.training.mixtures import make_mixture, tiny_tokenizer
from trainers.data.micro_batches import IGNORED, pad_samples
from trainers.data.mixture import count_by_source

ENCODERS = ("MinimalGridEncoder()", "ReplaceNumberEncoder(MinimalGridEncoder())", DEFAULT_ENCODER)
TASKS = [random_task(Stream("ranges", k), 1 + k % 4, 6, f"t{k}") for k in range(8)]


def _check_sample(tokens: PromptTokenizer, task: Task) -> None:
    """Compare the learned ranges with the decoded tokens: each writes one grid, and has no token to spare."""
    sample, plain = tokens.sample_with_outputs(task, 0), tokens.sample(task, 0)
    assert (sample.ids, sample.prompt_length) == (plain.ids, plain.prompt_length)
    asked = [pair.input if tokens.prompt.asks_input else pair.output for pair in task.train[1:]]
    assert len(sample.learned) == len(asked)
    end = 0
    for (first, last), grid in zip(sample.learned, asked, strict=True):
        assert grid is not None
        text = tokens.encoder.encode(grid)
        assert end <= first < last <= sample.prompt_length
        assert text in decode_ids(tokens.tokenizer, sample.ids[first:last])
        assert text not in decode_ids(tokens.tokenizer, sample.ids[first + 1 : last])
        assert text not in decode_ids(tokens.tokenizer, sample.ids[first : last - 1])
        end = last


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", prompt_names())
@pytest.mark.parametrize("fast", [True, False])
def test_ranges_of_the_tiny_base(name: str, encoder: str, fast: bool) -> None:
    tokens = PromptTokenizer(tiny_tokenizer(), load_prompt(name), parse_encoder(encoder), fast=fast)
    for task in TASKS:
        _check_sample(tokens, task)


@pytest.mark.parametrize("family", ["qwen3", "llama3", "gemma2", "mistral", "phi", "r1"])
def test_ranges_of_common_families(family: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(make_tokenizer(family, tmp_path / family), mistral_format=False)
    for name in ("compact-v0", "output-from-examples-nosystem-v1"):
        for encoder in (ENCODERS[0], DEFAULT_ENCODER):
            both = [
                PromptTokenizer(tokenizer, load_prompt(name), parse_encoder(encoder), fast=fast)
                for fast in (True, False)
            ]
            for task in TASKS[:4]:
                _check_sample(both[0], task)
                assert both[0].sample_with_outputs(task, 0) == both[1].sample_with_outputs(task, 0)


def test_a_token_that_overlaps_a_part_counts() -> None:
    pieces = ["ab", "cd", "e", "fgh"]

    def decode(ids: Any) -> str:
        return "".join(pieces[k] for k in ids)

    text = "abcdefgh"
    ends = [2, 4, 5, 8]
    for length in range(len(text) + 1):
        leading = sum(end - len(pieces[k]) < length for k, end in enumerate(ends))
        trailing = sum(end > len(text) - length for end in ends)
        assert count_leading(decode, range(4), length) == leading
        assert count_trailing(decode, range(4), length) == trailing


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"does not tell; use loss_on: answer"):
        ranges_by_offset(object(), "text", [(0, 1)])


def test_labels_and_counts_cover_outputs_and_answer_only() -> None:
    draws = [make_mixture("toy/cross#n=20", loss_on_outputs=True).draw_sample(k) for k in range(5)]
    plain = [make_mixture("toy/cross#n=20").draw_sample(k) for k in range(5)]
    assert [d.sample.ids for d in draws] == [d.sample.ids for d in plain]
    batch = pad_samples([d.sample for d in draws], 0)
    for draw, labels in zip(draws, batch["labels"].tolist(), strict=True):
        ids, sample = draw.sample.ids, draw.sample
        learned = {k for first, last in sample.learned for k in range(first, last)}
        learned |= set(range(sample.prompt_length, len(ids)))
        assert labels == [ids[k] if k in learned else IGNORED for k in range(len(ids))] + [IGNORED] * (
            len(labels) - len(ids)
        )
    (counts,), (fewer,) = count_by_source(draws, 1), count_by_source(plain, 1)
    assert counts.answer_tokens == int((batch["labels"] != IGNORED).sum()) > fewer.answer_tokens
    assert (counts.tokens, counts.drawn) == (fewer.tokens, fewer.drawn)
