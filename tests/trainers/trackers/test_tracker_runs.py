"""A training that reports to trackers records in its manifest where; one that does not has the manifest as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.trackers import offline_environment
from tests.support.training.train_runs import adapter_manifest, recipe_data, train_adapter


@pytest.mark.slow
def test_the_manifest_names_every_trackers_run(tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in offline_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    output = tmp_path / "r8"
    trackers = ["tensorboard", "wandb", "trackio", "mlflow"]
    train_adapter(recipe_data(qwen, output, max_steps=2, report_to=trackers))  # trackers print to stdout, too
    runs = adapter_manifest(output).tracker_runs
    assert runs is not None
    assert set(runs) == set(trackers)
    assert {run.name for run in runs.values()} >= {"r8"}
    [folder] = (tmp_path / "wandb").glob("offline-run-*")
    assert folder.name.endswith(f"-{runs['wandb'].id}")
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert runs["tensorboard"].id == str(tmp_path / "tensorboard")
    from mlflow.tracking import MlflowClient

    stored = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(runs["mlflow"].id)
    assert stored.info.status == "FINISHED"
    assert "loss" in stored.data.metrics
    assert runs["trackio"].id.encode() in b"".join(path.read_bytes() for path in (tmp_path / "trackio").glob("*.db*"))


@pytest.mark.slow
def test_without_trackers_the_manifest_has_no_such_field(few_run: Path) -> None:
    assert "tracker_runs" not in (few_run / "manifest.json").read_text()
