"""Where the predictions of a run come from: a folder or file, or a data frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pandas as pd

from harness.candidates.pool_folder import PoolFolder
from harness.core.errors import ConfigError, RunError
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.frames.frame_rows import frame_table
from harness.predictions.prediction_stream import PredictionStream, stream_predictions, stream_table
from harness.predictions.saved_folder import find_folder
from harness.runs.folder import RunFolder
from harness.scoring.prediction_loader import SavedPredictions, open_predictions, open_table_rows


class Source(Protocol):
    """Predictions that can be read any number of times."""

    @property
    def path(self) -> Path:
        """The folder or file; of a data frame, its name."""
        ...

    @property
    def folder(self) -> RunFolder | PoolFolder | None:
        """The run or pool; None for files and data frames."""
        ...

    def open(self) -> SavedPredictions:
        """Read the predictions, grouped by model, task and test output."""
        ...

    def stream(self) -> PredictionStream:
        """Return the predictions one by one."""
        ...


@dataclass(frozen=True)
class SavedSource:
    """A run, a pool, or a file of any format; the fields are the arguments of ``open_predictions``."""

    path: Path
    spec: str | None = None
    form: str | None = None
    n: int | None = None
    scorer: str | None = None

    @property
    def folder(self) -> RunFolder | PoolFolder | None:
        return find_folder(self.path, self.form)

    def open(self) -> SavedPredictions:
        return open_predictions(self.path, self.spec, self.form, self.n, self.scorer)

    def stream(self) -> PredictionStream:
        return stream_predictions(self.path, self.spec, self.form)


@dataclass(frozen=True, eq=False)
class FrameSource:
    """A data frame with the columns of a table (``bench export``)."""

    frame: pd.DataFrame
    path: Path
    spec: str
    n: int | None = None

    @property
    def folder(self) -> None:
        return None

    def open(self) -> SavedPredictions:
        return open_table_rows(frame_table(self.frame, str(self.path)), self.spec, self.n)

    def stream(self) -> PredictionStream:
        return stream_table(frame_table(self.frame, str(self.path)), list(iterate_tasks(open_dataset(self.spec))))


def reported_source(source: Source, model: str | None) -> tuple[Path, str | None]:
    """Return the folder of a run or pool and its scorer, for a report.

    Raises:
        ConfigError: it is no run or pool, or a report would show other models or tasks than these predictions have.
    """
    if not isinstance(source, SavedSource) or source.folder is None:
        raise ConfigError(f"{source.path}: a report is of runs and pools, which this is not")
    if model is not None or source.spec is not None:
        raise ConfigError(
            f"{source.path}: a report has all models and its own dataset; load it without @MODEL and dataset"
        )
    return source.folder.path, source.scorer


def only_model(saved: SavedPredictions, model: str, path: Path) -> SavedPredictions:
    """Return the predictions of one model.

    Raises:
        RunError: there is no such model.
    """
    chosen = [predictions for predictions in saved.predictions if predictions.model == model]
    if not chosen:
        known = ", ".join(predictions.model for predictions in saved.predictions)
        raise RunError(f"{path} has no model {model!r}; it has: {known}")
    costs = None if saved.costs is None else {name: cost for name, cost in saved.costs.items() if name == model}
    return replace(saved, predictions=chosen, costs=costs)
