"""A run of a million predictions is resumed and scored in little memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from harness.client.protocol.response import Reply
from harness.core.grid import Grid
from harness.core.random_stream import Stream
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import RunConfig
from harness.runs.schemas.prediction_schema import Outcome
from harness.sampling.plan import Plan, Sample
from harness.sampling.recording import prediction_line
from tests.support.commands import OWN_PEAK_MIB, wait_until
from tests.support.servers.chat_answers import no_grid
from tests.support.servers.chat_server import ChatServer

pytestmark = pytest.mark.long

N = 2400
MISSING = 100
MEGABYTES = 600


def command(url: str, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "harness.cli", "run", "--server", url, "--model", "base", "--dataset", "arc1/evaluation",
        "-n", str(N), "--out", str(out), *more,
    ]  # fmt: skip


def predict(sample: Sample, stream: Stream) -> tuple[Outcome, Grid | None]:
    """Return a prediction: a quarter are right, a tenth fail, the rest are wrong in one to three cells."""
    truth = sample.task.test[sample.test_index].output
    assert truth is not None
    chance = stream.uniform()
    if chance < 0.25:
        return "grid", truth
    if chance < 0.35:
        return "unparsed", None
    cells = bytearray(truth.cells)
    for _ in range(stream.between(1, 3)):
        cells[stream.below(len(cells))] = stream.below(10)
    return "grid", Grid(truth.height, truth.width, bytes(cells))


def write_predictions(out: Path, config: RunConfig) -> int:
    """Write all but the last predictions of a run and return how many it makes."""
    plan = Plan(config, list(iterate_tasks(open_dataset(config.dataset))))
    with (out / "predictions.jsonl").open("wb") as file:
        for number in range(len(plan) - MISSING):
            sample = plan.sample(number)
            stream = Stream("million", number)
            outcome, grid = predict(sample, stream)
            reply = Reply("x" * 300, "stop", "base", 100, -5 * stream.uniform(), 0.1)
            file.write(prediction_line(sample, outcome, grid, reply))
    return len(plan)


def test_a_million_predictions_are_resumed_and_scored_within_600_mib(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with ChatServer(no_grid, models={"base": {}}) as server:
        with subprocess.Popen(command(server.url, out), stderr=subprocess.DEVNULL) as process:
            wait_until(lambda: (out / "manifest.json").exists())
            process.kill()
        assert write_predictions(out, RunFolder(out).manifest().config) > 1_000_000
        code = "import sys; from harness.cli import main\ntry:\n    main()\nfinally:\n    "
        code += f"print('peak', {OWN_PEAK_MIB}, file=sys.stderr)"
        resumed = [sys.executable, "-c", code, *command(server.url, out, "--resume")[3:]]
        done = subprocess.run(resumed, capture_output=True, text=True, check=True)
    peak = int(done.stderr.rsplit("peak ", 1)[1])
    print(f"peak memory {peak} MiB; {resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s of CPU")
    assert f"{MISSING} predictions in" in done.stderr
    assert peak < MEGABYTES
