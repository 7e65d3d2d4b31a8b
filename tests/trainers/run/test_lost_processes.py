"""A training process that loses another one ends with one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serve.launch.preparation import free_port
from tests.support.training.recipes import SMALL
from trainers.recipe.schema import make_recipe

pytestmark = pytest.mark.slow

ONE_OF_TWO = """
import os, sys
import torch
from harness.core.errors import RunError
from trainers.recipe.schema import make_recipe
from trainers.run.errors import explain_training_errors

torch.distributed.init_process_group("gloo")
if os.environ["RANK"] == "1":
    os._exit(7)
try:
    with explain_training_errors(make_recipe(dict(model="tiny", output_dir="out", max_steps=3, datasets="toy/cross"))):
        while True:
            torch.distributed.all_reduce(torch.ones(1))
except RunError as error:
    sys.exit(str(error))
"""


def test_the_error_of_a_lost_process_says_what_to_do() -> None:
    port = free_port("127.0.0.1", None)
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO],
            env={**os.environ, **variables, "RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 7], errors
    line = errors[0].splitlines()[-1]
    assert line.startswith("the connection to another training process failed (")
    assert "set GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME on GPUs) on every machine" in line
    assert line.endswith("The checkpoints up to here are whole: start the same command again on every machine")


def test_other_errors_of_torch_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run of one process there is no other to lose; and a bug is not a lost connection."""
    from trainers.run.errors import explain_training_errors

    recipe = make_recipe(SMALL)
    for processes, message in (("1", "[gloo/transport/tcp/pair.cc] Connection closed by peer"), ("2", "shapes differ")):
        monkeypatch.setenv("WORLD_SIZE", processes)
        with pytest.raises(RuntimeError) as caught, explain_training_errors(recipe):
            raise RuntimeError(message)
        assert str(caught.value) == message
