"""Make a small run against a test's server, and read what it left."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

from harness.client.request import message_dicts
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
    """Return options for two models, five tasks and four samples each: 40 predictions."""
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


def sample(chosen: RunOptions, shown: io.StringIO | None = None) -> SessionSummary:
    """Make the run; what it shows is written to ``shown``."""
    return sample_run(chosen, Display(io.StringIO() if shown is None else shown))


def api(run: Path) -> str:
    """Return the route of a run's requests."""
    return RunFolder(run).manifest().config.api


def warnings_with(run: Path, text: str) -> list[str]:
    """Return the warnings of a run's manifest that contain a text."""
    return [line for line in RunFolder(run).manifest().warnings if text in line]


def stable(run: Path, wanted: Callable[[PredictionRecord], bool] = lambda record: True) -> list[PredictionRecord]:
    """Return the predictions of a run sorted by key, without their times."""
    records = [r.model_copy(update={"seconds": 0.0}) for r in load_records(run) if wanted(r)]
    return sorted(records, key=lambda record: record.key)


def outcomes(run: Path) -> Counter[str]:
    """Return the number of predictions by outcome."""
    return Counter(record.outcome for record in load_records(run))


def oracle(chosen: RunOptions) -> dict[str, str]:
    """Return the right answer to each prompt of a run, by the JSON of its messages."""
    dataset = open_dataset(chosen.dataset)
    tasks = list(iterate_tasks(dataset))
    plan = Plan(ConfigDraft(chosen, dataset, tasks).complete({})[0], tasks)
    known = {}
    for number in range(len(plan)):
        sample = plan.sample(number)
        format_ = plan.formats[sample.model]
        view = sample.augmentation.apply_task(sample.task)
        chat = message_dicts(format_.prompt.messages(view, sample.test_index, format_.encoder))
        known[json.dumps(chat)] = format_.prompt.answer(view, sample.test_index, format_.encoder)
    return known


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until the condition is true.

    Raises:
        AssertionError: it is not within ``seconds``.
    """
    waiter = threading.Event()
    end = monotonic() + seconds
    while monotonic() < end:
        if condition():
            return
        waiter.wait(0.005)
    raise AssertionError("the condition did not come true in time")
