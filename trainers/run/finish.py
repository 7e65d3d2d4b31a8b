"""Finish the output folder of a run: model card, loss curve and manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.core.digests import weights_digest
from harness.prompts.prompt_template import load_prompt
from harness.runs.environment import now
from harness.runs.schemas.manifest_schema import SourceFileRecord
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
    manifest = _manifest(inputs, mixture, log, last, output)
    manifest = manifest.model_copy(update={"recipe_files": list(files) or None, "tracker_runs": tracker_runs or None})
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


def _manifest(inputs: RecipeInputs, mixture: Mixture, log: Sequence[Line], last: int, output: Path) -> AdapterManifest:
    recipe = inputs.recipe
    step = kept_step(log, recipe.validation, last)
    steps = [line for line in log if "loss" in line]
    totals = [SampleCounts() for _ in inputs.datasets]
    places = 0.0
    for line in steps:
        counts = [SampleCounts(*values) for values in line["counts"]]
        for total, added in zip(totals, counts, strict=True):
            total.add(added)
        places += sum(c.tokens for c in counts) / (1 - line["padding"])
    tokens = sum(c.tokens for c in totals)
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
        datasets=_dataset_records(inputs, mixture, totals),
        validation=_validation_record(inputs),
        seed=recipe.seed,
        steps=last,
        kept_step=step,
        ended="max_steps" if last == recipe.max_steps else "patience",
        tokens=tokens,
        answer_tokens=sum(c.answer_tokens for c in totals),
        padding=round(1 - tokens / places, 4) if places else 0.0,
        seconds=round(sum(line["seconds"] for line in steps), 3),
        losses=summarize_losses(log, step),
        weights_sha256=weights_digest(output),
        config_sha256=config_digest(output),
        serveable=recipe.serveable,
        environment=training_environment(),
        finished=now(),
    )


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
