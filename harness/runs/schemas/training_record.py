"""What a run folder records of the training of an adapter: its recipe, and digests of what the recipe names."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue, ValidationError

from harness.runs.schemas.prediction_schema import Record


class TrainingRecord(Record):
    """The recipe of one training run, as far as its result depends on it; a copy of the trainer's manifest."""

    recipe: dict[str, JsonValue]
    """All keys of the recipe."""
    seed: int
    digests: dict[str, str]
    """Content of what the recipe names, by key: ``base``, ``datasets.0``, ``datasets.0.prompt``, ``validation`` …"""


def training_record(manifest: Mapping[str, object]) -> TrainingRecord | None:
    """Return the training record in an adapter's manifest.json; None if the manifest has no recipe with digests."""
    recipe, seed = manifest.get("recipe"), manifest.get("seed")
    digests = {"base": _text(manifest.get("base"), "digest")}
    datasets = manifest.get("datasets")
    for k, dataset in enumerate(datasets if isinstance(datasets, list) else [None]):
        digests[f"datasets.{k}"] = _text(dataset, "digest")
        digests[f"datasets.{k}.prompt"] = _text(dataset, "prompt_digest")
    if manifest.get("validation") is not None:
        digests["validation"] = _text(manifest["validation"], "digest")
        digests["validation.prompt"] = _text(manifest["validation"], "prompt_digest")
    for name in ("chat_template_digest", "template_date"):
        if manifest.get(name) is not None:
            digests[name] = _text(manifest, name)
    if not isinstance(recipe, dict) or not all(digests.values()):
        return None
    try:
        return TrainingRecord.model_validate({"recipe": recipe, "seed": seed, "digests": digests})
    except ValidationError:
        return None


def _text(value: object, key: str) -> str:
    """Return a text of a mapping; empty if there is none."""
    text = value.get(key) if isinstance(value, Mapping) else None
    return text if isinstance(text, str) else ""
