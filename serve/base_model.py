"""What an adapter must fit: the name, layers and weight shapes of a base model, read from its folder without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import AdapterError, ServerError
from serve.tensorfile import TensorInfo, read_header

_SAMPLE = 1 << 20


@dataclass(frozen=True)
class BaseModel:
    """A base model folder in the Hugging Face layout.

    Attributes:
        name: what the server calls it and what adapters give as their base (a folder name or a hub id).
        folder: where config.json and the weights are, or None where it is known by its hub id only.
    """

    name: str
    folder: Path | None

    @staticmethod
    def open(model: str | Path) -> BaseModel:
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
        return BaseModel(text, _cached_snapshot(text))

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, empty where the folder is not known."""
        if self.folder is None:
            return {}
        path = self.folder / "config.json"
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
        value = self.config.get("num_hidden_layers")
        return value if isinstance(value, int) else None

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Every weight by name; empty where the model has no safetensors files."""
        found: dict[str, TensorInfo] = {}
        try:
            for path in self._weights:
                found |= read_header(path)
        except AdapterError as error:
            raise ServerError(str(error)) from error
        return found

    @cached_property
    def hash(self) -> str | None:
        """16 hex digits that name this model's content.

        SHA-256 over config.json, the tokenizer's files and, for each weight file, its size and the first and last
        MiB, so that a model of 15 GB is named in milliseconds.
        """
        if self.folder is None:
            return None
        digest = hashlib.sha256()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            path = self.folder / name
            digest.update(path.read_bytes() if path.is_file() else b"\0")
        for path in self._weights:
            digest.update(f"{path.name}:{path.stat().st_size}".encode())
            with path.open("rb") as file:
                digest.update(file.read(_SAMPLE))
                file.seek(max(0, path.stat().st_size - _SAMPLE))
                digest.update(file.read(_SAMPLE))
        return digest.hexdigest()[:16]

    @property
    def _weights(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors")) if self.folder else []

    def is_named(self, other: str) -> bool:
        """Whether an adapter's ``base_model_name_or_path`` means this model: by name or by folder."""
        if other.rstrip("/").rsplit("/", 1)[-1] == self.name.rsplit("/", 1)[-1]:
            return True
        return self.folder is not None and Path(other).expanduser().resolve() == self.folder


def _folder_name(folder: Path) -> str:
    """The folder's name; the hub id where it is a snapshot in the hub's cache (models--ORG--NAME/snapshots/COMMIT)."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


def _cached_snapshot(model: str) -> Path | None:
    """The folder of a hub model that was downloaded before, without any network access."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError as error:
        raise ServerError(f"{model}: neither a model folder nor a Hugging Face id: {error}") from error
    return Path(found).parent if isinstance(found, str) else None
