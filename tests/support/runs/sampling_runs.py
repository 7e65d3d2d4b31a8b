"""Run ``bench run`` against a test's server, in this process or in one that can be killed, and read its predictions.

At the end: runs with ``--stop``, whose answers leave many votes close.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson

from harness.client.pool.retry import RetryPolicy
from harness.client.protocol.request import message_dicts
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.schemas.prediction_schema import PredictionRecord
from harness.sampling.options.config_draft import ConfigDraft
from harness.sampling.options.run_options import RunOptions
from harness.sampling.plan import Plan
from harness.sampling.progress_display import Display
from harness.sampling.session import SessionSummary, sample_run
from tests.support.runs.run_folders import load_records
from tests.support.servers.chat_answers import Body, echo, mixed_answer
from tests.support.servers.chat_server import ChatServer

QUICK_POLICY = RetryPolicy(max_in_flight=16, retries=3, timeout=5.0, wait=5.0, backoff=0.005)
PATIENT_POLICY = replace(QUICK_POLICY, retries=60, backoff=0.001)
PLANNED = 64
"""Number of predictions of `bench_run_command`."""


def run_options(server: ChatServer | str, out: Path, **changes: object) -> RunOptions:
    """Return options for two models, five tasks and four predictions each: 40 predictions."""
    options = RunOptions(
        servers=(server if isinstance(server, str) else server.url,),
        models=("base", "cross"),
        dataset="toy/copy/evaluation#n=5",
        n=4,
        out=out,
        prompt="compact-v0",
        encoder="MinimalGridEncoder()",
        policy=QUICK_POLICY,
    )
    return replace(options, **changes)  # type: ignore[arg-type]


def run_sampling(options: RunOptions, output: io.StringIO | None = None) -> SessionSummary:
    """Sample a run in this process; its progress goes to ``output``."""
    return sample_run(options, Display(io.StringIO() if output is None else output))


def used_api(run: Path) -> str:
    """Return which API a run used: chat or completions."""
    return RunFolder(run).manifest().config.api


def warnings_with(run: Path, text: str) -> list[str]:
    """Return the warnings of a run's manifest that contain a text."""
    return [line for line in RunFolder(run).manifest().warnings if text in line]


def predictions_without_times(
    run: Path, select: Callable[[PredictionRecord], bool] = lambda record: True
) -> list[PredictionRecord]:
    """Return the selected predictions of a run, sorted by key and with their times set to 0."""
    records = [r.model_copy(update={"seconds": 0.0}) for r in load_records(run) if select(r)]
    return sorted(records, key=lambda record: record.key)


def count_outcomes(run: Path) -> Counter[str]:
    """Return the number of predictions with each outcome."""
    return Counter(record.outcome for record in load_records(run))


def right_answers(options: RunOptions) -> dict[str, str]:
    """Return the right answer to every chat of a run, by its messages as JSON."""
    dataset = open_dataset(options.dataset)
    tasks = list(iterate_tasks(dataset))
    plan = Plan(ConfigDraft(options, dataset, tasks).complete({})[0], tasks)
    answers = {}
    for number in range(len(plan)):
        draw = plan.sample(number)
        format_ = plan.formats[draw.model]
        view = draw.augmentation.apply_task(draw.task)
        messages = format_.prompt.messages(view, draw.test_index, format_.encoder)
        answers[json.dumps(message_dicts(messages))] = format_.prompt.answer(view, draw.test_index, format_.encoder)
    return answers


def bench_run_command(url: str, out: Path, *more: str) -> list[str]:
    """Return a ``bench run`` command for two models, eight tasks and four predictions each."""
    return [
        sys.executable, "-m", "harness.cli", "run", "--server", url, "--model", "base", "--model", "cross",
        "--dataset", "toy/copy/evaluation#n=8", "-n", "4", "--out", str(out), "--prompt", "compact-v0",
        "--grid-encoder", "MinimalGridEncoder()", "--max-in-flight", "4", *more,
    ]  # fmt: skip


def uninterrupted_run(out: Path, *, tokens: bool = False) -> Path:
    """Run `bench_run_command` against a server without faults."""
    with ChatServer(mixed_answer, tokens=tokens) as server:
        subprocess.run(bench_run_command(server.url, out), check=True, capture_output=True)
    return out


def metrics_and_failures(run: Path) -> bytes:
    """Return the metrics and failures of every model in results.json."""
    models = orjson.loads((run / "results.json").read_bytes())["models"]
    return orjson.dumps(
        {name: {part: model[part] for part in ("metrics", "failures")} for name, model in models.items()}
    )


def assert_same_run(run: Path, expected: Path) -> None:
    """Assert that two runs have the same predictions, except for times, and the same results."""
    assert predictions_without_times(run) == predictions_without_times(expected)
    assert metrics_and_failures(run) == metrics_and_failures(expected)


STOPPING_POLICY = RetryPolicy(max_in_flight=16, retries=3, timeout=20.0, wait=5.0, backoff=0.005)
MODELS = ("base", "cross")


def ambiguous_answer(body: Body) -> tuple[str, str]:
    """Return an answer chosen by a hash: right, recoloured, broken, or rotated by 180° (one grid in every view)."""
    text = echo(body)
    digest = hashlib.sha256(repr([body["model"], body["messages"]]).encode()).digest()
    # The number of cells of each colour is the same in every view. It decides how clear a task's vote is and which
    # grid wins it.
    task_digest = hashlib.sha256(repr(sorted(Counter(text).values())).encode()).digest()
    common = 180 + task_digest[0] % 70
    if digest[0] >= common:
        return ("no grid", "stop") if digest[1] < 40 else (text.replace(text[0], str(digest[1] % 10)), "stop")
    right = (digest[0] < common * 0.66) == (task_digest[1] < 160)
    return (text if right else text[::-1]), "stop"


def stopping_options(server: ChatServer, out: Path, **changes: object) -> RunOptions:
    """Return options for 20 test outputs per model with 16 samples each.

    Rounds end after 8, 13 and 15 samples (8, 10, 12 and 14 with a risk).
    """
    options = RunOptions(
        servers=(server.url,), models=MODELS, dataset="toy/copy/evaluation#n=20", n=16, out=out, prompt="compact-v0",
        encoder="MinimalGridEncoder()", policy=STOPPING_POLICY,
    )  # fmt: skip
    return replace(options, **changes)  # type: ignore[arg-type]


def copy_interrupted(run: Path, to: Path, lines: int) -> None:
    """Copy a run as it would be if killed after ``lines`` predictions, with an incomplete line after them."""
    to.mkdir()
    folder, copy = RunFolder(run), RunFolder(to)
    copy.write_manifest(folder.manifest().model_copy(update={"finished": None}))
    saved_lines = folder.predictions_path.read_bytes().splitlines(keepends=True)
    copy.predictions_path.write_bytes(b"".join(saved_lines[:lines]) + b"".join(saved_lines[lines : lines + 1])[:50])
