"""Rescore the candidates of a complete run: those of each task by the model that answered it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.candidates.rescore_log import RescoreLog
from harness.candidates.rescore_plan import RescorePlan
from harness.candidates.rescores import Rescores, read_rescores
from harness.cli.workflows.steps import sigterm_as_interrupt
from harness.cli.workflows.ttt.answering.answerer import Answerer, Interrupted, recorded_reply
from harness.cli.workflows.ttt.answering.servers import loss_is_cut, say
from harness.cli.workflows.ttt.job import TttJob
from harness.client.protocol.model_alias import ModelAlias
from harness.core.deadline import Deadline, check_time
from harness.core.errors import DeadlineError, RunError
from harness.core.grid import Task
from harness.predictions.rescore_source import RescoreSource, open_rescore_source
from harness.rescoring.options import RescoreOptions, RescoreSummary
from harness.rescoring.session import rescore
from harness.runs.environment import now
from harness.runs.schemas.deadline_record import RescoreDeadline


def unrescored_tasks(job: TttJob, views: int) -> list[Task]:
    """Return the tasks of which a candidate has no line in rescores.jsonl; none unless the run is complete."""
    if job.pending() or not job.folder.manifest_path.exists():
        return []
    source = open_rescore_source(job.out)
    saved = read_rescores(source.path) or Rescores(source.header(views))
    return [task for task in job.tasks if next(_plan(job, _of_task(source, task), views).missing(saved), None)]


def check_rescored_adapters(job: TttJob, tasks: Sequence[Task]) -> None:
    """Make sure, before a server is started, that the adapters that answered are there to rescore their tasks.

    Raises:
        RunError: one is gone or has changed.
    """
    records = job.log.records()
    for task in tasks:
        recorded_reply(job.out, records[task.id])


class RescoringCutError(DeadlineError):
    """The deadline passed while candidates were rescored; ``failed``: answers on which servers failed before it."""

    def __init__(self, message: str, failed: int) -> None:
        super().__init__(message)
        self.failed = failed


def rescore_tasks(answerer: Answerer, views: int) -> None:
    """Load the adapter of every task again, and request the missing log-probabilities of the task's candidates.

    It begins when all tasks are answered, because rescores belong to the predictions of a complete run.

    Raises:
        Interrupted: the user ended it. RescoringCutError: the deadline passed before. RunError: servers failed on some
            answers, or as ``rescore``.
    """
    deadline, failed = answerer.job.options.deadline, 0
    try:
        for task in unrescored_tasks(answerer.job, views):
            check_time(deadline, f"the candidates of {task.id} were rescored")
            with loss_is_cut(deadline):
                summary = _rescore_task(answerer, task, views)
            failed += summary.given_up
            if summary.interrupted:
                raise Interrupted
            if summary.is_cut:
                raise DeadlineError(
                    f"the deadline (--deadline) passed before all candidates of {task.id} were rescored"
                )
            say(f"rescored {task.id}: {summary.scored} log-probabilities in {summary.seconds:.1f} s")
    except DeadlineError as error:
        raise RescoringCutError(str(error), failed) from error
    if failed:
        raise RunError(failure_text(failed))


def failure_text(failed: int) -> str:
    """Return in words that servers failed on answers, and what to do."""
    return f"servers failed on {failed} answers; the same command with --resume asks again"


def _rescore_task(answerer: Answerer, task: Task, views: int) -> RescoreSummary:
    """Have the candidates of a task rescored by what answered it."""
    job = answerer.job
    reply = recorded_reply(job.out, job.log.records()[task.id])
    with answerer.loaded_model(task, reply) as (served_name, _):
        options = RescoreOptions(
            run=job.out,
            servers=answerer.site.urls,
            views=views,
            api_key=job.options.sampling.api_key,
            policy=answerer.policy,
            deadline=job.options.deadline,
            alias=ModelAlias(job.model, served_name, job.settings(), has_hash=False),
        )
        with sigterm_as_interrupt():  # the session puts back another handler than it found
            return rescore(options, answerer.display, _of_task(open_rescore_source(job.out), task))


def record_unrescored(job: TttJob, views: int, deadline: Deadline, failed: int) -> tuple[int, int]:
    """Write to rescores.jsonl, if it exists, what the deadline left out of all tasks.

    A session of one task records only what it left out of that task.

    Args:
        failed: answers on which servers failed, which were asked for.

    Returns:
        How many log-probabilities are missing, and of how many.
    """
    source = open_rescore_source(job.out)
    plan, saved = _plan(job, source, views), read_rescores(source.path)
    rescores = Rescores(source.header(views)) if saved is None else saved
    missing, total = sum(len(item.grids) for item in plan.missing(rescores)) - failed, plan.total(job.model)
    if saved is not None and missing:
        cut = RescoreDeadline(seconds=deadline.seconds, passed=now(), missing=missing, total=total)
        with job.folder.locked():
            log = RescoreLog(source.path, source.header(views), {job.model: None})
            log.record_deadlines({job.model: cut})
    return missing, total


def _of_task(source: RescoreSource, task: Task) -> RescoreSource:
    """Return the candidates of one task only."""
    candidates = {
        model: {output: grids for output, grids in outputs.items() if output[0] == task.id}
        for model, outputs in source.candidates.items()
    }
    return replace(source, candidates=candidates)


def _plan(job: TttJob, source: RescoreSource, views: int) -> RescorePlan:
    return RescorePlan(source.candidates, {job.model: job.model}, views)
