"""A run's sampling session, from options to a finished manifest."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from time import perf_counter, process_time

from harness.client.http_client import Client
from harness.client.request import SamplingParameters
from harness.client.server import Server
from harness.core.errors import ArcBenchError, ServerError
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.prediction_log import PredictionLog, drop_retryable
from harness.runs.schema import Manifest, RunConfig
from harness.sampling.api_selection import Wish, agree
from harness.sampling.engine import Engine
from harness.sampling.manifest_writer import ManifestWriter, begun
from harness.sampling.options import RunOptions, declare_tasks, models_at_once
from harness.sampling.progress_display import Display

_OTHER_FILES = 256
"""Open files of a run beside its connections."""
_COLLECT_AFTER = 50_000
"""New objects until Python looks for reference cycles."""


@dataclass(frozen=True)
class SessionSummary:
    """How a session of a run went."""

    folder: RunFolder
    sampled: int
    """Predictions made in this session."""
    done: int
    total: int
    """Predictions due: those that ``--stop`` spares are not."""
    seconds: float
    """From start to end of the session."""
    sampling_seconds: float
    """Of it, from the first request to the last answer."""
    cpu_seconds: float
    """Of this process."""

    @property
    def finished(self) -> bool:
        """Whether every planned prediction is there."""
        return self.done == self.total


def sample_run(
    options: RunOptions,
    display: Display | None = None,
    repeat: RunConfig | None = None,
    on_begin: Callable[[], None] = lambda: None,
) -> SessionSummary:
    """Make every prediction of a run that is not there yet; Ctrl-C ends it early with everything saved.

    Args:
        repeat: the configuration that must come out, where a run is repeated; prompts and encoders are taken from it.
        on_begin: called when sampling begins; what fails from then on may be cured by going on.

    Raises:
        ConfigError: an option is wrong. RunError: the folder is in the way, differs, or cannot be written.
        ServerError: no server answers, or one lacks a model.
    """
    options.check()
    folder = RunFolder(options.out)
    folder.check_free(options.resume)
    _allow_files(len(options.servers) * options.policy.max_in_flight + _OTHER_FILES)
    try:
        with _rare_collections():
            return asyncio.run(_sample(options, folder, display or Display(), repeat, on_begin))
    except BaseExceptionGroup as group:
        raise _first_error(group) from None


async def _sample(
    options: RunOptions, folder: RunFolder, display: Display, repeat: RunConfig | None, on_begin: Callable[[], None]
) -> SessionSummary:
    wall, cpu = perf_counter(), process_time()
    dataset = open_dataset(options.dataset)
    tasks = declare_tasks(dataset, options.limit)
    async with AsyncExitStack() as stack:
        servers = await _meet(options, display, stack)
        wish = Wish(options, dataset, tasks, repeat, _begun(options, folder))
        settled = await agree(wish, servers)
        config, builder = settled.config, settled.builder
        for warning in settled.warnings:
            display.notice(f"warning: {warning}")
        if builder.why_chats:
            display.notice(f"asking through chat completions: {builder.why_chats}")
        stack.enter_context(folder.locked())
        manifest, log = _begin(options, folder, begun(config, tasks, servers, settled.warnings), display)
        stack.callback(log.close)
        engine = Engine(settled.plan, config, builder, servers, log, display, manifest.answered_as)
        engine.watch.without = {name for server in servers for name in server.client.omitted}
        keeper = ManifestWriter(folder, manifest, engine, servers)
        at_once = models_at_once(options, (model for e in servers for model in e.served.values()))
        start = perf_counter()
        on_begin()
        await engine.run(at_once, options.policy, keeper.save)
        sampling_seconds = perf_counter() - start
        log.commit()
        keeper.close()
    if engine.board.complete:
        engine.watch.check_all(engine.board.tallies.values())
    tallies = engine.board.tallies.values()
    done, total = sum(tally.done for tally in tallies), sum(tally.total for tally in tallies)
    asked = sum(tally.answered for tally in tallies)
    return SessionSummary(folder, asked, done, total, perf_counter() - wall, sampling_seconds, process_time() - cpu)


async def _meet(options: RunOptions, display: Display, stack: AsyncExitStack) -> list[Server]:
    """The servers, greeted. Those that do not answer may come later, as long as one does.

    Raises:
        ServerError: none answers.
    """
    sampling = SamplingParameters(options.temperature, options.top_p, options.min_p, options.extra_body)
    servers = []
    for url in options.servers:
        client = Client(url, options.api_key, options.policy.timeout, sampling, display.notice)
        servers.append(Server(await stack.enter_async_context(client), options.models, options.policy))
    results = await asyncio.gather(*(server.connect() for server in servers), return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in errors:
        if not isinstance(error, ServerError):
            raise error
    if len(errors) == len(servers):
        raise ServerError("; ".join(map(str, errors)))
    for server, result in zip(servers, results, strict=True):
        if isinstance(result, BaseException):
            server.reason = str(result)
    return servers


def _begin(
    options: RunOptions, folder: RunFolder, manifest: Manifest, display: Display
) -> tuple[Manifest, PredictionLog]:
    """Make the folder ready, which is held, and open its predictions.

    Raises:
        RunError: the folder is in the way, or was begun otherwise.
    """
    folder.check_free(options.resume)
    manifest = folder.start_run(manifest, options.resume)
    if options.retry_errors:
        folder.results_path.unlink(missing_ok=True)  # of what is no longer there
        dropped = drop_retryable(folder.predictions_path)
        display.notice(f"asking again for {dropped} predictions that were given up or refused")
    return manifest, PredictionLog(folder.predictions_path)


def _begun(options: RunOptions, folder: RunFolder) -> RunConfig | None:
    return folder.manifest().config if options.resume and folder.manifest_path.exists() else None


def _allow_files(count: int) -> None:
    """Let this process open so many files, as far as the system does: each request in flight is a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for reference cycles less often.

    An answer with log-probabilities is parsed into hundreds of small objects that live for a moment; at the usual
    threshold each one starts a collection, which cost 0.1 ms a request.
    """
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a user is to see: one of ours if there is one."""
    errors: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            errors.append(error)
    return next((error for error in errors if isinstance(error, ArcBenchError)), errors[0])
