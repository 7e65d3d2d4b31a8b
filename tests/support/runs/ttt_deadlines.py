"""Runs of ``bench ttt`` that a deadline cuts: it passes at an answer, or some seconds after a session's greeting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

from harness.cli.workflows.ttt.cutting import Missing
from harness.cli.workflows.ttt.estimate import estimate_ttt
from harness.cli.workflows.ttt.job import TttJob, TttOptions
from harness.cli.workflows.ttt.run import run_ttt
from harness.core.deadline import Deadline
from harness.sampling.options.run_options import RunOptions
from tests.support.runs.cut_runs import hang_after
from tests.support.runs.sampling_runs import QUICK_POLICY
from tests.support.runs.ttt_runs import DATASET, VIEWS, Site
from tests.support.servers.adapter_server import AdapterServer
from tests.support.servers.chat_answers import Body
from trainers.recipe.ttt_recipe import load_ttt_recipe

HOUR = 3600.0


def run(
    site: Site, out: Path, deadline: Deadline | None, *, rescore: int | None = None, train: bool = False, **changes: Any
) -> Missing | None:
    """Begin or resume a run that the base answers, unless its tasks are trained."""
    resume = out.exists()
    sampling = RunOptions(
        servers=(site.server.url,), models=("mine",), dataset=DATASET, n=VIEWS, out=out, max_tokens=24, resume=resume,
        policy=replace(QUICK_POLICY, max_in_flight=1), **changes,
    )  # fmt: skip
    options = TttOptions(
        load_ttt_recipe(site.recipe, ()), sampling, site.registry, rescore=rescore,
        training_deadline=None if train else Deadline(0.001), deadline=deadline,
    )  # fmt: skip
    job = TttJob.open(options)
    return run_ttt(job, estimate_ttt(job, on_gpu=False))


def passes_at(deadline: Deadline, number: int) -> Callable[[Body], None]:
    """Return a hook of a server that makes an hour's deadline pass at so many answers; greetings are not counted."""
    numbers = count(1)

    def notice(body: Body) -> None:
        if body.get("max_tokens") != 1 and next(numbers) == number:
            object.__setattr__(deadline, "started", monotonic() - HOUR)

    return notice


def hang_and_pass(server: AdapterServer, number: int, deadline: Deadline) -> None:
    """Make a server hang after so many answers, and an hour's deadline pass some seconds after every greeting."""
    hang_after(server, number)
    counted = server.refuse

    def notice(body: Body) -> None:
        counted(body)
        if body.get("max_tokens") == 1:  # before the session looks at the time that is left
            object.__setattr__(deadline, "started", monotonic() - HOUR + 6)

    server.refuse = notice
