"""Write a session's results to the log of its run: predictions as they arrive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

import orjson

from harness.client.protocol.response import Reply
from harness.core.errors import RunError
from harness.core.grid import Grid
from harness.prompts.reasoning import ends_in_thought
from harness.runs.logs.prediction_log import PredictionLog
from harness.runs.logs.prediction_reader import read_predictions
from harness.runs.schemas.manifest_schema import RunConfig
from harness.runs.schemas.prediction_schema import Outcome, PredictionKey
from harness.sampling.plan import Plan, Sample
from harness.sampling.progress_display import Display, ProgressBoard
from harness.sampling.schedulers.look_scheduler import make_look_scheduler
from harness.sampling.schedulers.round_scheduler import RoundScheduler
from harness.sampling.unmeasured_models import UnmeasuredModelCheck
from harness.voting.early_stopping import run_schedule
from harness.voting.live_tally import ModelTally

_SHOWN_REASONS = 20
"""Different reasons of failures that are shown."""
_MORE_REASONS = "further reasons are not shown; predictions.jsonl has every such prediction as refused or error"


class Recorder(ABC):
    """Appends what a run's requests gave to the log, and counts it.

    It starts from what earlier sessions recorded, which it reads from the log.

    Args:
        answered_as: by model, the names under which servers answered in earlier sessions.

    Attributes:
        board: the counts of each model, for the display.
        answered_as: the argument, plus the names of this session.
        warnings: lines for the manifest and the report.
        done: by sample number, 1 if the sample is recorded.
        unmeasured: raises the error that ends a run in which a model gives no usable answers.

    Raises:
        DataError, RunError: a line of the log does not belong to this run, or one occurs twice.
    """

    noun = "predictions"
    """What is counted."""

    def __init__(
        self,
        plan: Plan,
        config: RunConfig,
        log: PredictionLog,
        display: Display,
        answered_as: Mapping[str, Collection[str]],
    ) -> None:
        tallies = (ModelTally(model.name, plan.per_model, config.n) for model in config.models)
        self.board = ProgressBoard(tallies, self.noun)
        self.answered_as: dict[str, set[str]] = {m.name: set(answered_as.get(m.name, ())) for m in config.models}
        self.warnings: list[str] = []
        self.done = bytearray(len(plan))
        self._plan = plan
        self._log = log
        self._display = display
        self._reasons: set[str] = set()
        self._shown: set[str] = set()
        self._varies_by_task = config.ttt is not None
        """Whether each task is answered by another adapter, so that other names are no swaps."""
        self._max_tokens = {model.name: model.max_tokens for model in config.models}
        self._read_log()
        self.unmeasured = UnmeasuredModelCheck(self.board.tallies.values(), self._max_tokens)

    @abstractmethod
    def _read_log(self) -> None:
        """Count what earlier sessions recorded."""

    def commit(self) -> None:
        """Make everything recorded durable; may be called in another thread.

        Raises:
            RunError: the log cannot be written.
        """
        self._log.commit()

    def show_failure(self, model: str, outcome: Outcome, reason: str) -> None:
        """Show why a request to a model failed; each reason is shown once, up to 20 reasons."""
        if reason not in self._reasons and len(self._reasons) <= _SHOWN_REASONS:
            self._reasons.add(reason)
            shown = len(self._reasons) <= _SHOWN_REASONS
            self._display.notice(f"{outcome}: {reason}" if shown else _MORE_REASONS)
        self.unmeasured.note_failure(model, reason)

    def _mark_done(self, key: PredictionKey) -> int:
        """Mark the sample of a saved line as done, and return its number.

        Raises:
            RunError: the run has no such sample, or it is done already.
        """
        number = self._plan.number(key)
        if number is None or self.done[number]:
            kind = "is not part of this run" if number is None else "occurs twice"
            raise RunError(f"{self._log.path}: prediction {key} {kind}; the file was changed by hand or mixed up")
        self.done[number] = 1
        return number

    def _note_swap(self, model: str, answered_as: str) -> None:
        """Note the name under which a server answered; tell the user if another version of the adapter did before."""
        if answered_as not in (names := self.answered_as[model]):
            names.add(answered_as)
            if len(names) > 1 and not self._varies_by_task:
                self._show_once(
                    f"warning: {model} was answered by {' and '.join(sorted(names))}: swapped during the run"
                )

    def _show_once(self, line: str) -> None:
        """Show a line unless it was shown before; keep it for the report if it is a warning."""
        if line not in self._shown:
            self._shown.add(line)
            self._display.notice(line)
            if line.startswith("warning: "):
                self.warnings.append(line.removeprefix("warning: "))


class PredictionRecorder(Recorder):
    """Turns replies into predictions, appends them to the log, and keeps the votes that early stopping needs.

    Attributes:
        rounds: releases samples round by round; None without early stopping.
        looks: releases tasks look by look; None without a sequential design.
    """

    def __init__(
        self,
        plan: Plan,
        config: RunConfig,
        log: PredictionLog,
        display: Display,
        answered_as: Mapping[str, Collection[str]],
    ) -> None:
        super().__init__(plan, config, log, display, answered_as)
        schedule = run_schedule(config)
        self.rounds = None if schedule is None else RoundScheduler(plan, schedule, self.done)
        self.looks = make_look_scheduler(plan, config, self.done, log, self.board, display)
        if self.rounds is not None:
            for number in self.rounds.completed_rounds():
                self._decide_next_round(self.rounds, plan.sample(number))

    def record_reply(self, sample: Sample, reply: Reply | None) -> None:
        """Record the prediction that a reply gives; None for a prompt that does not fit into the context."""
        if reply is None:
            self._record(sample, "too_long", None, None)
            return
        self._note_peculiarities(sample, reply)
        outcome: Outcome = "truncated"
        grid = None
        if not reply.truncated:
            outcome, grid = self._plan.formats[sample.model].parse_answer(reply.text, sample)
        self._record(sample, outcome, grid, reply)

    def record_failure(self, samples: Sequence[Sample], outcome: Outcome, reason: str) -> None:
        """Record that samples of one model have no answer."""
        self.show_failure(samples[0].model, outcome, reason)
        for sample in samples:
            self._record(sample, outcome, None, None)

    def _read_log(self) -> None:
        """Count the predictions of earlier sessions."""
        for prediction in read_predictions(self._log.path):
            key = (prediction.model, prediction.task_id, prediction.test_index, prediction.sample)
            number = self._mark_done(key)
            output, truth = (prediction.task_id, prediction.test_index), self._plan.true_output(number)
            tally = self.board.tallies[prediction.model]
            tally.add(output, truth, prediction.outcome, prediction.grid, prediction.mean_logprob)

    def _record(self, sample: Sample, outcome: Outcome, grid: Grid | None, reply: Reply | None) -> None:
        """Append a prediction to the log and count it.

        Raises:
            RunError: the model gives no answers, so that the run is ended.
        """
        self._log.append(prediction_line(sample, outcome, grid, reply))
        self.done[sample.number] = 1
        tally = self.board.tallies[sample.model]
        tally.answered += 1
        logprob = None if reply is None else reply.mean_logprob
        truth = sample.task.test[sample.test_index].output
        tally.add((sample.task.id, sample.test_index), truth, outcome, grid, logprob)
        if grid is None:
            self.unmeasured.check(tally)
        if self.rounds is not None and self.rounds.record_answer(sample.number):
            self._decide_next_round(self.rounds, sample)

    def _decide_next_round(self, rounds: RoundScheduler, sample: Sample) -> None:
        """Release the next round of a sample's test output, or skip the rest of its samples."""
        tally, output = self.board.tallies[sample.model], (sample.task.id, sample.test_index)
        votes = tally.open_outputs[output]
        if skipped := rounds.decide_next_round(sample.number, votes.votes.values(), votes.failures):
            tally.stop_output(output, skipped)

    def _note_peculiarities(self, sample: Sample, reply: Reply) -> None:
        """Tell the user, once, if an adapter is swapped, log-probabilities are missing, or a model reasons first."""
        model = sample.model
        self._note_swap(model, reply.model)
        if reply.cumulative_logprob is None and reply.text:
            self._show_once("the server gives no log-probabilities; tied votes count by their expectation")
        if reply.only_reasoning or (reply.truncated and ends_in_thought(reply.text)):
            self._show_once(
                f"warning: {model} thinks before it answers, and some of its answers are empty or cut off at "
                f"{self._max_tokens[model]} tokens; --max-tokens gives it more, "
                "--chat-template-kwargs '{\"enable_thinking\": false}' turns thinking off where its template can"
            )


def prediction_line(sample: Sample, outcome: Outcome, grid: Grid | None, reply: Reply | None) -> bytes:
    """Return a sample's line of predictions.jsonl: a ``PredictionRecord`` as JSON, without the cost of validating it.

    Args:
        grid: the answer in the original orientation and colours; None unless ``outcome`` is ``grid``.
        reply: the server's reply; None if there was none.
    """
    view = sample.augmentation
    row = {
        "model": sample.model,
        "task_id": sample.task.id,
        "test_index": sample.test_index,
        "sample_index": sample.sample_index,
        "augmentation": {"symmetry": view.symmetry, "colours": view.colours, "order": view.order},
        "outcome": outcome,
        "grid": None if grid is None else grid.to_rows(),
        "text": None if reply is None else reply.text,
        "cumulative_logprob": None if reply is None else reply.cumulative_logprob,
        "n_tokens": None if reply is None else reply.n_tokens,
        "finish_reason": None if reply is None else reply.finish_reason,
        "seed": sample.seed,
        "seconds": 0.0 if reply is None else reply.seconds,
    }
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
