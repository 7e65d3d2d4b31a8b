"""Find prompt and encoder of an adapter without a manifest: from its checkpoint's training run, or from the user."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import SpecError
from harness.prompts.prompt_template import inference_prompt
from serve.registry.adapter_files import MANIFEST, read_object

_STARTED = "training.json"
"""The file that the trainer writes to its output folder at the start: the recipe's keys, flattened."""
_DATASET = re.compile(r"datasets\.\d+\.spec")
_OF_THE_RESULT = {
    *("weights_sha256", "config_sha256", "steps", "kept_step", "ended", "losses"),
    *("tokens", "answer_tokens", "padding", "seconds", "finished"),
}
"""Manifest keys that describe the final weights and are wrong for a checkpoint's."""


def complete_manifest(source: Path, draft: Path, prompt_settings: Mapping[str, str]) -> None:
    """Write the manifest of an adapter's copy from its checkpoint's training run and the user's settings.

    Without either, the copy stays as it is.

    Args:
        source: the adapter's folder.
        draft: the copy that is to be registered.
        prompt_settings: ``prompt`` and ``encoder`` from the user; they take precedence over the manifest's.

    Raises:
        AdapterError: a file of the training run is damaged.
    """
    path = draft / MANIFEST
    manifest = read_object(path) if path.exists() else manifest_of_checkpoint(source)
    if not prompt_settings and (path.exists() or not manifest):
        return
    path.unlink(missing_ok=True)  # the copy is read-only
    with path.open("w", encoding="utf-8") as file:
        json.dump({**manifest, **prompt_settings}, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    path.chmod(path.stat().st_mode & 0o444)


def manifest_of_checkpoint(folder: Path) -> dict[str, Any]:
    """Return prompt, encoder and base of a checkpoint's training run; empty for a folder that is no checkpoint.

    Args:
        folder: such as ``OUTPUT/checkpoints/checkpoint-50``.

    Raises:
        AdapterError: a file of the training run is damaged.
    """
    folder = folder.resolve()
    output = folder.parent.parent
    if folder.parent.name != "checkpoints":
        return {}
    if (output / MANIFEST).is_file():
        finished = read_object(output / MANIFEST)
        return {k: v for k, v in finished.items() if k not in _OF_THE_RESULT} | {"checkpoint": folder.name}
    if not (output / _STARTED).is_file():
        return {}
    recipe = read_object(output / _STARTED)
    prompt = _prompt(recipe)
    return {
        "prompt": prompt,
        "prompt_digest": recipe.get(f"prompt {prompt} (its text)"),
        "encoder": recipe.get("encoder"),
        "base": {"name": recipe.get("model"), "digest": recipe.get("model (its content)")},
        "seed": recipe.get("seed"),
        "checkpoint": folder.name,
    }


def _prompt(recipe: Mapping[str, Any]) -> object:
    """Return the prompt as the trainer writes it to the manifest; the first dataset's if one is unknown here."""
    count = sum(bool(_DATASET.fullmatch(key)) for key in recipe)
    names = [recipe.get(f"datasets.{k}.prompt") or recipe.get("prompt") for k in range(max(count, 1))]
    try:
        return inference_prompt([str(name) for name in names])
    except SpecError:
        return names[0]


def missing_prompt_warnings(folder: Path) -> list[str]:
    """Return a warning if the manifest of a registered adapter lacks its prompt or encoder, else an empty list."""
    manifest = read_object(folder / MANIFEST) if (folder / MANIFEST).exists() else {}
    unknown = [key for key in ("prompt", "encoder") if not isinstance(manifest.get(key), str)]
    if not unknown:
        return []
    return [
        f"{MANIFEST} does not say with which {' and '.join(unknown)} it was trained: bench run will use those of the "
        "other models, or its defaults; set them with --prompt and --grid-encoder"
    ]
