"""Report to MLflow (https://mlflow.org/docs/latest/python_api): one run with parameters, metrics and artifacts."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.runs.schemas.tracker_run import TrackerRun
from harness.trackers.report import PROJECT, TrackerReport, flatten

_NOT_ALLOWED = re.compile(r"[^\w\-. /:]")
"""Characters that MLflow refuses in names of metrics and parameters."""
_VALUE_LENGTH, _BATCH = 6000, 100
"""MLflow's limits for the value of a parameter, and for the parameters of one request."""


def send_report(report: TrackerReport) -> TrackerRun:
    """Create a run with the report and end it, where ``MLFLOW_TRACKING_URI`` says, else in MLflow's own default.

    Raises:
        Exception: whatever MLflow raises, such as for a server that does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = _experiment_id(client, os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT)
    tags = {"command": report.command, **({} if report.group is None else {"group": report.group})}
    tags |= {f"link.{_name(name)}": link for name, link in report.links.items()}
    run = client.create_run(experiment, run_name=report.name, tags=tags).info
    params = [Param(_name(k), _text(v)[:_VALUE_LENGTH]) for k, v in flatten(report.config).items()]
    for batch in _batches(params):
        client.log_batch(run.run_id, params=batch)
    now = int(1000 * time.time())
    metrics = [Metric(_name(key), value, now, 0) for key, value in report.scalars().items()]
    for batch in _batches(metrics):
        client.log_batch(run.run_id, metrics=batch)
    with TemporaryDirectory() as folder:
        _write_files(report, Path(folder))
        client.log_artifacts(run.run_id, folder)
    client.set_terminated(run.run_id)
    return TrackerRun(id=run.run_id, name=report.name, project=experiment, url=run_page(experiment, run.run_id))


def _experiment_id(client: Any, name: str) -> str:
    """Return the id of an experiment, which is created if there is none of this name."""
    known = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if known is None else known.experiment_id)


def run_page(experiment: str, run: str) -> str | None:
    """Return the address of a run's page on a tracking server; None for a local store."""
    import mlflow

    uri = str(mlflow.get_tracking_uri()).rstrip("/")
    return f"{uri}/#/experiments/{experiment}/runs/{run}" if uri.startswith(("http://", "https://")) else None


def _write_files(report: TrackerReport, folder: Path) -> None:
    """Write config, tables and pictures as files: parameters may be cut, and MLflow has no tables among metrics."""
    (folder / "config.json").write_text(json.dumps(report.config, indent=2, default=str), encoding="utf-8")
    for name, frame in report.tables.items():
        path = folder / "tables" / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        frame.to_csv(path, index=False)
    for name, content in report.pictures.items():
        path = folder / "pictures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _name(name: str) -> str:
    return _NOT_ALLOWED.sub("_", name)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))
