"""Answer one task of a run: by its adapter, else by the starting adapter or the base; and record what answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from harness.cli.workflows.steps import sigterm_as_interrupt
from harness.cli.workflows.ttt.answering.servers import AdapterSite
from harness.cli.workflows.ttt.job import ADAPTER_PREFIX, START_NAME, TttJob
from harness.client.pool.retry import RetryPolicy
from harness.client.protocol.model_alias import ModelAlias
from harness.core.deadline import check_time
from harness.core.digests import content_hash
from harness.core.errors import DeadlineError, RunError
from harness.core.grid import Task
from harness.runs.logs.task_training_log import TTT_LOG
from harness.runs.schemas.manifest_schema import RunConfig
from harness.runs.schemas.task_training import Protocol, TaskRecord
from harness.sampling.options.run_options import RunOptions
from harness.sampling.options.task_part import TaskPart
from harness.sampling.progress_display import Display, ProgressBoard
from harness.sampling.session import sample_run
from harness.sampling.unmeasured_models import NothingMeasuredError
from trainers.ttt.protocol import ADAPTERS, ReplyLine, adapter_path, folder_name, remove_adapter

OWN_SERVER_WAIT = 20.0
"""Seconds to wait for our own server if it stops answering; it does not come back by itself."""


class Interrupted(Exception):
    """The user ended a session; everything that was answered is saved."""


class TaskDisplay(Display):
    """Shows each notice of a run once, though every task has a session, and no board."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: set[str] = set()

    def notice(self, text: str) -> None:
        """Print a line unless it was printed before."""
        if text not in self._shown:
            self._shown.add(text)
            super().notice(text)

    async def show(self, board: ProgressBoard) -> None:
        """Show nothing; runs until cancelled."""
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Answerer:
    """Answers tasks on a site and records them.

    Args:
        protocol: recorded with the run.
        display: shared by all tasks.
        started: when the command began.
        owned: whether the servers are ours.
        source: folder whose adapters answer; None for the run's own.
        repeated: the configuration of the run that is reproduced; None for a run of its own.
    """

    job: TttJob
    site: AdapterSite
    protocol: Protocol
    display: TaskDisplay
    started: str
    owned: bool
    source: Path | None = None
    repeated: RunConfig | None = None

    def answer(self, task: Task, reply: ReplyLine) -> TaskRecord:
        """Request the predictions of a task that are missing, and append the task to ttt.jsonl.

        Raises:
            Interrupted: the user ended the session. DeadlineError: the deadline passed before every prediction was
                there. RunError, ServerError, AdapterError: as ``sample_run``, or the
                adapter cannot be loaded.
        """
        check_time(self.job.options.deadline, f"task {task.id} was answered")  # no adapter is loaded for nothing
        started, nothing, is_cut = monotonic(), None, False
        with self.loaded_model(task, reply) as (served_name, digest):
            try:
                with sigterm_as_interrupt():  # the session puts back another handler than it found
                    summary = sample_run(self._options(task, served_name, digest), self.display, self.repeated)
                left, is_cut = summary.left, summary.is_cut
            except NothingMeasuredError as error:  # the run is complete, and this is said once it is recorded
                left, nothing = 0, error
        seconds = monotonic() - started
        if left and is_cut:
            raise DeadlineError(f"the deadline (--deadline) passed before task {task.id} was answered")
        if left:
            raise Interrupted
        is_own = digest is not None and digest == reply.digest
        record = TaskRecord(
            task_id=task.id,
            outcome=reply.outcome,
            adapter=None if self.job.options.discard or self.source is not None else reply.adapter,
            digest=reply.digest,
            steps=reply.steps,
            samples=reply.samples,
            train_seconds=round(reply.seconds, 3),
            reason=reply.reason,
            answered_by=served_name,
            own_adapter=is_own,
            sample_seconds=round(seconds, 3),
        )
        self.job.log.append(record)
        if self.job.options.discard and not self.job.options.rescore:
            remove_adapter(self.job.out, task.id)
        if nothing is not None:
            raise nothing
        return record

    @contextmanager
    def loaded_model(self, task: Task, reply: ReplyLine) -> Iterator[tuple[str, str | None]]:
        """Load the adapter that answers a task, and yield its name on the server and its content hash.

        Without an adapter of the task it is the starting one, else the base.
        """
        start = self.job.start
        if reply.adapter is not None:
            name, folder = folder_name(task.id), adapter_path(self.source or self.job.out, task.id)
            digest = reply.digest
        elif start is not None:
            name, folder, digest = START_NAME, start, self.job.config.start
        else:
            yield self.site.base_name(), self.job.base_model.hash
            return
        with self.site.loaded(f"{ADAPTER_PREFIX}{name}"[:64], folder) as version:
            yield version, digest

    def _options(self, task: Task, served_name: str, digest: str | None) -> RunOptions:
        """Return the options of the session that answers a task."""
        job = self.job
        alias = ModelAlias(job.model, served_name, job.settings())
        part = TaskPart(frozenset((task.id,)), alias, digest, job.config, self.protocol, self.started)
        sampling = job.options.sampling
        deadline = job.options.deadline
        return replace(sampling, servers=self.site.urls, part=part, resume=True, policy=self.policy, deadline=deadline)

    @property
    def policy(self) -> RetryPolicy:
        """How requests are retried: our own server is not waited for as long as others."""
        policy = self.job.options.sampling.policy
        return replace(policy, wait=min(policy.wait, OWN_SERVER_WAIT)) if self.owned else policy


def recorded_reply(run: Path, record: TaskRecord) -> ReplyLine:
    """Return what the trainer said about a task that is answered.

    Raises:
        RunError: the adapter that answered was discarded or has changed, so that it cannot answer again.
    """
    if record.digest is not None:
        _check_adapter(run, record)
    return ReplyLine(
        task_id=record.task_id,
        outcome=record.outcome,
        adapter=None if record.digest is None else f"{ADAPTERS}/{folder_name(record.task_id)}",
        steps=record.steps,
        samples=record.samples,
        seconds=record.train_seconds,
        digest=record.digest,
        reason=record.reason,
    )


def _check_adapter(run: Path, record: TaskRecord) -> None:
    """Make sure that the adapter of a task is the one that answered.

    Raises:
        RunError: it is gone, or its files have changed.
    """
    folder = adapter_path(run, record.task_id)
    if not folder.exists():
        raise RunError(
            f"{folder} is gone (--discard-adapters keeps only digests), so that it cannot answer task {record.task_id} "
            f"again; --resume --task {record.task_id} of bench ttt trains it again"
        )
    if content_hash(folder) != record.digest:
        raise RunError(f"{folder}: is not the adapter that answered (its digest in {TTT_LOG} is another)")
