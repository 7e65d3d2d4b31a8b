"""Find the datasets on which a model was trained, through the manifests of its adapter and of what came before."""

from __future__ import annotations

import json
from pathlib import Path

from harness.core.errors import AdapterError
from harness.inspection.protocol import TrainingData
from trainers.store.manifest import AdapterManifest, read_manifest

MERGED = "merged.json"
"""File of a folder that ``bench merge`` wrote, which names the base and the adapter."""


def find_training_data(base: Path | str, adapter: Path | None) -> TrainingData:
    """Return the datasets of an adapter, of the adapters from which its training went on, and of a trained base.

    Args:
        base: folder or Hub id of the base model. A folder counts if ``bench train`` or ``bench merge`` wrote it.
        adapter: None for the base alone.
    """
    datasets: dict[str, str] = {}
    waiting: list[Path] = [] if adapter is None else [adapter]
    if isinstance(base, Path):
        waiting += _model_parts(base)
    seen: set[Path] = set()
    while waiting:
        folder = waiting.pop(0)
        if folder in seen:
            continue
        seen.add(folder)
        try:
            manifest = read_manifest(folder)
        except AdapterError as error:
            return TrainingData(datasets, str(error))
        if manifest is None:
            return TrainingData(datasets, f"{folder} has no manifest that names its training data")
        if manifest.ttt is not None:
            return TrainingData(datasets, f"{folder} was trained at test time, on task {manifest.ttt.task_id}")
        datasets |= {dataset.spec: dataset.digest for dataset in manifest.datasets}
        waiting += _earlier(manifest)
    return TrainingData(datasets)


def _earlier(manifest: AdapterManifest) -> list[Path]:
    """Return the folders from which a training went on: its adapter, and its base if that was trained or merged."""
    adapter, model = manifest.recipe.get("adapter"), manifest.recipe.get("model")
    folders = [Path(adapter)] if isinstance(adapter, str) else []
    if not isinstance(model, str) or model == "tiny":
        return folders
    base = Path(model)
    if not base.is_dir() and (base.is_absolute() or model.startswith(".")):
        return [*folders, base]  # it is gone, so that its data count as unknown
    return folders + _model_parts(base)


def _model_parts(base: Path) -> list[Path]:
    """Return what is known of a base's training: the base if it has a manifest, and what was merged into it."""
    return [*([base] if (base / "manifest.json").exists() else []), *_merged_parts(base)]


def _merged_parts(base: Path) -> list[Path]:
    """Return the adapter that was merged into a base, and those merged into the base's own base."""
    parts: list[Path] = []
    seen: set[Path] = set()
    while (file := base / MERGED).is_file() and base not in seen:
        seen.add(base)
        try:
            data = json.loads(file.read_bytes())
        except ValueError:
            return [*parts, base]  # it has no manifest, so that its data count as unknown
        parts.append(Path(str(data.get("adapter"))))
        base = Path(str(data.get("base")))
    if parts and (base / "manifest.json").exists():
        parts.append(base)
    return parts
