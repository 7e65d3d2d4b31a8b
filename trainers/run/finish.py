"""Finish the output folder of a run: model card, loss curve and manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.core.digests import weights_digest
from harness.prompts.prompt_template import load_prompt
from harness.runs.environment import now
from harness.runs.schemas.manifest_schema import Environment, SourceFileRecord
from harness.runs.schemas.tracker_run import TrackerRun
from trainers.data.mixture import Mixture, SampleCounts
from trainers.model.inputs import RecipeInputs
from trainers.recipe.parts import ValidationRecipe
from trainers.store.best_step import Line, find_best_validation
from trainers.store.card import CURVE, adapter_card, draw_loss_curve
from trainers.store.manifest import (
    LOG,
    AdapterManifest,
    BaseModelRecord,
    DatasetRecord,
    ValidationRecord,
    config_digest,
    summarize_losses,
    training_environment,
    write_manifest,
)
from trainers.store.run_folder import CHECKPOINTS
from trainers.store.training_log import read_log

Ended = Literal["max_steps", "patience", "deadline"]
"""Why training ended, as in the manifest."""


def finish_folder(
    inputs: RecipeInputs,
    mixture: Mixture,
    output: Path,
    last: int,
    files: Sequence[SourceFileRecord] = (),
    tracker_runs: dict[str, TrackerRun] | None = None,
) -> AdapterManifest:
    """Write model card, loss curve and, last, the manifest beside the weights; remove the checkpoints unless kept.

    Args:
        last: the last training step.
        files: the files of a recipe that extends another one.
        tracker_runs: where the training was reported, by tracker; None without ``report_to``.
    """
    log = read_log(output / LOG)
    steps = [line for line in log if "loss" in line]
    totals = TrainingTotals.of_lines(
        steps,
        steps=last,
        kept_step=kept_step(log, inputs.recipe.validation, last),
        ended="max_steps" if last == inputs.recipe.max_steps else "patience",
        seconds=sum(line["seconds"] for line in steps),
    )
    manifest = adapter_manifest(
        inputs,
        totals,
        log,
        output,
        training_environment(),
        datasets=_dataset_records(inputs, mixture, _count_by_dataset(steps, len(inputs.datasets))),
        validation=_validation_record(inputs),
        recipe_files=list(files) or None,
        tracker_runs=tracker_runs or None,
    )
    draw_loss_curve(log, output / CURVE)
    (output / "README.md").write_text(adapter_card(output.name, manifest), encoding="utf-8")
    write_manifest(output, manifest)
    if not inputs.recipe.keep_checkpoints:
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    return manifest


def kept_step(log: Sequence[Line], part: ValidationRecipe | None, last: int) -> int:
    """Return the training step whose weights are the result of a run."""
    best = find_best_validation(log, part) if part is not None and part.keep == "best" else None
    return best.step if best else last


@dataclass(frozen=True)
class TrainingTotals:
    """What a manifest says of all training steps together, in its fields' names."""

    steps: int
    kept_step: int
    ended: Ended
    tokens: int
    answer_tokens: int
    padding: float
    seconds: float

    @classmethod
    def of_lines(
        cls, lines: Sequence[Line], *, steps: int, kept_step: int, ended: Ended, seconds: float
    ) -> TrainingTotals:
        """Return the totals of the lines of training steps in log.jsonl; the other arguments are fields."""
        counts = [[SampleCounts(*values) for values in line["counts"]] for line in lines]
        tokens = [sum(c.tokens for c in of_step) for of_step in counts]
        places = sum(n / (1 - line["padding"]) for n, line in zip(tokens, lines, strict=True))
        return cls(
            steps,
            kept_step,
            ended,
            tokens=sum(tokens),
            answer_tokens=sum(c.answer_tokens for of_step in counts for c in of_step),
            padding=round(1 - sum(tokens) / places, 4) if places else 0.0,
            seconds=round(seconds, 3),
        )


def adapter_manifest(
    inputs: RecipeInputs,
    totals: TrainingTotals,
    log: Sequence[Line],
    folder: Path,
    environment: Environment,
    **others: Any,
) -> AdapterManifest:
    """Return the manifest of trained weights.

    Args:
        folder: where the weights are.
        others: further fields of the manifest.
    """
    recipe = inputs.recipe
    return AdapterManifest(
        kind="model" if recipe.lora is None else "adapter",
        recipe=recipe.model_dump(mode="json"),
        base=BaseModelRecord(name=recipe.model, digest=inputs.base_digest),
        prompt=inputs.inference_prompt,
        prompt_digest=load_prompt(inputs.inference_prompt).digest,
        encoder=recipe.encoder,
        stop_token_ids=inputs.stop_token_ids,
        chat_template=inputs.chat.template if inputs.chat.overrides_model else None,
        chat_template_digest=inputs.chat.digest,
        chat_template_kwargs=dict(inputs.chat.settings.kwargs),
        template_date=inputs.chat.settings.date,
        seed=recipe.seed,
        **vars(totals),
        losses=summarize_losses(log, totals.kept_step),
        weights_sha256=weights_digest(folder),
        config_sha256=config_digest(folder),
        serveable=recipe.serveable,
        environment=environment,
        finished=now(),
        **others,
    )


def _count_by_dataset(lines: Sequence[Line], datasets: int) -> list[SampleCounts]:
    """Return the samples of all training steps by dataset."""
    totals = [SampleCounts() for _ in range(datasets)]
    for line in lines:
        for total, values in zip(totals, line["counts"], strict=True):
            total.add(SampleCounts(*values))
    return totals


def _validation_record(inputs: RecipeInputs) -> ValidationRecord | None:
    if inputs.held_out is None:
        return None
    prompt = inputs.held_out_prompt
    digest = load_prompt(prompt).digest
    return ValidationRecord(
        spec=inputs.held_out.spec, prompt=prompt, prompt_digest=digest, digest=inputs.held_out.digest()
    )


def _dataset_records(inputs: RecipeInputs, mixture: Mixture, totals: list[SampleCounts]) -> list[DatasetRecord]:
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
