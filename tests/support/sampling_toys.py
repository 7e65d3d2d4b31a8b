"""What tests of the sampling engine share: a quick run against a test's server, and what it left."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

from harness.client.retry import RetryPolicy
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.schema import PredictionRecord
from harness.sampling.options import ConfigDraft, RunOptions
from harness.sampling.plan import Plan
from harness.sampling.progress_display import Display
from harness.sampling.session import SessionSummary, sample_run
from tests.support.chat_server import ChatServer
from tests.support.run_files import load_records

QUICK = RetryPolicy(max_in_flight=16, retries=3, timeout=5.0, wait=5.0, backoff=0.005)
PATIENT = replace(QUICK, retries=60, backoff=0.001)


def options(server: ChatServer | str, out: Path, **changes: object) -> RunOptions:
    """Two models, five tasks, four predictions each: 40 in all."""
    chosen = RunOptions(
        servers=(server if isinstance(server, str) else server.url,),
        models=("base", "cross"),
        dataset="toy/copy/evaluation#n=5",
        n=4,
        out=out,
        prompt="compact-v0",
        encoder="MinimalGridEncoder()",
        policy=QUICK,
    )
    return replace(chosen, **changes)  # type: ignore[arg-type]


def sample(chosen: RunOptions, said: io.StringIO | None = None) -> SessionSummary:
    """Make the run; ``said`` takes what it shows."""
    return sample_run(chosen, Display(io.StringIO() if said is None else said))


def api(run: Path) -> str:
    """The route by which a run asked."""
    return RunFolder(run).manifest().config.api


def stable(run: Path, wanted: Callable[[PredictionRecord], bool] = lambda record: True) -> list[PredictionRecord]:
    """The predictions of a run by key, without their times."""
    found = [r.model_copy(update={"seconds": 0.0}) for r in load_records(run) if wanted(r)]
    return sorted(found, key=lambda record: record.key)


def outcomes(run: Path) -> Counter[str]:
    """How many predictions ended in which way."""
    return Counter(record.outcome for record in load_records(run))


def oracle(chosen: RunOptions) -> dict[str, str]:
    """The right answer to every chat of a run, by its messages."""
    dataset = open_dataset(chosen.dataset)
    tasks = list(iterate_tasks(dataset))
    plan = Plan(ConfigDraft(chosen, dataset, tasks).complete({})[0], tasks)
    known = {}
    for number in range(len(plan)):
        draw = plan.sample(number)
        asker = plan.formats[draw.model]
        view = draw.augmentation.apply_task(draw.task)
        chat = [
            {"role": m.role, "content": m.content} for m in asker.prompt.messages(view, draw.test_index, asker.encoder)
        ]
        known[json.dumps(chat)] = asker.prompt.answer(view, draw.test_index, asker.encoder)
    return known


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Poll until the condition is true."""
    waiter = threading.Event()
    end = monotonic() + seconds
    while monotonic() < end:
        if condition():
            return
        waiter.wait(0.005)
    raise AssertionError("the condition did not come true in time")
