"""``bench ttt --resume``: what is refused before anything is trained, and that one task is answered by one model."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from harness.runs.environment import now
from harness.runs.folder import RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from tests.support.commands import run_bench
from tests.support.runs.run_folders import edit_manifest
from tests.support.runs.ttt_runs import IDS, VIEWS, Site, answers, assert_alike, records
from tests.support.vllm.dtypes import is_exact

pytestmark = pytest.mark.slow
Capture = pytest.CaptureFixture[str]


def copy_of(run: Path, out: Path) -> Path:
    """Return a copy of a run."""
    return Path(shutil.copytree(run, out))


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["-n", VIEWS + 1], f"n: {VIEWS} -> {VIEWS + 1}"),
        (["--max-tokens", 25], "mine's max_tokens: 24 -> 25"),
        (["--search", "dfs"], "search: null -> "),
        (["--name", "another"], "the run's model: mine -> another"),
        (["--set", "seed=3"], "changed: seed"),
        (["--rule", "poe"], 'rule: null -> "poe"'),
    ],
)
def test_another_configuration_is_refused_before_anything_is_removed(
    site: Site, finished: Path, tmp_path: Path, capsys: Capture, words: list[object], change: str
) -> None:
    out = copy_of(finished, tmp_path / "run")
    before = (out / "predictions.jsonl").read_bytes()
    status, _, errors = run_bench(capsys, *site.words(out, "--resume", "--task", IDS[0], *words))
    assert (status in (1, 2), change in errors) == (True, True), errors
    assert (out / "predictions.jsonl").read_bytes() == before
    assert (out / "adapters" / IDS[0]).exists()


def test_an_ordinary_run_is_not_resumed(site: Site, finished: Path, tmp_path: Path, capsys: Capture) -> None:
    out = copy_of(finished, tmp_path / "run")
    edit_manifest(out, ttt=None)
    status, _, errors = run_bench(capsys, *site.words(out, "--resume"))
    assert status == 1
    assert "is a run without test-time training" in errors


def test_an_ordinary_run_is_not_begun_in_a_folder_of_test_time_training(
    site: Site, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ttt.json").write_text("{}")
    words = ["run", "--server", site.server.url, "--model", "tiny-base", "--dataset", "toy/cross#n=1"]
    status, _, errors = run_bench(capsys, *words, "--out", tmp_path / "run", "--resume")
    assert status == 1
    assert "no manifest.json: it is not a run" in errors


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_candidates_are_not_rescored_by_another_model_than_answered(
    site: Site, finished: Path, tmp_path: Path, capsys: Capture, damage: str
) -> None:
    out = copy_of(finished, tmp_path / "run")
    folder = out / "adapters" / IDS[1]
    if damage == "gone":
        shutil.rmtree(folder)
    else:
        shutil.rmtree(folder)
        shutil.copytree(out / "adapters" / IDS[0], folder)
    status, _, errors = run_bench(capsys, *site.words(out, "--resume", "--rescore", 2))
    assert status == 1
    assert {"gone": f"{folder} is gone", "changed": f"{folder}: is not the adapter that answered"}[damage] in errors
    assert not (out / "rescores.jsonl").exists()


def test_a_task_that_the_base_answered_in_part_is_answered_by_its_adapter_alone(
    site: Site, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A deadline prevents the training of all tasks; a kill while the last is answered; a resume without deadline."""
    out = tmp_path / "run"
    assert run_bench(capsys, *site.words(out, "--training-deadline", "0.001s"))[0] == 0
    TrainingLog(out / TTT_LOG).remove([IDS[2]])
    folder = RunFolder(out)
    folder.write_manifest(folder.manifest().model_copy(update={"finished": None, "predictions_sha256": None}))
    lines = folder.predictions_path.read_bytes().splitlines(keepends=True)
    last = max(k for k, line in enumerate(lines) if IDS[2].encode() in line)
    folder.predictions_path.write_bytes(b"".join(lines[:last] + lines[last + 1 :]))
    while now() == folder.manifest().started:  # two commands of one second count as one session
        time.sleep(0.05)
    assert run_bench(capsys, *site.words(out, "--resume"))[0] == 0
    assert [record.outcome for record in records(out).values()] == ["untrained", "untrained", "trained"]
    assert len(RunFolder(out).manifest().resumed) == 1
    if is_exact():
        assert_alike(answers(out, IDS[2]), answers(finished, IDS[2]))
