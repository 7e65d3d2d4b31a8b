"""The text and tables of the model on paper, which docs/scaling.md contains between two marks."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import fill

from benchmarks.common.findings import short
from benchmarks.scaling.figures import MODELS, Gpu, Measured, Model, source
from benchmarks.scaling.paper import (
    RECIPE_BATCH,
    RECIPE_STEPS,
    RECIPES,
    TASK_BATCH,
    TASK_STEPS,
    TASK_VIEWS,
    TASKS,
    VIEWS,
    Estimate,
    answer_seconds,
    estimate_run,
    estimate_sweep,
    estimate_task_training,
    load_seconds,
    servers_by_machine,
    training_rate,
)
from harness.results.table_format import markdown_table

SIZES = (1, 8, 64)
WIDTH = 150
_UNITS: dict[str, tuple[float, str]] = {
    "sample_tokens": (1, "tokens in a training sample"),
    "prompt_tokens": (1, "tokens in a prompt"),
    "answer_tokens": (1, "tokens in an answer"),
    "trainer_share": (1, "of a bare PyTorch loop's tokens per second"),
    "api_seconds": (1e3, "ms of the API process per answer"),
    "harness_seconds": (1e3, "ms of `bench run` per prediction"),
    "load_seconds": (1e3, "ms to load a small adapter"),
    "hash_bytes": (1e-6, "MB/s hashed"),
}
_TEXT = """\
**On paper, not run.** Measured on two CPU cores: {measured}. Assumed, because we have no such GPU: an H100 by its data
sheet, {training:.0%} of its peak in a bare training loop, {prefill:.0%} on prompts, {decode:.0%} of its memory's rate
for the tokens of answers, {step:.0f} ms more per step of the engine, {in_flight} answers in flight. Put your own
figures into `benchmarks/scaling/figures.py` (`make gpu-check` measures them)."""
_JOBS = """\
A run is {tasks} tasks of {views} views by one adapter; a sweep trains {recipes} recipes of {steps:,} steps of {batch}
samples, one per GPU; test-time training takes {task_steps} steps of {task_batch} samples per task, then {task_views}
views. In brackets: what takes longest, with its share where parts follow each other."""


def page(measured: Measured, gpu: Gpu) -> str:
    """Return the block of docs/scaling.md, without its marks."""
    figures = ", ".join(
        f"{short(getattr(measured, name) * unit)} {what} ([{source(name)}](../benchmarks/{source(name)}.md))"
        for name, (unit, what) in _UNITS.items()
    )
    text = _TEXT.format(
        measured=figures,
        training=gpu.training_share,
        prefill=gpu.prefill_share,
        decode=gpu.decode_share,
        step=1e3 * gpu.step_seconds,
        in_flight=gpu.in_flight,
    )
    jobs = _JOBS.format(
        tasks=TASKS,
        views=VIEWS,
        recipes=RECIPES,
        steps=RECIPE_STEPS,
        batch=RECIPE_BATCH,
        task_steps=TASK_STEPS,
        task_batch=TASK_BATCH,
        task_views=TASK_VIEWS,
    )
    return "\n\n".join([_wrap(text), _rates(measured, gpu), _wrap(jobs), _times(measured, gpu)])


def _rates(measured: Measured, gpu: Gpu) -> str:
    rows = [
        [
            model.name,
            f"{training_rate(model, gpu, measured):,.0f}",
            f"{1 / answer_seconds(model, gpu, measured):,.0f}",
            f"{1 / measured.api_seconds:,.0f}",
            f"{model.adapter_bytes / 1e6:,.0f} MB",
            f"{load_seconds(model, measured):.2f} s",
            f"{TASKS * model.adapter_bytes / 1e9:,.0f} GB",
        ]
        for model in MODELS
    ]
    header = ["model", "trained tokens/s, one GPU", "answers/s, one engine", "answers/s, one API process"]
    return markdown_table([*header, "an adapter", "to load it", f"registry of {TASKS} tasks' adapters"], rows)


def _times(measured: Measured, gpu: Gpu) -> str:
    jobs: dict[str, Callable[[int, Model], Estimate]] = {
        "run, one server per machine of 8": lambda gpus, model: estimate_run(
            gpus, servers_by_machine(gpus), model, gpu, measured
        ),
        "run, one server per GPU behind nginx": lambda gpus, model: estimate_run(gpus, gpus, model, gpu, measured),
        "sweep": lambda gpus, model: estimate_sweep(gpus, model, gpu, measured),
        "test-time training": lambda gpus, model: estimate_task_training(gpus, model, gpu, measured),
    }
    rows = [
        [model.name, name, *(_cell(estimate(gpus, model)) for gpus in SIZES)]
        for model in MODELS
        for name, estimate in jobs.items()
    ]
    return markdown_table(["model", "job", *(f"{gpus} GPU{'s' * (gpus > 1)}" for gpus in SIZES)], rows)


def _cell(estimate: Estimate) -> str:
    share = "" if estimate.together else f" {estimate.share:.0%}"
    return f"{_duration(estimate.seconds)} ({estimate.bottleneck}{share})"


def _wrap(text: str) -> str:
    return fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
