"""Rows of a sweep trained by commands of their own, as by a job array, and then collected."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.faults.test_sweep import NAMES, SWEEP, command


@pytest.mark.slow
def test_rows_at_the_same_time_are_the_sweeps_adapters(tmp_path: Path) -> None:
    """Two rows trained at once are exactly those two adapters, and a later command leaves them as they are."""
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, "out": str(tmp_path / "out")}))
    rows = [subprocess.Popen(command(tmp_path, "--row", str(k)), stderr=subprocess.PIPE, text=True) for k in (1, 2)]
    for row in rows:
        _, errors = row.communicate()
        assert row.returncode == 0, errors[-2000:]
    trained = tmp_path / "out" / "trained"
    assert sorted(path.name for path in trained.iterdir()) == sorted(NAMES[1:3])
    for name, seed in zip(NAMES[1:3], (1, 0), strict=True):
        assert json.loads((trained / name / "manifest.json").read_bytes())["recipe"]["seed"] == seed
    before = [(path, path.stat().st_mtime_ns) for path in trained.rglob("*.safetensors")]
    assert len(before) == 2
    again = subprocess.run(command(tmp_path, "--row", "1"), capture_output=True, text=True)
    assert "is finished already; nothing was trained" in again.stderr
    assert [(path, path.stat().st_mtime_ns) for path, _ in before] == before
    listed = subprocess.run(command(tmp_path, "--dry-run"), capture_output=True, text=True)
    assert "4 to train, 2 of them trained" in listed.stdout
    assert re.search(r"^time to train: about 0:\d\d .* \(mean of 2 trained\)", listed.stdout, re.MULTILINE)
