"""What an adapter must fit: the name, layers and weight shapes of a base model, read from its folder without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.core.errors import AdapterError, ConfigError, ServerError
from harness.core.hub_cache import (
    cached_snapshot,
    check_download_allowed,
    is_complete,
    loaded_weights,
    missing_weights,
    model_digest,
)
from serve.registry.safetensors_file import TensorInfo, read_header

LANGUAGE_MODEL = re.compile(r"(?:model\.)?language_model\.(?:model\.)?")
"""What the names of weights begin with in a language model that is a part of a model; older files have it reversed."""


@dataclass(frozen=True)
class BaseModel:
    """A base model folder in the Hugging Face layout.

    Attributes:
        name: what the server calls it and what adapters give as their base (a folder name or a hub id).
        folder: where config.json and the weights are, or None where it is known by its hub id only.
        partial: the cached snapshot of a hub model without all its weights, as ``bench preview`` leaves it.
        source: the hub id, where it is served under another name.
    """

    name: str
    folder: Path | None
    partial: Path | None = None
    source: str | None = None

    @staticmethod
    def open(model: str | Path, revision: str | None = None) -> BaseModel:
        """The model of a folder, or of a hub id (only its name is known unless the local cache has its files).

        Raises:
            ServerError: a path was given and there is no model folder.
        """
        text = str(model)
        folder = Path(text).expanduser()
        if (folder / "config.json").is_file():
            return BaseModel(_folder_name(folder.resolve()), folder.resolve())
        if isinstance(model, Path) or folder.exists() or text.startswith((".", "/", "~")) or text.count("/") > 1:
            raise ServerError(f"{text}: no model here (a model folder holds config.json and *.safetensors)")
        try:
            snapshot = cached_snapshot(text, revision)
        except ConfigError as error:
            raise ServerError(str(error)) from error
        whole = snapshot is not None and is_complete(snapshot)
        return BaseModel(text, snapshot if whole else None, None if whole else snapshot)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, empty where it is not on this machine."""
        folder = self.folder or self.partial
        if folder is None:
            return {}
        path = folder / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ServerError(f"{path}: cannot be read as JSON: {error}") from error
        if not isinstance(config, dict):
            raise ServerError(f"{path}: expected an object")
        return config

    @property
    def layers(self) -> int | None:
        """The number of transformer layers, where config.json says it."""
        value = self.text_config.get("num_hidden_layers")
        return value if isinstance(value, int) else None

    @property
    def architecture(self) -> str | None:
        """The class of the model, where config.json says it."""
        named = self.config.get("architectures")
        return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None

    @cached_property
    def is_composite(self) -> bool:
        """Whether the language model is a part of it, beside one that reads pictures or sound."""
        return any(LANGUAGE_MODEL.match(name) for name in self.tensors)

    @property
    def has_other_tokenizer(self) -> bool:
        """Whether vLLM might choose mistral-common's tokenizer files, where training reads those of transformers."""
        folder = self.folder or self.partial
        if folder is None or not (folder / "tokenizer_config.json").is_file():
            return False
        return (folder / "tekken.json").is_file() or any(folder.glob("tokenizer.model.v*"))

    @property
    def has_tied_head(self) -> bool:
        """Whether the output layer has the weights of the embeddings."""
        return not any(name.endswith("lm_head.weight") for name in self.tensors)

    @property
    def text_config(self) -> dict[str, Any]:
        """The part of config.json on the language model, which in a model that reads pictures too is an entry."""
        text = self.config.get("text_config")
        return text if isinstance(text, dict) else self.config

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Every weight by name; empty where the model has no safetensors files."""
        return {name: tensor for header in self._headers.values() for name, tensor in header.items()}

    @cached_property
    def _headers(self) -> dict[Path, dict[str, TensorInfo]]:
        try:
            return {path: read_header(path) for path in self._weights}
        except AdapterError as error:
            raise ServerError(str(error)) from error

    def file_of(self, tensor: TensorInfo) -> Path:
        """The file that holds one of ``tensors``."""
        return next(path for path in self._weights if any(tensor is own for own in self._headers[path].values()))

    @cached_property
    def hash(self) -> str | None:
        """16 hex digits that name configuration and weights, as the trainer's manifest gives them for its base.

        SHA-256 over config.json and the hex SHA-256 of all safetensors files in the order of their names; reads every
        byte (about 10 s for 15 GB).
        """
        return None if self.folder is None else model_digest(self.folder)

    @cached_property
    def hashes(self) -> frozenset[str]:
        """``hash``, and the same over those files alone that transformers loads: a repository may hold others."""
        if self.folder is None or self.hash is None:
            return frozenset()
        loaded = loaded_weights(self.folder) & {path.name for path in self._weights}
        differs = loaded and len(loaded) < len(self._weights)
        return frozenset({self.hash, model_digest(self.folder, loaded) if differs else self.hash})

    def refuse_pickles(self) -> None:
        """Refuse weights that are there in PyTorch's own format only: a pickle, and nothing to check adapters against.

        Raises:
            ServerError: they are.
        """
        if self.folder is None or self._weights:
            return
        pickles = sorted(path.name for ending in ("bin", "pt", "pth") for path in self.folder.glob(f"*.{ending}"))
        if pickles:
            raise ServerError(
                f"{self.folder / pickles[0]}: is a pickle; only safetensors are served: load the model with "
                "transformers and save it again with save_pretrained"
            )

    def check_weights(self, environ: Mapping[str, str]) -> None:
        """Refuse a folder without all its weights, and a hub model that would be downloaded where that is switched off.

        Raises:
            ServerError: what is missing, and what to do.
        """
        if self.folder is not None:
            if lacking := missing_weights(self.folder):
                raise ServerError(f"{self.folder}: the model has {lacking}; copy or download the whole of it")
            return
        try:
            check_download_allowed(self.name, self.partial, environ)
        except ConfigError as error:
            raise ServerError(str(error)) from error

    @property
    def commit(self) -> str | None:
        """The commit of a model in the hub's cache."""
        return self.folder.name if self.folder is not None and self.folder.parent.name == "snapshots" else None

    @property
    def _weights(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors")) if self.folder else []

    @property
    def identity(self) -> str:
        """What adapters' names of their base are compared with: the folder, or the hub id."""
        return str(self.folder) if self.folder is not None else self.source or self.name


def _folder_name(folder: Path) -> str:
    """The folder's name; the hub id where it is a snapshot in the hub's cache (models--ORG--NAME/snapshots/COMMIT)."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name
