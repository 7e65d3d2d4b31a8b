"""Record what the deadline of a run of test-time training left out of the whole run."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cli.workflows.ttt.answering.rescoring import record_unrescored
from harness.cli.workflows.ttt.job import TttJob
from harness.sampling.cut_manifest import record_cut


@dataclass(frozen=True)
class Missing:
    """What a deadline left out of a run."""

    count: int
    total: int
    noun: str
    """What is counted: predictions, views, or log-probabilities."""
    failed: int = 0
    """Log-probabilities on which servers failed; they are missing too, but not by the deadline."""

    def text(self) -> str:
        """Return the counts as a phrase."""
        return f"missing by the deadline: {self.count:,} of {self.total:,} {self.noun}"

    @property
    def is_everything(self) -> bool:
        """Whether nothing was answered."""
        return self.count == self.total and self.noun != "log-probabilities"


def record_missing(job: TttJob, failed: int = 0) -> Missing | None:
    """Write what the deadline left out to manifest.json, or to rescores.jsonl if every task is answered.

    A session of one task may have been cut, or the deadline passed where no session was running. Without a manifest,
    which only a session can write, there is nothing to record it in.

    Args:
        failed: log-probabilities on which servers failed in this session.

    Returns:
        What is missing; None if nothing is.
    """
    deadline, views = job.options.deadline, job.options.rescore
    assert deadline is not None
    if not job.pending():
        count, total = (0, 0) if views is None else record_unrescored(job, views, deadline, failed)
        return Missing(count, total, "log-probabilities", failed) if count or failed else None
    if not job.folder.manifest_path.exists():
        total = job.options.sampling.n * sum(len(task.test) for task in job.tasks)
        return Missing(total, total, "views" if job.options.sampling.search == "dfs" else "predictions")
    board = record_cut(job.folder, job.tasks, deadline)
    tally = board.tallies[job.model]
    return Missing(tally.total - tally.done, tally.total, board.noun)
