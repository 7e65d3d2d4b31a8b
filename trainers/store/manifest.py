"""Read and write the manifest of a trained folder, which is complete once its manifest.json exists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError

from harness.core.digests import weights_digest
from harness.core.errors import AdapterError, RunError
from harness.core.files import atomic_writer
from harness.runs.environment import describe_environment
from harness.runs.schemas.manifest_schema import Environment, SourceFileRecord
from harness.runs.schemas.prediction_schema import Record, omitted_if_none
from harness.runs.schemas.tracker_run import TrackerRun
from trainers.store.task_record import TaskTrainingRecord

MANIFEST = "manifest.json"
LOG = "log.jsonl"
PARITY = "parity.json"
"""Result of ``bench parity`` for the weights in the folder."""
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors")
"""Packages whose versions can change the result of training."""


class BaseModelRecord(Record):
    """The base model of the training run."""

    name: str
    digest: str
    """``model_digest`` of the base (16 hex digits); in manifests of older versions the commit of a Hub model."""


class DatasetRecord(Record):
    """One dataset of the mixture, with totals over the samples that were trained on."""

    spec: str
    prompt: str
    prompt_digest: str
    digest: str
    ids: int
    """Number of task ids."""
    declared_share: float
    """Its share of the mixture by weight."""
    share: float
    """Its share of the samples that were trained on."""
    drawn: int
    too_long: int
    no_output: int
    dropped_pairs: int
    tokens: int
    answer_tokens: int
    resplit: int = 0
    """Samples whose pairs were split again."""
    changed: int = 0
    """Samples that a problem change made new tasks."""

    def as_text(self) -> str:
        """Return one line of text with shares and skipped samples."""
        return (
            f"{self.spec}: {self.drawn} samples, {self.share:.1%} (declared {self.declared_share:.1%}); skipped: "
            f"{self.too_long} too long, {self.no_output} without output; {self.dropped_pairs} pairs dropped"
        )


class ValidationRecord(Record):
    """The held-out dataset."""

    spec: str
    prompt: str
    prompt_digest: str
    digest: str


class Losses(Record):
    """Training losses (mean over the answer tokens of a step) and the validation of the saved weights."""

    first: float
    last: float
    mean_of_last_10: float
    validation: dict[str, float]


class AdapterManifest(Record):
    """Content of manifest.json in a trained folder."""

    kind: Literal["adapter", "model"]
    recipe: dict[str, Any]
    """All its keys, merged with those of the file that it extends."""
    recipe_files: list[SourceFileRecord] | None = omitted_if_none()
    """The recipe's file and the one that it extends; None, and no field in the file, if it extends none."""
    base: BaseModelRecord
    prompt: str
    """Prompt to use at evaluation: the first of the datasets' prompts that shows the test input."""
    prompt_digest: str
    encoder: str
    stop_token_ids: list[int] = Field(default_factory=list)
    """Tokens that end an answer; servers must stop at them whatever the base model's eos token is."""
    chat_template: str | None = None
    """Text of the chat template if it is not the base model's own."""
    chat_template_digest: str | None = None
    """First 16 hex digits of the SHA-256 of the template in use."""
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    template_date: str | None = None
    """Date given to the chat template as today's; None if the template prints no date."""
    datasets: list[DatasetRecord]
    validation: ValidationRecord | None = None
    seed: int
    steps: int
    """Number of training steps."""
    kept_step: int
    """Training step after which the saved weights were taken."""
    ended: Literal["max_steps", "patience", "deadline"]
    """Why training ended; ``deadline`` only in test-time training."""
    tokens: int
    answer_tokens: int
    padding: float
    """Share of padding among all token places."""
    seconds: float
    """Duration of all training steps, summed over the sessions of a resumed run."""
    losses: Losses
    weights_sha256: str
    config_sha256: str | None = None
    """SHA-256 of adapter_config.json."""
    serveable: bool
    environment: Environment
    finished: str
    ttt: TaskTrainingRecord | None = omitted_if_none()
    """Test-time training; absent in the manifest of other adapters."""
    tracker_runs: dict[str, TrackerRun] | None = omitted_if_none()
    """By experiment tracker of ``report_to``, its run of the session that finished; absent without ``report_to``."""


def read_manifest(folder: Path) -> AdapterManifest | None:
    """Return the manifest of a finished folder; None if training has not finished there.

    Raises:
        AdapterError: the manifest cannot be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return AdapterManifest.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise AdapterError(f"{path}: not a manifest of this version: {' '.join(str(error).split())[:300]}") from None


def write_manifest(folder: Path, manifest: AdapterManifest) -> None:
    """Write manifest.json, which must be the last file of the folder."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a JSON file atomically: the path has the old content or the complete new one, also after a crash."""
    with atomic_writer(path, draft=path.with_name(path.name + ".tmp")) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def save_weights(model: Any, tokenizer: Any, folder: Path, state: Mapping[str, Any] | None = None) -> None:
    """Write weights, configuration, tokenizer and chat template.

    Args:
        state: weights by name, if the model itself holds only a shard of them.
    """
    save_model(model, folder, state)
    tokenizer.save_pretrained(str(folder))


def save_model(model: Any, folder: Path, state: Mapping[str, Any] | None = None) -> None:
    """Write weights and configuration; arguments as ``save_weights``."""
    arguments = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(str(folder), state_dict=state, **arguments)
    config = folder / "adapter_config.json"
    if config.exists():
        # PEFT stores the targets in a set, whose order differs between processes.
        data = json.loads(config.read_text(encoding="utf-8"))
        if isinstance(data.get("target_modules"), list):
            data["target_modules"].sort()
        write_json(config, data)


def config_digest(folder: Path) -> str | None:
    """Return the SHA-256 of adapter_config.json; None in the folder of a full model."""
    path = folder / "adapter_config.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def check_unchanged(folder: Path, manifest: AdapterManifest) -> None:
    """Check that weights and adapter configuration are the ones that training wrote. Reads every byte.

    Raises:
        AdapterError: at least one differs.
    """
    same = manifest.config_sha256 in (None, config_digest(folder))
    if not same or weights_digest(folder) != manifest.weights_sha256:
        what = "weights are" if same else "adapter_config.json is"
        raise AdapterError(
            f"{folder}: its {what} not what training wrote (the digest in {MANIFEST} is another): damaged or changed. "
            "Train it again with resume=false, or give another output_dir"
        )


def refuse_pickle(folder: Path) -> None:
    """Refuse an adapter whose weights PEFT would load from a pickle.

    Raises:
        AdapterError: the folder has adapter_model.bin only.
    """
    pickled = folder / "adapter_model.bin"
    if pickled.exists() and not (folder / "adapter_model.safetensors").is_file():
        raise AdapterError(f"{pickled}: is a pickle, which can run code; save it with safe_serialization=True")


def training_environment() -> Environment:
    """Return commit, host and the versions of the packages in use."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    current = describe_environment()
    return current.model_copy(update={"packages": {**current.packages, **versions}})


def summarize_losses(log: Sequence[Mapping[str, Any]], kept: int) -> Losses:
    """Return first, last and final mean training loss, and the last validation at or before step ``kept``.

    Raises:
        RunError: the log has no training step.
    """
    steps = [line["loss"] for line in log if "loss" in line]
    if not steps:
        raise RunError(
            "log.jsonl has lost every step, and nothing is left to train; train again with --set resume=false"
        )
    checks = [line for line in log if "eval_loss" in line and line["step"] <= kept]
    last = {k.removeprefix("eval_"): v for k, v in checks[-1].items() if k.startswith("eval_")} if checks else {}
    tail = steps[-10:]
    return Losses(first=steps[0], last=steps[-1], mean_of_last_10=sum(tail) / len(tail), validation=last)
