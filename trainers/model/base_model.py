"""Find the base model that a recipe names, check its weights, and compare it with the base of an adapter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.digests import model_digest
from harness.core.errors import AdapterError, ConfigError
from harness.core.hub_cache import cached_snapshot, check_download_allowed, loaded_weights, missing_weights

if TYPE_CHECKING:
    from trainers.store.manifest import AdapterManifest


def find_base(model: str) -> Path | str:
    """Return the folder of a base model, or its Hub id; ``tiny`` is the shipped base.

    Raises:
        ConfigError: a path that is not a model folder.
    """
    if model == "tiny":
        from trainers.tiny.train import shipped_path

        return shipped_path()
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"model {model!r}: the folder has no config.json, so it is not a model")
        return path
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ConfigError(f"model {model!r}: no such folder; give a folder, a Hugging Face id (owner/name), or tiny")
    return model


def check_weights(base: Path | str) -> None:
    """Check that the weights of a base model are complete, or may be downloaded.

    Raises:
        ConfigError: the message says what is missing and what to do.
    """
    if isinstance(base, str):
        check_download_allowed(base, cached_snapshot(base), os.environ)
    elif missing := missing_weights(base):
        raise ConfigError(f"model {str(base)!r} cannot be loaded: it has {missing}; copy or download the whole of it")


def check_same_base(base: Path | str, adapter: Path, manifest: AdapterManifest) -> None:
    """Refuse a base whose weights differ from those that an adapter was trained on.

    A Hub model that an older version recorded by its commit is not compared.

    Raises:
        AdapterError: the weights differ.
    """
    trained_on = manifest.base
    if len(trained_on.digest) == 16 and (digest := base_digest(base)) != trained_on.digest:
        raise AdapterError(
            f"{adapter} was trained on {trained_on.name!r} (content {trained_on.digest}); "
            f"that of {str(base)!r} is another ({digest})"
        )


def base_digest(base: Path | str) -> str:
    """Return 16 hex digits over configuration and weights of a folder or of a Hub model, downloaded if needed.

    Raises:
        ConfigError: the model cannot be loaded from the Hub.
    """
    if isinstance(base, Path):
        return model_digest(base)
    folder = hub_folder(base)
    return model_digest(folder, loaded_weights(folder))


def hub_folder(model: str) -> Path:
    """Return the cache folder with configuration and weights of a Hub model; missing files are downloaded.

    Raises:
        ConfigError: the model cannot be loaded from the Hub.
    """
    from transformers.utils.hub import cached_file, get_checkpoint_shard_files

    try:
        config = cached_file(model, "config.json")
        if cached_file(model, "model.safetensors", _raise_exceptions_for_missing_entries=False) is None:
            index = cached_file(model, "model.safetensors.index.json")
            get_checkpoint_shard_files(model, index)
    except OSError as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"model {model!r} is neither a folder nor available from Hugging Face: {why}") from error
    return Path(config).parent
