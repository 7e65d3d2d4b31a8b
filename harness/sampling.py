"""A run's sampling session, from options to a finished manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter, process_time

from harness.client import Client, Sampling
from harness.datasets import open_dataset
from harness.endpoint import Endpoint
from harness.engine import Engine
from harness.environment import describe_environment
from harness.errors import ArcBenchError, ConfigError, ServerError
from harness.plan import Plan
from harness.predictions import PredictionLog
from harness.progress import Display
from harness.records import Manifest, RunConfig, ServedModel
from harness.runs import RunFolder
from harness.settings import RunOptions, complete, declare_tasks


@dataclass(frozen=True)
class SampleSummary:
    """How a session of a run went."""

    folder: RunFolder
    asked: int
    """Predictions made in this session."""
    done: int
    total: int
    seconds: float
    cpu_seconds: float
    """Of this process, from start to end of the session."""

    @property
    def finished(self) -> bool:
        """Whether every planned prediction is there."""
        return self.done == self.total


def sample_run(options: RunOptions, display: Display | None = None, repeat: RunConfig | None = None) -> SampleSummary:
    """Make every prediction of a run that is not there yet; Ctrl-C ends it early with everything saved.

    Args:
        repeat: the configuration that must come out, where a run is repeated; prompts and encoders are taken from it.

    Raises:
        ConfigError: an option is wrong. RunError: the folder is in the way, differs, or cannot be written.
        ServerError: no server answers, or one lacks a model.
    """
    options.check()
    folder = RunFolder(options.out)
    folder.check_free(options.resume)
    try:
        return asyncio.run(_sample(options, folder, display or Display(), repeat))
    except BaseExceptionGroup as group:
        raise _first_error(group) from None


async def _sample(options: RunOptions, folder: RunFolder, display: Display, repeat: RunConfig | None) -> SampleSummary:
    wall, cpu = perf_counter(), process_time()
    dataset = open_dataset(options.dataset)
    tasks = declare_tasks(dataset, options.limit)
    sampling = Sampling(
        options.temperature, options.top_p, options.min_p, options.extra_body, options.chat_template_kwargs
    )
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Client(url, options.api_key, options.policy.timeout, sampling, display.notice)
            )
            for url in options.servers
        ]
        endpoints = [Endpoint(client, options.models, options.policy) for client in clients]
        await _greet(endpoints, display)
        config, warnings = complete(options, dataset, tasks, _served(endpoints), repeat)
        for warning in warnings:
            display.notice(f"warning: {warning}")
        stack.enter_context(folder.locked())
        folder.check_free(options.resume)
        manifest = folder.begin(_manifest(config, endpoints, warnings), options.resume)
        log = PredictionLog(folder.predictions_path)
        stack.callback(log.close)
        engine = Engine(Plan(config, tasks), config, endpoints, log, display)
        await engine.run(options.models_at_once, options.policy)
        log.commit()
        manifest = _closed(manifest, engine, endpoints)
        folder.write_manifest(manifest)
    done = sum(tally.done for tally in engine.board.tallies.values())
    asked = sum(tally.answered for tally in engine.board.tallies.values())
    return SampleSummary(folder, asked, done, len(engine.plan), perf_counter() - wall, process_time() - cpu)


async def _greet(endpoints: Sequence[Endpoint], display: Display) -> None:
    """Meet every server. Those that do not answer may come later, as long as one does.

    Raises:
        ServerError: none answers.
    """
    results = await asyncio.gather(*(endpoint.greet() for endpoint in endpoints), return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in errors:
        if not isinstance(error, ServerError):
            raise error
    if len(errors) == len(endpoints):
        raise ServerError("; ".join(map(str, errors)))
    for endpoint, result in zip(endpoints, results, strict=True):
        if isinstance(result, BaseException):
            endpoint.reason = str(result)


def _served(endpoints: Sequence[Endpoint]) -> dict[str, ServedModel]:
    """The run's models as the servers name them; servers that name other weights must not share a run."""
    found: dict[str, ServedModel] = {}
    for endpoint in endpoints:
        for name, model in endpoint.served.items():
            first = found.setdefault(name, model)
            if first.hash != model.hash:
                raise ConfigError(f"the servers hold different versions of {name}: {first.hash} and {model.hash}")
    return found


def _manifest(config: RunConfig, endpoints: Sequence[Endpoint], warnings: Sequence[str]) -> Manifest:
    served = _served(endpoints)
    return Manifest(
        format=1,
        config=config,
        environment=describe_environment(),
        servers=[endpoint.client.url for endpoint in endpoints],
        served=[served[model.name] for model in config.models if model.name in served],
        warnings=list(warnings),
        without=sorted({name for endpoint in endpoints for name in endpoint.client.without}),
        answered_as={},
        started=_now(),
        resumed=[],
        finished=None,
    )


def _closed(manifest: Manifest, engine: Engine, endpoints: Sequence[Endpoint]) -> Manifest:
    """The manifest after a session; ``finished`` only when every prediction is there."""
    without = {name for endpoint in endpoints for name in endpoint.client.without}
    complete = all(tally.done == tally.total for tally in engine.board.tallies.values())
    answered = {
        name: sorted({*manifest.answered_as.get(name, []), *names}) for name, names in engine.answered_as.items()
    }
    changes = {
        "without": sorted({*manifest.without, *without}),
        "answered_as": answered,
        "finished": _now() if complete else None,
    }
    return manifest.model_copy(update=changes)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
