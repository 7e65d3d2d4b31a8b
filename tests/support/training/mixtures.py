"""Mixtures of toy and random tasks, with the tokenizer of the tiny base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from harness.core.grid import Pair, Task
from harness.core.random_stream import Stream
from harness.data.dataset import Dataset, TaskList
from harness.data.spec import open_dataset
from tests.support.data_samples import random_task
from trainers.data.mixture import Mixture, open_mixture
from trainers.tiny.tokenizer import build_tokenizer


@cache
def tiny_tokenizer() -> Any:
    """Return the tiny base's tokenizer."""
    return build_tokenizer()


def make_mixture(
    *datasets: Dataset | str,
    weights: Sequence[float | None] = (),
    seed: int = 0,
    prompt: str = "compact-v0",
    **options: Any,
) -> Mixture:
    """Return the mixture of some specs or datasets."""
    opened = [open_dataset(d) if isinstance(d, str) else d for d in datasets]
    options = {"encoder": "MinimalGridEncoder()", "max_seq_len": 400, **options}
    chosen = weights or [None] * len(opened)
    return open_mixture(opened, [prompt] * len(opened), chosen, tiny_tokenizer(), seed=seed, **options)


@cache
def random_tasks() -> TaskList:
    """Return 30 random tasks with up to 4 train pairs."""
    return TaskList("some", tuple(random_task(Stream("mixed", k), 1 + k % 4, 8, f"t{k}") for k in range(30)))


def half_too_long(seed: int = 0, **options: Any) -> Mixture:
    """Return a mixture of a dataset of which about half the tasks are too long, and one that always fits."""
    return make_mixture(random_tasks(), "toy/copy#n=9", seed=seed, max_seq_len=250, **options)


def without_outputs(task: Task) -> Task:
    """Return a task without test outputs."""
    return replace(task, test=tuple(Pair(p.input, None) for p in task.test))
