"""The end of a run: the finished folder with its manifest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness.prompt import load_prompt
from trainers.artifact import (
    LOG,
    AdapterManifest,
    BaseModelRecord,
    DatasetRecord,
    environment,
    losses,
    now,
    save_weights,
    write_manifest,
)
from trainers.card import CURVE, card, draw_curve
from trainers.mixture import Counts, Mixture
from trainers.progress import read_log
from trainers.sft import CHECKPOINTS, Inputs


def finish(inputs: Inputs, mixture: Mixture, model: Any, tokenizer: Any, output: Path) -> None:
    """Write the finished folder: weights, tokenizer, card, curve, and the manifest last."""
    sha = save_weights(model, tokenizer, output)
    log = read_log(output / LOG)
    manifest = _manifest(inputs, mixture, log, sha)
    draw_curve(log, output / CURVE)
    (output / "README.md").write_text(card(output.name, manifest), encoding="utf-8")
    write_manifest(output, manifest)
    if not inputs.recipe.keep_checkpoints:
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


def _manifest(inputs: Inputs, mixture: Mixture, log: list[dict[str, Any]], sha: str) -> AdapterManifest:
    recipe = inputs.recipe
    steps = [line for line in log if "loss" in line]
    totals = [Counts() for _ in inputs.datasets]
    for line in steps:
        for total, values in zip(totals, line["counts"], strict=True):
            total.add(Counts(*values))
    tokens = sum(c.tokens for c in totals)
    places = sum(sum(c[4] for c in line["counts"]) / (1 - line["padding"]) for line in steps)
    return AdapterManifest(
        kind="model" if recipe.lora is None else "adapter",
        recipe=recipe.model_dump(mode="json"),
        base=BaseModelRecord(name=recipe.model, digest=inputs.base_digest),
        prompt=inputs.prompts[0],
        prompt_digest=load_prompt(inputs.prompts[0]).digest,
        encoder=recipe.encoder,
        datasets=_dataset_records(inputs, mixture, totals),
        seed=recipe.seed,
        steps=recipe.max_steps,
        tokens=tokens,
        answer_tokens=sum(c.answer_tokens for c in totals),
        padding=round(1 - tokens / places, 4) if places else 0.0,
        seconds=round(sum(line["seconds"] for line in steps), 3),
        losses=losses(log),
        weights_sha256=sha,
        serveable=recipe.serveable,
        environment=environment(),
        finished=now(),
    )


def _dataset_records(inputs: Inputs, mixture: Mixture, totals: list[Counts]) -> list[DatasetRecord]:
    everything = sum(c.drawn for c in totals)
    return [
        DatasetRecord(
            spec=dataset.spec,
            prompt=prompt,
            prompt_digest=load_prompt(prompt).digest,
            digest=dataset.digest(),
            ids=len(dataset.ids),
            declared_share=round(declared, 6),
            share=round(counts.drawn / everything, 6) if everything else 0.0,
            **vars(counts),
        )
        for dataset, prompt, declared, counts in zip(
            inputs.datasets, inputs.prompts, mixture.shares, totals, strict=True
        )
    ]
