"""Record the enumerated answers of views: the lines of a view are appended together, with its closing record last."""

from __future__ import annotations

from harness.client.protocol.response import Reply
from harness.core.grid import Grid
from harness.runs.logs.prediction_reader import read_views
from harness.runs.logs.view_block import ViewResult, view_block
from harness.runs.schemas.view_schema import view_failure
from harness.sampling.plan import Sample
from harness.sampling.recording import Recorder


class ViewRecorder(Recorder):
    """Appends the answers of views to the log; it starts from the views of earlier sessions."""

    noun = "views"

    def record_view(self, sample: Sample, result: ViewResult) -> None:
        """Append a view to the log and count it.

        Raises:
            RunError: the model gives no answers, so that the run is ended.
        """
        key = sample.model, sample.task.id, sample.test_index, sample.sample_index
        self._log.append(view_block(key, sample.augmentation, sample.seed, result))
        self.done[sample.number] = 1
        tally = self.board.tallies[sample.model]
        tally.answered += 1
        failure = view_failure(result.outcome, [a.outcome for a in result.answers], truncated=result.greedy is None)
        proposals = [(a.grid, a.logprob / a.n_tokens) for a in result.answers if a.grid is not None]
        truth = sample.task.test[sample.test_index].output
        tally.add_view((sample.task.id, sample.test_index), truth, failure, proposals)
        if failure is not None:
            self.unmeasured.check(tally)

    def note_reply(self, sample: Sample, reply: Reply) -> None:
        """Tell the user, once, if an adapter is swapped during the run."""
        self._note_swap(sample.model, reply.model)

    def _read_log(self) -> None:
        """Count the views of earlier sessions."""
        for view in read_views(self._log.path):
            number = self._mark_done((view.model, view.task_id, view.test_index, view.sample))
            failure = view_failure(view.outcome, [a.outcome for a in view.answers], truncated=view.greedy is None)
            proposals: list[tuple[Grid, float | None]] = [
                (answer.grid, answer.mean_logprob) for answer in view.answers if answer.grid is not None
            ]
            tally, truth = self.board.tallies[view.model], self._plan.true_output(number)
            tally.add_view((view.task_id, view.test_index), truth, failure, proposals)
