"""Reproduce a run of test-time training: its kept adapters answer its tasks again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from harness.cli.workflows.ttt.answering.answerer import Answerer, Interrupted, TaskDisplay, recorded_reply
from harness.cli.workflows.ttt.answering.servers import AdapterSite, with_own_server
from harness.cli.workflows.ttt.job import TttJob, TttOptions
from harness.client.pool.retry import RetryPolicy
from harness.core.digests import content_hash
from harness.core.errors import RunError, format_ids
from harness.core.grid import Task
from harness.runs.environment import now
from harness.runs.folder import TTT_LOCK, RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.manifest_schema import Manifest
from harness.runs.schemas.task_training import TaskRecord
from harness.sampling.reproduction import ReproductionResult, compare_runs, repeated_options
from trainers.ttt.protocol import RECIPE_FILE, ReplyLine, adapter_path, read_recipe, write_recipe


def reproduce_trained_tasks(
    run: Path,
    out: Path,
    servers: tuple[str, ...],
    adapters: Path | None,
    api_key: str | None,
    resume: bool,
    policy: RetryPolicy,
) -> ReproductionResult | None:
    """Answer the tasks of a run again with its own adapters, in another folder, and compare the two runs.

    Args:
        servers: running servers; empty to start one.
        adapters: the registry of those servers.

    Returns:
        The comparison; None if the user ended the session.

    Raises:
        RunError: the run is not finished, its adapters were discarded or changed, or its dataset has changed.
    """
    manifest = RunFolder(run).manifest()
    if manifest.finished is None:
        raise RunError(f"{run} is not finished, so that there is nothing to compare with; complete it with --resume")
    records = TrainingLog(run / TTT_LOG).records()
    _check_adapters(run, records)
    sampling = repeated_options(manifest, out, servers, api_key, resume, policy)
    job = TttJob.open(TttOptions(read_recipe(run), sampling, adapters))
    if job.config != manifest.config.ttt:
        raise RunError(f"{run}: its base, its starting adapter or its recipe has changed since; restore it")
    job.folder.check_free(resume, in_parts=True)
    with job.folder.locked(TTT_LOCK):
        job.write_plan(lambda line: click.echo(line, err=True))
        write_recipe(out, job.options.recipe)
        try:
            _answer_all(job, run, manifest, records)
        except (Interrupted, KeyboardInterrupt):
            return None
    return compare_runs(run, out)


def _check_adapters(run: Path, records: Mapping[str, TaskRecord]) -> None:
    """Make sure that the adapters of a run are there and unchanged.

    Raises:
        RunError: some are not; the message says which and what to do.
    """
    if gone := [r.task_id for r in records.values() if r.digest and not adapter_path(run, r.task_id).exists()]:
        raise RunError(
            f"{run} kept only the digests of the adapters of {format_ids(gone)} (--discard-adapters), so that they "
            f"cannot answer again; train them anew with bench ttt {run / RECIPE_FILE}, and compare the digests in "
            f"{TTT_LOG}"
        )
    for record in records.values():
        folder = adapter_path(run, record.task_id)
        if record.digest is not None and content_hash(folder) != record.digest:
            raise RunError(f"{folder}: is not the adapter that answered (its digest in {TTT_LOG} is another)")


def _answer_all(job: TttJob, run: Path, manifest: Manifest, records: Mapping[str, TaskRecord]) -> None:
    """Answer every task that is missing in the new run."""
    assert manifest.protocol is not None
    assert manifest.config.ttt is not None
    protocol, display, began = manifest.protocol, TaskDisplay(), now()

    def answer(site: AdapterSite) -> None:
        answerer = Answerer(job, site, protocol, display, began, not job.options.servers, run, manifest.config)
        for task in job.pending():
            answerer.answer(task, _reply(run, task, records))

    if job.options.servers:
        answer(AdapterSite(job.options.servers, job.registry, job.base_model))
    elif job.pending():
        with_own_server(answer, lambda: len(job.log.records()), job)


def _reply(run: Path, task: Task, records: Mapping[str, TaskRecord]) -> ReplyLine:
    """Return what the trainer said about a task in the original run.

    Raises:
        RunError: ttt.jsonl lacks the task.
    """
    record = records.get(task.id)
    if record is None:
        raise RunError(f"{TTT_LOG} of the run lacks task {task.id}; complete the run with --resume")
    return recorded_reply(run, record)
