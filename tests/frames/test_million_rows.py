"""A million predictions become a data frame, and a table in a file, in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.predictions.files import SPEC, write_lines
from tests.support.commands import OWN_PEAK_MIB

pytestmark = pytest.mark.long
MEGABYTES = 400
PEAK = f"print(rows, {OWN_PEAK_MIB})"


@pytest.mark.parametrize(
    "code",
    [
        "from harness.api import load_run; rows = len(load_run(source, spec).predictions)",
        "from harness.frames.export import export_predictions; rows = export_predictions(Path(source), target, spec)",
    ],
    ids=["frame", "export"],
)
def test_a_million_predictions_take_little_memory(tmp_path: Path, code: str) -> None:
    source = tmp_path / "predictions.jsonl"
    write_lines(source, 1_000_000)
    names = "import sys; from pathlib import Path; source, target, spec = sys.argv[1], Path(sys.argv[2]), sys.argv[3]"
    words = [str(source), str(tmp_path / "table.parquet"), SPEC]
    command = [sys.executable, "-c", f"{names}\n{code}\n{PEAK}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, peak = map(int, done.stdout.split())
    print(f"{rows} rows, peak memory {peak} MiB")
    assert rows >= 1_000_000
    assert peak < MEGABYTES
