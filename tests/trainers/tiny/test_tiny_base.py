"""The tiny base: token ids, the shipped weights, and that its training runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.data.toy_tasks import FAMILIES, toy_task
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from trainers.tiny.train import shipped_path

FOUR_MB = 4_000_000


def test_the_shipped_model_is_small_and_standard() -> None:
    import json

    folder = shipped_path()
    assert sum(path.stat().st_size for path in folder.iterdir()) < FOUR_MB
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert config["max_position_embeddings"] >= 16384
    assert config["dtype"] == "bfloat16"


def test_dense_ids_equal_the_ids_of_the_rendered_prompt() -> None:
    from transformers import AutoTokenizer

    from trainers.data.micro_batches import IGNORED
    from trainers.tiny.data import DenseEncoder

    tokenizer = AutoTokenizer.from_pretrained(shipped_path())
    dense = DenseEncoder(tokenizer)
    rendered = PromptTokenizer(tokenizer, load_prompt("compact-v0"), parse_encoder("MinimalGridEncoder()"))
    for family in FAMILIES:
        for index in range(4):
            task = toy_task(family, "training", 3, index)
            ids, labels, length = dense.encode_task(task)
            sample = rendered.sample(task, 0)
            assert list(sample.ids) == ids[: len(sample.ids)]
            assert len(ids) - len(sample.ids) == 1  # the newline behind the last end of turn
            assert labels[sample.prompt_length : -1] == ids[sample.prompt_length : -1]
            assert len(sample.ids) - sample.prompt_length == length
            assert labels[-1] == IGNORED


def test_the_tokenizer_survives_reloading_and_splits_digits() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shipped_path())
    for text in (
        "0123\n4567",
        "```grid shape: 12x30\n1 0123456789\n```",
        "ñòÿ",
        "<|im_start|>user\n00\n11<|im_end|>\n",
    ):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("0123456789")["input_ids"]) == 10


@pytest.mark.slow
def test_the_shipped_model_scores_what_its_card_claims() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainers.tiny.card import held_out_accuracy

    model = AutoModelForCausalLM.from_pretrained(shipped_path(), dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(shipped_path())
    for size in (3, 4):
        for family in ("copy", "border", "corners", "edge", "recolour"):
            assert held_out_accuracy(model, tokenizer, family, size, n=96) > 0.5, (family, size)
        for family in ("edge", "recolour"):
            assert held_out_accuracy(model, tokenizer, family, size, n=96, control=True) <= 0.25, (family, size)
        for family in ("cross", "diagonal"):
            assert held_out_accuracy(model, tokenizer, family, size, n=96) < 0.1, (family, size)


@pytest.mark.long
def test_training_a_tiny_base_twice_gives_equal_weights(tmp_path: Path) -> None:
    def make(name: str) -> bytes:
        options = ["--steps", "8", "--batch", "6", "--hidden", "64", "--layers", "2", "--mlp", "64"]
        command = [sys.executable, "-m", "harness.cli", "tiny-base", "-o", str(tmp_path / name), *options]
        subprocess.run(command, check=True, capture_output=True)
        card = (tmp_path / name / "README.md").read_text()
        assert all(f"| {family} |" in card for family in FAMILIES)
        return (tmp_path / name / "model.safetensors").read_bytes()

    assert make("one") == make("two")
