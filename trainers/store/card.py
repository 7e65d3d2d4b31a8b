"""Write the model card of a trained folder: README.md and the plot of the loss curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.store.manifest import AdapterManifest

CURVE = "loss.png"
_ENDS = {"max_steps": "after all its steps", "patience": "when validation got no better"}


def draw_loss_curve(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Save a PNG with the loss of every step, its running mean and the validation losses.

    Args:
        log: lines of log.jsonl.
    """
    from matplotlib.figure import Figure

    from harness.stats.intervals import running_mean

    steps = [(line["step"], line["loss"]) for line in log if "loss" in line]
    checks = [(line["step"], line["eval_loss"]) for line in log if "eval_loss" in line]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*steps, strict=True), color="#9ecae1", linewidth=1, label="each step")
    axes.plot([s for s, _ in steps], running_mean([v for _, v in steps]), color="#08519c", label="running mean")
    if checks:
        axes.plot(*zip(*checks, strict=True), "o-", color="#d94801", label="validation")
    axes.set(xlabel="step", ylabel="loss per answer token (nats)", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def adapter_card(name: str, manifest: AdapterManifest) -> str:
    """Return the README.md of a trained folder."""
    m = manifest
    rows = "\n".join(
        f"| `{d.spec}` | {d.prompt} | {d.declared_share:.1%} | {d.share:.1%} | {d.drawn} | {d.too_long} | "
        f"{d.no_output} | {d.dropped_pairs} |"
        for d in m.datasets
    )
    what = "LoRA adapter" if m.kind == "adapter" else "Full model"
    checks = "".join(f", validation {k} {v:.4f}" for k, v in m.losses.validation.items())
    lora = m.recipe.get("lora")
    options = f"rank {lora['rank']}, alpha {lora['alpha']:g}, targets {lora['targets']}" if lora else "all weights"
    return f"""---
base_model: {m.base.name}
library_name: {"peft" if m.kind == "adapter" else "transformers"}
tags: [arc, {"lora" if m.kind == "adapter" else "full"}]
---
# {name}

{what} for tasks of the Abstraction and Reasoning Corpus, trained by `bench train` on `{m.base.name}` ({options}).

Ask it with prompt `{m.prompt}` and grid encoder `{m.encoder}`, as it was trained; `manifest.json` has every detail.

| dataset | prompt | declared | realised | samples | too long | no output | pairs dropped |
|---|---|---|---|---|---|---|---|
{rows}

{m.steps} steps, {m.tokens:,} tokens ({m.answer_tokens:,} of answers), {m.padding:.1%} padding, {m.seconds:.0f} s.
Training ended {_ENDS[m.ended]}; these are the weights of step {m.kept_step}{checks}.
Loss {m.losses.first:.4f} at first, {m.losses.mean_of_last_10:.4f} over the last ten steps.
{"" if m.serveable else chr(10) + "**Not serveable by vLLM**: merge it with `bench merge`." + chr(10)}
![loss]({CURVE})
"""
