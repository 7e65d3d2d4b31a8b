"""One session of ``bench rescore``: from the options to the file that has a line for every candidate and view."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import fmean
from time import perf_counter, process_time

from harness.candidates.rescore_log import RescoreLog, check_header, check_scorer_hashes
from harness.candidates.rescore_plan import RescorePlan
from harness.candidates.rescores import Rescores, read_rescores
from harness.client.http.http_client import Client
from harness.client.pool.server_pool import before_deadline, connect_servers
from harness.client.protocol.error_response import TransientError
from harness.client.protocol.parameters import SamplingParameters
from harness.client.scoring.score_format import PromptAnswers, ScoreRequest
from harness.client.scoring.score_server import ScoreServer
from harness.core.deadline import Deadline
from harness.predictions.rescore_source import RescoreSource, open_rescore_source
from harness.rescoring.options import NoCandidatesError, RescoreEstimate, RescoreOptions, RescoreSummary
from harness.rescoring.score_work import ScoreWork, view_sample
from harness.rescoring.setup import ScoringSetup, negotiate_scoring
from harness.runs.environment import now
from harness.runs.folder import RunFolder
from harness.runs.schemas.deadline_record import RescoreDeadline
from harness.sampling.engine import Engine
from harness.sampling.progress_display import Display
from harness.sampling.session import first_error, raise_file_limit, rare_garbage_collection

_MEASURED_VIEWS = 64


@dataclass(frozen=True)
class _Prepared:
    """The plan, prompts and servers of a session, before it writes anything."""

    plan: RescorePlan
    setup: ScoringSetup
    servers: list[ScoreServer]
    saved: Rescores
    """The rescores already in the file."""


def rescore(
    options: RescoreOptions, display: Display | None = None, source: RescoreSource | None = None
) -> RescoreSummary:
    """Request every missing log-probability and append it to the file. Ctrl-C ends the session early.

    The cost is printed before the first request. A session that was killed at any moment is completed by the next.

    Args:
        source: the candidates; None opens ``options.run``.

    Raises:
        ConfigError: an option is wrong. RunError: the predictions or the weights of a scorer changed since earlier
            sessions, or a file cannot be written. ServerError: no server answers, or one cannot score.
    """
    options.check()
    source = open_rescore_source(options.run) if source is None else source
    raise_file_limit(len(options.servers) * options.policy.max_in_flight)
    try:
        with rare_garbage_collection():
            return asyncio.run(_run_session(options, source, display or Display()))
    except BaseExceptionGroup as group:
        raise first_error(group) from None


def estimate_rescore(
    options: RescoreOptions, display: Display | None = None, source: RescoreSource | None = None
) -> RescoreEstimate:
    """Check the options with the servers, and return what ``rescore`` would request. Nothing is written.

    Raises:
        ConfigError, RunError, ServerError: as ``rescore``.
    """
    options.check()
    source = open_rescore_source(options.run) if source is None else source
    return asyncio.run(_estimate_session(options, source, display or Display()))


async def _estimate_session(options: RescoreOptions, source: RescoreSource, display: Display) -> RescoreEstimate:
    async with _prepare(options, source, display) as ready:
        return _estimate(ready)


async def _run_session(options: RescoreOptions, source: RescoreSource, display: Display) -> RescoreSummary:
    """Implement ``rescore``."""
    wall, cpu = perf_counter(), process_time()
    deadline = options.deadline
    async with AsyncExitStack() as stack:
        async with before_deadline(deadline, "the servers were ready"):
            ready = await stack.enter_async_context(_prepare(options, source, display))
        display.notice(_estimate(ready).text())
        with RunFolder(source.folder).locked():
            plan = ready.plan
            log = RescoreLog(source.path, source.header(plan.views), dict.fromkeys(plan.scorers, plan.top))
            try:
                check_scorer_hashes(source.path, log.rescores, ready.setup.hashes)
                work = ScoreWork(ready.setup, plan, log, display, by_output=deadline is not None)
                engine = Engine(work, ready.servers, display)
                is_cut = await engine.run(1, options.policy, lambda: None, deadline)
            finally:
                log.close()
            cut = _cut_scorers(work, deadline) if is_cut and deadline is not None else {}
            if cut:
                log.record_deadlines(cut)
    tallies = work.board.tallies.values()
    failures = {kind: sum(t.failures[kind] for t in tallies) for kind in ("too_long", "unwritable")}
    return RescoreSummary(
        path=source.path,
        scored=sum(tally.answered for tally in tallies),
        done=sum(tally.done for tally in tallies),
        total=sum(tally.total for tally in tallies),
        failures={kind: number for kind, number in failures.items() if number},
        given_up=work.given_up,
        seconds=perf_counter() - wall,
        cpu_seconds=process_time() - cpu,
        is_cut=bool(cut),
    )


def _cut_scorers(work: ScoreWork, deadline: Deadline) -> dict[str, RescoreDeadline]:
    """Return what a deadline left out, by scorer; what servers failed on in this session is not counted."""
    passed = now()
    cut = {}
    for tally in work.board.tallies.values():
        failed = tally.failures["refused"] + tally.failures["error"]
        if missing := tally.total - tally.done - failed:
            cut[tally.model] = RescoreDeadline(
                seconds=deadline.seconds, passed=passed, missing=missing, total=tally.total
            )
    return cut


@asynccontextmanager
async def _prepare(options: RescoreOptions, source: RescoreSource, display: Display) -> AsyncIterator[_Prepared]:
    """Check the files, connect to the servers and settle the prompts; the clients are open within the block."""
    saved = read_rescores(source.path)
    header = source.header(options.views_of(None if saved is None else saved.header))
    if saved is not None:
        check_header(source.path, saved.header, header)
    plan = RescorePlan(source.candidates, options.scorers(source), header.views, options.top)
    if not any(map(plan.total, plan.scorers)):
        raise NoCandidatesError(f"{source.folder}: no view proposed a grid, so that there is nothing to rescore")
    for warning in (*source.warnings, *([] if saved is None else _narrowed(saved, plan))):
        display.notice(f"warning: {warning}")
    async with AsyncExitStack() as stack:
        servers = []
        for url in options.servers:
            client = Client(
                url, options.api_key, options.policy.timeout, SamplingParameters(), display.notice, options.alias
            )
            servers.append(ScoreServer(await stack.enter_async_context(client), plan.scorers, options.policy))
        await connect_servers(servers)
        same_weights = options.model is None
        setup = await negotiate_scoring(source, plan.scorers, plan.views, servers, same_weights=same_weights)
        for warning in setup.warnings:
            display.notice(f"warning: {warning}")
        present = Rescores(header) if saved is None else saved
        check_scorer_hashes(source.path, present, setup.hashes)
        ready = _Prepared(plan, setup, servers, present)
        await _detect_methods(ready)
        yield ready


def _narrowed(saved: Rescores, plan: RescorePlan) -> list[str]:
    """Return a warning for each scorer that rescored more candidates than ``--top`` allows it from now on."""
    limits = {name: (saved.header.top or {}).get(name) for name in plan.scorers if name in saved.scorers}
    return [
        f"{name} rescored {'all candidates' if limit is None else f'the {limit} best candidates'} before; with --top "
        f"{plan.top} poe and kgmon use the {plan.top} best only"
        for name, limit in limits.items()
        if plan.top is not None and (limit is None or limit > plan.top)
    ]


async def _detect_methods(ready: _Prepared) -> None:
    """Detect how each server that answers scores, on which the cost depends.

    Raises:
        ServerError: one cannot score.
    """
    item = next(ready.plan.missing(ready.saved), None)
    if item is None:
        return
    sample = view_sample(ready.setup, item)
    prompt = ready.setup.builder.prompt_ids(sample)
    probe = ScoreRequest(item.scorer, (PromptAnswers(prompt[:2], [prompt[2:4]]),))
    present = [server.detect(probe) for server in ready.servers if server.up.is_set()]
    for result in await asyncio.gather(*present, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, TransientError):
            raise result


def _estimate(ready: _Prepared) -> RescoreEstimate:
    """Return what a session will request, measured on prompts that are spread over it."""
    items = list(ready.plan.missing(ready.saved))
    step = -(-len(items) // _MEASURED_VIEWS) or 1
    builder = ready.setup.builder
    prompts: list[int] = []
    answers: list[int] = []
    for item in items[::step]:
        sample = view_sample(ready.setup, item)
        prompts.append(len(builder.prompt_ids(sample)))
        answers += [len(builder.answer_ids(sample, grid)) for grid in item.grids]
    missing = sum(len(item.grids) for item in items)
    shared = all(server.scores.method in (None, "arc_score") for server in ready.servers)
    return RescoreEstimate(
        scorers=tuple(ready.plan.scorers),
        candidates=sum(map(ready.plan.total, ready.plan.scorers)) // ready.plan.views,
        views=ready.plan.views,
        missing=missing,
        prompts=len(items),
        prompt_tokens=fmean(prompts) if prompts else 0.0,
        answer_tokens=fmean(answers) if answers else 0.0,
        is_exact=step == 1,
        prompts_computed=len(items) if shared else missing,
    )
