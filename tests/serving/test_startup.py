"""A start that fails is reported at once, with the reason and the end of the log, and leaves no process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serve.launch.server_environment import ADAPTERS_DIR
from tests.serving.world import World

pytestmark = pytest.mark.slow

BENCH = [sys.executable, "-m", "harness.cli", "serve"]


def test_a_wrong_option_is_reported_with_the_log_and_leaves_no_process(world: World, tmp_path: Path) -> None:
    """Nor do the printed command or the log show the keys."""
    keys = {"ARC_BENCH_API_KEY": "user-key-0123456789", "ARC_BENCH_ADMIN_KEY": "admin-key-0123456789"}
    place = ["--detach", "--adapters", str(tmp_path / "adapters"), "--host", "0.0.0.0", "--log", str(tmp_path / "log")]
    command = [*BENCH, *place, str(world.model), "--", "--no-such-option"]
    done = subprocess.run(command, env=os.environ | keys, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert "error: vLLM ended with status 2 before it was ready" in done.stderr
    assert "unrecognized arguments: --no-such-option" in done.stderr.split("the end of")[1]
    assert "--host 0.0.0.0" in done.stderr
    for key in keys.values():
        assert key not in done.stdout + done.stderr + (tmp_path / "log").read_text()
    assert not [process for process in psutil.process_iter() if _registry(process) == str(tmp_path / "adapters")]


def _registry(process: psutil.Process) -> str | None:
    """Return the registry that a server process was started with."""
    try:
        return process.environ().get(ADAPTERS_DIR)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
