"""The setting of all contestants: one model, one LoRA, the same samples of ARC-AGI-1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.prompts.grid_encoder import DEFAULT_ENCODER
from harness.prompts.prompt_template import DEFAULT_PROMPT
from trainers.recipe.schema import Recipe, make_recipe


@dataclass(frozen=True)
class Shape:
    """A randomly initialised Qwen2."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int


SHAPES: Mapping[str, Shape] = {
    "qwen2.5-0.5b-shaped": Shape(896, 24, 14, 2, 4864, 151_936),
    "small-shaped": Shape(256, 4, 4, 2, 512, 512),
}
"""Beside ``tiny``, the shipped base. The tokenizer is the tiny base's in any case: one token a digit, as in Qwen's."""


@dataclass(frozen=True)
class Setting:
    """One comparison; the first ``warm`` steps are not timed."""

    model: str = "tiny"
    device: str = "cpu"
    batch: int = 16
    max_seq_len: int = 4096
    warm: int = 1
    steps: int = 2
    rank: int = 32
    workers: int = 0
    threads: int = 1

    @property
    def total(self) -> int:
        """Return the number of steps of a run."""
        return self.warm + self.steps

    def recipe(self, model: Path | str, output: Path) -> Recipe:
        """Return the setting as a recipe of this project's trainer."""
        return make_recipe(
            {
                "model": str(model),
                "output_dir": str(output),
                "datasets": "arc1/training",
                "prompt": DEFAULT_PROMPT,
                "encoder": DEFAULT_ENCODER,
                "max_steps": self.total,
                "batch_size": self.batch,
                "max_seq_len": self.max_seq_len,
                "lora": {"rank": self.rank, "alpha": 2 * self.rank},
                "save_steps": 10_000,
                "workers": self.workers,
                "threads": self.threads if self.device == "cpu" else None,
                "resume": False,
            }
        )

    def describe(self) -> dict[str, Any]:
        """Return the setting as JSON values."""
        return asdict(self)


def model_folder(name: str, work: Path) -> Path | str:
    """Return the folder of a model. A shape is created with random bfloat16 weights and the tiny base's tokenizer."""
    if name not in SHAPES:
        return name
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from trainers.tiny.tokenizer import build_tokenizer

    folder, shape = work / name, SHAPES[name]
    if (folder / "tokenizer.json").exists():  # written last
        return folder
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder
