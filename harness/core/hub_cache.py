"""Models in the Hugging Face cache, and whether a model folder has all its weights; without network or torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from harness.core.errors import ConfigError

_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "tekken.json")
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors")


def missing_weights(folder: Path) -> str | None:
    """Return which weights a model folder lacks, such as "no model-00002-of-00003.safetensors"; None if complete.

    Weights are expected by index files and by numbered names. Pickles do not count: they are never loaded.
    """
    names = {path.name for path in folder.glob("*.safetensors") if path.is_file()}  # a link's target may not exist
    expected: set[str] = set()
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            expected |= set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"{index.name} that cannot be read"
    for match in filter(None, map(_NUMBERED.fullmatch, names)):
        start, digits, count = match.groups()
        expected |= {f"{start}-{k:0{len(digits)}}-of-{count}.safetensors" for k in range(1, int(count) + 1)}
    if lacking := sorted(expected - names):
        return f"no {lacking[0]}" + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
    return None if names else "no *.safetensors"


def loaded_weights(folder: Path) -> set[str]:
    """Return the names of the weight files that transformers loads: ``model.safetensors``, or those of its index."""
    if (folder / "model.safetensors").exists():
        return {"model.safetensors"}
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        return {str(name) for name in index["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def cached_snapshot(model: str, revision: str | None = None) -> Path | None:
    """Return the cached folder of a hub model, possibly without weights; None if its config.json is not cached.

    Raises:
        ConfigError: ``model`` is not a valid hub id.
    """
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        path = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError as error:
        raise ConfigError(f"{model}: neither a model folder nor a Hugging Face id: {error}") from error
    return Path(path).parent if isinstance(path, str) else None


def is_complete(snapshot: Path) -> bool:
    """Return whether a cached snapshot has all weights and a tokenizer, so that nothing must be downloaded."""
    return missing_weights(snapshot) is None and any((snapshot / name).is_file() for name in _TOKENIZERS)


def is_offline(environ: Mapping[str, str]) -> bool:
    """Return whether these environment variables forbid huggingface_hub to use the network."""
    return environ.get(_offline_variable(environ), "").upper() in ("1", "ON", "YES", "TRUE")


def _offline_variable(environ: Mapping[str, str]) -> str:
    """Return the name of the variable that huggingface_hub reads."""
    return "HF_HUB_OFFLINE" if environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"


def check_download_allowed(model: str, snapshot: Path | None, environ: Mapping[str, str]) -> None:
    """Check that a hub model is in the cache, or may be downloaded.

    Raises:
        ConfigError: the cache is incomplete and downloads are forbidden; the message says what is missing.
    """
    if not is_offline(environ) or (snapshot is not None and is_complete(snapshot)):
        return
    lacking = (missing_weights(snapshot) or "no tokenizer") if snapshot is not None else None
    reason = "it is not in the Hugging Face cache" if lacking is None else f"the Hugging Face cache has {lacking} of it"
    variable = _offline_variable(environ)
    raise ConfigError(
        f"model {model}: {reason}, and {variable} forbids the download; unset {variable}, or give a model folder"
    )
