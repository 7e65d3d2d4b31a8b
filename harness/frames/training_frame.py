"""What became of test-time training, task by task, as a data frame."""

from __future__ import annotations

import pandas as pd

from harness.core.errors import ConfigError
from harness.frames.columns import Schema, make_frame
from harness.frames.sources import Source
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog

TRAINED: Schema = {
    "task_id": "category",
    "outcome": "category",
    "steps": "Int32",
    "samples": "Int32",
    "train_seconds": "Float64",
    "sample_seconds": "Float64",
    "answered_by": "category",
    "own_adapter": "boolean",
    "digest": "category",
    "adapter": "category",
    "reason": "category",
}
"""Fields of ``TaskRecord``."""


def training_frame(source: Source) -> pd.DataFrame:
    """Return one row per task that a run with test-time training has answered (ttt.jsonl).

    Raises:
        ConfigError: there was no such training. RunError: the file is damaged.
    """
    folder = source.folder
    if folder is None or not (folder.path / TTT_LOG).is_file():
        raise ConfigError(f"{source.path}: has no {TTT_LOG}; only runs of bench ttt train an adapter for every task")
    records = TrainingLog(folder.path / TTT_LOG).records().values()
    return make_frame(TRAINED, ([getattr(record, name) for name in TRAINED] for record in records))
