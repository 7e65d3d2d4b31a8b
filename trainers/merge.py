"""Base and adapter as one full model, for where adapters cannot be served."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import AdapterError, ConfigError
from trainers.artifact import (
    AdapterManifest,
    check_unchanged,
    model_digest,
    read_manifest,
    refuse_pickle,
    write_json,
)
from trainers.chat import load_tokenizer
from trainers.inputs import check_weights, find_base
from trainers.optional import require_extra


def merge(base: str, adapter: Path, output: Path) -> Path:
    """Write the base model with the adapter added to its weights, in the base's own dtype.

    Raises:
        MissingExtraError: torch or PEFT is not installed. ConfigError: the base or the output folder is not usable.
        AdapterError: the adapter does not fit the base, or by its manifest it was trained on another, or has changed.
    """
    require_extra()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not (adapter / "adapter_config.json").is_file():
        raise AdapterError(f"{adapter}: no adapter_config.json, so that it is no adapter folder")
    refuse_pickle(adapter)
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty; name another folder")
    where = find_base(base)
    check_weights(where)
    if manifest := read_manifest(adapter):
        _check_base(where, adapter, manifest)
        check_unchanged(adapter, manifest)
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(str(where), dtype="auto", use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model {base!r} cannot be loaded: {error}") from error
    try:
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError) as error:
        raise AdapterError(f"{adapter} does not fit {base!r}: {error}") from error
    merged.save_pretrained(str(output))
    load_tokenizer(where).save_pretrained(str(output))
    write_json(output / "merged.json", {"base": base, "adapter": str(adapter)})
    return output


def _check_base(where: Path | str, adapter: Path, manifest: AdapterManifest) -> None:
    """Refuse a base of the same shape but with other weights, which would merge without a word.

    Only folders are compared with folders: the digest of a Hub model is its commit.

    Raises:
        AdapterError: the adapter was trained on other weights.
    """
    if not isinstance(where, Path):
        return
    digest, trained_on = model_digest(where), manifest.base
    if len(digest) == len(trained_on.digest) and digest != trained_on.digest:
        raise AdapterError(
            f"{adapter} was trained on {trained_on.name!r} (content {trained_on.digest}); "
            f"that of {str(where)!r} is another ({digest})"
        )
