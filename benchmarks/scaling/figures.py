"""The figures that the model on paper uses: measured ones, read from the benchmarks' pages, and assumed ones."""

from __future__ import annotations

import re
from dataclasses import dataclass

from benchmarks.common.entry import FOLDER


@dataclass(frozen=True)
class Measured:
    """Figures of this project on a CPU.

    Attributes:
        sample_tokens: mean length of a training sample at most 4,096 tokens long.
        prompt_tokens: mean length of a prompt.
        answer_tokens: mean length of an answer.
        trainer_share: the trainer's tokens per second as a share of a bare PyTorch loop's.
        api_seconds: processor time of the API process for an answer to such a prompt.
        harness_seconds: processor time of `bench run` for a prediction.
        load_seconds: loading a small adapter on an idle server.
        hash_bytes: bytes per second that are hashed when an adapter is added or loaded.
    """

    sample_tokens: float
    prompt_tokens: float
    answer_tokens: float
    trainer_share: float
    api_seconds: float
    harness_seconds: float
    load_seconds: float
    hash_bytes: float


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet describes it (H100 SXM), and assumed shares of that.

    Attributes:
        flops: products in bfloat16 per second, of dense matrices.
        bytes_per_second: of its memory.
        training_share: of ``flops`` that a bare PyTorch loop reaches in training.
        prefill_share: of ``flops`` that vLLM reaches on prompts.
        decode_share: of ``bytes_per_second`` at which vLLM reads the weights for each token of the answers in flight.
        step_seconds: what a step of the engine takes beside that.
        in_flight: answers that an engine computes at once.
    """

    flops: float = 989e12
    bytes_per_second: float = 3.35e12
    training_share: float = 0.3
    prefill_share: float = 0.4
    decode_share: float = 0.6
    step_seconds: float = 8e-3
    in_flight: int = 256


@dataclass(frozen=True)
class Model:
    """A base model with its adapters: matrix weights of the layers, and weights of an adapter of rank 32 on all."""

    name: str
    weights: float
    adapter_weights: float

    @property
    def adapter_bytes(self) -> float:
        """Return the size of a version on disk; the trainer writes float32."""
        return 4 * self.adapter_weights


MODELS = (Model("0.5 B", 0.36e9, 17.6e6), Model("7 B", 6.5e9, 80.7e6))
"""Qwen2.5's, from its configurations."""

_PAGES = {
    "sample_tokens": ("trainer", r"^\| 4096 \| ([\d,]+) \|", 1),
    "prompt_tokens": ("harness_overhead", r"chats of ([\d,]+) tokens on average", 1),
    "answer_tokens": ("harness_overhead", r"answers of (\d+)\s", 1),
    "trainer_share": ("trainer", r"is met: ([\d.]+)% of its", 0.01),
    "api_seconds": ("api_process", r"^\| 1,271 \+ 100 tokens, 16 prompts in a request +\| +([\d.]+) CPU ms", 1e-3),
    "harness_seconds": ("harness_overhead", r"^\| bench run, token ids \| ([\d.]+) \|", 1e-3),
    "load_seconds": ("hot_swap", r"^\| 32 \| ([\d.]+) ms \|", 1e-3),
    "hash_bytes": ("api_process", r"^\| hashing an adapter +\| +([\d,.]+) MB/s", 1e6),
}
"""Page, pattern of the number, and unit of each measured figure."""


def read_measured() -> Measured:
    """Return the measured figures as the benchmarks' pages have them.

    Raises:
        ValueError: a page lacks a figure; the benchmark must be run, or its pattern here changed.
    """
    return Measured(**{name: _read(*place) for name, place in _PAGES.items()})


def source(name: str) -> str:
    """Return the benchmark whose page has a figure."""
    return _PAGES[name][0]


def _read(page: str, pattern: str, unit: float) -> float:
    path = FOLDER / f"{page}.md"
    match = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise ValueError(f"{path} has no {pattern!r}: run python -m benchmarks.{page}")
    return float(match[1].replace(",", "")) * unit
