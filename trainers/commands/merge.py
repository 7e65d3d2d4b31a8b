"""Merge an adapter into its base model, for servers that cannot load adapters."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from harness.core.errors import AdapterError, ConfigError
from trainers.model.base_model import check_same_base, check_weights, find_base
from trainers.model.tokenizer import load_tokenizer
from trainers.recipe.extras import require_train_extra
from trainers.store.manifest import check_unchanged, read_manifest, refuse_pickle, write_json


def merge(base: str, adapter: Path, output: Path, *, dtype: str | None = None) -> Path:
    """Merge an adapter into its base model, compare the result with PEFT, and return the output folder.

    Args:
        dtype: dtype of the written weights; None for the base's.

    Raises:
        MissingExtraError: torch or PEFT is not installed. ConfigError: the base or the output folder cannot be used.
        AdapterError: the adapter does not fit the base, was trained on another one by its manifest, or has changed; or
            the merged model answers differently, and was removed.
    """
    require_train_extra()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not (adapter / "adapter_config.json").is_file():
        raise AdapterError(f"{adapter}: no adapter_config.json, so it is not an adapter folder")
    refuse_pickle(adapter)
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty; name another folder")
    folder = find_base(base)
    check_weights(folder)
    if manifest := read_manifest(adapter):
        check_same_base(folder, adapter, manifest)
        check_unchanged(adapter, manifest)
    from trainers.commands.merged_model import write_merged

    with warnings.catch_warnings():
        # PEFT's advice about tied embeddings: write_merged unties them where needed and compares the result.
        warnings.filterwarnings("ignore", ".*(no longer tied|tie_word_embeddings)")
        agreement = write_merged(folder, adapter, output, dtype)
    load_tokenizer(folder).save_pretrained(str(output))
    write_json(output / "merged.json", {"base": base, "adapter": str(adapter), **vars(agreement)})
    return output
