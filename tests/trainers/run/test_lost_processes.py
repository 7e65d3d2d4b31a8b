"""A training process that loses another one ends with one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.training.train_runs import TORCHRUN, run_python

pytestmark = pytest.mark.slow

TWO_PROCESSES = """
import os, sys
import torch
from harness.core.errors import RunError
from tests.support.training.recipes import SMALL
from trainers.recipe.schema import make_recipe
from trainers.run.errors import explain_training_errors

torch.distributed.init_process_group("gloo")
if os.environ["RANK"] == "1":
    os._exit(7)
try:
    with explain_training_errors(make_recipe(SMALL)):
        while True:
            torch.distributed.all_reduce(torch.ones(1))
except RunError as error:
    print(f"one line: {error}", flush=True)
"""


def test_the_error_of_a_lost_process_says_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES, encoding="utf-8")
    done = run_python([*TORCHRUN, str(script)])
    assert done.returncode == 1  # torchrun reports the process that ended
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("one line: ")]
    assert "the connection to another training process failed (" in line
    assert "set GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME on GPUs) on every machine" in line
    assert line.endswith("The checkpoints up to here are whole: start the same command again on every machine")


def test_other_errors_of_torch_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run of one process there is no other to lose; and a bug is not a lost connection."""
    from tests.support.training.recipes import SMALL
    from trainers.recipe.schema import make_recipe
    from trainers.run.errors import explain_training_errors

    recipe = make_recipe(SMALL)
    for processes, message in (("1", "[gloo/transport/tcp/pair.cc] Connection closed by peer"), ("2", "shapes differ")):
        monkeypatch.setenv("WORLD_SIZE", processes)
        with pytest.raises(RuntimeError) as caught, explain_training_errors(recipe):
            raise RuntimeError(message)
        assert str(caught.value) == message
