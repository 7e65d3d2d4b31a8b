"""Which samples of a run with ``--until-resolved`` are requested: those of the tasks up to the next look.

Tasks are sampled in the order of the configuration. When all samples of the tasks up to a look are answered, the models
are compared, and the run ends or goes on with the tasks up to the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from harness.runs.logs.prediction_log import PredictionLog
from harness.runs.schemas.manifest_schema import RunConfig
from harness.runs.schemas.sequential_schema import SequentialDesign
from harness.sampling.plan import Plan
from harness.sampling.progress_display import Display, ProgressBoard

if TYPE_CHECKING:
    from harness.stats.sequential import Look


class LookScheduler:
    """Yields the samples to request, look by look.

    Args:
        done: by sample number, 1 if the sample has a prediction. It is shared with the caller, who sets it.
        ends_after: compares the models after a number of tasks; returns whether the run ends there.
    """

    def __init__(
        self, plan: Plan, design: SequentialDesign, done: bytearray, ends_after: Callable[[int], bool]
    ) -> None:
        self._plan, self._looks, self._done, self._ends_after = plan, design.looks, done, ends_after

    def blocks(self, models_at_once: int, size: int) -> Iterator[Sequence[int]]:
        """Yield the numbers of the samples to request, one block per request.

        A block is empty while the next samples depend on answers that have not arrived.

        Args:
            models_at_once: models per group.
            size: samples per block at most.
        """
        start = 0
        for tasks in self._looks:
            end = self._plan.outputs_of_first(tasks)
            for block in self._plan.blocks(models_at_once, size, range(start, end)):
                if requested := [number for number in block if not self._done[number]]:
                    yield requested
            while not self._is_answered(start, end):
                yield ()
            start = end
            # An earlier session that sampled later tasks had decided to go on.
            if not self._has_samples_after(end) and self._ends_after(tasks):
                return

    def _is_answered(self, start: int, end: int) -> bool:
        """Return whether the test outputs from ``start`` up to ``end`` have all predictions of all models."""
        return all(0 not in self._done[a:b] for a, b in self._plan.number_ranges(start, end))

    def _has_samples_after(self, end: int) -> bool:
        """Return whether a test output from ``end`` on has a prediction."""
        outputs = self._plan.outputs_of_first(self._looks[-1])
        return any(1 in self._done[a:b] for a, b in self._plan.number_ranges(end, outputs))


def make_look_scheduler(
    plan: Plan, config: RunConfig, done: bytearray, log: PredictionLog, board: ProgressBoard, display: Display
) -> LookScheduler | None:
    """Return the scheduler of a run, which reads the predictions from its log at each look; None without a design."""
    if (design := config.sequential) is None:
        return None
    from harness.predictions.run_predictions import read_drawn_predictions
    from harness.scoring.sequential_scores import verdicts_at_last_look
    from harness.stats.sequential import verdict_in_points

    def ends_after(tasks: int) -> bool:
        log.commit()
        verdicts = verdicts_at_last_look(config, plan.tasks, read_drawn_predictions(log.path, config, plan.tasks))
        for model, verdict in verdicts.items():
            look = f"after {tasks} of {design.looks[-1]} tasks: {_look_text(verdict.looks[-1], design.metric)}"
            display.notice(f"{model} against {config.models[0].name} {look}: {verdict_in_points(verdict.verdict)}")
        ends = all(verdict.decided for verdict in verdicts.values())
        if ends:
            skipped = plan.per_model - plan.outputs_of_first(tasks) * config.n
            for tally in board.tallies.values():
                tally.total -= skipped
        return ends

    return LookScheduler(plan, design, done, ends_after)


def _look_text(look: Look, metric: str) -> str:
    """Return the difference at a look in points, with its interval."""
    interval = "" if look.low is None or look.high is None else f" [{100 * look.low:+.1f}, {100 * look.high:+.1f}]"
    return f"{100 * look.delta:+.1f}{interval} points of {metric}"
