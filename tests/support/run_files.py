"""Predictions of run folders as records, for tests."""

from __future__ import annotations

from pathlib import Path

from harness.runs.folder import RunFolder
from harness.runs.prediction_log import PredictionLog
from harness.runs.schema import PredictionRecord


def append_record(log: PredictionLog, record: PredictionRecord) -> None:
    """Append a prediction to a log."""
    log.append(record.model_dump_json().encode() + b"\n")


def load_records(run: Path) -> list[PredictionRecord]:
    """Return the predictions of a run folder in the order of the file."""
    lines = RunFolder(run).predictions_path.read_bytes().splitlines()
    return [PredictionRecord.model_validate_json(line) for line in lines]
