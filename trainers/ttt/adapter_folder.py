"""Write and find the adapter folders of tasks, each of which exists only when it is complete."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.core.digests import content_hash
from harness.core.errors import AdapterError
from harness.core.files import sync_to_disk
from harness.core.grid import Pair
from harness.prompts.prompt_template import load_prompt
from harness.runs.schemas.manifest_schema import Environment
from trainers.data.mixture import SampleCounts
from trainers.model.inputs import RecipeInputs
from trainers.recipe.ttt_recipe import task_values, ttt_part
from trainers.run.finish import TrainingTotals, adapter_manifest
from trainers.store.manifest import (
    AdapterManifest,
    check_unchanged,
    read_manifest,
    training_environment,
    write_manifest,
)
from trainers.store.task_record import TaskTrainingRecord, TrainPairRecord
from trainers.ttt.protocol import ADAPTERS, ReplyLine, adapter_path, folder_name, pair_digest


@dataclass(frozen=True)
class TrainedTask:
    """What the training of one task did."""

    steps: int
    seconds: float
    log: Sequence[dict[str, Any]]
    """The line of each step, as in log.jsonl."""


def inputs_digest(inputs: RecipeInputs, task_id: str, train: Sequence[Pair]) -> str:
    """Return a SHA-256 of everything that decides a task's adapter, if no deadline cuts its training."""
    values = {
        **task_values(inputs.recipe),
        "model": inputs.base_digest,
        "adapter": inputs.adapter_digest,
        "prompt": load_prompt(inputs.inference_prompt).digest,
        "chat template": inputs.chat.digest,
        "template date": inputs.chat.settings.date,
        "task": task_id,
        "train pairs": [pair_digest(pair) for pair in train],
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def find_adapter(work: Path, task_id: str, digest: str) -> ReplyLine | None:
    """Return the reply for a task whose adapter exists; None if it must be trained.

    Args:
        digest: its ``inputs_digest``.

    Raises:
        AdapterError: the folder is of other inputs, or has changed since it was written.
    """
    path = adapter_path(work, task_id)
    manifest = read_manifest(path)
    if manifest is None:
        return None
    if manifest.ttt is None or manifest.ttt.task_id != task_id or manifest.ttt.inputs_digest != digest:
        raise AdapterError(f"{path}: was trained with another recipe, base or task; give another output folder")
    check_unchanged(path, manifest)
    return _reply(work, manifest, manifest.ttt)


def remove_leftovers(work: Path) -> None:
    """Remove what processes left that is no adapter. No other process may train in the folder."""
    for path in (work / ADAPTERS).glob(".*.part"):
        shutil.rmtree(path, ignore_errors=True)


def write_adapter(
    inputs: RecipeInputs,
    work: Path,
    task_id: str,
    train: Sequence[Pair],
    trained: TrainedTask,
    save: Callable[[Path], None],
) -> ReplyLine:
    """Write a task's adapter folder under a temporary name, rename it, and return the reply.

    Args:
        save: writes weights and configuration into a folder.
    """
    path = adapter_path(work, task_id)
    draft = path.with_name(f".{folder_name(task_id)}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save(draft)
    record = _record(inputs, task_id, train, trained)
    manifest = _manifest(inputs, record, trained, draft)
    write_manifest(draft, manifest)
    for file in (*draft.iterdir(), draft):
        sync_to_disk(file)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(draft, path)
    sync_to_disk(path.parent)
    return _reply(work, manifest, record)


def _reply(work: Path, manifest: AdapterManifest, record: TaskTrainingRecord) -> ReplyLine:
    path = adapter_path(work, record.task_id)
    return ReplyLine(
        task_id=record.task_id,
        outcome="cut" if manifest.ended == "deadline" else "trained",
        adapter=str(path.relative_to(work)),
        steps=manifest.steps,
        samples=record.samples,
        seconds=manifest.seconds,
        digest=content_hash(path),
        reason=f"deadline after step {manifest.steps} of {record.planned_steps}"
        if manifest.ended == "deadline"
        else None,
    )


def _record(inputs: RecipeInputs, task_id: str, train: Sequence[Pair], trained: TrainedTask) -> TaskTrainingRecord:
    part = ttt_part(inputs.recipe)
    usable = part.usable_leave_out(len(train))
    return TaskTrainingRecord(
        task_id=task_id,
        pairs=[TrainPairRecord(index=k, digest=pair_digest(pair)) for k, pair in enumerate(train)],
        leave_out=usable,
        fallback=usable != list(part.leave_out),
        samples=sum(SampleCounts(*line["counts"][0]).drawn for line in trained.log),
        planned_steps=inputs.recipe.max_steps,
        start_digest=inputs.adapter_digest,
        inputs_digest=inputs_digest(inputs, task_id, train),
    )


def _manifest(inputs: RecipeInputs, record: TaskTrainingRecord, trained: TrainedTask, folder: Path) -> AdapterManifest:
    totals = TrainingTotals.of_lines(
        trained.log,
        steps=trained.steps,
        kept_step=trained.steps,
        ended="max_steps" if trained.steps == inputs.recipe.max_steps else "deadline",
        seconds=trained.seconds,
    )
    return adapter_manifest(inputs, totals, trained.log, folder, _environment(), datasets=[], ttt=record)


@cache
def _environment() -> Environment:
    """Return ``training_environment``, which starts git, once per process."""
    return training_environment()
