"""What a server lists under /v1/models, read leniently into records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.runs.schema import ServedModel


def read_models(entries: Sequence[dict[str, Any]]) -> list[ServedModel]:
    """The models of a list; an adapter whose context length is not given has its base's."""
    models = [read_model(entry) for entry in entries]
    lengths = {model.name: model.max_model_len for model in models}
    return [
        model.model_copy(update={"max_model_len": lengths.get(model.parent)})
        if model.max_model_len is None and model.parent is not None
        else model
        for model in models
    ]


def read_model(entry: dict[str, Any]) -> ServedModel:
    """A model's entry: our server adds ``arc_bench: {hash, rank, base, manifest, max_loras}``."""
    own = _table(entry.get("arc_bench"))
    manifest = _table(own.get("manifest") or entry.get("manifest"))
    return ServedModel(
        name=entry["id"],
        root=_text(entry.get("root")),
        parent=_text(entry.get("parent")),
        max_model_len=_number(entry.get("max_model_len")),
        hash=_text(own.get("hash")),
        rank=_number(own.get("rank")),
        base=_text(own.get("base")),
        prompt=_text(manifest.get("prompt")),
        encoder=_text(manifest.get("encoder")),
        stop_token_ids=_numbers(manifest.get("stop_token_ids")),
        chat_template_kwargs=_table(manifest.get("chat_template_kwargs")) or None,
        chat_template=_text(manifest.get("chat_template")),
        template_date=_day(manifest.get("template_date")),
        max_loras=_number(own.get("max_loras")),
    )


def log_on_this_machine(url: str, entries: Sequence[dict[str, Any]]) -> Path | None:
    """Return the log file that a server of ours names, where it answers on loopback and this user may read the file."""
    if urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"):
        return None
    named = (_text(_table(entry.get("arc_bench")).get("log")) for entry in entries)
    path = next((Path(name) for name in named if name is not None), None)
    return path if path is not None and path.is_file() and os.access(path, os.R_OK) else None


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _numbers(value: object) -> list[int] | None:
    return value if isinstance(value, list) and value and all(type(v) is int and v >= 0 for v in value) else None


def _day(value: object) -> str | None:
    try:
        return date.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except ValueError:
        return None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
