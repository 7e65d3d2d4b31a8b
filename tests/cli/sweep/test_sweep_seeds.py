"""Seeds that are added to a finished sweep over axes, with real processes: what is there stays as it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_demo import servers_of
from tests.faults.test_sweep import SWEEP, command

AXES: dict[str, Any] = {
    "recipe": {**SWEEP["recipe"], "datasets": "toy/cross#n=50"},
    "axes": {"lora.rank": [2, 4]},
    "seeds": [0],
    "serve": SWEEP["serve"],
    "evaluation": {**SWEEP["evaluation"], "base": False},
}
FIRST, ADDED = ["rank2", "rank4"], ["rank2-s1", "rank4-s1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a sweep over axes that was run with one seed, and kill its servers at the end."""
    folder = tmp_path_factory.mktemp("axes")
    (folder / "sweep.yaml").write_text(yaml.safe_dump({**AXES, "out": str(folder / "out")}))
    finished = subprocess.run(command(folder), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    yield folder
    for pid in servers_of(folder / "out"):
        os.kill(int(pid), signal.SIGKILL)


@pytest.fixture(scope="module")
def more_seeds(folder: Path) -> Path:
    """Return the folder of the sweep after a second seed was added, which leaves what the first seed wrote alone."""
    out = folder / "out"
    watched = [out / "trained" / name / "adapter_model.safetensors" for name in FIRST]
    watched += [out / "bench" / name / file for name in FIRST for file in ("predictions.jsonl", "results.json")]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in watched]
    more = subprocess.run(command(folder, "--set", "seeds=[0,1]"), capture_output=True, text=True)
    assert more.returncode == 0, more.stdout[-3000:] + more.stderr[-3000:]
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in watched] == before
    return out


@pytest.mark.slow
def test_added_seeds_leave_adapters_and_runs_as_they_are(more_seeds: Path) -> None:
    """The adapters and runs of the first seed are the same files, and the new seeds are trained, benched and shown."""
    out = more_seeds
    assert sorted(path.name for path in (out / "trained").iterdir()) == sorted(FIRST + ADDED)
    for name in FIRST + ADDED:
        manifest = json.loads((out / "trained" / name / "manifest.json").read_bytes())
        assert (manifest["recipe"]["lora"]["rank"], manifest["recipe"]["seed"]) == (int(name[4]), int("-s1" in name))
        assert json.loads((out / "bench" / name / "manifest.json").read_bytes())["finished"]
    record = json.loads((out / "sweep.json").read_bytes())
    assert [row["models"] for row in record["rows"]] == [["rank2", "rank2-s1"], ["rank4", "rank4-s1"]]
    report = (out / "report.md").read_text()
    assert "| lora.rank" in report


@pytest.mark.slow
def test_the_plan_reads_the_runs_of_the_sweep(more_seeds: Path) -> None:
    """bench plan groups the sweep's runs by the recipes that were trained."""
    runs = [str(path) for path in sorted((more_seeds / "bench").iterdir())]
    words = [*command(more_seeds.parent)[:3], "plan", *runs]
    planned = subprocess.run(
        [*words, "--metric", "correct_pixels", "--difference", "5", "--json", "-"], capture_output=True, text=True
    )
    assert planned.returncode == 0, planned.stderr[-3000:]
    names = sorted(json.loads(planned.stdout)["recipes"].values())
    assert names == [["rank2@rank2", "rank2-s1@rank2-s1"], ["rank4@rank4", "rank4-s1@rank4-s1"]]
