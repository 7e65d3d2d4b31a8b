"""The lines of rescores.jsonl as a data frame: the log-probability of every candidate under the fixed views."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.candidates.rescores import Rescores
from harness.core.errors import ConfigError
from harness.frames.columns import Schema, make_frame
from harness.frames.prediction_frame import grid_id
from harness.frames.sources import Source
from harness.predictions.rescore_loader import folder_rescores
from harness.scoring.prediction_loader import SavedPredictions

RESCORES: Schema = {
    "scorer": "category",
    "task_id": "category",
    "test_index": "Int16",
    "grid_id": "Int64",
    "view": "Int32",
    "logprob": "Float64",
}


def rescore_frame(saved: SavedPredictions, source: Source) -> pd.DataFrame:
    """Return one row per scorer, candidate of these predictions and fixed view.

    ``logprob`` is missing where the scorer cannot give one: the prompt is too long, or the grid not writable.

    Args:
        source: where the predictions were read from.

    Raises:
        ConfigError: nothing was rescored. DataError: the rescores are damaged, or of other predictions.
    """
    rescores = None if source.folder is None else folder_rescores(source.folder)
    if rescores is None:
        raise ConfigError(f"{source.path}: has no rescores; bench rescore makes them")
    return make_frame(RESCORES, _rows(saved, rescores))


def _rows(saved: SavedPredictions, rescores: Rescores) -> Iterator[tuple[object, ...]]:
    candidates = {
        ((task, index), grid)
        for model in saved.predictions
        for task, outputs in model.outputs.items()
        for index, output in enumerate(outputs)
        for grid in output.votes_by_grid
    }
    for scorer, lines in rescores.scorers.items():
        for key, grids in lines.by_output.items():
            for grid, by_view in grids.items():
                if (key, grid) in candidates:
                    identifier = grid_id(grid)
                    for view, logprob in sorted(by_view.items()):
                        yield (scorer, *key, identifier, view, logprob)
