"""What a session writes to its run folder: predictions as they arrive, and the manifest with what it learned."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import orjson

from harness.client.response import Reply
from harness.client.server import Server
from harness.core.errors import RunError
from harness.core.grid import Grid, Task
from harness.data.dataset import content_digest
from harness.prompts.reasoning import ends_in_thought
from harness.runs.environment import describe_environment, now
from harness.runs.folder import RunFolder
from harness.runs.prediction_log import PredictionLog
from harness.runs.prediction_reader import read_predictions
from harness.runs.prediction_schema import Outcome
from harness.runs.schema import Manifest, RunConfig
from harness.sampling.options import served_models
from harness.sampling.plan import Plan, Sample
from harness.sampling.progress_display import Display, ProgressBoard
from harness.sampling.round_scheduler import RoundScheduler
from harness.scoring.unmeasured_models import UnmeasuredModelCheck
from harness.voting.early_stopping import run_schedule
from harness.voting.live_tally import ModelTally

_SHOWN_REASONS = 20
"""Different reasons of failures that are shown."""
_MORE_REASONS = "further reasons are not shown; predictions.jsonl has every such prediction as refused or error"


class PredictionRecorder:
    """Turns replies into predictions, appends them to the log, and keeps the votes that early stopping needs.

    It starts from the predictions of earlier sessions, which it reads from the log.

    Args:
        answered_as: by model, the names under which servers answered in earlier sessions.

    Attributes:
        board: the counts of each model, for the display.
        answered_as: as the argument, with the names of this session.
        warnings: lines for the manifest and the report.
        done: by number, 1 for each sample that has a prediction.
        rounds: releases samples round by round; None without early stopping.
        unmeasured: ends the run if a model gives no answers.

    Raises:
        DataError, RunError: a line of the log is not a prediction of this run, or one is there twice.
    """

    def __init__(
        self,
        plan: Plan,
        config: RunConfig,
        log: PredictionLog,
        display: Display,
        answered_as: Mapping[str, Collection[str]],
    ) -> None:
        self.board = ProgressBoard(ModelTally(model.name, plan.per_model, config.n) for model in config.models)
        self.answered_as: dict[str, set[str]] = {m.name: set(answered_as.get(m.name, ())) for m in config.models}
        self.warnings: list[str] = []
        self.done = bytearray(len(plan))
        self._plan = plan
        self._log = log
        self._display = display
        self._reasons: set[str] = set()
        self._shown: set[str] = set()
        self._max_tokens = {model.name: model.max_tokens for model in config.models}
        self._read_log()
        self.unmeasured = UnmeasuredModelCheck(self.board.tallies.values(), self._max_tokens)
        schedule = run_schedule(config)
        self.rounds = None if schedule is None else RoundScheduler(plan, schedule, self.done)
        if self.rounds is not None:
            for number in self.rounds.completed_rounds():
                self._decide_next_round(self.rounds, plan.sample(number))

    def commit(self) -> None:
        """Make all recorded predictions durable; may be called in another thread.

        Raises:
            RunError: the log cannot be written.
        """
        self._log.commit()

    def record_reply(self, sample: Sample, reply: Reply | None) -> None:
        """Record the prediction that a reply gives; None for a prompt that does not fit into the context."""
        if reply is None:
            self._record(sample, "too_long", None, None)
            return
        self._note_peculiarities(sample, reply)
        outcome: Outcome = "truncated"
        grid = None
        if not reply.truncated:
            outcome, grid = self._plan.formats[sample.model].parse_answer(reply.text, sample.augmentation)
        self._record(sample, outcome, grid, reply)

    def record_failure(self, samples: Sequence[Sample], outcome: Outcome, reason: str) -> None:
        """Record that samples of one model have no answer; each reason is shown once, up to 20 reasons."""
        if reason not in self._reasons and len(self._reasons) <= _SHOWN_REASONS:
            self._reasons.add(reason)
            shown = len(self._reasons) <= _SHOWN_REASONS
            self._display.notice(f"{outcome}: {reason}" if shown else _MORE_REASONS)
        self.unmeasured.note_failure(samples[0].model, reason)
        for sample in samples:
            self._record(sample, outcome, None, None)

    def _read_log(self) -> None:
        """Count the predictions of earlier sessions."""
        for prediction in read_predictions(self._log.path):
            key = (prediction.model, prediction.task_id, prediction.test_index, prediction.sample)
            number = self._plan.number(key)
            if number is None or self.done[number]:
                kind = "is not part of this run" if number is None else "is there twice"
                raise RunError(f"{self._log.path}: prediction {key} {kind}; the file was changed by hand or mixed up")
            self.done[number] = 1
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
        if reply.model not in (names := self.answered_as[model]):
            names.add(reply.model)
            if len(names) > 1:
                self._show_once(
                    f"warning: {model} was answered by {' and '.join(sorted(names))}: swapped during the run"
                )
        if reply.cumulative_logprob is None and reply.text:
            self._show_once("the server gives no log-probabilities; tied votes count by their expectation")
        if reply.only_reasoning or (reply.truncated and ends_in_thought(reply.text)):
            self._show_once(
                f"warning: {model} thinks before it answers, and some of its answers are empty or cut off at "
                f"{self._max_tokens[model]} tokens; --max-tokens gives it more, "
                "--chat-template-kwargs '{\"enable_thinking\": false}' turns thinking off where its template can"
            )

    def _show_once(self, line: str) -> None:
        """Show a line unless it was shown before; keep it for the report if it is a warning."""
        if line not in self._shown:
            self._shown.add(line)
            self._display.notice(line)
            if line.startswith("warning: "):
                self.warnings.append(line.removeprefix("warning: "))


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


def initial_manifest(
    config: RunConfig, tasks: Sequence[Task], servers: Sequence[Server], warnings: Sequence[str]
) -> Manifest:
    """Return the manifest of a run before its first request."""
    served = served_models(servers)
    models = [served[model.name] for model in config.models if model.name in served]
    bases = {model.parent: served[model.parent] for model in models if model.parent in served}
    return Manifest(
        format=1,
        config=config,
        environment=describe_environment(),
        servers=[server.client.url for server in servers],
        served=[*models, *(base for base in bases.values() if base not in models)],
        server_versions=_versions(servers),
        warnings=list(warnings),
        without=_omitted_parameters(servers),
        answered_as={},
        started=now(),
        resumed=[],
        finished=None,
        task_digests=[content_digest(task) for task in tasks],
    )


class ManifestWriter:
    """Writes what a session learns to the manifest, so that it survives a kill."""

    def __init__(
        self, folder: RunFolder, manifest: Manifest, recorder: PredictionRecorder, servers: Sequence[Server]
    ) -> None:
        self._folder, self._manifest = folder, manifest
        self._recorder, self._servers = recorder, servers

    def save(self) -> None:
        """Write the manifest if its content has changed."""
        self._write(self._updated())

    def close(self) -> None:
        """Write the manifest at the end of a session; with the time and a checksum if every prediction is there."""
        end: dict[str, str | None] = {"finished": None}
        if self._recorder.board.complete:
            end = {"finished": now(), "predictions_sha256": self._folder.predictions_sha256()}
        self._write(self._updated().model_copy(update=end))

    def _write(self, manifest: Manifest) -> None:
        """Replace the manifest on disk unless it is equal."""
        if manifest != self._manifest:
            self._folder.write_manifest(manifest)
            self._manifest = manifest

    def _updated(self) -> Manifest:
        """Return the manifest with the warnings, names, versions and omitted parameters of this session."""
        before = self._manifest
        answered = {
            name: sorted({*before.answered_as.get(name, []), *names})
            for name, names in self._recorder.answered_as.items()
            if names
        }
        limits = [warning for server in self._servers for warning in server.limiter.warnings]
        changes = {
            "warnings": list(dict.fromkeys([*before.warnings, *self._recorder.warnings, *limits])),
            "without": sorted({*before.without, *_omitted_parameters(self._servers)}),
            "answered_as": before.answered_as | answered,
            "server_versions": before.server_versions | _versions(self._servers),
        }
        return before.model_copy(update=changes)


def _versions(servers: Sequence[Server]) -> dict[str, str]:
    """Return the version of each server's software by URL, for those that report one."""
    return {server.client.url: server.version for server in servers if server.version is not None}


def _omitted_parameters(servers: Sequence[Server]) -> list[str]:
    """Return the parameters that some server refused."""
    return sorted({name for server in servers for name in server.client.omitted})
