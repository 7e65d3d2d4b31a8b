"""Which log-probabilities of candidates are missing: every (scorer, test output, view) with its candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from harness.candidates.rescores import Rescores
from harness.core.grid import Grid
from harness.runs.schemas.prediction_schema import OutputKey

Candidates = Mapping[str, Mapping[OutputKey, Sequence[Grid]]]
"""By model and test output, the candidates, best first by vote."""


@dataclass(frozen=True, slots=True)
class ViewGrids:
    """Candidates of one test output to score under one view."""

    scorer: str
    task_id: str
    test_index: int
    view: int
    grids: tuple[Grid, ...]


@dataclass(frozen=True)
class RescorePlan:
    """What a session rescores.

    Args:
        candidates: of every model.
        scorer_of: by model, the scorer of its candidates.
        views: number of fixed views, 0 to views − 1.
        top: rescore so many of the best candidates of a model; None for all.
    """

    candidates: Candidates
    scorer_of: Mapping[str, str]
    views: int
    top: int | None = None

    @property
    def scorers(self) -> list[str]:
        """The scorers, each once."""
        return list(dict.fromkeys(self.scorer_of.values()))

    def grids(self, scorer: str) -> dict[OutputKey, tuple[Grid, ...]]:
        """Return the candidates that a scorer rescores by test output, each once; outputs without one are left out."""
        merged: dict[OutputKey, dict[Grid, None]] = {}
        for model, outputs in self.candidates.items():
            if self.scorer_of.get(model) != scorer:
                continue
            for output, grids in outputs.items():
                merged.setdefault(output, {}).update(dict.fromkeys(grids[: self.top]))
        return {output: tuple(grids) for output, grids in merged.items() if grids}

    def total(self, scorer: str) -> int:
        """Return the number of log-probabilities of a scorer, present and missing."""
        return self.views * sum(map(len, self.grids(scorer).values()))

    def missing(self, rescores: Rescores) -> Iterator[ViewGrids]:
        """Yield the candidates without a line, by scorer, test output and view; nothing where all have one."""
        return chain.from_iterable(self.missing_of(scorer, rescores) for scorer in self.scorers)

    def missing_by_output(self, rescores: Rescores) -> list[ViewGrids]:
        """Return the candidates without a line by test output, scorer and view.

        Wherever requests in this order end, most test outputs have all of their log-probabilities or none, by every
        scorer.
        """
        outputs = dict.fromkeys(output for by_output in self.candidates.values() for output in by_output)
        place = {output: index for index, output in enumerate(outputs)}
        return sorted(self.missing(rescores), key=lambda item: place[item.task_id, item.test_index])

    def missing_of(self, scorer: str, rescores: Rescores) -> Iterator[ViewGrids]:
        """Yield the candidates without a line of one scorer; see ``missing``."""
        for (task_id, test_index), grids in self.grids(scorer).items():
            for view in range(self.views):
                rest = tuple(g for g in grids if not rescores.has((scorer, task_id, test_index, g, view)))
                if rest:
                    yield ViewGrids(scorer, task_id, test_index, view, rest)
