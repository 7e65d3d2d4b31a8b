"""The real packages, offline: what ``bench score`` and ``bench compare`` report is read back from each store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import cli
from harness.cli.entry import run_cli
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import ServedModel
from harness.runs.schemas.results_schema import Results
from harness.runs.schemas.tracker_run import TrackerRun
from harness.trackers.sent_file import read_links
from tests.support.runs.run_folders import edit_manifest, write_run
from tests.support.trackers import offline_environment, trackio_rows, wandb_config, wandb_history

ALL = "wandb,mlflow,trackio,tensorboard"
TRAINING = "https://trackers.test/r32"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two models and all that was reported of it."""
    folder = tmp_path_factory.mktemp("trackers")
    run = write_run(folder, "r", "toy/cross/evaluation#n=12", {"base": 0.1, "cross": 0.8})
    trained = {"wandb": TrackerRun(id="abc", project="arc-bench", url=TRAINING)}
    edit_manifest(run, served=[ServedModel(name="cross", parent="base", tracker_runs=trained)])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in offline_environment(folder).items():
            patch.setenv(name, value)
        patch.chdir(folder)
        assert run_cli(cli, ["score", "r", "--report-to", ALL]) == 0
        assert run_cli(cli, ["compare", "r", "--metric", "vote_2", "--report-to", ALL]) == 0
    return folder


@pytest.fixture
def results(store: Path) -> Results:
    return RunFolder(store / "r").results()


def vote_2(results: Results) -> dict[str, float]:
    """Return the three numbers that every tracker must have of the model ``cross``."""
    metric = results.models["cross"].metrics["vote_2"]
    return {"vote_2": metric.value, "vote_2/low": metric.low, "vote_2/high": metric.high}


def check_compared(scalars: dict[str, Any]) -> None:
    """Check the numbers of the comparison: difference with interval, p and Holm's p."""
    name = "vote_2/cross vs base"
    assert {name, f"{name}/p", f"{name}/p_holm"} <= scalars.keys()
    assert 0.5 < scalars[name] <= 1
    assert 0 < scalars[f"{name}/p"] == scalars[f"{name}/p_holm"] < 0.05


def test_wandb_has_numbers_configuration_tables_pictures_and_the_training_run(store: Path, results: Results) -> None:
    runs = {path: wandb_config(path) for path in (store / "wandb").glob("offline-run-*")}
    [cross] = [path for path, config in runs.items() if config.get("model") == "cross"]
    history = wandb_history(cross)
    assert {key: history[key] for key in vote_2(results)} == vote_2(results)
    assert runs[cross]["dataset"] == "toy/cross/evaluation#n=12"
    assert runs[cross]["links"] == {"training wandb": TRAINING}
    [table] = (cross / "files" / "media" / "table").glob("scores*.json")
    assert "vote_2" in [row[0] for row in json.loads(table.read_text())["data"]]
    [picture] = (cross / "files" / "media" / "images").glob("intervals*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    [compared] = [path for path, config in runs.items() if "models" in config]
    check_compared(wandb_history(compared))
    assert "wandb r@cross" in runs[compared]["links"]


def test_mlflow_has_numbers_parameters_and_artifacts(store: Path, results: Results) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    experiment = client.get_experiment_by_name("arc-bench")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"r@base", "r@cross", "compare base, cross"}
    cross = runs["r@cross"]
    assert cross.info.status == "FINISHED"
    assert {key: cross.data.metrics[key] for key in vote_2(results)} == pytest.approx(vote_2(results))
    assert (cross.data.params["model"], cross.data.params["prompting.prompt"]) == ("cross", "compact-v0")
    assert (cross.data.tags["command"], cross.data.tags["link.training wandb"]) == ("score", TRAINING)
    folder = store / cross.info.artifact_uri.removeprefix("file://")
    assert (folder / "tables" / "scores.csv").read_text().startswith("metric,value,low,high,")
    assert (folder / "pictures" / "intervals.png").read_bytes().startswith(b"\x89PNG")
    check_compared(runs["compare base, cross"].data.metrics)


def test_trackio_has_numbers_configuration_table_and_picture(store: Path, results: Results) -> None:
    rows = trackio_rows(store)
    assert set(rows) == {"r@base", "r@cross", "compare base, cross"}
    metrics, config = rows["r@cross"]
    assert {key: metrics[key] for key in vote_2(results)} == pytest.approx(vote_2(results))
    assert (config["model"], config["links"]) == ("cross", {"training wandb": TRAINING})
    assert metrics["scores"]["_type"] == "trackio.table"
    picture = store / "trackio" / "media" / metrics["intervals"]["file_path"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    check_compared(rows["compare base, cross"][0])


def test_tensorboard_has_numbers_texts_and_picture(store: Path, results: Results) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(store / "tensorboard" / "r@cross"))
    events.Reload()
    scalars = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert {key: scalars[key] for key in vote_2(results)} == pytest.approx(vote_2(results))
    assert set(events.Tags()["tensors"]) == {f"{name}/text_summary" for name in ("config", "links", "tables/scores")}
    [text] = events.Tensors("config/text_summary")[0].tensor_proto.string_val
    assert json.loads(text.decode().removeprefix("```json").removesuffix("```"))["model"] == "cross"
    assert events.Images("pictures/intervals")[0].encoded_image_string.startswith(b"\x89PNG")
    compared = EventAccumulator(str(store / "tensorboard" / "compare_base__cross"))
    compared.Reload()
    assert "vote_2/cross_vs_base/p_holm" in compared.Tags()["scalars"]


def test_the_run_folder_lists_what_was_reported(store: Path) -> None:
    links = read_links(store / "r")
    expected = {f"{tracker} r@{model}" for tracker in ALL.split(",") for model in ("base", "cross")}
    assert set(links) == expected
    assert links["tensorboard r@cross"] == str(store / "tensorboard" / "r@cross")
