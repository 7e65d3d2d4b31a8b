"""Which tasks a reader learns most from: found but lost in the vote, nearly right, all disagree, only some solve it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from harness.core.errors import RunError
from harness.core.grid import Task
from harness.results.table_format import percent
from harness.scoring.run_scores import ModelScores
from harness.voting.metrics import OutputScore
from reports.loading.runs import Section
from reports.plots.reliability import winner_share

SHOWN_TASKS = 10
NEARLY = 0.8
"""The mean share of right cells from which predictions without an exact one are nearly right."""
SCATTERED = 0.15
"""The largest share of the predictions that the winner has where all disagree."""


@dataclass(frozen=True)
class Shown:
    """A task of the gallery, and why it is there (markdown)."""

    section: Section
    task: Task
    why: str


@dataclass(frozen=True)
class _Case:
    weight: float
    task: str
    why: str


def choose_tasks(sections: Sequence[Section], count: int = SHOWN_TASKS) -> list[Shown]:
    """The most instructive tasks of all sections, in turn from each; the hardest solved ones where they are few."""
    queues = [_instructive(section) for section in sections]
    fillers = [_hardest(section) for section in sections]
    chosen: dict[tuple[int, str], Shown] = {}
    for queue in (queues, fillers):
        for round_of in zip_longest(*queue):
            for index, case in enumerate(round_of):
                if case is None or len(chosen) == count or (index, case.task) in chosen:
                    continue
                task = next(task for task in sections[index].tasks if task.id == case.task)
                chosen[index, case.task] = Shown(sections[index], task, case.why)
    return [shown for section in sections for shown in chosen.values() if shown.section is section]


def named_tasks(sections: Sequence[Section], ids: Sequence[str]) -> list[Shown]:
    """These tasks, in every section that has them.

    Raises:
        RunError: a task is in no section.
    """
    known = {task.id for section in sections for task in section.tasks}
    if missing := [name for name in ids if name not in known]:
        raise RunError(f"no run has the task {', '.join(missing)}; tasks are named like {min(known)}")
    return [
        Shown(section, task, _standing(section, task.id))
        for section in sections
        for name in ids
        for task in section.tasks
        if task.id == name
    ]


def _instructive(section: Section) -> Iterator[_Case]:
    """Cases of each kind in turn, the clearest of a kind first."""
    kinds = (_lost(section), _near(section), _scattered(section), _apart(section))
    queues = [sorted(kind, key=lambda case: (-case.weight, case.task)) for kind in kinds]
    seen: set[str] = set()
    while any(queues):
        for queue in queues:
            while queue and queue[0].task in seen:
                queue.pop(0)
            if queue:
                case = queue.pop(0)
                seen.add(case.task)
                yield case


def _cases(
    section: Section, weigh: Callable[[OutputScore], float], tell: Callable[[OutputScore], str]
) -> Iterator[_Case]:
    """Each test output of each model with a weight above 0."""
    for scores in section.scored:
        for task, outputs in scores.outputs.items():
            for index, score in enumerate(outputs):
                if (weight := weigh(score)) > 0:
                    where = f", test {index + 1}" if len(outputs) > 1 else ""
                    yield _Case(weight, task, f"**{scores.model}**{where}: {tell(score)}")


def _lost(section: Section) -> Iterator[_Case]:
    return _cases(
        section,
        lambda s: s.exact / s.n * (1 - s.vote_2),
        lambda s: f"found in {s.exact} of {s.n} predictions but lost in the vote (others have {_counts(s.wrong)})",
    )


def _near(section: Section) -> Iterator[_Case]:
    return _cases(
        section,
        lambda s: s.correct_pixels if not s.exact and s.correct_pixels >= NEARLY else 0.0,
        lambda s: f"nearly right: never exact, but {percent(s.correct_pixels)} of the cells are right on average",
    )


def _scattered(section: Section) -> Iterator[_Case]:
    return _cases(
        section,
        lambda s: 1 - winner_share(s) if len(s.wrong) > 1 and winner_share(s) <= max(SCATTERED, 1 / s.n) else 0.0,
        lambda s: (
            f"all disagree: {len(s.wrong) + (s.exact > 0)} different grids in {s.n - s.failures} answers, "
            f"the most frequent with {_votes(max(s.exact, s.wrong[0]))}"
        ),
    )


def _apart(section: Section) -> Iterator[_Case]:
    """Tasks that the votes of some models solve and those of others do not."""
    for index, task in enumerate(section.scored[0].tasks.ids):
        solved = [scores for scores in section.scored if scores.tasks.of("vote_2")[index] == 1]
        failed = [scores for scores in section.scored if scores.tasks.of("vote_2")[index] == 0]
        if solved and failed:
            rates = [float(scores.tasks.of("accuracy")[index]) for scores in section.scored]
            why = f"solved by {_names(solved)}, not by {_names(failed)}"
            yield _Case(max(rates) - min(rates), task, why)


def _hardest(section: Section) -> Iterator[_Case]:
    """Every task, the least solved first."""
    rates = {
        task: sum(float(scores.tasks.of("accuracy")[i]) for scores in section.scored)
        for i, task in enumerate(section.scored[0].tasks.ids)
    }
    for task in sorted(rates, key=lambda task: (rates[task], task)):
        yield _Case(0.0, task, _standing(section, task))


def _standing(section: Section, task: str) -> str:
    """How often each model was right."""
    told = []
    for scores in section.scored:
        outputs = scores.outputs[task]
        told.append(f"**{scores.model}** {sum(s.exact for s in outputs)} of {sum(s.n for s in outputs)}")
    return f"exact predictions: {', '.join(told)}"


def _votes(count: int) -> str:
    return f"{count} vote{'' if count == 1 else 's'}"


def _names(scored: Sequence[ModelScores]) -> str:
    return ", ".join(f"**{scores.model}**" for scores in scored)


def _counts(wrong: Sequence[int]) -> str:
    return " and ".join(map(str, wrong[:2]))
