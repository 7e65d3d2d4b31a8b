"""The workload of ``bench rescore``: request the missing log-probabilities, and append them to the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from harness.candidates.rescore_log import RescoreLog
from harness.candidates.rescore_plan import RescorePlan, ViewGrids
from harness.candidates.rescores import RescoreFailure, RescoreRecord
from harness.client.pool.retry import Job
from harness.client.scoring.score_format import PromptAnswers, ScoreRequest
from harness.client.scoring.score_server import ScoredAnswer
from harness.core.errors import ServerError
from harness.core.grid import Grid
from harness.rescoring.setup import ScoringSetup
from harness.runs.schemas.prediction_schema import Outcome
from harness.sampling.plan import Sample
from harness.sampling.progress_display import Display, ProgressBoard
from harness.voting.live_tally import ModelTally

MOST_ANSWERS = 64
"""Answers of one request at most."""
_MIN_REQUESTS = 4
"""Requests that a server should have in flight at least."""
_MOST_FAILURES = 256
"""Failed answers of a scorer after which a session ends if none was scored."""
_SHOWN_LINES = 20
"""Different warnings and reasons of failures that are shown."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A candidate under a view, and the tokens of its answer."""

    sample: Sample
    grid: Grid
    answer: list[int]


class ScoreWork:
    """Requests every missing log-probability once; a number stands for one candidate under one view.

    Attributes:
        given_up: answers that servers refused or failed on; they are not in the log.

    Args:
        by_output: whether a test output is rescored by all scorers before the next one.
    """

    def __init__(
        self, setup: ScoringSetup, plan: RescorePlan, log: RescoreLog, display: Display, *, by_output: bool = False
    ) -> None:
        self._by_output = by_output
        self.given_up = 0
        self._setup, self._plan, self._log, self._display = setup, plan, log, display
        self._board = ProgressBoard((self._tally(name) for name in plan.scorers), "log-probabilities")
        self._numbers = count()
        self._open: dict[int, _Item] = {}
        self._shown: set[str] = set()

    @property
    def board(self) -> ProgressBoard:
        """The counts of each scorer, for the display."""
        return self._board

    def prompts_per_request(self, max_in_flight: int) -> int:
        """Return how many answers may share a request."""
        return max(1, min(MOST_ANSWERS, max_in_flight // _MIN_REQUESTS))

    def jobs(self, models_at_once: int, size: int) -> Iterator[Job[ScoreRequest] | None]:
        """Yield jobs for the candidates without a line, each for one prompt and up to ``size`` answers.

        Scorers come one after another, of each test output or of all, whatever ``models_at_once`` is: they share no
        prompt.
        """
        saved = self._log.rescores
        for item in self._plan.missing_by_output(saved) if self._by_output else self._plan.missing(saved):
            sample = view_sample(self._setup, item)
            prompt = self._setup.builder.prompt_ids(sample)
            items = list(self._fitting(sample, prompt, item.grids))
            for start in range(0, len(items), size):
                part = items[start : start + size]
                numbers = tuple(next(self._numbers) for _ in part)
                self._open.update(zip(numbers, part, strict=True))
                yield Job(numbers, ScoreRequest(item.scorer, (PromptAnswers(prompt, [i.answer for i in part]),)))

    def record_replies(self, replies: Sequence[tuple[int, ScoredAnswer | None]]) -> list[Job[ScoreRequest]]:
        """Append the scores of one job by number; None stands for an answer that does not fit into the context."""
        for number, reply in replies:
            item = self._open.pop(number)
            if reply is None:
                self._record_failure(item, "too_long")
            else:
                self._append(item, reply.logprob, reply.method, None)
        return []

    def record_failure(self, numbers: Sequence[int], outcome: Outcome, reason: str) -> None:
        """Count answers that no server scores; they have no line, so that the next session asks again.

        Raises:
            ServerError: all of a scorer's first answers failed.
        """
        for number in numbers:
            item = self._open.pop(number)
            tally = self._board.tallies[item.sample.model]
            self.given_up += 1
            tally.failures[outcome] += 1
            if not tally.answered and tally.failures[outcome] >= _MOST_FAILURES:
                raise ServerError(
                    f"none of {_MOST_FAILURES} answers of {tally.model} was scored; the last reason: {reason}"
                )
        self._show_once(f"{outcome}: {reason}")

    def commit(self) -> None:
        """Make all recorded scores durable; may be called in another thread."""
        self._log.commit()

    def _tally(self, scorer: str) -> ModelTally:
        """Return the counts of a scorer, with the lines of earlier sessions."""
        total = self._plan.total(scorer)
        done = total - sum(len(item.grids) for item in self._plan.missing_of(scorer, self._log.rescores))
        tally = ModelTally(scorer, total, self._plan.views, done=done)
        lines = self._log.rescores.scorers.get(scorer)
        tally.failures.update({} if lines is None else lines.failures)
        return tally

    def _fitting(self, sample: Sample, prompt: list[int], grids: Sequence[Grid]) -> Iterator[_Item]:
        """Yield the candidates that can be scored under a view; record why the others cannot."""
        context = self._setup.contexts.get(sample.model)
        for grid in grids:
            item = _Item(sample, grid, self._setup.builder.answer_ids(sample, grid))
            if not is_canonical(self._setup, sample, prompt, grid, item.answer):
                self._show_once(
                    f"warning: {sample.model} cannot write a candidate of task {sample.task.id}, test "
                    f"{sample.test_index}, under view {sample.sample_index}: its tokens decode to something else"
                )
                self._record_failure(item, "unwritable")
            elif context is not None and len(prompt) + len(item.answer) >= context:
                # Servers need room for one more token, which is generated and ignored.
                self._record_failure(item, "too_long")
            else:
                yield item

    def _show_once(self, line: str) -> None:
        """Show a line unless it, or many others, were shown before."""
        if line not in self._shown and len(self._shown) < _SHOWN_LINES:
            self._shown.add(line)
            self._display.notice(line)

    def _record_failure(self, item: _Item, failure: RescoreFailure) -> None:
        """Append a line that says why a candidate has no log-probability under a view."""
        self._board.tallies[item.sample.model].failures[failure] += 1
        self._append(item, None, None, failure)

    def _append(self, item: _Item, logprob: float | None, method: str | None, failure: RescoreFailure | None) -> None:
        """Append a line and count it."""
        sample = item.sample
        self._log.append(
            RescoreRecord(
                scorer=sample.model,
                scorer_hash=self._setup.hashes[sample.model],
                task_id=sample.task.id,
                test_index=sample.test_index,
                grid=item.grid.to_rows(),
                view=sample.sample_index,
                logprob=logprob,
                n_tokens=len(item.answer),
                method=method,
                failure=failure,
            )
        )
        tally = self._board.tallies[sample.model]
        tally.done += 1
        tally.answered += 1


def view_sample(setup: ScoringSetup, item: ViewGrids) -> Sample:
    """Return the sample of a scorer that has the prompt of a view."""
    number = setup.plan.number((item.scorer, item.task_id, item.test_index, item.view))
    assert number is not None  # candidates belong to declared test outputs
    return setup.plan.sample(number)


def is_canonical(setup: ScoringSetup, sample: Sample, prompt: list[int], grid: Grid, answer: Sequence[int]) -> bool:
    """Return whether the tokens of an answer, without the end of the turn, are read as the grid that they are for."""
    text = setup.builder.answer_text(sample.model, prompt, answer[:-1])
    return setup.plan.formats[sample.model].parse_answer(text, sample)[1] == grid
