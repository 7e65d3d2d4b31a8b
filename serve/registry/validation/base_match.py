"""Decide whether an adapter was trained on the base that is served: by content if both are on disk, else by name."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.errors import AdapterError, ServerError
from serve.registry.adapter_files import read_object
from serve.registry.base_model import BaseModel
from serve.registry.safetensors_file import TensorInfo, read_header

ACCEPTED = "accepted_base.json"
"""File beside a registered version with the base that the user accepted: ``{"base": NAME, "hash": HASH or null}``."""
ACCEPT_HINT = "if this base is right nevertheless, add it with --base MODEL --accept-base"
"""The remedy that error messages about the base end with."""
_BLOCK = 16 << 20
_BOOKKEEPING = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "unsloth_version"}
"""Keys of config.json that do not change what a model computes from the same weights."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SNAPSHOT = re.compile(r"(?:^|/)models--([^/]+?)--([^/]+)/snapshots/[^/]+$")
_GENERIC_WORDS = {
    *("base", "model", "models", "weights", "final", "last", "best", "merged", "latest", "main", "default", "output"),
    *("out", "checkpoint", "snapshot", "instruct", "it", "chat", "hf", "transformers", "pytorch", "safetensors"),
    *("bits", "bf16", "fp16", "fp32", "bfloat16", "float16", "float32"),
}
"""Words that occur in the paths of many models and therefore do not identify one."""
_SIZE_OR_NUMBER = re.compile(r"v?\d+[bmkBMK]?|[0-9a-f]{7,40}")


def is_accepted(folder: Path, base: BaseModel) -> bool:
    """Return whether a user accepted a registered adapter for this base (``--accept-base``)."""
    if not (folder / ACCEPTED).is_file():
        return False
    record = read_object(folder / ACCEPTED)
    digest = record.get("hash")
    return digest == base.hash if isinstance(digest, str) and base.hash else record.get("base") == base.name


def accept_base(folder: Path, base: BaseModel) -> None:
    """Record in a version's folder that the user accepts it for this base."""
    (folder / ACCEPTED).write_text(json.dumps({"base": base.name, "hash": base.hash}) + "\n", encoding="utf-8")


def base_mismatch(config: dict[str, Any], manifest: dict[str, Any], base: BaseModel) -> tuple[str | None, str | None]:
    """Return why the adapter does not belong to this base (or None), and a warning if that is uncertain (or None).

    The trainer's digest of its base decides if there is one, then the content of the named model if it is on this
    machine, then its name.

    Args:
        config: the adapter's adapter_config.json.
        manifest: the trainer's manifest; empty if there is none.
    """
    base_name = config.get("base_model_name_or_path")
    if not isinstance(base_name, str) or not base_name:
        return None, None  # refused elsewhere
    recorded = manifest.get("base")
    digest = recorded.get("digest") if isinstance(recorded, dict) else None
    if isinstance(digest, str) and len(digest) == 16 and base.hash is not None:
        if digest in base.hashes:
            return None, None
        return f"it was trained on {base_name!r} of digest {digest}, but this base has {base.hash}", None
    if isinstance(digest, str) and _COMMIT.fullmatch(digest):
        return _compare_commit(base_name, digest, base)
    return _compare_content_or_name(base_name, None, base)


def _compare_commit(base_name: str, commit: str, base: BaseModel) -> tuple[str | None, str | None]:
    """Compare the base with the commit that an older trainer recorded, returning as ``base_mismatch`` does."""
    if commit == base.commit:
        return None, None
    reason, warning = _compare_content_or_name(base_name, commit, base)
    if reason is None and base.commit is not None and _local_folder(base_name, commit) is None:
        warning = f"it was trained on commit {commit[:12]} of {base_name!r}, and this base is commit {base.commit[:12]}"
    return reason, warning


def _compare_content_or_name(base_name: str, commit: str | None, base: BaseModel) -> tuple[str | None, str | None]:
    """Compare the base with the model that the adapter names, returning as ``base_mismatch`` does."""
    original = _local_folder(base_name, commit)
    if original is not None and base.folder is not None:
        if same_content(original, base.folder):
            return None, None
        return (
            f"it was trained on {base_name!r}, which is on this machine and has other content than {base.name!r}",
            None,
        )
    same = same_name(base_name, base.identity)
    if same is False:
        folder = f" in {base.folder}" if base.folder and _parts(base_name)[-1:] == _parts(base.name)[-1:] else ""
        return f"it was trained on {base_name!r}, but this base is {base.name!r}{folder}", None
    warning = f"it was trained on {base_name!r}, of which only the name could be compared with this base, {base.name!r}"
    return None, None if same else warning


def _local_folder(base_name: str, commit: str | None) -> Path | None:
    """Return the folder of the model that an adapter names if it is on this machine with all its weights, else None."""
    try:
        model = BaseModel.open(base_name, commit)
        return model.folder if model.folder is not None and model.tensors else None
    except (ServerError, OSError, ValueError):
        return None


def same_content(one: Path, other: Path) -> bool:
    """Return whether two model folders hold the same weights (in any files) and equivalent configurations."""
    if one.resolve() == other.resolve():
        return True
    stamps = tuple(_stamp(folder) for folder in (one, other))
    return _compare(one, other, stamps)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and modification time of each weights file and config.json."""
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@lru_cache(maxsize=16)
def _compare(one: Path, other: Path, stamps: object) -> bool:
    """Implement ``same_content``; ``stamps`` is part of the cache key, so that a changed folder is compared again."""
    try:
        if _effective_config(one) != _effective_config(other):
            return False
        a, b = _tensors(one), _tensors(other)
        if {n: (t.dtype, t.shape) for n, (_, t) in a.items()} != {n: (t.dtype, t.shape) for n, (_, t) in b.items()}:
            return False
        return all(_same_bytes(a[name], b[name]) for name in a)
    except (OSError, ValueError, AdapterError):
        return False


def _effective_config(folder: Path) -> dict[str, Any]:
    """Return config.json without the keys that do not change what the model computes."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {k: v for k, v in config.items() if k not in _BOOKKEEPING} if isinstance(config, dict) else {}


def _tensors(folder: Path) -> dict[str, tuple[Path, TensorInfo]]:
    """Return every weight of a folder by name, with its file."""
    return {
        name: (path, tensor)
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in read_header(path).items()
    }


def _same_bytes(one: tuple[Path, TensorInfo], other: tuple[Path, TensorInfo]) -> bool:
    """Return whether two tensors of equal dtype and shape hold the same bytes."""
    size = one[1].end - one[1].start
    for at in range(0, size, _BLOCK):
        count = min(_BLOCK, size - at)
        a, b = (np.fromfile(path, "u1", count, offset=tensor.start + at) for path, tensor in (one, other))
        if not np.array_equal(a, b):
            return False
    return True


def same_name(base_name: str, served: str) -> bool | None:
    """Return whether two names or paths mean the same model; None if they are too generic to tell, such as ``model``.

    Two hub ids must be equal. Paths are compared part by part from the end, up to the first part that is more than a
    version, a size or a generic word: ``/a/qwen/0.5b/1`` equals ``/b/qwen/0.5b/1`` and differs from
    ``/a/llama/0.5b/1``.
    """
    one, other = _hub_name(base_name), _hub_name(served)
    if one == other:
        return True
    if _HUB_ID.fullmatch(one) and _HUB_ID.fullmatch(other):
        return False
    for a, b in zip(reversed(_parts(one)), reversed(_parts(other)), strict=False):
        if a != b:
            return False
        if not _is_generic(a):
            return True
    return None


def _hub_name(text: str) -> str:
    """Return a path with forward slashes, or the hub id of a folder in the hub's cache."""
    text = text.replace("\\", "/").rstrip("/")
    match = _SNAPSHOT.search(text)
    return f"{match[1]}/{match[2]}" if match else text


def _parts(text: str) -> list[str]:
    """Return the parts of a path that can identify a model."""
    return [part for part in text.split("/") if part not in ("", ".", "~")]


def _is_generic(part: str) -> bool:
    """Return whether a part of a path is a version, a size or a generic word, which many models have in their paths."""
    words = [word for word in re.split(r"[-_. ]+", part.lower()) if word]
    return all(word in _GENERIC_WORDS or _SIZE_OR_NUMBER.fullmatch(word) for word in words)
