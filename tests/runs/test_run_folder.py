"""Run folders: appended predictions, resuming, locks, and errors for invalid files."""

from __future__ import annotations

from harness.core.grid import Grid
from harness.data.spec import open_dataset
from harness.runs.schema import PredictionRecord
from tests.support.run_folders import prediction_record

TASK = open_dataset("toy/copy#n=1").task(0)


def example(sample: int) -> PredictionRecord:
    return prediction_record("base", TASK, 0, sample, Grid(1, 2, bytes((1, 2))))
