"""Rescores of saved predictions: which scorer's log-probabilities the rules poe and kgmon use for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.candidates.pool_folder import PoolFolder
from harness.candidates.rescores import RESCORES_FILE, Rescores, read_rescores, scorers_of
from harness.core.deadline import duration_text
from harness.core.errors import ConfigError, DataError
from harness.core.grid import Grid
from harness.predictions.model_rescores import ModelRescores, RescoreCost
from harness.predictions.prediction_groups import ModelPredictions
from harness.predictions.rescore_source import ranked_grids
from harness.runs.folder import RunFolder


def run_rescores(
    folder: RunFolder, predictions: Sequence[ModelPredictions], scorer: str | None = None
) -> tuple[dict[str, ModelRescores], list[str]]:
    """Return the rescores of a run, as ``load_rescores``; its predictions are hashed only if there is such a file."""
    sha256 = folder.predictions_sha256() if (folder.path / RESCORES_FILE).exists() else ""
    return load_rescores(folder.path, predictions, sha256, scorer)


def folder_rescores(folder: RunFolder | PoolFolder) -> Rescores | None:
    """Return the content of the rescores.jsonl of a run or pool; None if there is none.

    Raises:
        DataError: the file is damaged, or is of other predictions than there are now.
    """
    path = folder.path / RESCORES_FILE
    if (rescores := read_rescores(path)) is None:
        return None
    sha256 = folder.predictions_sha256() if isinstance(folder, RunFolder) else folder.manifest().candidates_sha256
    if rescores.header.predictions_sha256 != sha256:
        raise DataError(_other_predictions(path))
    return rescores


def load_rescores(
    folder: Path, predictions: Sequence[ModelPredictions], predictions_sha256: str, scorer: str | None = None
) -> tuple[dict[str, ModelRescores], list[str]]:
    """Return what rescoring gave for each model's candidates, and warnings.

    A model whose rescores cannot be used has the reason (``ModelRescores.unusable``), which the rules that need them
    show; other rules are not affected.

    Args:
        folder: of the run or pool.
        predictions_sha256: of its predictions as they are now.
        scorer: whose log-probabilities to use; None takes each model's own, else the only ones that there are.

    Raises:
        ConfigError: ``scorer`` rescored nothing.
        DataError: the file is damaged.
    """
    path = folder / RESCORES_FILE
    rescores = read_rescores(path)
    if rescores is None:
        if scorer is not None:
            raise ConfigError(f"--scorer {scorer}: {path} is missing or empty; run bench rescore")
        return {}, []
    if rescores.header.predictions_sha256 != predictions_sha256:
        reason = _other_predictions(path)
        return {model.model: ModelRescores({}, unusable=reason) for model in predictions}, []
    if scorer is not None and scorer not in rescores.scorers:
        raise ConfigError(
            f"--scorer {scorer}: rescored nothing in {path}; there are: {', '.join(rescores.scorers) or 'none'}"
        )
    loaded: dict[str, ModelRescores] = {}
    warnings: list[str] = []
    for model in predictions:
        names = _usable_scorers(rescores, model) if scorer is None else [scorer]
        if len(names) > 1:
            reason = f"{' and '.join(names)} rescored the candidates; choose one with --scorer NAME"
            loaded[model.model] = ModelRescores({}, unusable=reason)
        elif names:
            loaded[model.model], failed = _model_rescores(rescores, names[0], model)
            warnings += [_failed_warning(failed, model.model, names[0])] if failed else []
            warnings += _top_warning(rescores, names[0], model)
            warnings += _deadline_warning(rescores, names[0], model, loaded[model.model])
    return loaded, warnings


def _other_predictions(path: Path) -> str:
    return f"{path} is of other predictions than there are now; move it away, and run bench rescore again"


def _usable_scorers(rescores: Rescores, model: ModelPredictions) -> list[str]:
    """Return the model itself if it rescored its candidates, else all scorers that rescored some of them."""
    outputs = [(task, index) for task, grids in model.outputs.items() for index in range(len(grids))]
    names = scorers_of(rescores, outputs)
    return [model.model] if model.model in names else names


def _failed_warning(count: int, model: str, scorer: str) -> str:
    return (
        f"{count} candidates of {model} have no log-probability by {scorer} under some view (too long, or not writable "
        "in its tokens): poe and kgmon rank them last"
    )


def _top_warning(rescores: Rescores, scorer: str, model: ModelPredictions) -> list[str]:
    """Return a warning if ``--top`` leaves candidates of a model without rescores."""
    top = (rescores.header.top or {}).get(scorer)
    if top is None:
        return []
    counts = [len(output.votes_by_grid) for outputs in model.outputs.values() for output in outputs]
    if not (rest := sum(max(0, count - top) for count in counts)):
        return []
    return [
        f"{scorer} rescored only the best by vote of each test output (--top {top}): poe and kgmon rank the other "
        f"{rest} of {sum(counts)} candidates of {model.model} last, tied"
    ]


def _deadline_warning(rescores: Rescores, scorer: str, model: ModelPredictions, loaded: ModelRescores) -> list[str]:
    """Return a warning if a deadline left candidates of a model without rescores."""
    cut = (rescores.header.deadline or {}).get(scorer)
    if cut is None or not loaded.by_vote:
        return []
    outputs = sum(map(len, model.outputs.values()))
    return [
        f"missing by the deadline ({duration_text(cut.seconds)}): {cut.missing:,} of {cut.total:,} log-probabilities "
        f"by {scorer}: poe and kgmon rank {len(loaded.by_vote)} of {outputs} test outputs of {model.model} by the vote"
    ]


def _model_rescores(rescores: Rescores, scorer: str, model: ModelPredictions) -> tuple[ModelRescores, int]:
    """Return the rescores of a model's candidates, and how many of them could not be scored.

    With ``--top``, only those of the best candidates by vote count. Missing candidates are tolerated
    (``ModelRescores.limited``) only if ``--top`` or a recorded failure explains each. If a deadline ended the scorer's
    last session, test outputs that lack others are ranked by the vote (``ModelRescores.by_vote``).
    """
    top = (rescores.header.top or {}).get(scorer)
    is_cut = scorer in (rescores.header.deadline or {})
    by_vote: set[tuple[str, int]] = set()
    outputs: dict[tuple[str, int], Mapping[Grid, tuple[float, ...]]] = {}
    failed_count = unscored = unexplained = 0
    for task, predicted in model.outputs.items():
        for index, output in enumerate(predicted):
            grids = ranked_grids(output)
            values = rescores.of(scorer, task, index)
            wanted = [grid for grid in grids[:top] if grid not in values]
            failed = rescores.failed(scorer, task, index)
            outputs[task, index] = {grid: values[grid] for grid in grids[:top] if grid in values}
            failed_count += sum(grid in failed for grid in wanted)
            lacking = sum(grid not in failed for grid in wanted)
            if lacking and is_cut:
                by_vote.add((task, index))
                continue
            unexplained += lacking
            unscored += len(grids) - len(outputs[task, index])
    lines = rescores.scorers[scorer]
    cost = RescoreCost(rescores.header.views, lines.lines, lines.n_tokens)
    limited = bool(unscored) and not unexplained
    rescored = ModelRescores(outputs, limited=limited, scorer=scorer, cost=cost, by_vote=frozenset(by_vote))
    return rescored, failed_count
