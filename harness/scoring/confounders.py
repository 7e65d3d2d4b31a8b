"""Differences between runs, other than models and tasks, that may explain a difference between their scores."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

from pydantic import BaseModel

from harness.runs.schemas.manifest_schema import Manifest, ModelConfig, ServedModel, StopConfig
from harness.runs.schemas.sequential_schema import SequentialDesign
from harness.runs.schemas.view_schema import SearchConfig

_IGNORED_IN_RUN = frozenset({"models", "dataset", "dataset_digest", "task_ids", "rule", "ttt"})
"""Fields of a run that are compared elsewhere: models field by field, tasks by their content, rules as they apply; or
that say which model it is (ttt)."""
_IGNORED_IN_MODEL = frozenset({"name", "hash", "prompt"})
"""Which model it is, and the name of its prompt, whose digest is compared."""
_FIELD_NAMES = {"stop": "their stopping rules", "sequential": "--until-resolved", "prompt_digest": "prompt"}


def find_confounders(
    manifests: Sequence[Manifest], models: Sequence[ModelConfig], served: Sequence[ServedModel]
) -> list[str]:
    """Return a sentence for each setting that differs between runs, or between models, and may change scores.

    Args:
        manifests: of the runs that are compared.
        models: the models of these runs that are compared.
        served: the same models, as the servers listed them.
    """
    differences = _differences("runs", [manifest.config for manifest in manifests], _IGNORED_IN_RUN)
    refused = {", ".join(sorted(manifest.without)) or "none" for manifest in manifests}
    if len(refused) > 1:
        differences.append(f"the runs differ in the parameters that servers refused ({'; '.join(sorted(refused))})")
    if len(dtypes := sorted({dtype for model in served for dtype in model.dtypes})) > 1:
        differences.append(f"the servers of the models computed in different dtypes ({', '.join(dtypes)})")
    return differences + _differences("models", models, _IGNORED_IN_MODEL)


def _differences(kind: str, records: Sequence[BaseModel], ignored: Collection[str]) -> list[str]:
    """Return a sentence for each field that is not equal in all records; ``kind`` names the records."""
    sentences = []
    for field in type(records[0]).model_fields:
        values = _values(records, field)
        if field not in ignored and any(value != values[0] for value in values):
            sentences.append(f"the {kind} differ in {_FIELD_NAMES.get(field, field)} ({_values_text(values)})")
    return sentences


def _values(records: Sequence[BaseModel], field: str) -> list[object]:
    """Return a field of all records; a prompt's name stands for its digest where different ones have other names."""
    values = [getattr(record, field) for record in records]
    if field == "prompt_digest" and all(value is not None for value in values):
        names = [getattr(record, "prompt", None) for record in records]
        if len(set(names)) == len(set(values)) == len(set(zip(names, values, strict=True))):
            return [str(name) for name in names]
    return values


def _values_text(values: Sequence[object]) -> str:
    texts = _distinct_texts(_short(value) for value in values)
    if len(texts) == 1:  # the same stopping rule or metric, checked after other numbers of samples or tasks
        texts = _distinct_texts(value.model_dump() if isinstance(value, BaseModel) else value for value in values)
    return ", ".join(texts)


def _short(value: object) -> object:
    """Return what names a value in a message."""
    if isinstance(value, SearchConfig):
        return " ".join(["dfs", *(f"{name} {field}" for name, field in value if field is not None)])
    if isinstance(value, SequentialDesign):
        return value.metric
    return value.rule if isinstance(value, StopConfig) else value


def _distinct_texts(values: Iterable[object]) -> list[str]:
    return sorted({"none" if v is None else json.dumps(v) if isinstance(v, dict) else str(v) for v in values})
