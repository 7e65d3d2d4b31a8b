"""Write the page of benchmarks/trainer.py from measurements."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from statistics import median
from textwrap import fill
from typing import Any

import numpy as np

from benchmarks.training.setting import Setting

Line = Mapping[str, Any]
Runs = Mapping[str, Sequence[Line]]
NAMES = {
    "trainer": "`bench train`",
    "loop": "bare loop",
    "trl": "`SFTTrainer`, defaults",
    "trl-keep": "`SFTTrainer`, `gradient_checkpointing=False`",
}
WIDTH = 118
AIM = 0.9
"""The share of the bare loop's tokens a second that the trainer is to reach."""


def write_page(setting: Setting, runs: Runs, growth: Mapping[int, Runs], ceiling: Line) -> str:
    """Return the whole page in markdown."""
    parts = [_head(setting), _contestants(setting, runs), _contest(runs), _ratios(runs), _growth(growth)]
    return "\n\n".join([*parts, _ceiling(runs, ceiling, setting)]) + "\n"


def _head(s: Setting) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft"))
    where = f"{s.threads} thread of a CPU with {os.cpu_count()} cores, {platform.machine()}, float32"
    where = where if s.device == "cpu" else "a GPU, bfloat16"
    text = (
        f"Model `{s.model}`, LoRA of rank {s.rank} on all linear layers, ARC-AGI-1's training tasks under fresh views "
        f"with the default prompt and encoder, at most {s.max_seq_len} tokens, {s.batch} samples a step; {s.steps} "
        f"steps are timed after {s.warm} to warm up. Every contestant runs in a process of its own; they take turns. "
        "The figures are medians. *Tokens* are those that are not padding."
    )
    written = _wrap(f"Written by `python -m benchmarks.trainer` ({packages}; {where}).")
    return f"# Training: tokens a second, padding, memory\n\n{written}\n\n{_wrap(text)}"


def _contestants(s: Setting, runs: Runs) -> str:
    losses = [line["first_loss"] for line in (*runs["trainer"], *runs["loop"])]
    on_cpu = ", `bf16=False` and `use_cpu` (all train in float32)" if s.device == "cpu" else ""
    items = [
        "**`bench train`**: from a recipe to the finished folder; samples are drawn and tokenised while it trains "
        f"({s.workers} workers), and its own log is the clock.",
        "**bare loop**: PyTorch and PEFT on the same passes, made beforehand; AdamW, clipping, a linear schedule; the "
        "output layer on answer tokens alone; no metrics, no checkpoints. Its first loss and that of `bench train` "
        f"differ by {max(losses) - min(losses):.1e}.",
        "**`SFTTrainer`**: TRL on the same samples as prompt and completion, tokenised beforehand, in its own random "
        "batches of at most 8, padded to the longest. Changed, because it could not be compared otherwise: "
        f"`max_length` (1,024 would cut the answers away) and accumulation up to {s.batch} samples a step{on_cpu}. "
        "By default it recomputes activations (gradient checkpointing); the last row is without that.",
    ]
    return "\n".join(fill(f"- {item}", WIDTH, subsequent_indent="  ") for item in items)


def _wrap(text: str) -> str:
    return fill(text, WIDTH)


def rate(line: Line) -> float:
    """Return tokens per second."""
    return float(line["tokens"] / line["seconds"])


def _contest(runs: Runs) -> str:
    gpu = runs["loop"][0]["peak_gpu_gb"] is not None
    heads = ["", "tokens/s", "answer tokens/s", "padded share", "peak memory (GB)", *["GPU memory (GB)"] * gpu, "runs"]
    rows = [_row(heads), _row(["---", *["---:"] * (len(heads) - 1)])]
    for name, lines in runs.items():
        answers = median(line["answer_tokens"] / line["seconds"] for line in lines)
        padded = median(1 - line["tokens"] / line["places"] for line in lines)
        cells = [NAMES[name], f"{median(map(rate, lines)):,.0f}", f"{answers:,.0f}", f"{padded:.1%}"]
        cells += [f"{median(line[key] for line in lines):.2f}" for key in ("peak_gb", *["peak_gpu_gb"] * gpu)]
        rows.append(_row([*cells, str(len(lines))]))
    return "\n".join(rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratios(runs: Runs) -> str:
    rows = ["| tokens/s of `bench train` against | median of pairs | least | most |", "|---|---:|---:|---:|"]
    ours = runs["trainer"]
    ratios = {name: [rate(a) / rate(b) for a, b in zip(ours, lines, strict=False)] for name, lines in runs.items()}
    for name in list(runs)[1:]:
        values = [median(ratios[name]), min(ratios[name]), max(ratios[name])]
        rows.append(_row([NAMES[name], *(f"{value:.2f}" for value in values)]))
    reached = median(ratios["loop"])
    verdict = f"is {'met' if reached >= AIM else 'NOT met'}: {reached:.1%} of its tokens a second"
    return "\n".join(rows) + f"\n\nThe aim, within 10 % of the bare loop, {verdict}."


def _growth(growth: Mapping[int, Runs]) -> str:
    rows = ["| at most | mean length | `bench train` tokens/s | bare loop tokens/s | ratio |"]
    rows.append("|---:|---:|---:|---:|---:|")
    points = []
    for longest, runs in sorted(growth.items()):
        ours, bare = (median(map(rate, runs[name])) for name in ("trainer", "loop"))
        mean = median(line["tokens"] / line["samples"] for line in runs["trainer"])
        points.append((mean, median(line["seconds"] / line["samples"] for line in runs["trainer"])))
        rows.append(_row([str(longest), f"{mean:,.0f}", f"{ours:,.0f}", f"{bare:,.0f}", f"{ours / bare:.2f}"]))
    lengths, seconds = np.log(np.array(points)).T
    power = float(np.polyfit(lengths, seconds, 1)[0])
    text = f"The seconds of a sample grow as its mean length to the power {power:.2f} (least squares in logarithms); "
    end = _wrap(text + "1 would be attention at no cost.")
    return "\n\n".join(["How the cost grows with the limit of length:", "\n".join(rows), end])


def _ceiling(runs: Runs, ceiling: Line, s: Setting) -> str:
    best, layers, head, size = (ceiling[key] for key in ("flops", "layers", "head", "size"))
    rows = ["| | needed (GFLOP/s) | share of the ceiling | 6·N·tokens as share |", "|---|---:|---:|---:|"]
    for name, lines in runs.items():
        done = median(4 * (layers * r["tokens"] + head * r["answer_tokens"]) / r["seconds"] for r in lines)
        full = median(6 * layers * rate(r) for r in lines)
        rows.append(_row([NAMES[name], f"{done / 1e9:,.1f}", f"{done / best:.1%}", f"{full / best:.1%}"]))
    where = ceiling["device"] + (f", {s.threads} thread" if s.device == "cpu" else "")
    text = (
        f"The ceiling is {best / 1e9:,.0f} GFLOP/s, in products of {size}×{size} matrices in {ceiling['dtype']} "
        f"({where}), "
        f"measured beside the runs. N is the {layers / 1e6:,.2f} M weights of the layers' matrices. Full fine-tuning "
        f"takes "
        "6·N operations a token. LoRA needs no gradients of the frozen weights, which leaves 4·N, and 4 for each of "
        "the "
        f"output layer's {head / 1e6:,.2f} M weights on answer tokens: that is *needed*. Attention, padding, LoRA's "
        f"own "
        "products and recomputed activations are not counted."
    )
    return _wrap(text) + "\n\n" + "\n".join(rows)
