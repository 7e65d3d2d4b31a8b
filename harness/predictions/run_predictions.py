"""Read the predictions or enumerated views of a run, grouped by model, and count their costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.core.grid import Task
from harness.predictions.enumerated_outputs import group_views
from harness.predictions.prediction_groups import ModelPredictions, check_counts, group_predictions
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_reader import EnumeratedView, Prediction, read_predictions, read_views
from harness.runs.schemas.manifest_schema import Manifest, RunConfig
from harness.runs.schemas.results_schema import Cost

_NEVER_SENT = "too_long"


class CostMeter:
    """Counts requests, tokens and seconds by model while predictions are read."""

    def __init__(self) -> None:
        self._requests: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def count(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Yield the predictions unchanged, and add up their costs."""
        for prediction in predictions:
            sent = prediction.outcome != _NEVER_SENT
            self._add(prediction.model, sent, prediction.n_tokens or 0, prediction.seconds)
            yield prediction

    def count_views(self, views: Iterable[EnumeratedView]) -> Iterator[EnumeratedView]:
        """Yield the views unchanged, and add up their costs: completions, generated tokens, and seconds."""
        for view in views:
            self._add(view.model, view.requests, view.n_tokens, view.seconds)
            yield view

    def costs(self) -> dict[str, Cost]:
        """Return the costs so far, by model."""
        return {
            model: Cost(requests=count, tokens=self._tokens[model], seconds=round(self._seconds[model], 3))
            for model, count in sorted(self._requests.items())
        }

    def _add(self, model: str, requests: int, tokens: int, seconds: float) -> None:
        self._requests[model] = self._requests.get(model, 0) + requests
        self._tokens[model] = self._tokens.get(model, 0) + tokens
        self._seconds[model] = self._seconds.get(model, 0.0) + seconds


def read_run_predictions(
    folder: RunFolder, manifest: Manifest, tasks: Sequence[Task], meter: CostMeter | None = None
) -> list[ModelPredictions]:
    """Read the predictions, or the enumerated views, of every model of a run, grouped and checked against the run's n.

    Raises:
        DataError: a damaged line, or predictions that these tasks or n do not allow.
        RunError: there are no predictions, or they are not those that the finished run saved.
    """
    path, config = folder.predictions_path, manifest.config
    meter = CostMeter() if meter is None else meter
    if config.search is None:
        predictions = read_drawn_predictions(path, config, tasks, meter)
    else:
        outputs = {task.id: len(task.test) for task in tasks}
        models = [model.name for model in config.models]
        predictions = group_views(meter.count_views(read_views(path)), outputs, models, str(path))
    check_counts(predictions, config.n, str(path))
    folder.check_predictions(manifest)
    return predictions


def read_drawn_predictions(
    path: Path, config: RunConfig, tasks: Sequence[Task], meter: CostMeter | None = None
) -> list[ModelPredictions]:
    """Read the drawn predictions of every model of a run, grouped, without a check of their number.

    Raises:
        DataError: a damaged line, or predictions that these tasks do not allow.
    """
    outputs = {task.id: len(task.test) for task in tasks}
    per_view = config.samples_per_view if config.augment else config.n
    lines = (CostMeter() if meter is None else meter).count(read_predictions(path))
    models = [model.name for model in config.models]
    return group_predictions(lines, outputs, models, str(path), samples_per_view=per_view)
