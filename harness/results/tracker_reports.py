"""Results, costs and comparisons as reports for experiment trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.manifest_schema import Manifest, ServedModel
from harness.runs.schemas.results_schema import Cost, ModelResult, Results, ResultsWithRules
from harness.runs.schemas.task_training import count_outcomes
from harness.trackers.redaction import without_secrets
from harness.trackers.report import ReportedMetric, TrackerReport

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class ScoredSource:
    """What was scored, and by which command.

    Args:
        path: a run folder, or a file or folder in another form.
        manifest: of a run folder, else None.
        costs: by model.
        session: counts and seconds of the command itself, by name.
        pictures: PNG files by name.
        dataset: that the user named for scoring; None for that of the run.
    """

    path: Path
    command: str
    manifest: Manifest | None = None
    costs: Mapping[str, Cost] | None = None
    session: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    dataset: str | None = None

    @property
    def folder(self) -> Path | None:
        """The run folder, if it is one."""
        return None if self.manifest is None else self.path


def model_reports(source: ScoredSource, results: Results | None) -> list[TrackerReport]:
    """Return one report per model, named ``RUN@MODEL``, so that trackers list models in rows and metrics in columns.

    Args:
        results: None for a run that cannot be scored, of which counts and costs are reported.
    """
    manifest = source.manifest
    names = [] if manifest is None else [model.name for model in manifest.config.models]
    names = names if results is None else list(results.models)
    stem = source.path.resolve().name
    return [
        TrackerReport(
            name=stem if name == "-" else f"{stem}@{name}",
            command=source.command,
            config=without_secrets(_run_config(source, results, name)),
            metrics=_metrics(source, results, name),
            tables={} if results is None else _tables(results, name),
            pictures=source.pictures,
            links={} if manifest is None else training_links(manifest.served, name),
            group=stem,
            folder=source.folder,
        )
        for name in names
    ]


def training_links(served: Sequence[ServedModel], name: str) -> dict[str, str]:
    """Return where the training of a served adapter was reported, by ``training TRACKER``; empty if nowhere."""
    for model in served:
        if model.name == name and model.tracker_runs is not None:
            return {f"training {tracker}": run.as_link() for tracker, run in model.tracker_runs.items()}
    return {}


def _run_config(source: ScoredSource, results: Results | None, name: str) -> dict[str, Any]:
    """Return what decides the figures of a model, as plain JSON."""
    scoring = (
        {} if results is None else results.model_dump(mode="json", include={"n", "seed", "confidence", "resamples"})
    )
    base = {"source": str(source.path), "model": name, **scoring}
    if source.dataset is not None:
        base["scored_on"] = source.dataset
    if (manifest := source.manifest) is None:
        return base
    config = manifest.config.model_dump(mode="json", exclude={"models", "task_ids"})
    models = [
        model.model_dump(mode="json", exclude_none=True) for model in manifest.config.models if model.name == name
    ]
    served = [model.model_dump(mode="json", exclude_none=True) for model in manifest.served if model.name == name]
    return {
        **base,
        **config,
        "tasks": len(manifest.config.task_ids),
        "prompting": models[0] if models else {},
        "served": served[0] if served else {},
        "servers": manifest.servers,
        "warnings": manifest.warnings,
        "environment": manifest.environment.model_dump(mode="json"),
        "started": manifest.started,
        "finished": manifest.finished,
    }


def _metrics(source: ScoredSource, results: Results | None, name: str) -> dict[str, ReportedMetric]:
    metrics: dict[str, ReportedMetric] = {}
    if results is not None:
        metrics |= _score_metrics(results.models[name])
    if source.costs is not None and (cost := source.costs.get(name)) is not None:
        metrics |= {f"cost/{key}": ReportedMetric(value) for key, value in cost.model_dump().items()}
    metrics |= {f"session/{key}": ReportedMetric(value) for key, value in source.session.items()}
    if source.folder is not None and source.manifest is not None and source.manifest.config.ttt is not None:
        metrics |= _training_metrics(source.folder)
    return metrics


def _score_metrics(result: ModelResult) -> dict[str, ReportedMetric]:
    """Return the metrics of a model with their intervals, and its counts of predictions and failures."""
    metrics = {name: ReportedMetric(m.value, m.low, m.high) for name, m in result.metrics.items()}
    counts = {"tasks": result.tasks, "outputs": result.outputs, "predictions": result.predictions}
    counts |= {"failures": sum(result.failures.values())}
    counts |= {f"failures/{kind}": count for kind, count in result.failures.items()}
    return metrics | {f"count/{name}": ReportedMetric(count) for name, count in counts.items()}


def _training_metrics(folder: Path) -> dict[str, ReportedMetric]:
    """Return what test-time training cost, and how many tasks were answered with and without their own adapter."""
    records = TrainingLog(folder / TTT_LOG).records()
    trained = sum(record.own_adapter for record in records.values())
    values: dict[str, float] = {
        "tasks_with_adapter": trained,
        "tasks_without_adapter": len(records) - trained,
        "train_seconds": sum(record.train_seconds for record in records.values()),
        "sample_seconds": sum(record.sample_seconds for record in records.values()),
        **{f"outcome/{kind}": count for kind, count in count_outcomes(records).items()},
    }
    return {f"ttt/{name}": ReportedMetric(value) for name, value in values.items()}


def _tables(results: Results, name: str) -> dict[str, DataFrame]:
    """Return the table of a model's metrics, and that of its selection rules if they were compared."""
    import pandas as pd

    metrics = results.models[name].metrics
    tables = {"scores": pd.DataFrame([{"metric": key, **metric.model_dump()} for key, metric in metrics.items()])}
    if isinstance(results, ResultsWithRules) and (rules := results.rules.get(name)):
        tables["rules"] = pd.DataFrame(
            [{"rule": key, **rule.model_dump(exclude={"rank"})} for key, rule in rules.items()]
        )
    return tables


def comparison_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, ReportedMetric]:
    """Return each difference with its interval, p and Holm's p, as ``vote_2/MODEL vs BASELINE``.

    Args:
        rows: the JSON of ``bench compare``.
    """
    metrics: dict[str, ReportedMetric] = {}
    for row in rows:
        name, c = f"{row['metric']}/{compared_name(row)} vs {row['baseline']}", row["comparison"]
        metrics[name] = ReportedMetric(c["delta"], c["low"], c["high"])
        metrics |= {f"{name}/{key}": ReportedMetric(c[key]) for key in ("p", "p_holm")}
    return metrics


def compared_name(row: Mapping[str, Any]) -> str:
    """Return what a row of the JSON of ``bench compare`` compares with its baseline: a model, or a recipe."""
    return str(row["model"] if "model" in row else row["recipe"])


def comparison_frame(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """Return one row per comparison: difference, interval, p, Holm's p, tasks won and lost, and the verdict."""
    import pandas as pd

    columns = ("delta", "low", "high", "p", "p_holm", "p_method", "won", "lost", "tasks", "verdict", "note")
    return pd.DataFrame(
        [
            {"metric": row["metric"], "model": compared_name(row), "baseline": row["baseline"]}
            | {name: row["comparison"][name] for name in columns}
            for row in rows
        ]
    )


def sweep_report(
    out: Path,
    title: str,
    tables: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, bytes],
    links: Mapping[str, str],
) -> TrackerReport:
    """Return the report of a sweep: every mixture's metrics, and the differences to the first mixture.

    Args:
        tables: the JSON of the sweep's tables, one per dataset.
    """
    import pandas as pd

    metrics: dict[str, ReportedMetric] = {}
    rows, comparisons = [], []
    for table in tables:
        prefix = "" if len(tables) == 1 else f"{table['dataset']}/"
        compared = [*table["recipes"], *table["adapters"]]
        metrics |= {f"{prefix}{name}": metric for name, metric in comparison_metrics(compared).items()}
        comparisons.append(comparison_frame(compared).assign(dataset=table["dataset"]))
        for row in table["rows"]:
            for name, value in row["metrics"].items():
                key = f"{prefix}{row['label']}/{name}"
                metrics[key] = ReportedMetric(value["value"], value["low"], value["high"])
                rows.append({"dataset": table["dataset"], "mixture": row["label"], "metric": name, **value})
    config = [{key: table[key] for key in ("dataset", "n", "tasks")} for table in tables]
    mixtures = {row["label"]: row["models"] for table in tables for row in table["rows"]}
    return TrackerReport(
        name=out.resolve().name,
        command="sweep",
        config=without_secrets({"title": title, "tables": config, "mixtures": mixtures}),
        metrics=metrics,
        tables={"mixtures": pd.DataFrame(rows), "comparisons": pd.concat(comparisons)},
        pictures=pictures,
        links=links,
        group=out.resolve().name,
        folder=out,
    )
