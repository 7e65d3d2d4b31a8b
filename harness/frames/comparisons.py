"""Paired comparisons between models, as a data frame and as a table for notebooks."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from harness.frames.score_frames import comparison_frame
from harness.frames.sources import Source
from harness.results.comparison_table import comparison_footnote, comparison_table
from harness.results.markdown_html import to_html
from harness.results.recipe_table import ADAPTERS_ONLY
from harness.results.sequential_text import sequential_text
from harness.runs.schemas.sequential_schema import SequentialResult
from harness.scoring.matched_runs import ChosenModel, ScoredRun, compare_matched, match_runs, scored_run
from harness.scoring.model_scores import ModelScores
from harness.scoring.paired_comparison import PairedComparison
from harness.scoring.prediction_loader import SavedPredictions


class Scored(NamedTuple):
    """Predictions with their scores, as they are compared."""

    source: Source
    rule: str | None
    saved: SavedPredictions
    scored: list[ModelScores]


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Paired comparisons between models, corrected together."""

    rows: list[PairedComparison]
    warnings: list[str]
    """Differences between the runs other than their models."""
    sequential: tuple[SequentialResult, ...] = ()
    """Verdicts of the runs with ``--until-resolved``."""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per metric and pair of models."""
        return comparison_frame(self.rows)

    def __repr__(self) -> str:
        parts = [*map(sequential_text, self.sequential), comparison_table(self.rows), comparison_footnote(self.rows)]
        return "\n\n".join([*parts, ADAPTERS_ONLY])

    def _repr_html_(self) -> str:
        return markdown_with_warnings(repr(self), self.warnings)


def compare_scored(runs: Sequence[Scored], metrics: Sequence[str] | None, baseline: bool, common: bool) -> Comparisons:
    """Compare models in pairs; models of one source are those of one run, however often it was opened."""
    paths: dict[tuple[Source, str | None], Path] = {}
    matched: dict[Path, ScoredRun] = {}
    chosen: dict[ChosenModel, None] = {}
    for run in runs:
        path = paths.setdefault((run.source, run.rule), _unused(run.source.path, matched))
        scored = {scores.model: scores for scores in [*(matched[path].scored if path in matched else ()), *run.scored]}
        before = matched[path].missing if path in matched else {}
        added = scored_run(run.saved, list(scored.values()))
        matched[path] = replace(added, missing={**before, **added.missing})
        chosen |= {(path, scores.model): None for scores in run.scored}
    selected = match_runs(matched, list(chosen), common)
    return Comparisons(compare_matched(selected, metrics, baseline), selected.warnings, selected.sequential)


def _unused(path: Path, taken: Container[Path]) -> Path:
    """Return the path, with primes if it is taken by another source."""
    return path if path not in taken else _unused(path.with_name(f"{path.name}'"), taken)


def markdown_with_warnings(markdown: str, warnings: Sequence[str]) -> str:
    """Return the markdown of a command, after its warnings, as HTML in which no text of a run is an element."""
    listed = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return (f"<ul>{listed}</ul>" if listed else "") + to_html(markdown, lambda name: "", set())
