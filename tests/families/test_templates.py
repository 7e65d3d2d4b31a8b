"""Prompts, answers and end of turn under each family's chat template, equal in trainer and harness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError
from harness.core.random_stream import Stream
from harness.prompts.chat_template import TemplateRefusal, TemplateSettings, decode_ids, reads_clock
from harness.prompts.file_tokenizer import FileTokenizer
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from tests.families.make import FAMILIES, make_tokenizer
from tests.support.data_samples import random_task

ENCODER = parse_encoder(DEFAULT_ENCODER)
PROMPT = load_prompt("output-from-examples-v1")
DAY = TemplateSettings(date="2026-11-29")
TASKS = [random_task(Stream("families", k), 1 + k % 3, 12) for k in range(6)]
ENDS = {
    **dict.fromkeys(("qwen2", "qwen3", "qwen3-base", "qwen3-thinking"), "<|im_end|>"),
    **dict.fromkeys(("llama3", "llama3-base-chat"), "<|eot_id|>"),
    "gemma3": "<end_of_turn>",
    "mistral": "</s>",
    "phi": "<|end|>",
    "r1": "<|end_of_sentence|>",
}
LEADS = {
    **dict.fromkeys(("qwen3", "qwen3-base"), "<think>\n\n</think>\n\n"),
    **dict.fromkeys(("qwen3-thinking", "r1"), "\n</think>\n\n"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: make_tokenizer(name, root / name) for name in FAMILIES}


def open_both(folder: Path) -> tuple[Any, FileTokenizer]:
    """Return the tokenizer as the trainer and as the harness opens it."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    hf_tokenizer = AutoTokenizer.from_pretrained(folder)
    from_file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "### Input\n\n0123 4 5\n12345<think>\n\n</think>"
    assert hf_tokenizer.encode(text, add_special_tokens=False) == from_file.encode(text, add_special_tokens=False).ids
    return hf_tokenizer, FileTokenizer(folder)


@pytest.mark.parametrize("name", ENDS)
def test_every_family_can_be_trained_and_ends_its_turn(folders: dict[str, Path], name: str) -> None:
    hf_tokenizer, file_tokenizer = open_both(folders[name])
    for fast in (True, False):
        trainer = PromptTokenizer(hf_tokenizer, PROMPT, ENCODER, settings=DAY, fast=fast)
        harness = PromptTokenizer(file_tokenizer, PROMPT, ENCODER, settings=DAY, fast=fast)
        assert trainer.turn == harness.turn
        assert decode_ids(hf_tokenizer, [trainer.turn.end_token_id]) == ENDS[name]
        assert trainer.turn.answer_prefix == LEADS.get(name, "")
        assert trainer.turn.opens_thought == (name in ("qwen3-thinking", "r1"))
        for task in TASKS:
            sample = trainer.sample(task, 0)
            assert sample == harness.sample(task, 0)
            messages = [{"role": m.role, "content": m.content} for m in PROMPT.messages(task, 0, ENCODER)]
            ids = hf_tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False, **DAY.arguments()
            )
            assert sample.ids[: sample.prompt_length] == ids == harness.prompt_ids(task, 0)
            learned = decode_ids(hf_tokenizer, sample.ids[sample.prompt_length :])
            assert learned == LEADS.get(name, "") + PROMPT.answer(task, 0, ENCODER) + ENDS[name]
            assert sample.ids.count(sample.ids[-1]) >= 1
            assert sample.ids[-1] == trainer.turn.end_token_id


def test_thinking_switched_off_moves_the_empty_thought_into_the_prompt(folders: dict[str, Path]) -> None:
    hf_tokenizer, _ = open_both(folders["qwen3"])
    off = PromptTokenizer(hf_tokenizer, PROMPT, ENCODER, settings=TemplateSettings({"enable_thinking": False}))
    assert off.turn.answer_prefix == ""
    assert off.prompt_text(TASKS[0], 0).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert off.sample(TASKS[0], 0).ids == PromptTokenizer(hf_tokenizer, PROMPT, ENCODER).sample(TASKS[0], 0).ids


def test_the_date_is_fixed_for_templates_that_print_it(folders: dict[str, Path]) -> None:
    for name in ENDS:
        for tokenizer in open_both(folders[name]):
            assert reads_clock(tokenizer, {}) == name.startswith("llama3"), name
    hf_tokenizer, _ = open_both(folders["llama3"])
    assert not reads_clock(hf_tokenizer, {"date_string": "1 Jan 2020"})  # the user says it
    for day, written in (("2026-11-29", "29 Nov 2026"), ("2024-02-01", "01 Feb 2024")):
        settings = TemplateSettings(date=day)
        text = PromptTokenizer(hf_tokenizer, PROMPT, ENCODER, settings=settings).prompt_text(TASKS[0], 0)
        assert f"Today Date: {written}\n" in text
        messages = [{"role": m.role, "content": m.content} for m in PROMPT.messages(TASKS[0], 0, ENCODER)]
        sent = settings.request_kwargs()  # the request sent to a server gives the same text
        assert hf_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **sent) == text
    settings = TemplateSettings({"date_string": "1 Jan 2020"}, "2026-11-29")
    assert "Today Date: 1 Jan 2020\n" in PromptTokenizer(hf_tokenizer, PROMPT, ENCODER, settings=settings).prompt_text(
        TASKS[0], 0
    )


def test_a_template_that_refuses_the_prompt_is_an_error(folders: dict[str, Path]) -> None:
    with pytest.raises(TemplateRefusal, match="does not take it: System role not supported"):
        PromptTokenizer(open_both(folders["gemma2"])[0], PROMPT, ENCODER)
    with pytest.raises(TemplateRefusal, match="has no chat template; name one with chat_template"):
        PromptTokenizer(tokenizer_without_template(folders["llama3-base"]), PROMPT, ENCODER)


def tokenizer_without_template(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_a_template_that_cannot_be_trained_on_can_be_evaluated(folders: dict[str, Path]) -> None:
    hf_tokenizer, _ = open_both(folders["qwen2"])
    hf_tokenizer.chat_template = hf_tokenizer.chat_template.replace("content + '<|im_end|>", "content + '")
    tokens = PromptTokenizer(hf_tokenizer, PROMPT, ENCODER)
    assert tokens.method == "cells"
    assert decode_ids(hf_tokenizer, tokens.prompt_ids(TASKS[0], 0)) == tokens.prompt_text(TASKS[0], 0)
    with pytest.raises(ConfigError, match=r"cannot be trained on \(no special token ends"):
        tokens.sample(TASKS[0], 0)


def test_a_tokenizer_that_loses_text_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """A vocabulary of digits drops all other text, and a byte-level one without its decoder returns none."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    cut = Tokenizer(models.BPE({**{str(d): d for d in range(10)}, "Ċ": 10}, []))
    cut.pre_tokenizer, cut.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=cut, eos_token="<|im_end|>")
    tokenizer.chat_template = open_both(folders["qwen2"])[0].chat_template
    with pytest.raises(ConfigError, match=r"the tokenizer loses text: '<\|im_start\|>system"):
        PromptTokenizer(tokenizer, PROMPT, ENCODER)
