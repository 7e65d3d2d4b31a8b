"""The workload of a run without search: one request's answer is one prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.client.pool.retry import Job
from harness.client.protocol.request import Request
from harness.client.protocol.response import Reply
from harness.runs.schemas.prediction_schema import Outcome
from harness.sampling.plan import Plan, Sample
from harness.sampling.progress_display import ProgressBoard
from harness.sampling.recording import PredictionRecorder
from harness.sampling.requests.request_builder import RequestBuilder


class DrawnSamples:
    """Requests the plan's samples that have no prediction; a prompt's number is that of its sample."""

    def __init__(self, plan: Plan, builder: RequestBuilder, recorder: PredictionRecorder) -> None:
        self._plan, self._builder, self._recorder = plan, builder, recorder
        self._open: dict[int, Sample] = {}
        """Samples by number whose requests were built and that are not recorded yet."""

    @property
    def board(self) -> ProgressBoard:
        """The counts of each model, for the display."""
        return self._recorder.board

    def prompts_per_request(self, max_in_flight: int) -> int:
        """Return how many predictions may share a request."""
        return self._builder.prompts_per_request(max_in_flight)

    def jobs(self, models_at_once: int, size: int) -> Iterator[Job[Request] | None]:
        """Yield a job for every sample without a prediction, in order; None if answers decide what comes next."""
        scheduler = self._recorder.rounds or self._recorder.looks
        source = self._plan if scheduler is None else scheduler
        for block in source.blocks(models_at_once, size):
            samples = [self._plan.sample(number) for number in block if not self._recorder.done[number]]
            if samples:
                self._open.update((sample.number, sample) for sample in samples)
                numbers = tuple(sample.number for sample in samples)
                yield Job(numbers, self._builder.build_request(samples))
            elif scheduler is not None:
                yield None

    def record_replies(self, replies: Sequence[tuple[int, Reply | None]]) -> list[Job[Request]]:
        """Record the predictions that replies give; no further requests follow from them."""
        for number, reply in replies:
            self._recorder.record_reply(self._open.pop(number), reply)
        return []

    def record_failure(self, numbers: Sequence[int], outcome: Outcome, reason: str) -> None:
        """Record that the samples of a job have no answer."""
        self._recorder.record_failure([self._open.pop(number) for number in numbers], outcome, reason)

    def commit(self) -> None:
        """Make all recorded predictions durable; may be called in another thread."""
        self._recorder.commit()
