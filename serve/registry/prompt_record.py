"""Prompt and encoder of an adapter without a manifest: those of its checkpoint's run, or those that a user gives."""

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
"""What the trainer writes into its output folder at the start: the recipe's keys, flat."""
_DATASET = re.compile(r"datasets\.\d+\.spec")
_OF_THE_RESULT = {
    *("weights_sha256", "config_sha256", "steps", "kept_step", "ended", "losses"),
    *("tokens", "answer_tokens", "padding", "seconds", "finished"),
}
"""Keys of a manifest that are about the finished weights, which a checkpoint's are not."""


def complete_manifest(source: Path, draft: Path, prompt_settings: Mapping[str, str]) -> None:
    """Write what a checkpoint's run and the user say of an adapter into the manifest of its copy.

    Args:
        source: the adapter's folder.
        draft: the copy that is to be registered.
        prompt_settings: ``prompt`` and ``encoder`` that the user gives; they stand over those of a manifest.

    Raises:
        AdapterError: the files of the checkpoint's run are damaged.
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
    """Return what a checkpoint's run says of prompt, encoder and base; nothing for a folder that is no checkpoint.

    Args:
        folder: such as ``OUTPUT/checkpoints/checkpoint-50``.

    Raises:
        AdapterError: the run's files are damaged.
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
    """The prompt that the trainer would write into the manifest; the first dataset's where one is not known here."""
    count = sum(bool(_DATASET.fullmatch(key)) for key in recipe)
    names = [recipe.get(f"datasets.{k}.prompt") or recipe.get("prompt") for k in range(max(count, 1))]
    try:
        return inference_prompt([str(name) for name in names])
    except SpecError:
        return names[0]


def missing_prompt_warnings(folder: Path) -> list[str]:
    """Return a warning where nothing says with which prompt and encoder a registered adapter was trained."""
    manifest = read_object(folder / MANIFEST) if (folder / MANIFEST).exists() else {}
    unknown = [key for key in ("prompt", "encoder") if not isinstance(manifest.get(key), str)]
    if not unknown:
        return []
    return [
        f"{MANIFEST} does not say with which {' and '.join(unknown)} it was trained, so that bench run asks it as it "
        "asks the others, or with the default; give --prompt and --grid-encoder here"
    ]
