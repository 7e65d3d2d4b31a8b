"""Whether an adapter was trained on the base that is served: by content where that is at hand, else by name."""

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
"""Beside a registered version: the base for which a user insisted on it, ``{"base": NAME, "hash": HASH or null}``."""
INSIST = "if this base is right all the same, add it with --base MODEL --accept-base"
_BLOCK = 16 << 20
_BOOKKEEPING = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "unsloth_version"}
"""Keys of config.json that do not change what a model computes from the same weights."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SNAPSHOT = re.compile(r"(?:^|/)models--([^/]+?)--([^/]+)/snapshots/[^/]+$")
_PLAIN_WORDS = {
    *(
        "base",
        "model",
        "models",
        "weights",
        "final",
        "last",
        "best",
        "merged",
        "latest",
        "main",
        "default",
        "output",
        "out",
    ),
    *("checkpoint", "snapshot", "instruct", "it", "chat", "hf", "transformers", "pytorch", "safetensors", "bits"),
    *("bf16", "fp16", "fp32", "bfloat16", "float16", "float32"),
}
_SIZE_OR_NUMBER = re.compile(r"v?\d+[bmkBMK]?|[0-9a-f]{7,40}")


def is_accepted(folder: Path, base: BaseModel) -> bool:
    """Whether a user insisted that a registered adapter is for this base, whatever it says itself."""
    if not (folder / ACCEPTED).is_file():
        return False
    record = read_object(folder / ACCEPTED)
    digest = record.get("hash")
    return digest == base.hash if isinstance(digest, str) and base.hash else record.get("base") == base.name


def accept_base(folder: Path, base: BaseModel) -> None:
    """Record in a registered version that a user insists on this base."""
    (folder / ACCEPTED).write_text(json.dumps({"base": base.name, "hash": base.hash}) + "\n", encoding="utf-8")


def base_mismatch(config: dict[str, Any], manifest: dict[str, Any], base: BaseModel) -> tuple[str | None, str | None]:
    """Return (why the adapter is not of this base or None, a warning where that cannot be told for certain).

    Args:
        config: its adapter_config.json.
        manifest: the trainer's, empty where there is none.
    """
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        return None, None  # refused elsewhere
    recorded = manifest.get("base")
    digest = recorded.get("digest") if isinstance(recorded, dict) else None
    if isinstance(digest, str) and len(digest) == 16 and base.hash is not None:
        if digest in base.hashes:
            return None, None
        return f"it was trained on {named!r} of digest {digest}, but this base has {base.hash}", None
    if isinstance(digest, str) and _COMMIT.fullmatch(digest):
        return _of_commit(named, digest, base)
    return _by_content_or_name(named, None, base)


def _of_commit(named: str, commit: str, base: BaseModel) -> tuple[str | None, str | None]:
    """Compare with a base of the hub that an older trainer recorded by the commit of its repository."""
    if commit == base.commit:
        return None, None
    reason, warning = _by_content_or_name(named, commit, base)
    if reason is None and base.commit is not None and _at_hand(named, commit) is None:
        warning = f"it was trained on commit {commit[:12]} of {named!r}, and this base is commit {base.commit[:12]}"
    return reason, warning


def _by_content_or_name(named: str, commit: str | None, base: BaseModel) -> tuple[str | None, str | None]:
    original = _at_hand(named, commit)
    if original is not None and base.folder is not None:
        if same_content(original, base.folder):
            return None, None
        return f"it was trained on {named!r}, which is on this machine and has other content than {base.name!r}", None
    alike = same_name(named, base.identity)
    if alike is False:
        where = f" in {base.folder}" if base.folder and _parts(named)[-1:] == _parts(base.name)[-1:] else ""
        return f"it was trained on {named!r}, but this base is {base.name!r}{where}", None
    warning = f"it was trained on {named!r}, of which only the name could be compared with this base, {base.name!r}"
    return None, None if alike else warning


def _at_hand(named: str, commit: str | None) -> Path | None:
    """The folder of the model that an adapter names, where it is on this machine with all its weights."""
    try:
        model = BaseModel.open(named, commit)
        return model.folder if model.folder is not None and model.tensors else None
    except (ServerError, OSError, ValueError):
        return None


def same_content(one: Path, other: Path) -> bool:
    """Whether two model folders hold the same weights, in whatever files, and configurations that mean the same."""
    if one.resolve() == other.resolve():
        return True
    stamps = tuple(_stamp(folder) for folder in (one, other))
    return _compare(one, other, stamps)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@lru_cache(maxsize=16)
def _compare(one: Path, other: Path, stamps: object) -> bool:
    """As ``same_content``; ``stamps`` let the cache forget folders that were written to."""
    try:
        if _meaning(one) != _meaning(other):
            return False
        a, b = _tensors(one), _tensors(other)
        if {n: (t.dtype, t.shape) for n, (_, t) in a.items()} != {n: (t.dtype, t.shape) for n, (_, t) in b.items()}:
            return False
        return all(_same_bytes(a[name], b[name]) for name in a)
    except (OSError, ValueError, AdapterError):
        return False


def _meaning(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {k: v for k, v in config.items() if k not in _BOOKKEEPING} if isinstance(config, dict) else {}


def _tensors(folder: Path) -> dict[str, tuple[Path, TensorInfo]]:
    return {
        name: (path, tensor)
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in read_header(path).items()
    }


def _same_bytes(one: tuple[Path, TensorInfo], other: tuple[Path, TensorInfo]) -> bool:
    size = one[1].end - one[1].start
    for at in range(0, size, _BLOCK):
        count = min(_BLOCK, size - at)
        a, b = (np.fromfile(path, "u1", count, offset=tensor.start + at) for path, tensor in (one, other))
        if not np.array_equal(a, b):
            return False
    return True


def same_name(named: str, served: str) -> bool | None:
    """Whether two names or paths mean the same model; None where they are too plain to tell, such as ``model``.

    Two hub ids must be equal. Of paths the last parts are compared, from the end to the first that is more than a
    version, a size or a word such as ``model``: ``/a/qwen/0.5b/1`` is ``/b/qwen/0.5b/1``, but not ``/a/llama/0.5b/1``.
    """
    one, other = _hub_name(named), _hub_name(served)
    if one == other:
        return True
    if _HUB_ID.fullmatch(one) and _HUB_ID.fullmatch(other):
        return False
    for a, b in zip(reversed(_parts(one)), reversed(_parts(other)), strict=False):
        if a != b:
            return False
        if not _is_plain(a):
            return True
    return None


def _hub_name(text: str) -> str:
    """A path with forward slashes; the hub id where it is a folder of the hub's cache."""
    text = text.replace("\\", "/").rstrip("/")
    match = _SNAPSHOT.search(text)
    return f"{match[1]}/{match[2]}" if match else text


def _parts(text: str) -> list[str]:
    return [part for part in text.split("/") if part not in ("", ".", "~")]


def _is_plain(part: str) -> bool:
    """Whether part of a path is a version, a size or a word that many models have in their paths."""
    words = [word for word in re.split(r"[-_. ]+", part.lower()) if word]
    return all(word in _PLAIN_WORDS or _SIZE_OR_NUMBER.fullmatch(word) for word in words)
