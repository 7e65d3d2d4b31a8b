"""Parse the list of a server's models (``/v1/models``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import ValidationError

from harness.client.protocol.error_response import TransientError
from harness.runs.schemas.manifest_schema import ServedModel
from harness.runs.schemas.tracker_run import TrackerRun
from harness.runs.schemas.training_record import training_record


def model_entries(data: Mapping[str, Any], root: str) -> list[dict[str, Any]]:
    """Return the entries of a response to ``/v1/models``.

    Args:
        root: the URL of the route's folder, for the message.

    Raises:
        TransientError: it is not such a list.
    """
    entries = data.get("data")
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("id"), str) for e in entries):
        raise TransientError("garbage", f"{root}/models did not answer with a list of models")
    return entries


def parse_models(entries: Sequence[dict[str, Any]]) -> list[ServedModel]:
    """Return the models of ``/v1/models``; an adapter without a context length of its own has its base's."""
    models = [parse_model(entry) for entry in entries]
    lengths = {model.name: model.max_model_len for model in models}
    return [
        model.model_copy(update={"max_model_len": lengths.get(model.parent)})
        if model.max_model_len is None and model.parent is not None
        else model
        for model in models
    ]


def parse_model(entry: dict[str, Any]) -> ServedModel:
    """Return one model of ``/v1/models``; fields that are absent or of a wrong type are None.

    ``bench serve`` adds ``arc_bench: {hash, rank, base, manifest, max_loras, dtype, log}`` to the usual fields.
    """
    extension = _dict(entry.get("arc_bench"))
    manifest = _dict(extension.get("manifest") or entry.get("manifest"))
    return ServedModel(
        name=entry["id"],
        root=_string(entry.get("root")),
        parent=_string(entry.get("parent")),
        max_model_len=_integer(entry.get("max_model_len")),
        hash=_string(extension.get("hash")),
        rank=_integer(extension.get("rank")),
        base=_string(extension.get("base")),
        prompt=_string(manifest.get("prompt")),
        encoder=_string(manifest.get("encoder")),
        stop_token_ids=_token_ids(manifest.get("stop_token_ids")),
        chat_template_kwargs=_dict(manifest.get("chat_template_kwargs")) or None,
        chat_template=_string(manifest.get("chat_template")),
        template_date=_date(manifest.get("template_date")),
        max_loras=_integer(extension.get("max_loras")),
        dtype=_string(extension.get("dtype")),
        tracker_runs=_tracker_runs(manifest.get("tracker_runs")),
        training=training_record(manifest),
    )


def score_route(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the route that scores answers, as ``bench serve`` lists it, or None.

    Args:
        entries: the entries of the server's list of models.
    """
    extensions = (entry.get("arc_bench") for entry in entries)
    routes = (extension.get("score") for extension in extensions if isinstance(extension, dict))
    return next((route for route in routes if isinstance(route, str) and route.startswith("/")), None)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _token_ids(value: object) -> list[int] | None:
    return value if isinstance(value, list) and value and all(type(v) is int and v >= 0 for v in value) else None


def _date(value: object) -> str | None:
    try:
        return date.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except ValueError:
        return None


def _tracker_runs(value: object) -> dict[str, TrackerRun] | None:
    try:
        return {name: TrackerRun.model_validate(run) for name, run in _dict(value).items()} or None
    except ValidationError:
        return None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
