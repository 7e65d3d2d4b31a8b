"""Base and adapter as one full model, for where adapters cannot be served."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from harness.core.errors import AdapterError, ConfigError
from trainers.model.chat_template import load_tokenizer
from trainers.model.inputs import check_same_base, check_weights, find_base
from trainers.recipe.extras import require_train_extra
from trainers.store.manifest import check_unchanged, read_manifest, refuse_pickle, write_json


def merge(base: str, adapter: Path, output: Path, *, dtype: str | None = None) -> Path:
    """Write the base model with the adapter added to its weights, and check that it answers as both do through PEFT.

    Args:
        dtype: of the weights that are written; None for the base's own.

    Raises:
        MissingExtraError: torch or PEFT is not installed. ConfigError: the base or the output folder is not usable.
        AdapterError: the adapter does not fit the base, or by its manifest it was trained on another, or has changed;
            or what was written answers otherwise, and was removed.
    """
    require_train_extra()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not (adapter / "adapter_config.json").is_file():
        raise AdapterError(f"{adapter}: no adapter_config.json, so that it is no adapter folder")
    refuse_pickle(adapter)
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty; name another folder")
    where = find_base(base)
    check_weights(where)
    if manifest := read_manifest(adapter):
        check_same_base(where, adapter, manifest)
        check_unchanged(adapter, manifest)
    from trainers.commands.merged_model import write_merged

    with warnings.catch_warnings():
        # PEFT's advice about tied embeddings, which are untied here where they must be, and compared.
        warnings.filterwarnings("ignore", ".*(no longer tied|tie_word_embeddings)")
        agreement = write_merged(where, adapter, output, dtype)
    load_tokenizer(where).save_pretrained(str(output))
    write_json(output / "merged.json", {"base": base, "adapter": str(adapter), **vars(agreement)})
    return output
