"""Estimate the time and disk of a run of test-time training before it starts, from counts and this machine's speed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from statistics import fmean
from time import perf_counter

import numpy as np

from harness.cli.workflows.ttt.job import TttJob
from harness.core.errors import DataError
from harness.core.grid import Task
from serve.registry.base_model import BaseModel
from trainers.recipe.parts import LoraRecipe
from trainers.ttt.task_samples import open_task

_MEASURED_TASKS = 8
_MEASURED_SAMPLES = 4
_LORA_BYTES = 4
"""Bytes of a LoRA weight: the trainer saves float32."""
_FOLDER_BYTES = 40_000
"""Bytes of an adapter folder beside its weights: manifest, configuration, tokenizer."""
_TRAIN_SHARE, _SAMPLE_SHARE = 0.35, 0.15
"""Share of a matrix product's speed that training and sampling reach here; measured with the tiny base on two cores."""
_SERVER_SECONDS = 45.0
_ROUGH = 3.0
"""Factor by which the estimated time may be wrong."""


@dataclass(frozen=True)
class RunEstimate:
    """The size of a run. Times are None where the machine computes on a GPU, whose speed is not measured."""

    tasks: int
    """Tasks that are not answered yet."""
    untrainable: int
    """Those of them that training cannot use; they are answered by the starting adapter or the base."""
    adapters: int
    """Tasks that are to be trained."""
    steps: int
    """Steps of one task."""
    samples: int
    """Samples of one task, repetitions included."""
    tokens: float
    """Mean tokens of a sample."""
    predictions: int
    """Predictions, or views with ``--search dfs``, that are missing."""
    train_seconds: float | None
    sample_seconds: float | None
    adapter_bytes: int
    disk_bytes: int
    """Of all adapters that are on the disk at the same time, with the copy in the registry."""

    def text(self) -> str:
        """Return the estimate as lines for the user."""
        lines = [
            f"{self.tasks} tasks: {self.adapters} adapters to train, {self.steps} steps ({self.samples} samples of "
            f"{self.tokens:.0f} tokens) each; {self.predictions} predictions",
        ]
        if self.untrainable:
            lines.append(f"{self.untrainable} tasks cannot be trained on and are answered without an adapter of theirs")
        if self.train_seconds is None or self.sample_seconds is None:
            lines.append("time: known after the first task")
        else:
            train, sample = _duration(self.train_seconds), _duration(self.sample_seconds)
            lines.append(f"time, within a factor of {_ROUGH:.0f}: {train} to train, {sample} to answer")
        lines.append(f"disk: {self.disk_bytes / 1e6:.1f} MB ({self.adapter_bytes / 1e6:.2f} MB for each adapter)")
        return "\n".join(lines)


def estimate_ttt(job: TttJob, *, on_gpu: bool) -> RunEstimate:
    """Return what the missing part of a run takes.

    The time follows from the operations of training (6 per weight and token) and sampling (2), and from the speed of a
    matrix product on this machine.

    Args:
        on_gpu: whether the machine computes on a GPU.
    """
    recipe, sampling = job.options.recipe, job.options.sampling
    unanswered = {task.id for task in job.pending()}.union(job.options.again)
    pending = [task for task in job.tasks if task.id in unanswered]
    to_train = [task for task in pending if task.id in job.options.again or not job.adapter(task).exists()]
    trainable = [task for task in to_train if len(task.train) > 1]
    base = job.base_model
    weights = sum(prod(tensor.shape) for tensor in base.tensors.values())
    tokens = _sample_tokens(job, trainable)
    samples = recipe.max_steps * recipe.batch_size
    outputs = sum(len(task.test) for task in pending)
    train_seconds = sample_seconds = None
    if not on_gpu:
        speed = _matrix_speed()
        train_seconds = len(trainable) * samples * tokens * 6 * weights / (speed * _TRAIN_SHARE)
        # The prompt has about the tokens of a training sample, and the answer a fifth of it.
        sample_seconds = outputs * sampling.n * tokens * 1.2 * 2 * weights / (speed * _SAMPLE_SHARE) + _SERVER_SECONDS
    assert recipe.lora is not None
    each = lora_weights(base, recipe.lora) * _LORA_BYTES + _FOLDER_BYTES
    return RunEstimate(
        tasks=len(pending),
        untrainable=len(to_train) - len(trainable),
        adapters=len(trainable),
        steps=recipe.max_steps,
        samples=samples,
        tokens=tokens,
        predictions=outputs * sampling.n,
        train_seconds=train_seconds,
        sample_seconds=sample_seconds,
        adapter_bytes=each,
        disk_bytes=each * (_kept_at_once(job, len(trainable)) + 1) if pending else 0,
    )


def lora_weights(base: BaseModel, lora: LoraRecipe) -> int:
    """Return the number of LoRA weights for a base: rank × (inputs + outputs) of every adapted matrix."""
    total = 0
    for name, tensor in base.tensors.items():
        module = name.removesuffix(".weight")
        if module != name and len(tensor.shape) == 2 and _is_adapted(module, lora):
            rank = next((r for pattern, r in lora.rank_pattern.items() if re.search(pattern, module)), lora.rank)
            total += rank * sum(tensor.shape)
    return total


def _is_adapted(module: str, lora: LoraRecipe) -> bool:
    """Return whether a module gets LoRA weights; ``all-linear`` leaves out embeddings and output layer."""
    if lora.layers is not None and not any(f".{layer}." in module for layer in lora.layers):
        return False
    if lora.targets == "all-linear":
        return not module.endswith(("embed_tokens", "lm_head", "wte", "wpe"))
    if isinstance(lora.targets, str):
        return re.fullmatch(lora.targets, module) is not None
    return any(f".{module}".endswith(f".{target}") for target in lora.targets)


def _kept_at_once(job: TttJob, adapters: int) -> int:
    """Return how many adapters are on the disk at the same time."""
    resident = (bool(job.options.servers) or job.options.schedule == "resident") and job.options.placement is None
    at_once = job.options.discard and resident and job.options.rescore is None
    return min(adapters, 2) if at_once else adapters


def _sample_tokens(job: TttJob, tasks: Sequence[Task]) -> float:
    """Return the mean tokens of a training sample, from some samples of tasks that are spread over the run."""
    tokenizer = job.inputs.chat.prompt_tokens(job.inputs.inference_prompt)
    lengths: list[int] = []
    for task in tasks[:: max(1, len(tasks) // _MEASURED_TASKS)]:
        try:
            mixture = open_task(job.options.recipe, tokenizer, task.id, task.train)
            lengths += [len(mixture.draw_sample(k).sample.ids) for k in range(_MEASURED_SAMPLES)]
        except DataError:
            continue  # the trainer says why it cannot use the task
    return fmean(lengths) if lengths else 0.0


def _matrix_speed() -> float:
    """Return the floating point operations per second of a matrix product in float32."""
    size, best = 512, float("inf")
    matrix = np.ones((size, size), np.float32)
    for _ in range(5):
        start = perf_counter()
        _ = matrix @ matrix
        best = min(best, perf_counter() - start)
    return float(2.0 * size**3 / best)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    return f"{whole / 60:.0f} min" if whole < 5400 else f"{whole / 3600:.1f} h"
