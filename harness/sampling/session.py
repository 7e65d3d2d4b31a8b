"""One sampling session of a run, from the options to the manifest that says whether the run is finished."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from time import perf_counter, process_time

from harness.client.http.http_client import Client
from harness.client.pool.server import Server
from harness.client.pool.server_pool import before_deadline, connect_servers
from harness.client.protocol.request import Request
from harness.client.protocol.response import Reply
from harness.core.errors import ArcBenchError
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_log import PredictionLog, drop_retryable
from harness.runs.schemas.manifest_schema import Manifest, RunConfig
from harness.sampling.engine import Engine, Workload
from harness.sampling.manifest_writer import ManifestWriter, initial_manifest
from harness.sampling.options.config_draft import ConfigDraft, models_at_once, run_tasks
from harness.sampling.options.run_options import RunOptions
from harness.sampling.progress_display import Display, ProgressBoard
from harness.sampling.recording import PredictionRecorder, Recorder
from harness.sampling.requests.api_selection import RunSetup, negotiate_setup
from harness.sampling.workloads.drawn_samples import DrawnSamples
from harness.sampling.workloads.view_enumeration import EnumeratedViews
from harness.sampling.workloads.view_recording import ViewRecorder

_OTHER_FILES = 256
"""Files that a run opens besides its connections."""
_GC_THRESHOLD = 50_000
"""New objects between two searches for reference cycles."""


@dataclass(frozen=True)
class SessionSummary:
    """The counts and times of a session."""

    folder: RunFolder
    sampled: int
    """Predictions (with ``--search dfs``, views) made in this session."""
    done: int
    """Predictions of the run, with those of earlier sessions."""
    total: int
    """Predictions that the run requests; those that early stopping skips are not included."""
    seconds: float
    """From the start to the end of the session."""
    sampling_seconds: float
    """From the first request to the last answer."""
    cpu_seconds: float
    """CPU time of this process."""
    left: int
    """Predictions that this session should have made and that are still missing."""
    noun: str = "predictions"
    """What is counted: ``predictions``, or ``views`` with ``--search dfs``."""
    is_cut: bool = False
    """Whether the deadline passed before every requested prediction was there."""

    @property
    def finished(self) -> bool:
        """Whether every requested prediction is there."""
        return self.done == self.total


def sample_run(
    options: RunOptions,
    display: Display | None = None,
    repeated: RunConfig | None = None,
    on_begin: Callable[[], None] = lambda: None,
) -> SessionSummary:
    """Make all predictions of a run that are missing. Ctrl-C ends the session early; what was answered is saved.

    Args:
        repeated: the configuration of a run that is to be reproduced; prompts and encoders are taken from it.
        on_begin: called when sampling begins; after an error from then on, the run can be resumed.

    Raises:
        ConfigError: an option is wrong. RunError: the folder is not empty, has another configuration, or cannot be
            written; or a model gives no answers. ServerError: no server answers, or one lacks a model.
    """
    options.check()
    folder = RunFolder(options.out)
    folder.check_free(options.resume, in_parts=options.part is not None)
    raise_file_limit(len(options.servers) * options.policy.max_in_flight)
    try:
        with rare_garbage_collection():
            return asyncio.run(_run_session(options, folder, display or Display(), repeated, on_begin))
    except BaseExceptionGroup as group:
        raise first_error(group) from None


async def _run_session(
    options: RunOptions, folder: RunFolder, display: Display, repeated: RunConfig | None, on_begin: Callable[[], None]
) -> SessionSummary:
    """Implement ``sample_run``: connect to the servers, complete the configuration, open the folder, and sample."""
    wall, cpu = perf_counter(), process_time()
    dataset = open_dataset(options.dataset)
    tasks = run_tasks(options, dataset)
    async with AsyncExitStack() as stack:
        async with before_deadline(options.deadline, "the servers were ready"):
            servers = await open_servers(options, display, stack)
            draft = ConfigDraft(options, dataset, tasks, repeated, _saved_config(options, folder))
            setup = await negotiate_setup(draft, servers)
        for warning in setup.warnings:
            display.notice(f"warning: {warning}")
        if setup.builder.why_chats:
            display.notice(f"asking through chat completions: {setup.builder.why_chats}")
        stack.enter_context(folder.locked())
        manifest = initial_manifest(setup.config, tasks, servers, setup.warnings, options.part, options.deadline)
        manifest, log = _open_folder(options, folder, manifest, display)
        stack.callback(log.close)
        recorder, workload = _workload(setup, log, display, manifest)
        recorder.unmeasured.refused_parameters = {name for server in servers for name in server.client.omitted}
        engine = Engine(workload, servers, display)
        writer = ManifestWriter(folder, manifest, recorder, servers)
        mixed = models_at_once(options, (model for server in servers for model in server.served.values()))
        start = perf_counter()
        on_begin()
        deadline_passed = await engine.run(mixed, options.policy, writer.save, options.deadline)
        sampling_seconds = perf_counter() - start
        log.commit()
        is_cut = deadline_passed and not recorder.board.complete
        writer.close(is_cut=is_cut)
    tallies = recorder.board.tallies.values()
    if recorder.board.complete:
        recorder.unmeasured.check_all(tallies)
    summary = _summary(folder, recorder.board, perf_counter() - wall, sampling_seconds, process_time() - cpu)
    if options.part is None:
        return replace(summary, is_cut=is_cut)
    return replace(
        summary, is_cut=is_cut, left=sum(not recorder.done[number] for number in setup.plan.requested_numbers())
    )


def _workload(
    setup: RunSetup, log: PredictionLog, display: Display, manifest: Manifest
) -> tuple[Recorder, Workload[Request, Reply]]:
    """Return what a session requests and what records it: drawn predictions, or the views of ``--search dfs``."""
    plan, config, builder = setup.plan, setup.config, setup.builder
    if config.search is None:
        recorder = PredictionRecorder(plan, config, log, display, manifest.answered_as)
        return recorder, DrawnSamples(plan, builder, recorder)
    views = ViewRecorder(plan, config, log, display, manifest.answered_as)
    return views, EnumeratedViews(plan, config, config.search, builder, views)


def _summary(
    folder: RunFolder, board: ProgressBoard, seconds: float, sampling_seconds: float, cpu_seconds: float
) -> SessionSummary:
    """Add up the counts of all models."""
    tallies = board.tallies.values()
    sampled = sum(tally.answered for tally in tallies)
    done, total = sum(tally.done for tally in tallies), sum(tally.total for tally in tallies)
    return SessionSummary(
        folder, sampled, done, total, seconds, sampling_seconds, cpu_seconds, total - done, board.noun
    )


async def open_servers(options: RunOptions, display: Display, stack: AsyncExitStack) -> list[Server]:
    """Return the servers after asking each for its models. Some may be down, and join when they recover.

    Args:
        stack: closes the clients.

    Raises:
        ServerError: none answers.
    """
    servers = []
    alias = None if options.part is None else options.part.alias
    for url in options.servers:
        client = Client(url, options.api_key, options.policy.timeout, options.sampling, display.notice, alias)
        servers.append(Server(await stack.enter_async_context(client), options.models, options.policy))
    await connect_servers(servers)
    return servers


def _open_folder(
    options: RunOptions, folder: RunFolder, manifest: Manifest, display: Display
) -> tuple[Manifest, PredictionLog]:
    """Write the manifest to the locked folder and open its predictions.

    Returns:
        The manifest, merged with that of earlier sessions, and the log.

    Raises:
        RunError: the folder is not empty, or has another configuration.
    """
    folder.check_free(options.resume, in_parts=options.part is not None)
    manifest = folder.start_run(manifest, options.resume)
    if options.retry_errors:
        folder.results_path.unlink(missing_ok=True)  # they count predictions that are removed now
        dropped = drop_retryable(folder.predictions_path)
        display.notice(f"asking again for {dropped} predictions that were given up or refused")
    return manifest, PredictionLog(folder.predictions_path, views=manifest.config.search is not None)


def _saved_config(options: RunOptions, folder: RunFolder) -> RunConfig | None:
    """Return the configuration of the run that is resumed; None for a new run."""
    return folder.manifest().config if options.resume and folder.manifest_path.exists() else None


def raise_file_limit(connections: int) -> None:
    """Allow this process that many connections, one for each request in flight, as far as the system does."""
    count = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Make Python search for reference cycles less often.

    A response with log-probabilities is parsed into hundreds of short-lived objects. With the default threshold each
    response triggers a search, which costs 0.1 ms.
    """
    before = gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error of a group to show to the user: an ``ArcBenchError`` if there is one."""
    errors: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            errors.append(error)
    return next((error for error in errors if isinstance(error, ArcBenchError)), errors[0])
