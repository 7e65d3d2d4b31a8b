"""Choose the tasks of the gallery: lost in the vote, nearly right, no two predictions agree, solved by some models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from harness.core.errors import RunError
from harness.core.grid import Task
from harness.results.table_format import percent
from harness.scoring.model_scores import ModelScores
from harness.voting.metrics import OutputScore
from reports.loading.runs import Section
from reports.plots.reliability import winner_share

GALLERY_SIZE = 10
NEARLY_RIGHT = 0.8
"""A model is nearly right if no prediction is exact and at least this share of cells is right on average."""
MOST_SCATTERED = 0.15
"""Predictions all disagree if the most frequent grid has at most this share of them."""


@dataclass(frozen=True)
class GalleryTask:
    """A task of the gallery."""

    section: Section
    task: Task
    reason: str
    """Why it was chosen, in markdown."""
    picture: str
    """Kind of its picture, the end of the file name: ``task-ID``, with the section's number if there are several."""

    @property
    def heading(self) -> str:
        """Return the heading of the task, which is unique in a report."""
        return f"Task {self.task.id}" + (f" ({self.section.number})" if self.section.number > 1 else "")


@dataclass(frozen=True)
class _Candidate:
    """A task that may be chosen; within a category the one with the highest weight is chosen first."""

    weight: float
    task: str
    reason: str


def choose_tasks(sections: Sequence[Section], count: int = GALLERY_SIZE) -> list[GalleryTask]:
    """Return the ``count`` most instructive tasks, taking one from each section in turn.

    If there are too few, the tasks with the lowest accuracy fill the rest.
    """
    chosen: dict[tuple[int, str], str] = {}
    for ranking in (_instructive, _hardest):
        for candidates in zip_longest(*map(ranking, sections)):
            for index, candidate in enumerate(candidates):
                if candidate is not None and len(chosen) < count:
                    chosen.setdefault((index, candidate.task), candidate.reason)
    return [
        _gallery_task(sections, section, task, reason)
        for index, section in enumerate(sections)
        for (place, task), reason in chosen.items()
        if place == index
    ]


def named_tasks(sections: Sequence[Section], ids: Sequence[str]) -> list[GalleryTask]:
    """Return the tasks with these ids, from every section that has them.

    Raises:
        RunError: a task is in no section.
    """
    known = {task.id for section in sections for task in section.tasks}
    if missing := [task for task in ids if task not in known]:
        raise RunError(f"no run has the task {', '.join(missing)}; tasks are named like {min(known)}")
    return [
        _gallery_task(sections, section, task, _exact_counts(section, task))
        for section in sections
        for task in ids
        if task in section.scored[0].outputs
    ]


def _gallery_task(sections: Sequence[Section], section: Section, task_id: str, reason: str) -> GalleryTask:
    number = f"{section.number}-" if len(sections) > 1 else ""
    picture = f"task-{number}{re.sub(r'[^A-Za-z0-9._-]', '_', task_id)}"
    return GalleryTask(section, next(task for task in section.tasks if task.id == task_id), reason, picture)


def _instructive(section: Section) -> Iterator[_Candidate]:
    """Yield candidates, in each turn the best one left in every category; no task is yielded twice."""
    categories = (_lost_in_vote, _nearly_right, _all_disagree, _solved_by_some)
    queues = [sorted(find(section), key=lambda c: (-c.weight, c.task)) for find in categories]
    yielded: set[str] = set()
    while any(queues):
        for queue in queues:
            while queue and queue[0].task in yielded:
                queue.pop(0)
            if queue:
                candidate = queue.pop(0)
                yielded.add(candidate.task)
                yield candidate


def _candidates(
    section: Section, weight_of: Callable[[OutputScore], float], reason_of: Callable[[OutputScore], str]
) -> Iterator[_Candidate]:
    """Yield a candidate for each model and test output to which ``weight_of`` gives a weight above 0."""
    for scores in section.scored:
        for task, outputs in scores.outputs.items():
            for index, score in enumerate(outputs):
                if (weight := weight_of(score)) > 0:
                    output = f", test {index + 1}" if len(outputs) > 1 else ""
                    yield _Candidate(weight, task, f"**{scores.model}**{output}: {reason_of(score)}")


def _lost_in_vote(section: Section) -> Iterator[_Candidate]:
    by_vote = all(scores.rule is None for scores in section.scored)
    how = "lost in the vote" if by_vote else "not chosen by the rule"
    return _candidates(
        section,
        lambda s: s.exact / s.n * (1 - s.vote_2),
        lambda s: (
            f"found in {s.exact} of {s.n} {_unit(s)} but {how} (others have {' and '.join(map(str, s.wrong[:2]))})"
        ),
    )


def _nearly_right(section: Section) -> Iterator[_Candidate]:
    return _candidates(
        section,
        lambda s: s.correct_pixels if not s.exact and s.correct_pixels >= NEARLY_RIGHT else 0.0,
        lambda s: f"nearly right: never exact, but {percent(s.correct_pixels)} of the cells are right on average",
    )


def _all_disagree(section: Section) -> Iterator[_Candidate]:
    return _candidates(
        section,
        lambda s: 1 - winner_share(s) if len(s.wrong) > 1 and winner_share(s) <= max(MOST_SCATTERED, 1 / s.n) else 0.0,
        lambda s: (
            f"all disagree: {len(s.wrong) + (s.exact > 0)} different grids in {s.n - s.failures} "
            f"{_unit(s, 'answers')}, the most frequent with {_votes(max(s.exact, s.wrong[0]))}"
        ),
    )


def _solved_by_some(section: Section) -> Iterator[_Candidate]:
    """Yield the tasks that the votes of some models solve and those of others do not."""
    for index, task in enumerate(section.scored[0].tasks.ids):
        solved = [scores for scores in section.scored if scores.tasks.values_of("vote_2")[index] == 1]
        failed = [scores for scores in section.scored if scores.tasks.values_of("vote_2")[index] == 0]
        if solved and failed:
            rates = [float(scores.tasks.values_of("accuracy")[index]) for scores in section.scored]
            reason = f"solved by {_names(solved)}, not by {_names(failed)}"
            yield _Candidate(max(rates) - min(rates), task, reason)


def _hardest(section: Section) -> Iterator[_Candidate]:
    """Yield every task, the one with the lowest accuracy first."""
    rates = {
        task: sum(float(scores.tasks.values_of("accuracy")[i]) for scores in section.scored)
        for i, task in enumerate(section.scored[0].tasks.ids)
    }
    for task in sorted(rates, key=lambda task: (rates[task], task)):
        yield _Candidate(0.0, task, _exact_counts(section, task))


def _exact_counts(section: Section, task: str) -> str:
    """Return how many predictions of each model are exact."""
    counts = []
    for scores in section.scored:
        outputs = scores.outputs[task]
        counts.append(f"**{scores.model}** {sum(s.exact for s in outputs)} of {sum(s.n for s in outputs)}")
    return f"exact predictions: {', '.join(counts)}"


def _unit(score: OutputScore, drawn: str = "predictions") -> str:
    return drawn if score.enumerated is None else "views"


def _votes(count: int) -> str:
    return f"{count} vote{'' if count == 1 else 's'}"


def _names(scored: Sequence[ModelScores]) -> str:
    return ", ".join(f"**{scores.model}**" for scores in scored)
