"""A base model folder without torch: its name, configuration, digest, and the names and shapes of its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.core.digests import model_digest
from harness.core.errors import AdapterError, ConfigError, ServerError
from harness.core.hub_cache import cached_snapshot, check_download_allowed, is_complete, loaded_weights, missing_weights
from serve.registry.safetensors_file import TensorInfo, read_header

LANGUAGE_MODEL = re.compile(r"(?:model\.)?language_model\.(?:model\.)?")
"""Prefix of the weights' names if the language model is part of a larger model; older files have the words reversed."""


@dataclass(frozen=True)
class BaseModel:
    """A base model in the Hugging Face layout.

    Attributes:
        name: its name on the server and in adapters' configurations (a folder name or a hub id).
        folder: the folder with config.json and the weights; None for a hub model that is not cached completely.
        partial: the cached snapshot of a hub model that lacks weights, as ``bench preview`` leaves it.
        source: the folder or hub id it was opened by, if it is served under another name.
    """

    name: str
    folder: Path | None
    partial: Path | None = None
    source: str | None = None

    @staticmethod
    def open(model: str | Path, revision: str | None = None) -> BaseModel:
        """Open a model folder, or a hub model from the local cache; without cached files only its name is known.

        Args:
            model: a folder or a hub id.
            revision: the revision of a hub model.

        Raises:
            ServerError: ``model`` is a path without a model folder, or neither a path nor a hub id.
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
        """The content of config.json; empty if it is not on this machine."""
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
        """The number of transformer layers, if config.json has it."""
        value = self.text_config.get("num_hidden_layers")
        return value if isinstance(value, int) else None

    @property
    def architecture(self) -> str | None:
        """The model's class, such as "LlamaForCausalLM", if config.json has it."""
        names = self.config.get("architectures")
        return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None

    @cached_property
    def is_composite(self) -> bool:
        """Whether the model is multimodal: the language model is one part beside others, for images or sound."""
        return any(LANGUAGE_MODEL.match(name) for name in self.tensors)

    @property
    def has_other_tokenizer(self) -> bool:
        """Whether vLLM might choose mistral-common's tokenizer files although training uses those of transformers."""
        folder = self.folder or self.partial
        if folder is None or not (folder / "tokenizer_config.json").is_file():
            return False
        return (folder / "tekken.json").is_file() or any(folder.glob("tokenizer.model.v*"))

    @property
    def has_tied_head(self) -> bool:
        """Whether the output layer shares the weights of the embeddings."""
        return not any(name.endswith("lm_head.weight") for name in self.tensors)

    @property
    def text_config(self) -> dict[str, Any]:
        """The language model's part of config.json: its ``text_config`` entry in a composite model, else all of it."""
        text = self.config.get("text_config")
        return text if isinstance(text, dict) else self.config

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Every weight by name; empty if the model has no safetensors files."""
        return {name: tensor for header in self._headers.values() for name, tensor in header.items()}

    @cached_property
    def _headers(self) -> dict[Path, dict[str, TensorInfo]]:
        """The tensors in each weights file."""
        try:
            return {path: read_header(path) for path in self._weights}
        except AdapterError as error:
            raise ServerError(str(error)) from error

    def file_of(self, tensor: TensorInfo) -> Path:
        """Return the file that holds one of ``tensors``."""
        return next(path for path in self._weights if any(tensor is other for other in self._headers[path].values()))

    @cached_property
    def hash(self) -> str | None:
        """``model_digest`` of the folder, as in the trainer's manifest; None without a folder.

        Reads every byte of the weights (about 10 s for 15 GB).
        """
        return None if self.folder is None else model_digest(self.folder)

    @cached_property
    def hashes(self) -> frozenset[str]:
        """``hash``, and the digest over only the weight files that transformers loads; a folder may hold others."""
        if self.folder is None or self.hash is None:
            return frozenset()
        loaded = loaded_weights(self.folder) & {path.name for path in self._weights}
        differs = loaded and len(loaded) < len(self._weights)
        return frozenset({self.hash, model_digest(self.folder, loaded) if differs else self.hash})

    def refuse_pickles(self) -> None:
        """Refuse a model whose weights exist only as PyTorch pickles.

        A pickle can run code when it is loaded, and adapters could not be checked against it.

        Raises:
            ServerError: the folder has pickles and no safetensors file.
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
        """Refuse a folder without all its weights, and a hub model to be downloaded while downloads are disabled.

        Args:
            environ: the environment variables that may disable downloads.

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
        """The commit of a model in the hub's cache, None for any other folder."""
        return self.folder.name if self.folder is not None and self.folder.parent.name == "snapshots" else None

    @property
    def _weights(self) -> list[Path]:
        """The safetensors files, sorted by name."""
        return sorted(self.folder.glob("*.safetensors")) if self.folder else []

    @property
    def identity(self) -> str:
        """The folder or hub id of the base, which is compared with the base that an adapter's configuration names."""
        return str(self.folder) if self.folder is not None else self.source or self.name


def _folder_name(folder: Path) -> str:
    """Return the folder's name, or the hub id of a snapshot in the hub's cache (models--ORG--NAME/snapshots/COMMIT)."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name
