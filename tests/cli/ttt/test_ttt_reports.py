"""``bench ttt --report-to``: the finished run is reported with what its tasks cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.runs.folder import RunFolder
from tests.cli.ttt.test_ttt_options import RECIPE
from tests.support.commands import run_bench
from tests.support.runs.ttt_runs import Site
from tests.support.servers.adapter_server import AdapterServer


@pytest.mark.slow
def test_a_finished_run_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(json.dumps({**RECIPE, "ttt": {"steps": 2}}))
    with AdapterServer(tmp_path / "registry") as server:
        words = Site(server, tmp_path / "registry", recipe).words(out, "--limit", 1, "--report-to", "tensorboard")
        status, _, err = run_bench(capsys, *words)
    assert status == 0, err
    assert err.splitlines()[-1] == f"reported to tensorboard: run@mine ({out}/tensorboard/run@mine)"
    events = EventAccumulator(str(out / "tensorboard" / "run@mine"))
    events.Reload()
    scalars = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert (scalars["ttt/tasks_with_adapter"], scalars["ttt/tasks_without_adapter"]) == (1, 0)
    assert scalars["ttt/train_seconds"] > 0
    metric = RunFolder(out).results().models["mine"].metrics["vote_2"]
    assert [scalars["vote_2"], scalars["vote_2/high"]] == pytest.approx([metric.value, metric.high])
