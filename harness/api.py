"""Runs, predictions and datasets in Python and in notebooks, as pandas data frames.

    from harness.api import compare, load_dataset, load_run, score

    run = load_run("runs/first")     # RUN[@MODEL], a pool, or a file with dataset="arc1/evaluation"
    run.scores                       # one row per model and metric, with intervals
    run.predictions                  # one row per prediction
    compare(run, "runs/second")      # every pair of models, with verdicts

Scores, intervals and comparisons are those of ``bench score`` and ``bench compare``. docs/python.md lists the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from harness.candidates.pool_schema import PoolManifest
from harness.core.errors import ConfigError, UnknownOutputError, UnusableRuleError
from harness.frames.candidate_frame import candidate_frame
from harness.frames.comparisons import Comparisons, Scored, compare_scored, markdown_with_warnings
from harness.frames.notebook.shown_attempts import ShownAttempts, show_attempts
from harness.frames.notebook.shown_report import Report
from harness.frames.notebook.task_set import ShownTask, TaskSet, load_dataset
from harness.frames.prediction_frame import GridArrays, prediction_table, rows_of_views
from harness.frames.recipe_comparisons import RecipeComparisons, compare_recipes
from harness.frames.rescore_frame import rescore_frame
from harness.frames.score_frames import config_frame, score_frame, task_frame
from harness.frames.sources import FrameSource, SavedSource, Source, only_model, reported_source
from harness.frames.training_frame import training_frame
from harness.predictions.saved_folder import find_folder, require_dataset
from harness.results.score_sheet import missing_warnings
from harness.results.summary_table import summary_table
from harness.runs.schemas.manifest_schema import Manifest
from harness.runs.schemas.results_schema import Results
from harness.scoring.model_scores import ModelScores, unreadable_warning
from harness.scoring.prediction_loader import SavedPredictions
from harness.scoring.run_scores import saved_results, score_saved
from harness.scoring.run_selector import split_run_name

__all__ = [
    "Comparisons", "RecipeComparisons", "Report", "Run", "ShownTask", "TaskSet", "compare", "compare_recipes",
    "load_dataset", "load_run", "score",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Run:
    """Saved predictions; ``load_run`` and ``score`` make it. Everything is read when it is first used."""

    source: Source
    model: str | None = None
    """The only model of interest; None for all of them."""
    rule: str | None = None
    """The selection rule that gives vote_1 and vote_2; None for the recorded one, else the vote."""

    @property
    def path(self) -> Path:
        """The folder or file; of a data frame, its name."""
        return self.source.path

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per prediction, per answer of an enumerated view, or per proposal of a pool; without grids."""
        return rows_of_views(self.table(), False, self.path)

    @cached_property
    def views(self) -> pd.DataFrame:
        """One row per enumerated view (``--search dfs``); ``exact`` and ``grid_id`` are those of the greedy answer."""
        return rows_of_views(self.table(), True, self.path)

    def table(self, grids: bool = False, texts: bool = False) -> pd.DataFrame:
        """Return the predictions as ``bench export`` writes them: a view has a row of its own, after its answers.

        Args:
            grids: whether to add the column ``grid``, arrays of shape (height, width); equal ones share memory.
            texts: whether to add the column ``text``, the server's answers.
        """
        table = prediction_table(self.source.stream(), GridArrays() if grids else None, texts)
        rows = table.rows if self.model is None else (row for row in table.rows if row[0] == self.model)
        frame = table.columns.frame(table.columns.blocks(rows))
        if frame.empty and self.model is not None:
            _ = self.saved  # raises if there is no such model
        return frame

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """One row per distinct grid of a test output, best first; without grids."""
        return self.ranked_candidates()

    def ranked_candidates(self, grids: bool = False) -> pd.DataFrame:
        """Return the candidates; ``grids`` adds the column ``grid``, as for ``table``."""
        return candidate_frame(self.saved, self.rule or self.saved.rule, GridArrays() if grids else None)

    @cached_property
    def rescores(self) -> pd.DataFrame:
        """One row per scorer, candidate and fixed view: the log-probability (``bench rescore``)."""
        return rescore_frame(self.saved, self.source)

    @cached_property
    def training(self) -> pd.DataFrame:
        """One row per task of test-time training (``bench ttt``)."""
        return training_frame(self.source)

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """One row per model and task, with the task's value of every metric."""
        return task_frame(self.saved, self.scored)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per model and metric: the mean over tasks with its interval."""
        return score_frame(self.results)

    @cached_property
    def config(self) -> pd.DataFrame:
        """One row per model, or per member of a pool, with its settings."""
        return config_frame(self.manifest, [predictions.model for predictions in self.saved.predictions])

    @property
    def manifest(self) -> Manifest | PoolManifest | None:
        """The whole manifest; None for files and data frames."""
        return self.saved.manifest if self.saved.pool is None else self.saved.pool.manifest

    @property
    def warnings(self) -> list[str]:
        """What ``bench score`` warns of."""
        warnings = [*self.saved.warnings, *missing_warnings(self.saved)]
        with suppress(UnknownOutputError, UnusableRuleError):  # the summary says why there are no scores
            warnings += filter(None, (unreadable_warning(s.model, s.made, s.failures) for s in self.scored))
        return warnings

    @cached_property
    def results(self) -> Results:
        """The content of results.json."""
        return saved_results(self.saved, self.scored)

    @cached_property
    def saved(self) -> SavedPredictions:
        """The predictions grouped by model, task and test output."""
        return self.source.open() if self.model is None else only_model(self.source.open(), self.model, self.path)

    @cached_property
    def scored(self) -> list[ModelScores]:
        """The scores of every model by the headline rule."""
        return score_saved(self.saved, self.rule)

    def show(self, task_id: str) -> ShownAttempts:
        """Return a task with the best candidates of every model, which a notebook draws."""
        return show_attempts(self.saved, task_id, self.rule or self.saved.rule)

    def compare(self, *others: Run | str | Path, **options: Any) -> Comparisons:
        """Compare the models of this run with each other and with those of others; see ``compare``."""
        return compare(self, *others, **options)

    def report(self, output: str | Path | None = None, **options: Any) -> Report:
        """Write the report of this run, or return it to be shown, if no output is given (see ``bench report``).

        Args:
            output: a file that ends in .md or .html.
            options: the fields of ``reports.report.ReportOptions``.

        Raises:
            ConfigError: the predictions are no whole run or pool, or an option does not fit.
        """
        from reports.report import ReportOptions, write_report

        path, scorer = reported_source(self.source, self.model)
        chosen = ReportOptions(**{"rule": self.rule, "scorer": scorer, **options})
        if output is not None:
            return Report(tuple(write_report([path], Path(output), chosen)))
        with TemporaryDirectory() as folder:
            (page,) = write_report([path], Path(folder) / "report.html", chosen)
            return Report((), page.read_text(encoding="utf-8"))

    def _summary(self) -> str:
        """Return the table with intervals, or why the predictions cannot be scored."""
        try:
            return summary_table(self.results)
        except (UnknownOutputError, UnusableRuleError) as error:
            return f"not scored: {error}"

    def __repr__(self) -> str:
        return f"{self.path}\n\n{self._summary()}"

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(str(self.path))}</b></p>" + markdown_with_warnings(self._summary(), self.warnings)


def load_run(
    path: str | Path, dataset: str | None = None, *, form: str | None = None, n: int | None = None,
    rule: str | None = None, scorer: str | None = None
) -> Run:  # fmt: skip
    """Return a run, a pool, or a file of predictions, of every form that ``bench score`` reads.

    Args:
        path: a folder or file; of a run also ``RUN@MODEL``.
        dataset: the dataset of the tasks; runs and pools know theirs.
        form, n, rule, scorer: the options of ``bench score``.

    Raises:
        ConfigError: there is no such path, or an option is missing.
    """
    place, model = (Path(path), None) if Path(path).exists() else split_run_name(str(path))
    if not place.exists():
        raise ConfigError(f"{path}: there is no such run, pool or file")
    if find_folder(place, form) is None:
        require_dataset(place, dataset)
    return Run(SavedSource(place, dataset, form, n, scorer), model, rule)


def score(
    frame: pd.DataFrame, dataset: str, *, n: int | None = None, rule: str | None = None, name: str = "frame"
) -> Run:
    """Return predictions that were made elsewhere, to be scored like a run.

    Args:
        frame: one row per prediction. Needed are the columns ``task_id``, ``test_index`` and ``grid`` (an array, rows,
            or JSON; missing for a failure); see docs/python.md for the others.
        dataset: the dataset of the tasks.
        n: requested predictions per test output; None takes the largest number that one has.
        rule: the selection rule that gives vote_1 and vote_2; None takes the vote.
        name: what tables and messages call it.
    """
    return Run(FrameSource(frame, Path(name), dataset, n), rule=rule)


def compare(
    *runs: Run | str | Path, metrics: Sequence[str] | None = None, baseline: bool = False, common: bool = False
) -> Comparisons:
    """Compare models in pairs on the same tasks, as ``bench compare`` does; the earlier model is the baseline.

    Args:
        runs: as ``load_run`` returns or takes them.
        metrics: None compares all.
        baseline: whether to compare each model with the first only, not every pair.
        common: whether to compare the tasks that all have, if the runs declared different ones.

    Raises:
        RunError: the runs' tasks differ, or they have none in common. ConfigError: there is nothing to compare.
    """
    loaded = [run if isinstance(run, Run) else load_run(run) for run in runs]
    scored = [Scored(run.source, run.rule, run.saved, run.scored) for run in loaded]
    return compare_scored(scored, metrics, baseline, common)
