"""In what runs differ beside their models and tasks: what may explain a difference between their figures."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

from pydantic import BaseModel

from harness.runs.schema import Manifest, ModelConfig, StopConfig

_HARMLESS_IN_RUN = frozenset({"models", "dataset", "dataset_digest", "task_ids"})
"""Models are told field by field, and tasks are paired by their content. Every other field is told."""
_HARMLESS_IN_MODEL = frozenset({"name", "hash", "prompt"})
"""Which model it is, and the name of a prompt, whose digest decides."""
_WORDS = {"stop": "their stopping rules", "prompt_digest": "prompt"}


def find_confounders(manifests: Sequence[Manifest], models: Sequence[ModelConfig]) -> list[str]:
    """Return every difference between runs, and between how models were asked, that may change figures.

    Args:
        manifests: of the runs.
        models: those of them that are compared.
    """
    told = _differences("runs", [manifest.config for manifest in manifests], _HARMLESS_IN_RUN)
    without = {", ".join(sorted(manifest.without)) or "none" for manifest in manifests}
    if len(without) > 1:
        told.append(f"the runs differ in the parameters that servers refused ({'; '.join(sorted(without))})")
    return told + _differences("models", models, _HARMLESS_IN_MODEL)


def _differences(what: str, records: Sequence[BaseModel], harmless: Collection[str]) -> list[str]:
    told = []
    for field in type(records[0]).model_fields:
        values = [getattr(record, field) for record in records]
        if field not in harmless and any(value != values[0] for value in values):
            told.append(f"the {what} differ in {_WORDS.get(field, field)} ({_several(values)})")
    return told


def _several(values: Sequence[object]) -> str:
    short = _texts(value.rule if isinstance(value, StopConfig) else value for value in values)
    if len(short) == 1:  # one rule, asked after other numbers of draws
        short = _texts(value.model_dump() if isinstance(value, StopConfig) else value for value in values)
    return ", ".join(short)


def _texts(values: Iterable[object]) -> list[str]:
    return sorted({"none" if v is None else json.dumps(v) if isinstance(v, dict) else str(v) for v in values})
