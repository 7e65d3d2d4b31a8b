"""One run folder as a report shows it: its scores, its costs, and what each selection rule makes of its candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.errors import RunError
from harness.core.grid import Task
from harness.predictions.model_rescores import ModelRescores
from harness.runs.folder import RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.manifest_schema import Manifest, ModelConfig
from harness.runs.schemas.results_schema import Cost
from harness.runs.schemas.sequential_schema import SequentialResult
from harness.runs.schemas.task_training import TaskRecord
from harness.scoring.model_scores import ModelScores
from harness.scoring.prediction_loader import SavedPredictions, open_predictions
from harness.scoring.rule_scores import RuleScores
from harness.scoring.run_scores import UnusableRule, by_rule, score_by_vote, score_usable_rules


@dataclass(frozen=True)
class LoadedRun:
    """One run folder with the scores and costs computed from its predictions."""

    name: str
    """Name of the folder, prefixed with its parent's name if two folders have the same name."""
    path: Path
    manifest: Manifest
    tasks: tuple[Task, ...]
    """The tasks that the manifest declares."""
    scored: list[ModelScores]
    """By the headline rule."""
    voted: list[ModelScores]
    """By the vote."""
    cost: Mapping[str, Cost]
    """Cost of each model's predictions, by the model's name in the run."""
    rules: Mapping[str, list[RuleScores]] = field(default_factory=dict)
    """By model, the scores by every rule that its candidates allow; empty for a run that only draws and votes."""
    left_out: tuple[UnusableRule, ...] = ()
    """The rules that cannot be applied."""
    rescores: Mapping[str, ModelRescores] = field(default_factory=dict)
    """By model, what rescoring gave for its candidates."""
    warnings: tuple[str, ...] = ()
    """About reading its predictions and rescores."""
    scorer: str | None = None
    """Who was chosen to rescore them, where several models did."""
    sequential: SequentialResult | None = None
    """What the run's sequential design found; None for a run without one."""
    trained_tasks: Mapping[str, TaskRecord] = field(default_factory=dict)
    """By task id, what became of test-time training; empty without it."""

    def config(self, name: str) -> ModelConfig:
        """Return the configuration of a model by its name in the run."""
        return next(config for config in self.manifest.config.models if config.name == name)

    def reopen(self) -> SavedPredictions:
        """Read the predictions again; they are not kept, to save memory."""
        return open_predictions(self.path, scorer=self.scorer)


def load_run(path: Path, name: str, rule: str | None = None, scorer: str | None = None) -> LoadedRun:
    """Read a run folder and score its predictions by the headline rule.

    Args:
        name: the name of the run in the report.
        rule: the headline rule; None takes the run's own.
        scorer: whose rescores the rules that need them use, where several models rescored.

    Raises:
        RunError, DataError: the folder is not a run, or one of its files is broken.
        UnusableRuleError: the predictions lack what the rule needs.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    if not folder.predictions_path.exists():
        raise RunError(
            f"{folder.predictions_path} is missing: the run stopped before its first prediction, or the file is "
            "lost; complete the run with bench run --resume"
        )
    saved = open_predictions(path, scorer=scorer)
    voted = score_by_vote(saved)
    scored = by_rule(saved, voted, rule)
    rules, left_out = score_usable_rules(saved, voted) if _has_candidates(saved, scored) else ({}, [])
    return LoadedRun(
        name,
        path,
        manifest,
        tuple(saved.tasks),
        scored,
        voted,
        saved.costs or {},
        rules,
        tuple(left_out),
        saved.rescores,
        saved.warnings,
        scorer,
        saved.sequential,
        {} if manifest.config.ttt is None else TrainingLog(path / TTT_LOG).records(),
    )


def _has_candidates(saved: SavedPredictions, scored: list[ModelScores]) -> bool:
    """Return whether a report compares selection rules: for enumerated views, rescores, and a chosen rule."""
    if saved.schedule is not None:  # only the vote is known after early stopping
        return False
    chosen = any(scores.rule is not None or scores.enumeration is not None for scores in scored)
    return chosen or bool(saved.rescores)
