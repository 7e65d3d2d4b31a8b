"""The result of training: an adapter folder that says what it is, complete once its manifest.json exists."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError

from harness.core.errors import AdapterError, RunError
from harness.core.hub_cache import weights_digest
from harness.runs.environment import describe_environment
from harness.runs.schema import Environment, Record

MANIFEST = "manifest.json"
LOG = "log.jsonl"
PARITY = "parity.json"
"""What ``bench parity`` found of the weights in the folder."""
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors")


class BaseModelRecord(Record):
    """The model that was trained on."""

    name: str
    digest: str
    """SHA-256 (16 hex digits) over config and weights; the commit of a Hub model in manifests of older versions."""


class DatasetRecord(Record):
    """One dataset of the mixture and what it really gave."""

    spec: str
    prompt: str
    prompt_digest: str
    digest: str
    ids: int
    declared_share: float
    share: float
    """Of the samples that were trained on."""
    drawn: int
    too_long: int
    no_output: int
    dropped_pairs: int
    tokens: int
    answer_tokens: int
    resplit: int = 0
    """Samples whose pairs were split anew."""
    changed: int = 0
    """Samples that a problem change made new tasks."""

    def as_text(self) -> str:
        """One line on what it gave."""
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
    """The training loss (mean over the answer tokens of a step), and the validation of the weights that were kept."""

    first: float
    last: float
    mean_of_last_10: float
    validation: dict[str, float]


class AdapterManifest(Record):
    """manifest.json of a trained folder."""

    kind: Literal["adapter", "model"]
    recipe: dict[str, Any]
    base: BaseModelRecord
    prompt: str
    """The prompt under which the adapter is to be asked: the first of its datasets' that shows the test input."""
    prompt_digest: str
    encoder: str
    stop_token_ids: list[int] = Field(default_factory=list)
    """The tokens that end an answer: what a server must stop at, whatever eos its base has."""
    chat_template: str | None = None
    """The text of the chat template, where the base's own was not used."""
    chat_template_digest: str | None = None
    """The first 16 hex digits of the SHA-256 of the template that was used."""
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    template_date: str | None = None
    """The date that the chat template was given for today; None where it does not write one."""
    datasets: list[DatasetRecord]
    validation: ValidationRecord | None = None
    seed: int
    steps: int
    """That were trained."""
    kept_step: int
    """After which the weights were taken."""
    ended: Literal["max_steps", "patience"]
    """Why training ended."""
    tokens: int
    answer_tokens: int
    padding: float
    """The share of padding among all token places."""
    seconds: float
    """Of training steps; with a resumed run all its parts."""
    losses: Losses
    weights_sha256: str
    config_sha256: str | None = None
    """Of adapter_config.json."""
    serveable: bool
    environment: Environment
    finished: str


def read_manifest(folder: Path) -> AdapterManifest | None:
    """The manifest of a finished folder; None where training has not finished there.

    Raises:
        AdapterError: there is one, but it cannot be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return AdapterManifest.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise AdapterError(f"{path}: not a manifest of this version: {' '.join(str(error).split())[:300]}") from None


def write_manifest(folder: Path, manifest: AdapterManifest) -> None:
    """Write the manifest, as the last file of the folder."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a JSON file so that it is there whole or not at all."""
    fresh = path.with_name(path.name + ".tmp")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def save_weights(model: Any, tokenizer: Any, folder: Path, state: Mapping[str, Any] | None = None) -> None:
    """Write weights, configuration, tokenizer and chat template.

    Args:
        state: the weights by name where the model itself holds only a shard of them.
    """
    arguments = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(str(folder), state_dict=state, **arguments)
    tokenizer.save_pretrained(str(folder))
    config = folder / "adapter_config.json"
    if config.exists():
        # PEFT keeps the targets as a set, whose order changes from process to process.
        data = json.loads(config.read_text(encoding="utf-8"))
        if isinstance(data.get("target_modules"), list):
            data["target_modules"].sort()
        write_json(config, data)


def config_digest(folder: Path) -> str | None:
    """The SHA-256 of an adapter's configuration; None in a folder of a whole model."""
    path = folder / "adapter_config.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def check_unchanged(folder: Path, manifest: AdapterManifest) -> None:
    """Check that the weights and the adapter's configuration are those that training wrote; reads every byte.

    Raises:
        AdapterError: they are not.
    """
    same = manifest.config_sha256 in (None, config_digest(folder))
    if not same or weights_digest(folder) != manifest.weights_sha256:
        what = "weights are" if same else "adapter_config.json is"
        raise AdapterError(
            f"{folder}: its {what} not what training wrote (the digest in {MANIFEST} is another): damaged or changed. "
            "Train it again with resume=false, or give another output_dir"
        )


def refuse_pickle(folder: Path) -> None:
    """Refuse an adapter whose weights PEFT would read from a pickle.

    Raises:
        AdapterError: it has adapter_model.bin only.
    """
    pickled = folder / "adapter_model.bin"
    if pickled.exists() and not (folder / "adapter_model.safetensors").is_file():
        raise AdapterError(f"{pickled}: is a pickle, which can run code; save it with safe_serialization=True")


def training_environment() -> Environment:
    """What the training ran on: commit, host, and the versions of the packages that decide it."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    known = describe_environment()
    return known.model_copy(update={"packages": {**known.packages, **found}})


def summarize_losses(log: Sequence[Mapping[str, Any]], kept: int) -> Losses:
    """The losses of a log; the validation is the last one up to the step whose weights were kept.

    Raises:
        RunError: the log has no step.
    """
    steps = [line["loss"] for line in log if "loss" in line]
    if not steps:
        raise RunError(
            "log.jsonl has lost every step, and nothing is left to train; train anew with --set resume=false"
        )
    checks = [line for line in log if "eval_loss" in line and line["step"] <= kept]
    last = {k.removeprefix("eval_"): v for k, v in checks[-1].items() if k.startswith("eval_")} if checks else {}
    tail = steps[-10:]
    return Losses(first=steps[0], last=steps[-1], mean_of_last_10=sum(tail) / len(tail), validation=last)
