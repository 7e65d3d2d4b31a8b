"""The arithmetic: how long each part of a job takes on some GPUs, and which part takes longest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from benchmarks.scaling.figures import Gpu, Measured, Model

TASKS = 400
VIEWS = 64
"""A run: this many tasks with as many views each, by one adapter."""
RECIPES = 64
RECIPE_STEPS, RECIPE_BATCH = 1000, 16
"""A sweep: this many recipes of so many steps and samples per step, one GPU each."""
TASK_STEPS, TASK_BATCH, TASK_VIEWS = 30, 8, 32
"""Test-time training: of each task, and the views that answer it."""
MACHINE = 8
"""GPUs in a machine."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of each part of a job.

    Attributes:
        parts: seconds by part. Parts of a run work at the same time, those of the other jobs one after the other.
        together: whether they work at the same time.
    """

    parts: Mapping[str, float]
    together: bool

    @property
    def seconds(self) -> float:
        """Return the seconds of the job."""
        return max(self.parts.values()) if self.together else sum(self.parts.values())

    @property
    def bottleneck(self) -> str:
        """Return the part that takes longest."""
        return max(self.parts, key=lambda part: self.parts[part])

    @property
    def share(self) -> float:
        """Return how much of the job's time its bottleneck takes."""
        return self.parts[self.bottleneck] / self.seconds


def training_rate(model: Model, gpu: Gpu, measured: Measured) -> float:
    """Return tokens per second and GPU: LoRA needs 4 operations per weight and token (benchmarks/trainer.md)."""
    return measured.trainer_share * gpu.training_share * gpu.flops / (4 * model.weights)


def answer_seconds(model: Model, gpu: Gpu, measured: Measured) -> float:
    """Return what an answer costs an engine that has ``gpu.in_flight`` in flight: its prompt, then its tokens."""
    prefill = measured.prompt_tokens * 2 * model.weights / (gpu.prefill_share * gpu.flops)
    read = 2 * model.weights / (gpu.decode_share * gpu.bytes_per_second)
    step = max(read, gpu.in_flight * 2 * model.weights / (gpu.prefill_share * gpu.flops)) + gpu.step_seconds
    return prefill + measured.answer_tokens * step / gpu.in_flight


def load_seconds(model: Model, measured: Measured) -> float:
    """Return the seconds until an adapter is loaded: its bytes are hashed twice, when it is added and when loaded."""
    return measured.load_seconds + 2 * model.adapter_bytes / measured.hash_bytes


def estimate_run(gpus: int, servers: int, model: Model, gpu: Gpu, measured: Measured) -> Estimate:
    """Return a run on ``gpus`` engines behind ``servers`` API processes, from one `bench run`."""
    answers = TASKS * VIEWS
    parts = {
        "engines": answers * answer_seconds(model, gpu, measured) / gpus,
        "API processes": answers * measured.api_seconds / servers,
        "`bench run`": answers * measured.harness_seconds,
    }
    return Estimate(parts, together=True)


def estimate_sweep(gpus: int, model: Model, gpu: Gpu, measured: Measured) -> Estimate:
    """Return the training of a sweep, one recipe per GPU at a time, and the registration of its adapters."""
    tokens = RECIPE_STEPS * RECIPE_BATCH * measured.sample_tokens
    training = ceil(RECIPES / gpus) * tokens / training_rate(model, gpu, measured)
    return Estimate({"training": training, "loading": RECIPES * load_seconds(model, measured)}, together=False)


def estimate_task_training(gpus: int, model: Model, gpu: Gpu, measured: Measured) -> Estimate:
    """Return test-time training with the tasks spread over the GPUs, each task on one."""
    tasks = ceil(TASKS / gpus)
    tokens = TASK_STEPS * TASK_BATCH * measured.sample_tokens
    parts = {
        "training": tasks * tokens / training_rate(model, gpu, measured),
        "loading": tasks * load_seconds(model, measured),
        "answering": tasks * TASK_VIEWS * answer_seconds(model, gpu, measured),
    }
    return Estimate(parts, together=False)


def servers_by_machine(gpus: int) -> int:
    """Return the servers if each machine has one, with its GPUs as engines."""
    return ceil(gpus / MACHINE)
