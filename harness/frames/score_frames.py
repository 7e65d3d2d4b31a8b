"""Results, scores of tasks, settings and comparisons as data frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from harness.candidates.pool_schema import PoolManifest
from harness.frames.columns import Schema, make_frame
from harness.runs.schemas.manifest_schema import Manifest, ModelConfig
from harness.runs.schemas.results_schema import Results
from harness.scoring.model_scores import ModelScores
from harness.scoring.paired_comparison import PairedComparison
from harness.scoring.prediction_loader import SavedPredictions
from harness.voting.metrics import ENUMERATED_METRICS

SCORES: Schema = {
    "model": "category",
    "metric": "category",
    "value": "Float64",
    "low": "Float64",
    "high": "Float64",
    "method": "category",
    "per_output": "Float64",
    "strict": "Float64",
    "tasks": "Int32",
    "rule": "category",
}
COMPARED: Schema = {
    "metric": "category",
    "model": "category",
    "baseline": "category",
    "difference": "Float64",
    "low": "Float64",
    "high": "Float64",
    "p": "Float64",
    "p_holm": "Float64",
    "verdict": "category",
    "tasks": "Int32",
    "won": "Int32",
    "lost": "Int32",
    "resolvable": "Float64",
    "won_ids": "object",
    "lost_ids": "object",
}


def score_frame(results: Results) -> pd.DataFrame:
    """Return one row per model and metric, with the interval of the mean over tasks (see results.json)."""
    rows = (
        (
            model, name, metric.value, metric.low, metric.high, metric.method, metric.per_output, metric.strict,
            result.tasks, None if result.rule is None else result.rule.name,
        )
        for model, result in results.models.items()
        for name, metric in result.metrics.items()
    )  # fmt: skip
    return make_frame(SCORES, rows)


def task_frame(saved: SavedPredictions, scored: Sequence[ModelScores]) -> pd.DataFrame:
    """Return one row per model and task: its size, and each metric as the mean over its test outputs.

    A metric that a model does not measure is missing.
    """
    measured = [name for name in ENUMERATED_METRICS if any(name in scores.measured for scores in scored)]
    schema: Schema = {
        "model": "category",
        "task_id": "category",
        "train_pairs": "Int16",
        "test_outputs": "Int16",
        **dict.fromkeys(measured, "Float64"),
    }
    pairs = {task.id: len(task.train) for task in saved.tasks}

    def rows() -> Iterator[tuple[object, ...]]:
        for scores in scored:
            values = [
                scores.tasks.values_of(name).tolist() if name in scores.measured else [None] * len(scores.tasks.ids)
                for name in measured
            ]
            for task, *metrics in zip(scores.tasks.ids, *values, strict=True):
                yield (scores.model, task, pairs[task], len(scores.outputs[task]), *metrics)

    return make_frame(schema, rows())


def config_frame(manifest: Manifest | PoolManifest | None, models: Sequence[str]) -> pd.DataFrame:
    """Return one row per model with its settings and those of its run, or per member of a pool.

    Predictions without a manifest have the names of their models only. The keys of a recipe of test-time training
    begin with ``ttt_``, and ``trained_on`` is the label of what its model was trained on.
    """
    if manifest is None:
        return pd.DataFrame({"model": list(models)})
    if isinstance(manifest, PoolManifest):
        members = [{"member": one.name, **one.model_dump(exclude={"name", "settings"})} for one in manifest.members]
        return pd.DataFrame(members)
    config, named = manifest.config, []
    for model in config.models:
        if model.name in models:
            named.append({"model": model.name, **model.model_dump(exclude={"name"})})
    fields = set(ModelConfig.model_fields)
    of_run = config.model_dump(exclude={"models", "task_ids", "ttt"})
    shared = {f"run_{name}" if name in fields else name: value for name, value in of_run.items()}
    shared["tasks"] = len(config.task_ids)
    if config.ttt is not None:
        shared |= {f"ttt_{name.replace(' ', '_')}": value for name, value in config.ttt.flat_values().items()}
    if manifest.protocol is not None:
        shared["trained_on"] = manifest.protocol.label
    return pd.DataFrame([{**model, **shared} for model in named])


def comparison_frame(comparisons: Sequence[PairedComparison]) -> pd.DataFrame:
    """Return one row per comparison; differences are shares, not percentage points.

    ``won_ids`` and ``lost_ids`` are tuples of task ids.
    """
    rows = (
        (
            row.metric, row.model, row.baseline, c.delta, c.low, c.high, c.p, c.p_holm, c.verdict, c.tasks, c.won,
            c.lost, c.resolvable, row.won, row.lost,
        )
        for row in comparisons
        for c in [row.comparison]
    )  # fmt: skip
    return make_frame(COMPARED, rows)
